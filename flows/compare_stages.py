"""The last stage: predictors side by side, and the report that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

import flows.report_pages
import tasks.comparison
from flows.options import PredictorOptions
from flows.predict_stages import scored_pairs
from flows.records import LabelSet, Place, ScreenRecords
from flows.report_pages import report_page, screen_sections
from storage.manifest import Stage, StageRecord, run_stage
from storage.tables import read_frame, write_table
from tasks.comparison.comparison_sections import comparison_sections
from tasks.comparison.intervals import leaderboard
from tasks.comparison.metrics import auroc_per_gene
from tasks.comparison.published import published_auroc
from tasks.comparison.report import write_report


def compare_stage(
    place: Place,
    labels: LabelSet,
    predictions: Mapping[str, StageRecord],
    tasks_scored: tuple[str, ...],
    options: PredictorOptions,
    screen: ScreenRecords | None,
    notes: tuple[str, ...],
) -> StageRecord:
    """Write ``leaderboard-<task>.parquet`` and ``report.html`` for one data set.

    ``notes`` are plain lines that the report repeats: what was skipped and why.
    """
    inputs = {f"{name} predictions": record.content for name, record in predictions.items()}
    inputs |= {f"{task} labels": digest for task, digest in labels.digests.items()}
    inputs |= {"screen": screen.labels.content + screen.tests.content} if screen else {}
    if screen and screen.side_by_side:
        inputs |= {"tests side by side": screen.side_by_side.comparison.content}
    settings = {
        "draws": options.draws,
        "seed": options.seed,
        "tasks": list(tasks_scored),
        "notes": list(notes),
    }
    stage = Stage("comparisons", labels.name, inputs, settings, (tasks.comparison, flows.report_pages))

    def work(folder: Path) -> dict[str, int]:
        rows, sections = {}, []
        for task in tasks_scored:
            scored = {name: scored_pairs(labels, task, record) for name, record in predictions.items()}
            board = leaderboard(scored, draws=options.draws, seed=options.seed)
            write_table(folder / f"leaderboard-{task}.parquet", board, settings | {"task": task})
            rows[f"leaderboard-{task}.parquet"] = len(board)
            sections += comparison_sections(
                task,
                board,
                scored_by_predictor=scored,
                per_gene={name: auroc_per_gene(pairs) for name, pairs in scored.items()},
                # Labels made here follow another rule, whatever the data set is called.
                published=None if screen else published_auroc(labels.name, task),
            )
        sections += screen_sections(screen) if screen else []
        write_report(folder / "report.html", report_page(labels, sections, screen, notes))
        return rows

    return run_stage(place.workspace, stage, work, force=place.force)


def leaderboard_of(record: StageRecord, task: str) -> pd.DataFrame | None:
    """A finished comparison's leaderboard; None where the task was not scored."""
    path = record.folder / f"leaderboard-{task}.parquet"
    return read_frame(path) if path.is_file() else None
