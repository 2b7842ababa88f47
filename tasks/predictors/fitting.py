"""From label tables to a fitted predictor and its predictions, as one request a worker can carry out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from storage.atomic import atomic_path, write_json
from storage.errors import InputError
from storage.tables import read_labels, write_table
from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.read import read_knowledge
from tasks.predictors.protocol import OWN, Context, Predictor
from tasks.predictors.registry import make_predictor

log = logging.getLogger(__name__)

#: Told a unit's name, how many are done, and of how many.
Report = Callable[[str, int, int], None]

#: Predictors that can be trained on a GPU.
ON_DEVICE = frozenset({"gat"})


@dataclass(frozen=True)
class FitRequest:
    """All that is needed to fit one predictor, in paths and plain values.

    Attributes
    ----------
    tables
        Task to label table; its train rows are learnt from.
    also
        Task to other cell lines' label tables, whose train rows are learnt from as well.
    noncommercial, max_links
        As in `tasks.knowledge.read.read_knowledge`.
    device
        ``cpu``, ``cuda`` or ``auto``; for the predictors in `ON_DEVICE`.
    """

    predictor: str
    tables: Mapping[str, str]
    knowledge: str
    also: Mapping[str, tuple[str, ...]]
    noncommercial: bool
    max_links: int
    seed: int
    threads: int
    device: str


def fit(request: FitRequest, report: Callable[[str, int, int], None]) -> tuple[Predictor, KnowledgeGraph]:
    """Read knowledge and training rows, and fit; gives the predictor and the graph it has used."""
    options = {"device": request.device} if request.predictor in ON_DEVICE else {}
    model = make_predictor(request.predictor, **options)
    tables = {task: training_rows(path, request.also.get(task, ())) for task, path in request.tables.items()}
    graph = read_knowledge(
        request.knowledge,
        noncommercial=request.noncommercial,
        max_term_genes=request.max_links,
        max_degree=request.max_links,
    )
    context = Context(graph, seed=request.seed, threads=request.threads, progress=report)
    return model.fit(tables, context), graph


def fit_to_folder(
    request: FitRequest, folder: str, report: Callable[[str, int, int], None]
) -> dict[str, int]:
    """Fit, predict the tables' test pairs, and write all of it.

    Writes ``<task>.parquet`` (predictions), ``state.npz``, ``fit.json`` and, beside the folder, the time.

    Returns
    -------
    dict
        Number of predictions by file.
    """
    started, target = time.monotonic(), Path(folder)
    model, graph = fit(request, report)
    rows, unknown = {}, {}
    for task, path in request.tables.items():
        pairs = test_pairs(path)
        recipe = {"predictor": request.predictor, "task": task, "parameters": model.parameters()}
        write_table(target / f"{task}.parquet", pairs.assign(score=model.predict(task, pairs)), recipe)
        rows[f"{task}.parquet"] = len(pairs)
        unknown[task] = n_unknown(graph, pairs)
    with atomic_path(target / "state.npz") as temporary, temporary.open("wb") as handle:
        np.savez(handle, predictor=np.array(request.predictor), **model.state())
    fitted = {"parameters": model.parameters(), "history": model.history, "genes_unknown_to_graph": unknown}
    write_json(target / "fit.json", fitted)
    seconds = time.monotonic() - started
    # Kept out of the folder: time is the one thing that differs between equal fits.
    write_json(seconds_file(target), {"fit_seconds": seconds})
    log.info("%s: fitted and predicted %s in %.0f s", request.predictor, ", ".join(rows), seconds)
    return rows


def seconds_file(folder: Path) -> Path:
    """Where the time of a fit is kept, beside its folder."""
    return folder.with_name(f"{folder.name}.seconds.json")


def training_rows(path: str, also: tuple[str, ...] = ()) -> pd.DataFrame:
    """Train rows with known labels of a table and, marked by their file's name, of other lines' tables.

    Raises
    ------
    InputError
        If the table itself has none.
    """
    parts = []
    for file, source in [(path, OWN), *((other, Path(other).stem) for other in also)]:
        rows = read_labels(file)
        rows = rows[(rows["split"] == "train") & rows["label"].notna()]
        parts.append(rows[["pert", "gene"]].assign(label=rows["label"].astype(int), source=source))
    if parts[0].empty:
        raise InputError(path, ["no rows with split 'train' and a label: nothing to learn from"])
    return pd.concat(parts, ignore_index=True)


def test_pairs(path: str) -> pd.DataFrame:
    """The pairs of a table's test split, sorted; their labels are not looked at."""
    rows = read_labels(path)
    rows = rows.loc[rows["split"] == "test", ["pert", "gene"]]
    return rows.sort_values(["pert", "gene"], kind="stable").reset_index(drop=True)


def n_unknown(graph: KnowledgeGraph, pairs: pd.DataFrame) -> int:
    """How many different genes of some pairs the graph does not know."""
    return int((graph.resolve(pd.unique(pd.concat([pairs["pert"], pairs["gene"]]))) < 0).sum())
