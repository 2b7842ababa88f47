"""From label tables to a fitted predictor and its predictions, as one request a worker can carry out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from storage.atomic import atomic_path, write_json
from storage.errors import InputError
from storage.gene_sets import read_gene_sets
from storage.tables import read_labels, write_table
from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.read import read_knowledge
from tasks.predictors.protocol import OWN, Context, Predictor
from tasks.predictors.registry import make_predictor
from tasks.predictors.resources import resources
from tasks.predictors.validation import validation_figures, validation_scores

log = logging.getLogger(__name__)

#: Told a unit's name, how many are done, and of how many.
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FitRequest:
    """All that is needed to fit one predictor, in paths and plain values.

    Attributes
    ----------
    tables
        Task to label table; its train rows are learnt from.
    also
        Task to other cell lines' label tables by the lines' names, whose train rows are learnt from as well.
    noncommercial, max_links
        As in `tasks.knowledge.read.read_knowledge`.
    device
        ``cpu``, ``cuda`` or ``auto``; for the predictors that use one.
    options
        The predictor's own options.
    set_members
        JSON file of the gene sets that stand in place of genes, ``{name: [symbols]}``.
    expression, screen_columns
        As in `Context`.
    validation
        Whether to measure the predictor on training perturbations held out.
    """

    predictor: str
    tables: Mapping[str, str]
    knowledge: str
    noncommercial: bool
    max_links: int
    seed: int
    threads: int
    device: str
    also: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    set_members: str | None = None
    expression: str | None = None
    screen_columns: Mapping[str, str] = field(default_factory=dict)
    validation: bool = False

    def make(self) -> Predictor:
        """The unfitted predictor."""
        made = make_predictor(self.predictor, **self.options)
        if not made.uses_device:
            return made
        return make_predictor(self.predictor, **({"device": self.device} | dict(self.options)))


def fit(request: FitRequest, report: Report) -> tuple[Predictor, KnowledgeGraph]:
    """Read knowledge and training rows, and fit; gives the predictor and the graph it has used."""
    model = request.make()
    tables = training_tables(request)
    context = fit_context(request, report)
    return model.fit(tables, context), context.knowledge


def fit_to_folder(request: FitRequest, folder: str, report: Report) -> dict[str, int]:
    """Fit, predict the tables' test pairs, and write all of it.

    Writes ``<task>.parquet`` (predictions), ``state.npz``, ``fit.json``, with validation
    ``validation-<task>.parquet``, and, beside the folder, time and memory.

    Returns
    -------
    dict
        Number of predictions by file.
    """
    target, rows, unknown = Path(folder), {}, {}
    model, tables = request.make(), training_tables(request)
    with resources() as used:
        context = fit_context(request, report)
        model.fit(tables, context)
        for task, path in request.tables.items():
            pairs = test_pairs(path)
            recipe = {"predictor": request.predictor, "task": task, "parameters": model.parameters()}
            write_table(target / f"{task}.parquet", pairs.assign(score=model.predict(task, pairs)), recipe)
            rows[f"{task}.parquet"] = len(pairs)
            unknown[task] = n_unknown(context.knowledge, pairs)
    held = validation_scores(model, request.make, tables, context) if request.validation else {}
    for task, scores in held.items():
        write_table(target / f"validation-{task}.parquet", scores, {"task": task})
    with atomic_path(target / "state.npz") as temporary, temporary.open("wb") as handle:
        np.savez(handle, predictor=np.array(request.predictor), **model.state())
    fitted = {
        "parameters": model.parameters(),
        "history": model.history,
        "genes_unknown_to_graph": unknown,
        "validation": validation_figures(held),
        "counts": model.counts,
    }
    write_json(target / "fit.json", fitted)
    # Kept out of the folder: time and memory are what differs between equal fits.
    write_json(seconds_file(target), used)
    log.info("%s: fitted and predicted %s in %.0f s", request.predictor, ", ".join(rows), used["fit_seconds"])
    return rows


def fit_context(request: FitRequest, report: Report) -> Context:
    """Read the knowledge a request names."""
    graph = read_knowledge(
        request.knowledge,
        noncommercial=request.noncommercial,
        max_term_genes=request.max_links,
        max_degree=request.max_links,
    )
    sets = {} if request.set_members is None else read_gene_sets(Path(request.set_members))
    return Context(
        graph.with_sets(sets) if sets else graph,
        seed=request.seed,
        threads=request.threads,
        progress=report,
        folder=Path(request.knowledge),
        sets=sets,
        expression=None if request.expression is None else Path(request.expression),
        screen_columns=request.screen_columns,
    )


def training_tables(request: FitRequest) -> dict[str, pd.DataFrame]:
    """Training rows of each task."""
    return {task: training_rows(path, request.also.get(task)) for task, path in request.tables.items()}


def seconds_file(folder: Path) -> Path:
    """Where the time of a fit is kept, beside its folder."""
    return folder.with_name(f"{folder.name}.seconds.json")


def training_rows(path: str, also: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Train rows with known labels of a table and, marked by the line's name, of other lines' tables.

    Raises
    ------
    InputError
        If the table itself has none.
    """
    parts = []
    for source, file in [(OWN, path), *(also or {}).items()]:
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
