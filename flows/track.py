"""What a job tells MLflow: one parent run a data set, one child a predictor and task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

import storage
import tasks
from flows.compare_stages import leaderboard_of
from flows.predict_stages import scores_of
from flows.records import LabelSet, ScreenRecords
from flows.rule_stages import calibration_of
from flows.set_stages import set_calibration_of
from flows.side_by_side import side_by_side_metrics
from storage.manifest import StageRecord
from storage.tables import read_labels
from storage.tracking import CONTENT_TAG, ModelFiles, RunContent, TableInput, Tracker
from tasks.predictors.fitting import seconds_file, test_pairs

#: What a logged model needs where it is loaded.
REQUIREMENTS = (
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "pyarrow",
    "numba",
    "lightgbm",
    "torch",
    "torch-geometric",
)


def table_inputs(labels: LabelSet, *tasks_wanted: str) -> list[TableInput]:
    """The label tables of some tasks as dataset inputs, training and test rows apart."""
    inputs = []
    for task in tasks_wanted:
        path = labels.tables[task]
        sizes = read_labels(path)["split"].value_counts()
        for split, role in (("train", "training"), ("test", "test")):
            name = f"{labels.name}-{task}-{split}"
            inputs.append(TableInput(name, labels.digests[task], str(path), role, int(sizes.get(split, 0))))
    return inputs


def track_predictor(
    tracker: Tracker,
    labels: LabelSet,
    predictor: str,
    record: StageRecord,
    scores: Mapping[str, StageRecord],
    *,
    parent: str,
) -> None:
    """Write a predictor's child runs, one a task: parameters, metrics, data, predictions, model."""
    fitted = json.loads((record.folder / "fit.json").read_text())
    timing = seconds_file(record.folder)
    seconds = json.loads(timing.read_text()) if timing.is_file() else {}
    for task in labels.tables:
        figures = scores_of(scores[task]) if task in scores else {}
        files = [("", record.folder / f"{task}.parquet")]
        files += [("", scores[task].folder / "per_gene.parquet")] if task in scores else []
        content = RunContent(
            parameters=fitted["parameters"] | {"predictor": predictor, "task": task, "data_set": labels.name},
            metrics=figures | seconds | {"genes_unknown_to_graph": fitted["genes_unknown_to_graph"][task]},
            history=fitted["history"],
            tags={"predictor": predictor, "task": task, "data_set": labels.name, "track": "within"},
            inputs=table_inputs(labels, task),
            files=files,
            description=f"{predictor} on {labels.name}, task {task}; AUROC per gene, averaged over genes.",
        )
        key = f"{record.digest}-{task}-{scores[task].digest if task in scores else 'unscored'}-{parent}"
        model = ModelFiles(
            record.folder,
            "tasks.predictors.serving",
            [Path(package.__file__).parent for package in (tasks, storage)],
            test_pairs(str(labels.tables[task])).head(5).assign(task=task),
            REQUIREMENTS,
        )
        tracker.write_run(key, f"{predictor} {task}", content, parent=parent, model=model)


def track_comparison(
    tracker: Tracker, parent: str, labels: LabelSet, comparison: StageRecord, screen: ScreenRecords | None
) -> None:
    """Finish the parent run: leaderboard as description and tables, report, calibration figures."""
    if tracker.is_finished(parent, comparison.content):
        return
    boards = {task: leaderboard_of(comparison, task) for task in labels.tables}
    boards = {task: board for task, board in boards.items() if board is not None}
    metrics = calibration_of(screen.labels) | set_calibration_of(screen.set_labels) if screen else {}
    metrics |= side_by_side_metrics(screen.side_by_side) if screen else {}
    for task, board in boards.items():
        best = board.iloc[0]
        metrics |= {f"best_{task}_auroc": best["auroc"]}
    content = RunContent(
        parameters={"data_set": labels.name},
        metrics={name: value for name, value in metrics.items() if pd.notna(value)},
        tags={"data_set": labels.name, CONTENT_TAG: comparison.content},
        inputs=table_inputs(labels, *labels.tables),
        files=[("", comparison.folder / "report.html")]
        + [("leaderboards", comparison.folder / f"leaderboard-{task}.parquet") for task in boards],
        description="\n\n".join(f"**{task}**\n\n{markdown_table(board)}" for task, board in boards.items()),
    )
    with tracker.ending(parent):
        tracker.log(parent, content)


def markdown_table(board: pd.DataFrame) -> str:
    """A leaderboard as a Markdown table."""
    lines = [
        "| predictor | AUROC | 95 % interval | pooled AUROC | pooled AUPRC | genes |",
        "|---|---|---|---|---|---|",
    ]
    for row in board.itertuples():
        interval = f"{row.auroc_low:.3f} to {row.auroc_high:.3f}"
        pooled = f"{row.pooled_auroc:.3f} | {row.pooled_auprc:.3f}"
        lines.append(f"| {row.predictor} | {row.auroc:.3f} | {interval} | {pooled} | {row.n_genes} |")
    return "\n".join(lines)
