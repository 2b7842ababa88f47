"""The stages from DE tests to label tables: do guides agree, and which pairs are 1 or 0."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

import flows.label_stages
import storage.expression_tables
import tasks.expression
import tasks.labels
import tasks.screens.quality
from flows.label_stages import tested_cells
from flows.options import ExpressionOptions, LabelOptions, QualityOptions
from flows.progress import Progress
from flows.records import Place
from storage.atomic import write_json
from storage.expression_tables import read_by_perturbation
from storage.manifest import Stage, StageRecord, file_digest, run_stage
from storage.screens import Screen
from storage.tables import read_frame, read_recipe, write_table
from tasks.expression.calibration import (
    called,
    check_against_truth,
    hidden_effects,
    is_target,
    null_summary,
    shifted_share,
)
from tasks.expression.guide_agreement import COUNTS, agreement_summary, guide_agreement, guide_groups
from tasks.labels.detectable import Family, gene_umis, with_detectable
from tasks.labels.label_tables import LabelTables, make_labels

#: Figures of the label stage that are counts of pairs, and the column of counts that each is the sum of.
PAIRS_COUNTED = {"pairs_not_de": "n_not_de", "pairs_not_measured_well_enough": "n_unmeasured"}


def agreement_stage(
    place: Place,
    screen: StageRecord,
    tests: StageRecord,
    options: LabelOptions,
    expression: ExpressionOptions,
    quality: QualityOptions,
    progress: Progress,
) -> StageRecord:
    """Count the DE calls on which a perturbation's guides agree in sign.

    A stage of its own: it reads all counts once more, and of the label rule only what makes a pair DE
    matters to it, so that other negatives or another split do not repeat it.
    """
    inputs = {"screen": screen.content, "tests": tests.content}
    how = {"test": expression.test, "min_cell_umis": quality.min_cell_umis, "normalise": expression.normalise}
    settings = call_rule(options) | how | {"guide_cells": options.guide_cells}
    code = (tasks.expression, tasks.screens.quality, storage.expression_tables)
    code += (flows.label_stages, sys.modules[__name__])
    stage = Stage("agreement", screen.name, inputs, settings, code)
    store = screen.folder / "screen.zarr"

    def work(folder: Path) -> dict[str, int]:
        opened = Screen(store)
        names, calls = _calls(tests.folder / "tests.parquet", opened.genes, call_rule(options))
        target, known = folder / "agreement.parquet", opened.has_column("guide")
        if not known:
            empty = pd.DataFrame(0, index=range(len(names)), columns=["guides_compared", *COUNTS])
            write_table(target, empty.assign(perturbation=names), settings)
            return {"agreement.parquet": len(names), "guides": 0}
        by_batch = expression.test != "wilcoxon" and opened.has_column("batch")
        batch = ("batch",) if by_batch else ()
        cells = opened.cells("perturbation", "guide", "control", "library_size", *batch)
        groups = guide_groups(
            cells,
            names,
            usable=tested_cells(opened, expression, quality),
            min_cells=options.guide_cells,
            normalise=expression.normalise,
            by_batch=by_batch,
        )
        blocks = folder / ".blocks"
        table, ledger = guide_agreement(
            store, groups, calls=calls, blocks_folder=blocks, client=place.client, progress=progress
        )
        write_table(target, table.assign(perturbation=names), settings)
        n_guides = int(table["guides_compared"].sum())
        return {"agreement.parquet": len(table), "guides": n_guides, "gene blocks": ledger.requested}

    return run_stage(place.workspace, stage, work, force=place.force)


def _calls(table: Path, genes: np.ndarray, rule: dict[str, float]) -> tuple[list[str], np.ndarray]:
    """Perturbations tested, and int8 (n_perturbations, n_genes): 1 called, 0 not, -1 not tested or itself."""
    place, names, rows_of = pd.Index(genes), [], []
    columns = ("gene", "log2_fold_change", "direction", "p_value", "p_adj")
    for name, rows in read_by_perturbation(table, columns):
        row = np.full(len(genes), -1, np.int8)
        kept = ~is_target(rows["gene"], name) & rows["p_value"].notna().to_numpy()
        row[place.get_indexer(rows["gene"][kept])] = called(rows, **rule)[kept]
        names.append(name)
        rows_of.append(row)
    return names, np.array(rows_of, np.int8).reshape(-1, len(genes))


def labels_stage(
    place: Place,
    quality: StageRecord,
    tests: StageRecord,
    agreement: StageRecord,
    options: LabelOptions,
    truth: Path | None,
) -> StageRecord:
    """Apply the label rule, and hold the calls against false perturbations and, where known, the truth."""
    inputs = {"tests": tests.content, "quality": quality.content, "agreement": agreement.content}
    inputs |= {"truth": file_digest(truth)} if truth else {}
    settings = options.model_dump(exclude={"guide_cells"})
    code = (tasks.labels, tasks.expression, storage.expression_tables, sys.modules[__name__])
    stage = Stage("labels", tests.name, inputs, settings, code)

    def work(folder: Path) -> dict[str, int]:
        table = tests.folder / "tests.parquet"
        judged = read_frame(quality.folder / "perturbations.parquet")
        made = make_labels(_measured_tests(table, judged, options), **label_rule(options))
        recipe = settings | {"tests": tests.content, "screen": read_recipe(table)["screen"]}
        write_table(folder / "de.parquet", made.de, recipe | {"task": "de"})
        write_table(folder / "dir.parquet", made.dir, recipe | {"task": "dir"})
        guides = read_frame(agreement.folder / "agreement.parquet")
        excluded = read_frame(tests.folder / "excluded.parquet")
        judged = _judged(judged, made, guides, excluded)
        write_table(folder / "perturbations.parquet", judged, recipe)
        summary = _calibration(tests.folder, options) | agreement_summary(guides)
        summary |= {name: int(made.counts[column].sum()) for name, column in PAIRS_COUNTED.items()}
        if truth is not None:
            columns = ["gene", "log2_fold_change", "direction", "p_adj"]
            effects = read_frame(truth)
            check = check_against_truth(read_by_perturbation(table, columns), effects, **call_rule(options))
            write_table(folder / "truth_check.parquet", check, recipe)
            summary |= {"realised_fdr": check["false_discovery_rate"][0], "power": check["power"][0]}
            summary |= {"zeros_with_effect": hidden_effects(made.de, effects, least=options.detectable)}
        write_json(folder / "calibration.json", summary)
        rows = {"de.parquet": len(made.de), "dir.parquet": len(made.dir)}
        return rows | {name.replace("_", " "): summary[name] for name in PAIRS_COUNTED}

    return run_stage(place.workspace, stage, work, force=place.force)


def call_rule(options: LabelOptions) -> dict[str, float]:
    """What makes a pair differentially expressed."""
    return {"fdr": options.fdr, "min_log2_fold_change": options.min_log2_fold_change}


def label_rule(options: LabelOptions) -> dict[str, object]:
    """The options of `make_labels`."""
    return options.model_dump(exclude={"label_seed", "guide_cells"}) | {"seed": options.label_seed}


def _measured_tests(table: Path, judged: pd.DataFrame, options: LabelOptions) -> Iterator:
    """Each perturbation's tests, with what they could have seen."""
    columns = ("n_pert", "n_control_effective", "mean_control", "log2_fold_change", "direction")
    recipe, library = read_recipe(table), None
    if recipe["normalise"] == "library":
        library = judged.set_index("perturbation")["umis_per_cell"]
    family = None
    if recipe["fdr_scope"] == "all":
        parts = read_by_perturbation(table, ("p_adj",))
        family = sum((Family.of(rows["p_adj"], fdr=options.fdr) for _, rows in parts), Family())
    tests = read_by_perturbation(table, ("gene", *columns, "p_value", "p_adj", "log10_p_value"))
    return with_detectable(tests, gene_umis(library), fdr=options.fdr, family=family)


def _judged(
    judged: pd.DataFrame, made: LabelTables, guides: pd.DataFrame, excluded: pd.DataFrame
) -> pd.DataFrame:
    """Perturbations with what quality control, the tests, the labels and the guides say of them."""
    guides = guides.assign(guide_agreement=guides["de_agree"] / guides["de_compared"])
    guides = guides[["perturbation", "guides_compared", "guide_agreement"]]
    judged = judged.merge(made.counts, on="perturbation", how="left")
    judged = judged.merge(guides, on="perturbation", how="left")
    judged["split"] = judged["split"].fillna("")
    reason = judged["perturbation"].map(excluded.set_index("perturbation")["reason"])
    untested = (judged["status"] == "kept") & reason.notna()
    judged.loc[untested, "reason"] = reason[untested]
    judged.loc[untested, "status"] = "excluded"
    return judged


def _calibration(tests: Path, options: LabelOptions) -> dict[str, float]:
    """What the tests in a folder say of false perturbations, if there are any, and of the median gene."""
    shifts = read_by_perturbation(tests / "tests.parquet", ("mean_control", "log2_fold_change"))
    null = tests / "null.parquet"
    summary = null_summary(read_frame(null), **call_rule(options)) if null.is_file() else {}
    return summary | {"perturbations_shifted": shifted_share(shifts)}


def calibration_of(labels: StageRecord) -> dict[str, float]:
    """The calibration figures of a finished label stage."""
    return json.loads((labels.folder / "calibration.json").read_text())
