"""`pqa label`: counts to label tables in a folder, without a server."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from flows import label_stages as stages
from flows.arguments import read_options
from flows.commands.printing import print_json
from flows.dask_cluster import dask_client
from flows.options import LabelScreenOptions, ScreenOptions, TestExpressionOptions
from flows.progress import progress_of
from flows.records import Place, ScreenRecords
from flows.report_pages import label_report
from storage.atomic import copy_or_remove
from storage.errors import InputError
from storage.manifest import StageRecord

#: Stages are kept here, beside the tables, so that the command can go on where it was.
WORK = ".work"

#: What is put into the folder itself, by the stage it comes from.
RESULTS = {
    "tests": ("tests.parquet", "null.parquet"),
    "quality": ("guides.parquet",),
    "pseudobulk": ("pseudobulk.h5ad",),
    "labels": ("de.parquet", "dir.parquet", "perturbations.parquet", "calibration.json"),
}


def run(arguments: Namespace) -> None:
    """Counts to tables in a folder."""
    options = read_options(LabelScreenOptions, arguments)
    out: Path = arguments.out
    with dask_client(options.compute.dask, workers=options.compute.workers) as client:
        place = Place(out / WORK, client, options.compute.force)
        ingested, judged, tests = stages_to_tests(place, arguments.screen, options)
        profiles = stages.pseudobulk_stage(
            place, ingested, options.quality, progress_of("summing", "gene blocks")
        )
        labels = stages.labels_stage(place, judged, tests, options.label, None)
    records = ScreenRecords(ingested, judged, tests, profiles, labels, None)
    for folder, names in RESULTS.items():
        for name in names:
            # What this run has not made must not stay from an earlier one.
            copy_or_remove(getattr(records, folder).folder / name, out / name)
    label_report(out / "report.html", records)
    rows = {record.kind: dict(record.rows) for record in records.records}
    if arguments.json:
        print_json({"out": str(out), "rows": rows, "calibration": stages.calibration_of(labels)})
        return
    kept, de, direction = judged.rows["kept"], labels.rows["de.parquet"], labels.rows["dir.parquet"]
    print(f"{ingested.rows['cells']:,} cells")
    print(f"{kept:,} of {judged.rows['perturbations']:,} perturbations kept")
    print(f"{tests.rows['tests.parquet']:,} tests, {de:,} de labels, {direction:,} dir labels")
    print(f"tables and report.html in {out}")


def stages_to_tests(
    place: Place, screen: str, options: LabelScreenOptions | TestExpressionOptions
) -> tuple[StageRecord, StageRecord, StageRecord]:
    """Ingest, judge and test a screen; the three finished stages."""
    if not Path(screen).is_file():
        raise InputError(screen, ["no such file"])
    stages.check_test(options.expression, options.names.batch_key)
    named = ScreenOptions(screen=screen, **options.names.model_dump())
    path = Path(screen)
    ingested = stages.ingest_stage(place, path.stem, path, named, progress_of("reading", "cells"))
    judged = stages.quality_stage(place, ingested, options.quality)
    progress = progress_of("testing", "gene blocks")
    tests = stages.tests_stage(place, ingested, judged, options.expression, options.quality, progress)
    return ingested, judged, tests
