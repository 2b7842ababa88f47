"""`pqa label`: counts to label tables in a folder, without a server."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from flows import label_stages as stages
from flows import rule_stages as rules
from flows import set_stages
from flows.arguments import read_options
from flows.commands.counts_to_tests import check_first, stages_to_tests
from flows.commands.label_folder import LabelFolder
from flows.commands.outputs import held, refuse
from flows.commands.printing import print_json, print_message
from flows.dask_cluster import dask_client
from flows.options import LabelScreenOptions
from flows.progress import progress_of
from flows.records import Place, ScreenRecords
from flows.report_pages import label_report
from flows.side_by_side import SUMMARY, side_by_side
from storage.manifest import StageRecord

#: Stages are kept here, beside the tables, so that the command can go on where it was.
WORK = ".work"
#: In it: held while the folder is written.
LOCK = ".lock"

#: What is put into the folder itself, by the stage it comes from.
RESULTS = {
    "tests": ("tests.parquet", "null.parquet"),
    "quality": ("guides.parquet",),
    "pseudobulk": ("pseudobulk.h5ad",),
    "labels": ("de.parquet", "dir.parquet", "perturbations.parquet", "calibration.json"),
    "set_tests": ("set-tests.parquet", "set-null.parquet"),
    "set_labels": ("set-de.parquet", "set-dir.parquet", "gene-sets.parquet", "set-calibration.json"),
}
REPORT, SIDE_BY_SIDE = "report.html", "side-by-side.parquet"
#: All names that this command may write or remove there.
NAMES = (
    *(name for names in RESULTS.values() for name in names),
    *(f"tests-{test}.parquet" for test in ("wilcoxon", "stratified", "pseudobulk")),
    *(SIDE_BY_SIDE, REPORT),
)


def run(arguments: Namespace) -> None:
    """Counts to tables in a folder."""
    options = read_options(LabelScreenOptions, arguments)
    out: Path = arguments.out
    folder = LabelFolder(out, NAMES)
    refuse(folder.problems())
    check_first(arguments.screen, options)
    with held(out, out / WORK / LOCK):
        _label(arguments, options, folder)


def _label(arguments: Namespace, options: LabelScreenOptions, folder: LabelFolder) -> None:
    """All stages, then their results in the folder."""
    out: Path = arguments.out
    with dask_client(options.compute.dask, workers=options.compute.workers) as client:
        place = Place(out / WORK, client, options.compute.force)
        ingested, judged, tests = stages_to_tests(place, arguments.screen, options)
        profiles = stages.pseudobulk_stage(
            place, ingested, options.quality, progress_of("summing", "gene blocks")
        )
        agreement = rules.agreement_stage(
            place,
            ingested,
            tests,
            options.label,
            options.expression,
            options.quality,
            progress_of("comparing guides", "gene blocks"),
        )
        labels = rules.labels_stage(place, judged, tests, agreement, options.label, None)
        sets = _set_stages(place, ingested, judged, labels, options)
        how = (options.expression, options.quality, options.label, None)
        told = (progress_of("testing", "gene blocks"), print_message)
        beside = side_by_side(place, ingested, judged, tests, *how, *told)
    records = ScreenRecords(ingested, judged, tests, profiles, agreement, labels, None, *sets, beside)
    report = out / WORK / REPORT
    label_report(report, records)
    folder.replace(_results(records) | {REPORT: report})
    others = beside.others.values() if beside else ()
    rows = {record.kind: dict(record.rows) for record in records.records if record not in others}
    if arguments.json:
        print_json({"out": str(out), "rows": rows, "calibration": rules.calibration_of(labels)})
        return
    kept, de, direction = judged.rows["kept"], labels.rows["de.parquet"], labels.rows["dir.parquet"]
    print(f"{ingested.rows['cells']:,} cells")
    print(f"{kept:,} of {judged.rows['perturbations']:,} perturbations kept")
    print(f"{tests.rows['tests.parquet']:,} tests, {de:,} de labels, {direction:,} dir labels")
    print(f"tables and report.html in {out}")


def _results(records: ScreenRecords) -> dict[str, Path | None]:
    """Where each result lies, by its name in the folder; None where this run has made none."""
    found: dict[str, Path | None] = dict.fromkeys(NAMES)
    for stage, names in RESULTS.items():
        record = getattr(records, stage)
        found |= {name: record.folder / name for name in names if record is not None}
    if records.side_by_side is not None:
        others = records.side_by_side.others
        found |= {f"tests-{test}.parquet": other.folder / "tests.parquet" for test, other in others.items()}
        found[SIDE_BY_SIDE] = records.side_by_side.comparison.folder / SUMMARY
    return found


def _set_stages(
    place: Place,
    ingested: StageRecord,
    judged: StageRecord,
    labels: StageRecord,
    options: LabelScreenOptions,
) -> tuple[StageRecord | None, StageRecord | None]:
    """Test and label gene sets, where there are any."""
    if options.sets.gene_sets is None:
        return None, None
    how = (options.sets, options.expression, options.quality, progress_of("testing", "gene sets"))
    tests = set_stages.gene_sets_stage(place, ingested, judged, *how)
    return tests, set_stages.set_labels_stage(place, tests, labels, options.label)
