"""The report's pages put together from finished stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from flows.label_sets import LabelSet
from flows.options import LabelOptions
from flows.records import ScreenRecords
from flows.rule_stages import calibration_of, call_rule
from flows.set_stages import set_calibration_of
from flows.side_by_side import side_by_side_tables
from storage.atomic import atomic_path
from storage.expression_tables import read_by_perturbation, read_perturbations
from storage.manifest import folder_digest
from storage.tables import read_frame, read_labels, read_recipe
from tasks.expression.calibration import called_genes
from tasks.report.label_sections import MOST_DRAWN, label_sections
from tasks.report.page import Report, Section, write_report
from tasks.report.screen_figures import most_responsive
from tasks.report.set_section import set_section
from tasks.report.side_by_side_section import side_by_side_section
from tasks.scoring.task_names import TASK_TITLES


def label_report(path: Path, screen: ScreenRecords) -> None:
    """Write the report of a label run, without predictors."""
    # A screen in which nothing responds has no pair with a direction.
    tables = {
        t: screen.labels.folder / f"{t}.parquet" for t in TASK_TITLES if screen.labels.rows[f"{t}.parquet"]
    }
    labels = LabelSet.of_files(screen.labels.name, tables)
    write_report(path, report_page(labels, screen_sections(screen), screen, ()))


def write_called_genes(path: Path, tests: Path, options: LabelOptions) -> None:
    """Every DE call of a table of tests as CSV for a spreadsheet, a perturbation's smallest p first.

    The perturbed genes themselves are left out, as of labels and of all numbers of DE genes.
    """
    columns = ("gene", "mean_pert", "mean_control", "log2_fold_change", "p_value", "p_adj")
    found = [pd.DataFrame(columns=["perturbation", *columns])]
    for name, rows in read_by_perturbation(tests, (*columns, "direction")):
        calls = rows[called_genes(rows, name, **call_rule(options))].sort_values("p_value", kind="stable")
        if len(calls):
            found.append(calls.assign(perturbation=name))
    with atomic_path(path) as temporary:
        pd.concat(found[1:] or found)[found[0].columns].to_csv(temporary, index=False, float_format="%.6g")


def screen_sections(screen: ScreenRecords) -> list[Section]:
    """Sections on the screen, its tests and its labels."""

    def optional(path: Path) -> pd.DataFrame | None:
        return read_frame(path) if path.is_file() else None

    calibration = calibration_of(screen.labels)
    recipe = read_recipe(screen.labels.folder / "de.parquet")
    perturbations = read_frame(screen.labels.folder / "perturbations.parquet")
    # The whole table of tests may be larger than memory; only these are drawn.
    drawn = most_responsive(perturbations)["perturbation"].head(MOST_DRAWN)
    sections = label_sections(
        read_perturbations(screen.tests.folder / "tests.parquet", drawn.tolist()),
        perturbations,
        fdr=recipe["fdr"],
        min_log2_fold_change=recipe["min_log2_fold_change"],
        guides=read_frame(screen.quality.folder / "guides.parquet"),
        null_tests=optional(screen.tests.folder / "null.parquet"),
        truth_check=optional(screen.labels.folder / "truth_check.parquet"),
        counts={
            "cells": screen.screen.rows["cells"],
            "cells without a perturbation, left out": screen.screen.rows["unassigned cells"],
            "non-zero counts": screen.screen.rows["values"],
            "DE tests": screen.tests.rows["tests.parquet"],
            "DE calls among false perturbations": calibration.get("null_de_calls"),
            "pseudobulk profiles": screen.pseudobulk.rows["pseudobulk.h5ad"],
        },
        calibration=calibration,
        detectable=recipe["detectable"],
    )
    if screen.side_by_side is not None:
        chosen = read_recipe(screen.tests.folder / "tests.parquet")["test"]
        tables = side_by_side_tables(screen.side_by_side.comparison)
        impossible = screen.side_by_side.impossible
        sections.append(side_by_side_section(*tables, chosen=chosen, impossible=impossible))
    if screen.set_labels is not None:
        sets = read_frame(screen.set_labels.folder / "gene-sets.parquet")
        sections.append(set_section(sets, set_calibration_of(screen.set_labels)))
    return sections


def report_page(
    labels: LabelSet, sections: list[Section], screen: ScreenRecords | None, notes: Sequence[str]
) -> Report:
    """A report on one data set: its tables' sizes, what to know before reading, then ``sections``."""
    facts = []
    for task, path in labels.tables.items():
        rows = read_labels(path)
        counts = rows.groupby("split")["pert"].nunique()
        facts += [
            (f"{task}: pairs ({TASK_TITLES[task]})", len(rows)),
            (f"{task}: training perturbations", int(counts.get("train", 0))),
            (f"{task}: test perturbations", int(counts.get("test", 0))),
            (f"{task}: share labelled 1", float(rows["label"].astype("Float64").mean())),
        ]
    origin = "The labels were given as tables."
    if screen is not None:
        origin = "The labels were made from raw counts."
    if screen is not None and screen.simulated is not None:
        origin = "The screen is simulated with known effects: its results say nothing about real genes."
    facts.append(("labels' digest", folder_digest(labels.digests)[:12]))
    return Report(
        title=f"Perturbation benchmark: {labels.name}",
        subtitle=(origin, *notes),
        facts=facts,
        sections=sections,
    )


def error_page(labels: LabelSet, sections: list[Section], notes: Sequence[str]) -> Report:
    """Where predictors err, on one data set."""
    lead = "AUROC of parts of the test pairs, by what may make them hard. All scores are in report.html."
    return Report(title=f"Where predictors err: {labels.name}", subtitle=(lead, *notes), sections=sections)
