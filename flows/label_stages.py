"""The stages from counts to label tables: what each depends on, and where its files go."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import storage.h5ad
import storage.screens
import tasks.expression
import tasks.labels
import tasks.screens
import tasks.screens.quality
from flows.options import ExpressionOptions, LabelOptions, QualityOptions, ScreenOptions
from flows.records import Place
from storage.atomic import write_json
from storage.errors import InputError
from storage.manifest import Stage, StageRecord, file_digest, run_stage
from storage.screens import Screen
from storage.tables import read_frame, write_table
from tasks.expression.calibration import check_against_truth, null_summary
from tasks.expression.compare import compare_expression
from tasks.expression.groups import CellGroups, false_perturbation_groups, perturbation_groups
from tasks.expression.pseudobulk import pseudobulk
from tasks.labels.label_tables import make_labels
from tasks.screens.ingest import ingest_screen
from tasks.screens.quality import check_quality, usable_cells
from tasks.screens.simulate import simulate_screen

Progress = Callable[[int, int], None]

#: The embedded screen: small enough for minutes on two cores, large enough for predictors to be told apart.
EMBEDDED = {"cells": 16_000, "genes": 1_200, "perturbations": 240, "controls": 2_400, "seed": 1}
EMBEDDED_KEYS = {"guide_key": "guide_id", "batch_key": "batch"}
EMBEDDED_NAME = "embedded"


def simulate_stage(place: Place, progress: Progress) -> StageRecord:
    """Simulate the embedded screen with its truth and its knowledge graph."""
    stage = Stage("simulated", EMBEDDED_NAME, {}, EMBEDDED, (tasks.screens,))

    def work(folder: Path) -> dict[str, int]:
        made = simulate_screen(folder / "screen.h5ad", **EMBEDDED, progress=progress)
        return {"screen.h5ad": made.n_cells, "screen.truth.parquet": made.n_effects}

    return run_stage(place.workspace, stage, work, force=place.force)


def ingest_stage(
    place: Place, name: str, path: Path, options: ScreenOptions, progress: Progress
) -> StageRecord:
    """Stream an h5ad file into the gene-major screen store."""
    names = options.model_dump(exclude={"screen"})
    try:
        digest = file_digest(path)
    except OSError as error:
        raise InputError(str(path), [f"cannot be read ({error.strerror})"]) from error
    stage = Stage("screens", name, {"h5ad": digest}, names, (tasks.screens, storage.screens, storage.h5ad))

    def work(folder: Path) -> dict[str, int]:
        seen = ingest_screen(path, folder / "screen.zarr", **names, progress=progress)
        return {"cells": seen.n_cells, "unassigned cells": seen.n_unassigned, "values": seen.n_values}

    return run_stage(place.workspace, stage, work, force=place.force)


def quality_stage(place: Place, screen: StageRecord, options: QualityOptions) -> StageRecord:
    """Judge perturbations and guides."""
    code = (tasks.screens, storage.screens)
    stage = Stage("quality", screen.name, {"screen": screen.content}, options.model_dump(), code)

    def work(folder: Path) -> dict[str, int]:
        perturbations, guides = check_quality(screen.folder / "screen.zarr", **options.model_dump())
        write_table(folder / "perturbations.parquet", perturbations, options.model_dump())
        write_table(folder / "guides.parquet", guides, options.model_dump())
        kept = int((perturbations["status"] == "kept").sum())
        return {"perturbations": len(perturbations), "kept": kept, "guides": len(guides)}

    return run_stage(place.workspace, stage, work, force=place.force)


def tests_stage(
    place: Place,
    screen: StageRecord,
    quality: StageRecord,
    options: ExpressionOptions,
    quality_options: QualityOptions,
    progress: Progress,
) -> StageRecord:
    """Test every kept perturbation, and false perturbations made of control cells, against the controls."""
    inputs = {"screen": screen.content, "quality": quality.content}
    settings = options.model_dump() | quality_options.model_dump()
    code = (tasks.expression, tasks.screens.quality, storage.screens, sys.modules[__name__])
    stage = Stage("tests", screen.name, inputs, settings, code)
    store = screen.folder / "screen.zarr"

    recipe = settings | {
        "ties": "corrected",
        "continuity": options.test == "wilcoxon",
        "fdr": "Benjamini-Hochberg within a perturbation",
        "screen": screen.content,
    }

    def work(folder: Path) -> dict[str, int]:
        groups, false = _test_groups(Screen(store), quality, options, quality_options)
        how = {"pseudocount": options.pseudocount, "normalise": options.normalise, "recipe": recipe}
        how["client"] = place.client
        table = folder / "tests.parquet"
        n_tests, ledger = compare_expression(
            store, groups, folder / ".blocks", table, progress=progress, **how
        )
        rows = {"tests.parquet": n_tests, "gene blocks": ledger.requested}
        if false is not None:
            table = folder / "null.parquet"
            rows["null.parquet"], _ = compare_expression(store, false, folder / ".null-blocks", table, **how)
        return rows

    return run_stage(place.workspace, stage, work, force=place.force)


def _test_groups(
    screen: Screen, quality: StageRecord, options: ExpressionOptions, quality_options: QualityOptions
) -> tuple[CellGroups, CellGroups | None]:
    """The kept perturbations, and false ones made of control cells where there are enough."""
    columns = [name for name in ("perturbation", "guide", "batch") if screen.has_column(name)]
    cells = screen.cells(*columns, "control", "library_size")
    usable = usable_cells(screen, min_cell_umis=quality_options.min_cell_umis)
    judged = read_frame(quality.folder / "perturbations.parquet")
    kept = judged.loc[judged["status"] == "kept", "perturbation"]
    if options.test == "stratified":
        # Cells of a batch without controls can be compared with nothing.
        usable &= cells["batch"].isin(cells["batch"][cells["control"] & usable].unique()).to_numpy()
        left = cells["perturbation"][usable].value_counts()
        kept = kept[kept.map(left).fillna(0).to_numpy() >= quality_options.min_cells]
    how = {"usable": usable, "normalise": options.normalise}
    groups = perturbation_groups(cells, kept.tolist(), **how)
    false = false_perturbation_groups(cells, seed=0, min_cells=quality_options.min_cells, **how)
    if options.test == "stratified":
        groups = groups.within(cells["batch"])
        false = None if false is None else false.within(cells["batch"])
    return groups, false


def check_test(options: ExpressionOptions, batch_key: str | None) -> None:
    """Raise if the test asked for needs what the screen's options do not name."""
    if options.test == "stratified" and batch_key is None:
        raise InputError("--test stratified", ["batches are not known; name their column with --batch-key"])


def pseudobulk_stage(
    place: Place, screen: StageRecord, quality_options: QualityOptions, progress: Progress
) -> StageRecord:
    """Sum counts by perturbation and batch."""
    settings = {"min_cell_umis": quality_options.min_cell_umis}
    stage = Stage(
        "pseudobulk", screen.name, {"screen": screen.content}, settings, (tasks.expression, storage.screens)
    )
    store = screen.folder / "screen.zarr"

    def work(folder: Path) -> dict[str, int]:
        usable = usable_cells(Screen(store), **settings)
        target = folder / "pseudobulk.h5ad"
        n, _ = pseudobulk(store, usable, folder / ".blocks", target, client=place.client, progress=progress)
        return {"pseudobulk.h5ad": n}

    return run_stage(place.workspace, stage, work, force=place.force)


def labels_stage(
    place: Place, quality: StageRecord, tests: StageRecord, options: LabelOptions, truth: Path | None
) -> StageRecord:
    """Apply the label rule, and hold the calls against false perturbations and, where known, the truth."""
    inputs = {"tests": tests.content, "quality": quality.content}
    inputs |= {"truth": file_digest(truth)} if truth else {}
    settings = options.model_dump()
    stage = Stage("labels", tests.name, inputs, settings, (tasks.labels, tasks.expression))
    rule = {"fdr": options.fdr, "min_log2_fold_change": options.min_log2_fold_change}

    def work(folder: Path) -> dict[str, int]:
        frame = read_frame(tests.folder / "tests.parquet")
        made = make_labels(frame, seed=options.label_seed, **options.model_dump(exclude={"label_seed"}))
        recipe = settings | {"tests": tests.content}
        write_table(folder / "de.parquet", made.de, recipe | {"task": "de"})
        write_table(folder / "dir.parquet", made.dir, recipe | {"task": "dir"})
        judged = read_frame(quality.folder / "perturbations.parquet")
        judged = judged.merge(made.counts, on="perturbation", how="left")
        judged["split"] = judged["split"].fillna("")
        untested = (judged["status"] == "kept") & judged["n_up"].isna()
        why = "too few cells in batches that have controls"
        judged.loc[untested, ["status", "reason"]] = ["excluded", why]
        write_table(folder / "perturbations.parquet", judged, recipe)
        summary = _calibration(tests.folder / "null.parquet", rule)
        if truth is not None:
            check = check_against_truth(frame, read_frame(truth), **rule)
            write_table(folder / "truth_check.parquet", check, recipe)
            summary |= {"realised_fdr": check["false_discovery_rate"][0], "power": check["power"][0]}
        write_json(folder / "calibration.json", summary)
        return {"de.parquet": len(made.de), "dir.parquet": len(made.dir)}

    return run_stage(place.workspace, stage, work, force=place.force)


def _calibration(path: Path, rule: dict[str, float]) -> dict[str, float]:
    return null_summary(read_frame(path), **rule) if path.is_file() else {}


def calibration_of(labels: StageRecord) -> dict[str, float]:
    """The calibration figures of a finished label stage."""
    return json.loads((labels.folder / "calibration.json").read_text())
