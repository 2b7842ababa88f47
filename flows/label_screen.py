"""Flow: counts in, label tables out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from flows import label_stages as stages
from flows import rule_stages as rules
from flows import set_stages
from flows.dask_cluster import dask_client
from flows.first_checks import check_screen
from flows.label_stages import EMBEDDED_KEYS, EMBEDDED_NAME
from flows.options import (
    ExpressionOptions,
    GeneSetOptions,
    LabelOptions,
    QualityOptions,
    RunOptions,
    ScreenOptions,
)
from flows.records import Place, ScreenRecords, SideBySide
from flows.reporting import ledger_artifact, quality_artifact
from flows.side_by_side import side_by_side
from flows.task_progress import task_progress
from storage.manifest import StageRecord


@task(name="simulate the embedded screen", cache_policy=NO_CACHE)
def simulate(place: Place) -> StageRecord:
    """Simulate, unless it is there."""
    return stages.simulate_stage(place, task_progress("simulating", "cells"))


@task(name="ingest counts", cache_policy=NO_CACHE)
def ingest(place: Place, name: str, path: Path, options: ScreenOptions) -> StageRecord:
    """Stream the counts into the screen store."""
    return stages.ingest_stage(place, name, path, options, task_progress("reading", "cells"))


@task(name="quality control", cache_policy=NO_CACHE)
def control_quality(place: Place, screen: StageRecord, options: QualityOptions) -> StageRecord:
    """Judge perturbations and guides."""
    return stages.quality_stage(place, screen, options)


@task(name="test expression", cache_policy=NO_CACHE)
def compare_expression(
    place: Place, screen: StageRecord, quality: StageRecord, options: ExpressionOptions, cells: QualityOptions
) -> StageRecord:
    """Test every perturbation against the controls."""
    progress = task_progress("testing", "gene blocks")
    return stages.tests_stage(place, screen, quality, options, cells, progress)


@task(name="pseudobulk", cache_policy=NO_CACHE)
def sum_profiles(place: Place, screen: StageRecord, options: QualityOptions) -> StageRecord:
    """Sum counts by perturbation and batch."""
    return stages.pseudobulk_stage(place, screen, options, task_progress("summing", "gene blocks"))


@task(name="compare guides", cache_policy=NO_CACHE)
def compare_guides(
    place: Place,
    screen: StageRecord,
    tests: StageRecord,
    options: LabelOptions,
    expression: ExpressionOptions,
    cells: QualityOptions,
) -> StageRecord:
    """Count the DE calls on which a perturbation's guides agree."""
    progress = task_progress("comparing guides", "gene blocks")
    return rules.agreement_stage(place, screen, tests, options, expression, cells, progress)


@task(name="make labels", cache_policy=NO_CACHE)
def make_labels(
    place: Place,
    quality: StageRecord,
    tests: StageRecord,
    agreement: StageRecord,
    options: LabelOptions,
    truth: Path | None,
) -> StageRecord:
    """Apply the label rule."""
    return rules.labels_stage(place, quality, tests, agreement, options, truth)


@task(name="test gene sets", cache_policy=NO_CACHE)
def compare_sets(
    place: Place,
    screen: StageRecord,
    quality: StageRecord,
    options: GeneSetOptions,
    expression: ExpressionOptions,
    cells: QualityOptions,
) -> StageRecord:
    """Test the scores of gene sets against the controls."""
    progress = task_progress("testing", "gene sets")
    return set_stages.gene_sets_stage(place, screen, quality, options, expression, cells, progress)


@task(name="label gene sets", cache_policy=NO_CACHE)
def label_sets(place: Place, sets: StageRecord, labels: StageRecord, options: LabelOptions) -> StageRecord:
    """Apply the label rule to gene sets."""
    return set_stages.set_labels_stage(place, sets, labels, options)


@task(name="tests side by side", cache_policy=NO_CACHE)
def compare_tests(
    place: Place,
    screen: StageRecord,
    quality: StageRecord,
    tests: StageRecord,
    expression: ExpressionOptions,
    cells: QualityOptions,
    options: LabelOptions,
    truth: Path | None,
) -> SideBySide | None:
    """Do the other tests asked for and compare them with the one that labels come from."""
    told = (task_progress("testing", "gene blocks"), get_run_logger().warning)
    return side_by_side(place, screen, quality, tests, expression, cells, options, truth, *told)


def _run_name() -> str:
    return f"label {Path(flow_run.parameters['screen'].screen).stem}"


@flow(name="label-screen", flow_run_name=_run_name)
def label_screen(
    screen: ScreenOptions = ScreenOptions(),
    quality: QualityOptions = QualityOptions(),
    expression: ExpressionOptions = ExpressionOptions(),
    label: LabelOptions = LabelOptions(),
    sets: GeneSetOptions = GeneSetOptions(),
    run: RunOptions = RunOptions(),
) -> ScreenRecords:
    """Turn a screen's raw counts into DE tests, label tables and pseudobulk profiles."""
    # The first stage reads the whole file twice: what is wrong with its names is told before.
    check_screen(screen, expression, sets)
    with dask_client(run.dask, workers=run.workers) as client:
        place = Place(run.workspace, client, run.force)
        name, path, truth, simulated = Path(screen.screen).stem, Path(screen.screen), None, None
        if screen.screen == EMBEDDED_NAME:
            simulated = simulate(place)
            path, truth = simulated.folder / "screen.h5ad", simulated.folder / "screen.truth.parquet"
            screen = screen.model_copy(update=EMBEDDED_KEYS)
        ingested = ingest(place, name, path, screen)
        judged = control_quality(place, ingested, quality)
        profiles = sum_profiles.submit(place, ingested, quality)
        tests = compare_expression(place, ingested, judged, expression, quality)
        agreement = compare_guides(place, ingested, tests, label, expression, quality)
        labels = make_labels(place, judged, tests, agreement, label, truth)
        made = ScreenRecords(ingested, judged, tests, profiles.result(), agreement, labels, simulated)
        if sets.gene_sets is not None:
            set_tests = compare_sets(place, ingested, judged, sets, expression, quality)
            set_labels = label_sets(place, set_tests, labels, label)
            made = replace(made, set_tests=set_tests, set_labels=set_labels)
        if expression.others():
            beside = compare_tests(place, ingested, judged, tests, expression, quality, label, truth)
            made = replace(made, side_by_side=beside)
    ledger_artifact(f"{name} labels", made.records)
    quality_artifact(labels)
    return made
