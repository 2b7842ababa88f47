"""`pqa label`: counts to label tables in a folder, without a server."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from flows import label_stages as stages
from flows import rule_stages as rules
from flows import set_stages
from flows.arguments import read_options
from flows.commands.outputs import held, refuse
from flows.commands.printing import print_json, print_message
from flows.commands.testing import check_first, stages_to_tests
from flows.dask_cluster import dask_client
from flows.options import LabelScreenOptions
from flows.progress import progress_of
from flows.records import Place, ScreenRecords, SideBySide
from flows.report_pages import label_report
from flows.side_by_side import SUMMARY, side_by_side
from storage.atomic import copy_or_remove, remove
from storage.errors import problems_of
from storage.manifest import StageRecord
from storage.tables import read_recipe

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


def run(arguments: Namespace) -> None:
    """Counts to tables in a folder."""
    options = read_options(LabelScreenOptions, arguments)
    out: Path = arguments.out
    refuse(_problems(out))
    check_first(arguments.screen, options)
    with held(out, out / WORK / LOCK):
        _label(arguments, options, out)


def _problems(out: Path) -> list[str]:
    """Why results cannot be put into ``out``, in sentences."""
    names = {"report.html", *(name for files in RESULTS.values() for name in files)}
    there = sorted(name for name in names if (out / name).exists())
    if there and not (out / WORK).is_dir() and not any(map(_made_here, map(out.joinpath, there))):
        listed = ", ".join(there)
        return [f"--out {out}: holds {listed}, which `pqa label` has not made; choose another folder"]
    return []


def _made_here(file: Path) -> bool:
    """Whether a file is a table with a recipe, as all tables that are written here."""
    return file.suffix == ".parquet" and not problems_of(read_recipe, file) and bool(read_recipe(file))


def _label(arguments: Namespace, options: LabelScreenOptions, out: Path) -> None:
    """All stages, then their results in ``out``."""
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
    for folder, names in RESULTS.items():
        record = getattr(records, folder)
        for name in names:
            # What this run has not made must not stay from an earlier one.
            copy_or_remove(record.folder / name, out / name) if record else remove(out / name)
    _copy_side_by_side(beside, out)
    label_report(out / "report.html", records)
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


def _copy_side_by_side(beside: SideBySide | None, out: Path) -> None:
    """Put the other tests' tables and the comparison beside the results; remove those not made now."""
    for name in ("wilcoxon", "stratified", "pseudobulk"):
        target = out / f"tests-{name}.parquet"
        made = beside is not None and name in beside.others
        copy_or_remove(beside.others[name].folder / "tests.parquet", target) if made else remove(target)
    target = out / "side-by-side.parquet"
    copy_or_remove(beside.comparison.folder / SUMMARY, target) if beside else remove(target)


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
