"""The stages from label tables to scores: fit, predict, score, one predictor on one data set at a time."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd

import tasks.predictors
import tasks.scoring
from flows.configurations import Configuration
from flows.dask_cluster import call_remotely
from flows.label_sets import ACROSS, LabelSet
from flows.options import KnowledgeOptions, PredictorOptions
from flows.records import Place
from storage.atomic import write_json
from storage.manifest import Stage, StageRecord, file_digest, folder_digest, run_stage
from storage.tables import read_labels, read_predictions, write_table
from tasks.knowledge.read import knowledge_files
from tasks.predictors.fitting import FitRequest, Report, fit_to_folder
from tasks.predictors.registry import make_predictor
from tasks.scoring.intervals import bootstrap_auroc
from tasks.scoring.metrics import auroc_per_gene, join_predictions, score_summary


def knowledge_digest(folder: Path, options: KnowledgeOptions) -> str:
    """Digest over the files of a knowledge folder that the options let in."""
    files = knowledge_files(folder, noncommercial=options.noncommercial)
    return folder_digest({path.name: file_digest(path) for path in files})


def predict_stage(
    place: Place,
    labels: LabelSet,
    configuration: Configuration,
    knowledge: Path,
    options: PredictorOptions,
    knowledge_options: KnowledgeOptions,
    report: Report,
) -> StageRecord:
    """Fit a predictor on the training rows of a data set's tables and score their test pairs."""
    predictor, members = configuration.predictor, knowledge_options.set_members
    method = make_predictor(predictor, **dict(configuration.options))
    expression = labels.expression if method.reads_cells else None
    inputs = dict(labels.digests) | {"knowledge": knowledge_digest(knowledge, knowledge_options)}
    for task, digests in labels.also_digests.items():
        inputs |= {f"{task} of {line}": digest for line, digest in digests.items()}
    inputs |= {} if members is None else {"set members": file_digest(Path(members))}
    inputs |= {} if expression is None else {"screen": file_digest(expression)}
    inputs |= method.further_inputs(knowledge)
    settings = {
        "predictor": predictor,
        "options": dict(configuration.options),
        "seed": configuration.seed,
        "threads": options.threads,
        "device": options.device if method.uses_device else "cpu",
        "noncommercial": knowledge_options.noncommercial,
        "max_links": knowledge_options.max_links,
        "validation": options.validation,
        "screen_columns": labels.screen_columns if expression is not None else {},
    }
    name = "-".join([labels.name, configuration.slug, *([ACROSS] if labels.also else [])])
    stage = Stage("predictions", name, inputs, settings, (tasks.predictors,))
    request = FitRequest(
        tables={task: str(path.resolve()) for task, path in labels.tables.items()},
        also={
            task: {line: str(path.resolve()) for line, path in tables.items()}
            for task, tables in labels.also.items()
        },
        knowledge=str(knowledge.resolve()),
        set_members=None if members is None else str(Path(members).resolve()),
        expression=None if expression is None else str(expression.resolve()),
        **settings,
    )

    def work(folder: Path) -> dict[str, int]:
        return call_remotely(place.client, fit_to_folder, request, str(folder.resolve()), report=report)

    return run_stage(place.workspace, stage, work, force=place.force)


def score_stage(
    place: Place, labels: LabelSet, task: str, predictions: StageRecord, options: PredictorOptions
) -> StageRecord:
    """Score one predictor's test predictions of one task."""
    inputs = {"labels": labels.digests[task], "predictions": predictions.content}
    settings = {"task": task, "draws": options.draws, "seed": options.seed}
    stage = Stage("scores", f"{predictions.name}-{task}", inputs, settings, (tasks.scoring,))

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
    """The test pairs of a task with label and score; pairs whose label is not known are left out."""
    rows = read_labels(labels.tables[task])
    return join_predictions(
        rows[rows["label"].notna()], read_predictions(predictions.folder / f"{task}.parquet")
    )


def scorable(labels: LabelSet, task: str) -> bool:
    """Whether any test label of the task is known."""
    rows = read_labels(labels.tables[task])
    return bool(rows.loc[rows["split"] == "test", "label"].notna().any())


def scores_of(record: StageRecord) -> dict[str, float]:
    """The figures of a finished score stage."""
    return json.loads((record.folder / "scores.json").read_text())
