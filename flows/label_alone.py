"""Labelling a screen as a job of its own: tracked in MLflow, with its report there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from flows.label_screen import label_screen
from flows.label_sets import LabelSet
from flows.options import (
    ExpressionOptions,
    GeneSetOptions,
    LabelOptions,
    QualityOptions,
    RunOptions,
    ScreenOptions,
)
from flows.records import ScreenRecords
from flows.report_pages import label_report, write_called_genes
from flows.reporting import Picture, draw_screen, figures_artifact, report_artifact
from flows.rule_stages import calibration_of
from flows.set_stages import set_calibration_of
from flows.side_by_side import side_by_side_metrics
from flows.track import table_inputs
from storage.tracking import RunContent, Tracker, charts_of, page_of

#: One experiment for all screens: any of their runs can be ticked and compared.
EXPERIMENT = "perturbqa-screens"


def label_and_track(
    screen: ScreenOptions,
    quality: QualityOptions,
    expression: ExpressionOptions,
    label: LabelOptions,
    sets: GeneSetOptions,
    run: RunOptions,
) -> ScreenRecords:
    """Label a screen as the whole work of a flow, write its report, and log it to MLflow."""
    made = label_screen.fn(screen, quality, expression, label, sets, run)
    report = Path(run.workspace).resolve() / "reports" / made.labels.folder.name / "report.html"
    label_report(report, made)
    genes = report.with_name("de-genes.csv")
    write_called_genes(genes, made.tests.folder / "tests.parquet", label)
    pictures = draw_screen(report.parent, made)
    options = (screen, quality, expression, label, sets)
    experiment, run_id = _track(made, options, report, genes, pictures, run)
    lines = [f"Label tables: `{made.labels.folder}`", f"Report: `{report}`", f"Called genes: `{genes}`"]
    if charts := charts_of(run.pages, experiment):
        lines.append(f"[Beside all other screens, in MLflow]({charts})")
    figures_artifact(made.labels.name, pictures)
    report_artifact(made.labels.name, page_of(run.pages, experiment, run_id, report.name) or report, lines)
    return made


def _track(
    made: ScreenRecords,
    options: tuple,
    report: Path,
    genes: Path,
    pictures: list[Picture],
    run: RunOptions,
) -> tuple[str, str]:
    """One run a screen and set of options; the same again is the same run."""
    tracker = Tracker(run.mlflow, workspace=run.workspace, experiment=EXPERIMENT)
    # A screen in which nothing responds has no pair with a direction.
    tables = {task: made.labels.folder / f"{task}.parquet" for task in ("de", "dir")}
    tables = {task: path for task, path in tables.items() if made.labels.rows[path.name]}
    labels = LabelSet.of_files(made.labels.name, tables)
    parameters = {name: value for model in options for name, value in model.model_dump(mode="json").items()}
    # The data set's name says it in fewer words.
    del parameters["screen"]
    figures = calibration_of(made.labels) | set_calibration_of(made.set_labels)
    figures |= side_by_side_metrics(made.side_by_side) | _sizes(made)
    if not figures.get("guide_agreement_pairs"):
        # Without guides there is nothing to agree; a zero would be the first thing MLflow draws.
        figures = {name: value for name, value in figures.items() if not name.startswith("guide_")}
    content = RunContent(
        parameters=parameters | {"data_set": made.labels.name},
        metrics={name: value for name, value in figures.items() if pd.notna(value)},
        tags={"data_set": made.labels.name, "test": parameters["test"]},
        inputs=table_inputs(labels, *tables),
        files=[("", report), ("", genes), *(("labels", path) for path in tables.values())]
        + [("figures", picture.path) for picture in pictures],
        description=f"DE tests and labels of the screen {made.labels.name}; under artifacts: "
        "report.html, and the genes that were called in de-genes.csv.",
    )
    key = hashlib.sha256(f"{made.labels.digest}|{report.read_text()}".encode()).hexdigest()
    run_id = tracker.write_run(key, f"{made.labels.name} {parameters['test']}", content)
    return tracker.experiment, run_id


def _sizes(made: ScreenRecords) -> dict[str, int]:
    """How large the screen and its tables are."""
    return {
        "cells": made.screen.rows["cells"],
        "perturbations": made.quality.rows["perturbations"],
        "perturbations_kept": made.quality.rows["kept"],
        "tests": made.tests.rows["tests.parquet"],
        "labels_de": made.labels.rows["de.parquet"],
        "labels_dir": made.labels.rows["dir.parquet"],
    }
