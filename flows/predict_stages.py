"""The stages from label tables to scores: fit, predict, score, one predictor on one data set at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from distributed import Client

import tasks.comparison
import tasks.knowledge
import tasks.predictors
from flows.dask_cluster import call_remotely
from flows.options import KnowledgeOptions, PredictCommandOptions, PredictorOptions
from flows.records import LabelSet, Place
from storage.atomic import atomic_path, write_json
from storage.errors import InputError
from storage.manifest import Stage, StageRecord, file_digest, folder_digest, run_stage
from storage.tables import read_labels, read_pairs, read_predictions, write_table
from tasks.comparison.intervals import bootstrap_auroc
from tasks.comparison.metrics import auroc_per_gene, join_predictions, score_summary
from tasks.knowledge.read import knowledge_files, read_knowledge
from tasks.predictors.protocol import OWN, Context
from tasks.predictors.registry import make_predictor

Report = Callable[[str, int, int], None]

#: Predictors that can be trained on a GPU.
ON_DEVICE = {"gat"}


@dataclass(frozen=True)
class FitRequest:
    """All that a worker needs to fit one predictor and predict the test pairs."""

    predictor: str
    tables: dict[str, str]
    also: dict[str, tuple[str, ...]]
    pairs: dict[str, str]
    knowledge: str
    noncommercial: bool
    max_links: int
    seed: int
    threads: int
    device: str


def knowledge_digest(folder: Path, options: KnowledgeOptions) -> str:
    """Digest over the files of a knowledge folder that the options let in."""
    files = knowledge_files(folder, noncommercial=options.noncommercial)
    return folder_digest({path.name: file_digest(path) for path in files})


def predict_stage(
    place: Place,
    labels: LabelSet,
    predictor: str,
    knowledge: Path,
    options: PredictorOptions,
    knowledge_options: KnowledgeOptions,
    report: Report,
) -> StageRecord:
    """Fit a predictor on the training rows of a data set's tables and score their test pairs."""
    inputs = dict(labels.digests) | {"knowledge": knowledge_digest(knowledge, knowledge_options)}
    settings = {
        "predictor": predictor,
        "seed": options.seed,
        "threads": options.threads,
        "device": options.device if predictor in ON_DEVICE else "cpu",
        "noncommercial": knowledge_options.noncommercial,
        "max_links": knowledge_options.max_links,
    }
    stage = Stage(
        "predictions", f"{labels.name}-{predictor}", inputs, settings, (tasks.predictors, tasks.knowledge)
    )
    files = {task: str(path.resolve()) for task, path in labels.tables.items()}
    request = FitRequest(tables=files, also={}, pairs=files, knowledge=str(knowledge.resolve()), **settings)

    def work(folder: Path) -> dict[str, int]:
        return fit_on_cluster(place.client, request, folder, report)

    return run_stage(place.workspace, stage, work, force=place.force)


def fit_on_cluster(client: Client, request: FitRequest, folder: Path, report: Report) -> dict[str, int]:
    """Fit and predict on a worker; gives the number of predictions by file."""
    return call_remotely(client, fit_and_predict, request, str(folder.resolve()), report=report)


def fit_and_predict(request: FitRequest, folder: str, report: Report) -> dict[str, int]:
    """Fit one predictor and write ``<task>.parquet``, ``state.npz``, ``fit.json`` and ``seconds.json``."""
    started = time.monotonic()
    graph = read_knowledge(
        Path(request.knowledge),
        noncommercial=request.noncommercial,
        max_term_genes=request.max_links,
        max_degree=request.max_links,
    )
    tables = {task: training_rows(path, request.also.get(task, ())) for task, path in request.tables.items()}
    model = make_predictor(request.predictor, **_device(request.predictor, request.device))
    model.fit(tables, Context(graph, seed=request.seed, threads=request.threads, progress=report))
    rows, unknown = {}, {}
    for task, path in request.pairs.items():
        pairs = test_pairs(path)
        predictions = pairs.assign(score=model.predict(task, pairs))
        write_table(
            Path(folder) / f"{task}.parquet", predictions, {"predictor": request.predictor, "task": task}
        )
        rows[f"{task}.parquet"] = len(predictions)
        names = pd.unique(pd.concat([pairs["pert"], pairs["gene"]]))
        unknown[task] = int((graph.resolve(names) < 0).sum())
    with atomic_path(Path(folder) / "state.npz") as temporary, temporary.open("wb") as handle:
        np.savez(handle, predictor=np.array(request.predictor), **model.state())
    fitted = {"parameters": model.parameters(), "history": model.history, "genes_unknown_to_graph": unknown}
    write_json(Path(folder) / "fit.json", fitted)
    # Kept apart and out of the manifest: the time is the only thing that differs between equal runs.
    write_json(seconds_file(Path(folder)), {"fit_seconds": time.monotonic() - started})
    return rows


def _device(predictor: str, device: str) -> dict[str, str]:
    return {"device": device} if predictor in ON_DEVICE else {}


def seconds_file(folder: Path) -> Path:
    """Where the time of a fit is kept, beside its folder."""
    return folder.with_name(f"{folder.name}.seconds.json")


def predict_pairs(
    options: PredictCommandOptions, task: str, report: Callable[[int, int], None]
) -> tuple[pd.DataFrame, int]:
    """Fit one predictor on one table and score given pairs, in this process.

    Returns
    -------
    DataFrame, int
        ``pert, gene, score`` in the pairs' order, and the number of their genes unknown to the graph.
    """
    pairs = read_pairs(options.pairs)
    tables = {task: training_rows(str(options.labels), tuple(str(path) for path in options.also))}
    model = make_predictor(options.predictor, **_device(options.predictor, options.device))
    graph = read_knowledge(
        options.knowledge,
        noncommercial=options.noncommercial,
        max_term_genes=options.max_links,
        max_degree=options.max_links,
    )
    progress = {"progress": lambda _unit, done, total: report(done, total)}
    model.fit(tables, Context(graph, seed=options.seed, threads=options.threads, **progress))
    names = pd.unique(pd.concat([pairs["pert"], pairs["gene"]]))
    return pairs.assign(score=model.predict(task, pairs)), int((graph.resolve(names) < 0).sum())


def training_rows(path: str, also: tuple[str, ...] = ()) -> pd.DataFrame:
    """Training rows with known labels of a table and, marked by their file's name, of other lines' tables."""
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


def score_stage(
    place: Place, labels: LabelSet, task: str, predictions: StageRecord, options: PredictorOptions
) -> StageRecord:
    """Score one predictor's test predictions of one task."""
    inputs = {"labels": labels.digests[task], "predictions": predictions.content}
    settings = {"task": task, "draws": options.draws, "seed": options.seed}
    stage = Stage("scores", f"{predictions.name}-{task}", inputs, settings, (tasks.comparison,))

    def work(folder: Path) -> dict[str, int]:
        scored = scored_pairs(labels, task, predictions)
        per_gene = auroc_per_gene(scored)
        low, high = bootstrap_auroc(scored, draws=options.draws, seed=options.seed)
        write_table(folder / "per_gene.parquet", per_gene, settings)
        write_json(
            folder / "scores.json", asdict(score_summary(scored)) | {"auroc_low": low, "auroc_high": high}
        )
        return {"per_gene.parquet": len(per_gene), "pairs": len(scored)}

    return run_stage(place.workspace, stage, work, force=place.force)


def scored_pairs(labels: LabelSet, task: str, predictions: StageRecord) -> pd.DataFrame:
    """The test pairs of a task with label and score."""
    return join_predictions(
        read_labels(labels.tables[task]), read_predictions(predictions.folder / f"{task}.parquet")
    )


def scorable(labels: LabelSet, task: str) -> bool:
    """Whether any test label of the task is known."""
    rows = read_labels(labels.tables[task])
    return bool(rows.loc[rows["split"] == "test", "label"].notna().any())


def scores_of(record: StageRecord) -> dict[str, float]:
    """The figures of a finished score stage."""
    return json.loads((record.folder / "scores.json").read_text())
