"""What a job tells MLflow: one parent run a data set, one child a predictor and task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

import storage
import tasks
from flows.compare_stages import leaderboards_of
from flows.configurations import Configuration
from flows.label_sets import LabelSet
from flows.predict_stages import scores_of
from flows.records import ScreenRecords
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
    """The label tables of some tasks as dataset inputs, training and test rows apart, other lines' too."""
    inputs = []
    for task in tasks_wanted:
        for line, other in labels.also.get(task, {}).items():
            size = int((read_labels(other)["split"] == "train").sum())
            digest = labels.also_digests[task][line]
            inputs.append(TableInput(f"{line}-{task}-train", digest, str(other), "training", size))
        path = labels.tables[task]
        sizes = read_labels(path)["split"].value_counts()
        for split, role in (("train", "training"), ("test", "test")):
            name = f"{labels.name}-{task}-{split}"
            inputs.append(TableInput(name, labels.digests[task], str(path), role, int(sizes.get(split, 0))))
    return inputs


def track_predictor(
    tracker: Tracker,
    labels: LabelSet,
    configuration: Configuration,
    record: StageRecord,
    scores: Mapping[str, StageRecord],
    *,
    parent: str,
) -> dict[str, str]:
    """Write a predictor's child runs (parameters, metrics, data, predictions, model); their ids by task."""
    fitted = fit_of(record)
    used = seconds_file(record.folder)
    measured = json.loads(used.read_text()) if used.is_file() else {}
    runs, predictor = {}, configuration.predictor
    for task in labels.tables:
        figures = scores_of(scores[task]) if task in scores else {}
        validation = fitted["validation"].get(task, {})
        figures |= {f"validation_{name}": value for name, value in validation.items()}
        figures |= measured | {"genes_unknown_to_graph": fitted["genes_unknown_to_graph"][task]}
        files = [("", record.folder / f"{task}.parquet")]
        files += [("", path) for path in [record.folder / f"validation-{task}.parquet"] if path.is_file()]
        files += [("", scores[task].folder / "per_gene.parquet")] if task in scores else []
        told = {"predictor": predictor, "task": task, "data_set": labels.name, "track": labels.track}
        content = RunContent(
            parameters=fitted["parameters"] | told | {"seed": configuration.seed},
            # Where no gene has both answers there is no AUROC.
            metrics={name: value for name, value in figures.items() if value is not None},
            history=fitted["history"],
            tags=told | {"configuration": configuration.row},
            inputs=table_inputs(labels, task),
            files=files,
            description=f"{configuration.row} on {labels.name}, task {task}, track {labels.track}, seed "
            f"{configuration.seed}; AUROC per gene, averaged over genes.",
        )
        key = f"{record.digest}-{task}-{scores[task].digest if task in scores else 'unscored'}-{parent}"
        model = ModelFiles(
            record.folder,
            "tasks.predictors.serving",
            [Path(package.__file__).parent for package in (tasks, storage)],
            test_pairs(str(labels.tables[task])).head(5).assign(task=task),
            REQUIREMENTS,
        )
        runs[task] = tracker.write_run(
            key, run_name(configuration, labels, task), content, parent=parent, model=model
        )
    return runs


def run_name(configuration: Configuration, labels: LabelSet, task: str) -> str:
    """What a child run is called: configuration, task and, where not the usual ones, track and seed."""
    words = [configuration.row, task, *([labels.track] if labels.also else [])]
    return " ".join([*words, *([f"seed {configuration.seed}"] if configuration.seed else [])])


def fit_of(record: StageRecord) -> dict:
    """What a finished fit says of itself: parameters, history, validation figures."""
    return json.loads((record.folder / "fit.json").read_text())


def track_comparison(
    tracker: Tracker,
    parent: str,
    labels: LabelSet,
    comparison: StageRecord,
    screen: ScreenRecords | None,
    pictures: Sequence[Path] = (),
) -> None:
    """Finish the parent run: leaderboard as description and tables, report, pictures, calibration."""
    if tracker.is_finished(parent, comparison.content):
        return
    boards = leaderboards_of(comparison)
    metrics = calibration_of(screen.labels) | set_calibration_of(screen.set_labels) if screen else {}
    metrics |= side_by_side_metrics(screen.side_by_side) if screen else {}
    for name, board in boards.items():
        metrics |= {f"best_{name.replace('-', '_')}_auroc": board.iloc[0]["auroc"]}
    content = RunContent(
        parameters={"data_set": labels.name},
        metrics={name: value for name, value in metrics.items() if pd.notna(value)},
        tags={"data_set": labels.name, CONTENT_TAG: comparison.content},
        inputs=table_inputs(labels, *labels.tables),
        files=[("", path) for path in sorted(comparison.folder.glob("*.html"))]
        + [("leaderboards", comparison.folder / f"leaderboard-{name}.parquet") for name in boards]
        + [("figures", path) for path in pictures],
        description="\n\n".join(f"**{name}**\n\n{markdown_table(board)}" for name, board in boards.items()),
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
