"""The stages of gene sets: tests of their scores, and label tables by the same rule as for genes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import flows.label_stages
import storage.gene_sets
import tasks.expression
import tasks.labels
import tasks.screens.quality
from flows.label_stages import tested_groups
from flows.options import ExpressionOptions, GeneSetOptions, LabelOptions, QualityOptions
from flows.progress import Progress
from flows.records import Place
from flows.rule_stages import call_rule, label_rule
from storage.atomic import write_json
from storage.errors import InputError
from storage.gene_sets import read_gene_sets
from storage.manifest import Stage, StageRecord, file_digest, run_stage
from storage.screens import Screen
from storage.tables import read_frame, read_recipe, write_table
from tasks.expression.calibration import called, null_summary
from tasks.expression.false_discovery import AdjustOverAll, adjust_within
from tasks.expression.gene_sets import compare_gene_sets, measured_sets
from tasks.labels.detectable import Family, with_detectable
from tasks.labels.label_tables import make_labels


def check_gene_sets(options: GeneSetOptions, expression: ExpressionOptions) -> None:
    """Raise if the file of gene sets cannot be used, or scores cannot be tested the way that is asked for."""
    if options.gene_sets is None:
        return
    read_gene_sets(options.gene_sets)
    if expression.test not in ("wilcoxon", "stratified"):
        message = f"'{expression.test}' compares no scores of cells; use --test wilcoxon or stratified"
        raise InputError("--gene-sets", [message])


def gene_sets_stage(
    place: Place,
    screen: StageRecord,
    quality: StageRecord,
    options: GeneSetOptions,
    expression: ExpressionOptions,
    quality_options: QualityOptions,
    progress: Progress,
) -> StageRecord:
    """Test the scores of gene sets in every kept perturbation, and in false ones, against the controls."""
    file = Path(options.gene_sets)
    inputs = {"screen": screen.content, "quality": quality.content, "gene sets": file_digest(file)}
    settings = {"min_set_genes": options.min_set_genes}
    settings |= expression.for_one_test() | quality_options.model_dump()
    code = (tasks.expression, tasks.screens.quality, storage.gene_sets)
    code += (flows.label_stages, sys.modules[__name__])
    stage = Stage("set-tests", screen.name, inputs, settings, code)
    store = screen.folder / "screen.zarr"

    def work(folder: Path) -> dict[str, int]:
        opened = Screen(store)
        sets = read_gene_sets(file)
        table = measured_sets(sets, opened, min_genes=options.min_set_genes)
        kept = table["status"] == "kept"
        tested = {name: sets[name] for name in table.loc[kept, "gene_set"]}
        groups, null_groups = tested_groups(opened, quality, expression, quality_options)
        made, _ = compare_gene_sets(
            store,
            tested,
            groups=groups,
            null_groups=null_groups,
            blocks_folder=folder / ".blocks",
            client=place.client,
            pseudocount=expression.pseudocount,
            adjust=adjust_within if expression.fdr_scope == "within" else _adjust_all,
            progress=progress,
        )
        recipe = settings | {"screen": screen.content, "score": "mean z-score, scaled to 1 in the controls"}
        table.loc[kept, "umis"] = made.umis
        write_table(folder / "gene-sets.parquet", table, recipe)
        write_table(folder / "set-tests.parquet", made.tests, recipe)
        if made.null_tests is not None:
            write_table(folder / "set-null.parquet", made.null_tests, recipe)
        excluded = int((~kept).sum())
        return {"set-tests.parquet": len(made.tests), "sets": int(kept.sum()), "sets excluded": excluded}

    return run_stage(place.workspace, stage, work, force=place.force)


def set_labels_stage(
    place: Place, sets: StageRecord, labels: StageRecord, options: LabelOptions
) -> StageRecord:
    """Apply the label rule to gene sets; a perturbation is on the side where the genes' tables have it."""
    settings = options.model_dump(exclude={"guide_cells"})
    inputs = {"set tests": sets.content, "labels": labels.content}
    code = (tasks.labels, sys.modules[__name__])
    stage = Stage("set-labels", sets.name, inputs, settings, code)

    def work(folder: Path) -> dict[str, int]:
        table = read_frame(sets.folder / "gene-sets.parquet")
        tests = read_frame(sets.folder / "set-tests.parquet").astype({"pert": str, "gene": str})
        umis = table.set_index("gene_set")["umis"]
        table_recipe = read_recipe(sets.folder / "set-tests.parquet")
        scope = table_recipe["fdr_scope"]
        split = read_frame(labels.folder / "perturbations.parquet").set_index("perturbation")["split"]
        # The counting error of a score is known, dispersion included.
        measured = with_detectable(
            tests.groupby("pert"),
            lambda name, rows: rows["gene"].map(umis).to_numpy(),
            fdr=options.fdr,
            family=Family.of(tests["p_adj"], fdr=options.fdr) if scope == "all" else None,
            dispersion=0.0,
        )
        made = make_labels(measured, split=split.to_dict(), **label_rule(options))
        recipe = settings | {"tests": sets.content, "screen": table_recipe["screen"]}
        write_table(folder / "set-de.parquet", made.de, recipe | {"task": "de"})
        write_table(folder / "set-dir.parquet", made.dir, recipe | {"task": "dir"})
        write_table(folder / "gene-sets.parquet", _with_calls(table, tests, options), recipe)
        null = sets.folder / "set-null.parquet"
        summary = null_summary(read_frame(null), **call_rule(options)) if null.is_file() else {}
        write_json(folder / "set-calibration.json", {f"set_{name}": value for name, value in summary.items()})
        return {"set-de.parquet": len(made.de), "set-dir.parquet": len(made.dir)}

    return run_stage(place.workspace, stage, work, force=place.force)


def set_calibration_of(set_labels: StageRecord | None) -> dict[str, float]:
    """The sets' calibration figures; none where there are no sets."""
    if set_labels is None:
        return {}
    return json.loads((set_labels.folder / "set-calibration.json").read_text())


def _adjust_all(p_value: np.ndarray) -> np.ndarray:
    """Adjust all p-values as one family."""
    return AdjustOverAll([p_value], p_value.size)(p_value)


def _with_calls(table: pd.DataFrame, tests: pd.DataFrame, options: LabelOptions) -> pd.DataFrame:
    """The sets with the number of perturbations in which they go up and down."""
    calls = tests[called(tests, **call_rule(options))]
    up = calls["log2_fold_change"] > 0
    for column, rows in (("n_up", calls[up]), ("n_down", calls[~up])):
        count = table["gene_set"].map(rows["gene"].value_counts())
        table[column] = count.fillna(0).where(table["status"] == "kept").astype("Int64")
    return table
