"""The stages from counts to DE tests: what each depends on, and where its files go."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import tasks.expression
import tasks.expression.pseudobulk
import tasks.screens.ingest
import tasks.screens.quality
import tasks.screens.simulate
from flows.options import ExpressionOptions, QualityOptions, ScreenNames, ScreenOptions
from flows.progress import Progress
from flows.records import Place
from storage.errors import InputError
from storage.manifest import Stage, StageRecord, file_digest, run_stage
from storage.screens import Screen
from storage.tables import read_frame, write_table
from tasks.expression.compare import compare_expression, untested
from tasks.expression.designs import (
    ComparisonPlan,
    Design,
    comparable_cells,
    null_design,
    screen_design,
)
from tasks.expression.gene_filters import GeneFilters
from tasks.expression.groups import CellGroups
from tasks.expression.pseudobulk import pseudobulk
from tasks.screens.ingest import ingest_screen
from tasks.screens.quality import check_quality, usable_cells
from tasks.screens.simulate import simulate_screen

#: The embedded screen: small enough for minutes on two cores, large enough for predictors to be told apart.
EMBEDDED = {"cells": 16_000, "genes": 1_200, "perturbations": 240, "controls": 2_400, "seed": 1}
EMBEDDED_KEYS = {"guide_key": "guide_id", "batch_key": "batch"}
EMBEDDED_NAME = "embedded"
#: Perturbations named in an error.
MOST_LISTED = 5


class NothingToTestError(InputError):
    """A test can be done on no perturbation of the screen."""


def simulate_stage(place: Place, progress: Progress) -> StageRecord:
    """Simulate the embedded screen with its truth and its knowledge graph."""
    stage = Stage("simulated", EMBEDDED_NAME, {}, EMBEDDED, (tasks.screens.simulate,))

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
    stage = Stage("screens", name, {"h5ad": digest}, names, (tasks.screens.ingest,))

    def work(folder: Path) -> dict[str, int]:
        seen = ingest_screen(path, folder / "screen.zarr", **names, progress=progress)
        return {"cells": seen.n_cells, "unassigned cells": seen.n_unassigned, "values": seen.n_values}

    return run_stage(place.workspace, stage, work, force=place.force)


def quality_stage(place: Place, screen: StageRecord, options: QualityOptions) -> StageRecord:
    """Judge perturbations and guides."""
    code = (tasks.screens.quality,)
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
    settings = options.for_one_test() | quality_options.model_dump()
    code = (tasks.expression, tasks.screens.quality, sys.modules[__name__])
    stage = Stage("tests", screen.name, inputs, settings, code)
    store = screen.folder / "screen.zarr"
    family = "within a perturbation" if options.fdr_scope == "within" else "over all tests of the table"
    recipe = settings | {
        "ties": "not ranked" if options.test == "pseudobulk" else "corrected",
        "continuity": options.test == "wilcoxon",
        "fdr": f"Benjamini-Hochberg {family}",
        "screen": screen.content,
    }

    def work(folder: Path) -> dict[str, int]:
        design, null, excluded = _designs(Screen(store), quality, options, quality_options)
        write_table(folder / "excluded.parquet", excluded, recipe)
        how = {
            "pseudocount": options.pseudocount,
            "normalise": options.normalise,
            "filters": GeneFilters(options.min_mean_umis, options.min_expressing_cells),
            "fdr_scope": options.fdr_scope,
            "recipe": recipe,
            "client": place.client,
        }
        rows = {}
        for name, one, told in (("tests", design, {"progress": progress}), ("null", null, {})):
            if one is not None:
                table = folder / f"{name}.parquet"
                compared = {"pseudobulk": one.pseudobulk, "blocks_folder": folder / f".{name}-blocks"}
                compared |= how | told
                rows[table.name], ledger = compare_expression(store, one.groups, table=table, **compared)
                rows[f"not tested in {table.name}"] = untested(table)
                rows |= {"gene blocks": ledger.requested} if name == "tests" else {}
        return rows

    return run_stage(place.workspace, stage, work, force=place.force)


def _designs(
    screen: Screen, quality: StageRecord, options: ExpressionOptions, quality_options: QualityOptions
) -> tuple[Design, Design | None, pd.DataFrame]:
    """The kept perturbations, false ones made of controls where there are enough, and who is left out."""
    columns = [name for name in ("perturbation", "guide", "batch") if screen.has_column(name)]
    cells = screen.cells(*columns, "control", "library_size")
    usable = tested_cells(screen, options, quality_options)
    judged = read_frame(quality.folder / "perturbations.parquet")
    kept = judged.loc[judged["status"] == "kept", "perturbation"].tolist()
    plan = ComparisonPlan(
        options.test,
        options.pseudobulk_model,
        quality_options.min_cells,
        options.min_profile_umis,
        options.normalise,
    )
    design, reasons = screen_design(cells, kept, plan, usable=usable)
    if not design.groups.names:
        reasons = dict(zip(judged["perturbation"], judged["reason"], strict=True)) | reasons
        listed = [f"{name}: {why}" for name, why in list(reasons.items())[:MOST_LISTED]]
        more = [f"and {len(reasons) - MOST_LISTED} more"] if len(reasons) > MOST_LISTED else []
        raise NothingToTestError(f"--test {options.test}", ["no perturbation can be tested", *listed, *more])
    excluded = pd.DataFrame({"perturbation": list(reasons), "reason": list(reasons.values())}, dtype=object)
    return design, null_design(cells, plan, usable=usable, seed=0), excluded


def tested_groups(
    screen: Screen, quality: StageRecord, options: ExpressionOptions, quality_options: QualityOptions
) -> tuple[CellGroups, CellGroups | None]:
    """The groups of cells that the rank-sum tests compare, and false ones where there are any."""
    design, null, _ = _designs(screen, quality, options, quality_options)
    return design.groups, None if null is None else null.groups


def tested_cells(screen: Screen, options: ExpressionOptions, quality_options: QualityOptions) -> np.ndarray:
    """Cells that take part in the tests, bool (n_cells,)."""
    usable = usable_cells(screen, min_cell_umis=quality_options.min_cell_umis)
    if options.test == "wilcoxon" or not screen.has_column("batch"):
        return usable
    return comparable_cells(screen.cells("batch", "control"), usable)


def check_test(options: ExpressionOptions, names: ScreenNames) -> None:
    """Raise if a test asked for needs what the screen's options do not name."""
    problems = []
    asked = {options.test, *options.also_test}
    if "stratified" in asked and names.batch_key is None:
        problems.append("--test stratified: batches are not known; name their column with --batch-key")
    if "pseudobulk" in asked and options.pseudobulk_model == "paired" and names.batch_key is None:
        problems.append(
            "--test pseudobulk pairs perturbed and control cells by batch, and batches are not known; name "
            "their column with --batch-key, or use --pseudobulk-model glm with --guide-key"
        )
    unknown = names.batch_key is None and names.guide_key is None
    if "pseudobulk" in asked and options.pseudobulk_model == "glm" and unknown:
        problems.append(
            "--pseudobulk-model glm needs replicates: name the columns of guides (--guide-key), of "
            "batches (--batch-key), or both"
        )
    if problems:
        raise InputError("tests", problems)


def pseudobulk_stage(
    place: Place, screen: StageRecord, quality_options: QualityOptions, progress: Progress
) -> StageRecord:
    """Sum counts by perturbation and batch."""
    settings = {"min_cell_umis": quality_options.min_cell_umis}
    code = (tasks.expression.pseudobulk, tasks.screens.quality)
    stage = Stage("pseudobulk", screen.name, {"screen": screen.content}, settings, code)
    store = screen.folder / "screen.zarr"

    def work(folder: Path) -> dict[str, int]:
        usable = usable_cells(Screen(store), **settings)
        target = folder / "pseudobulk.h5ad"
        n, _ = pseudobulk(
            store,
            usable,
            blocks_folder=folder / ".blocks",
            target=target,
            client=place.client,
            progress=progress,
        )
        return {"pseudobulk.h5ad": n}

    return run_stage(place.workspace, stage, work, force=place.force)
