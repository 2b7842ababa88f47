"""The report's sections on a screen and its labels, worded for a reader who knows the biology."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from tasks.expression.calibration import LARGE_SHIFT, small_p_share
from tasks.expression.groups import RANDOM_PART
from tasks.report.calibration_figures import null_calibration, truth_figure
from tasks.report.evidence_section import evidence_section
from tasks.report.knock_down_figure import idle_guides, knock_down
from tasks.report.page import Section
from tasks.report.screen_figures import de_genes_per_perturbation, most_responsive, volcano

MOST_LISTED = 100
#: Volcano plots shown.
MOST_DRAWN = 6
#: Share of perturbations with a shift of the median gene above which the reader is warned.
MANY_SHIFTED = 0.05


def label_sections(
    tests: pd.DataFrame,
    perturbations: pd.DataFrame,
    *,
    fdr: float,
    min_log2_fold_change: float,
    guides: pd.DataFrame | None = None,
    null_tests: pd.DataFrame | None = None,
    truth_check: pd.DataFrame | None = None,
    counts: Mapping[str, object] | None = None,
    calibration: Mapping[str, float] | None = None,
    detectable: float = 0.0,
    works_below: float = 0.7,
) -> list[Section]:
    """Sections from counts to labels; those whose input is missing are left out.

    Parameters
    ----------
    tests
        The DE tests, as in ``tests.parquet``, at least of the perturbations with the most DE genes.
    perturbations
        ``perturbation``, ``n_cells``, ``n_guides``, ``target_measured``, ``target_log2_fold_change``,
        ``target_remaining``, ``status`` ('kept' or 'excluded'), ``reason``, ``n_up``, ``n_down``.
    fdr, min_log2_fold_change
        The rule that made the DE calls, as for `tasks.expression.calibration.called`.
    guides
        ``perturbation``, ``guide``, ``n_cells``, ``target_remaining``.
    null_tests
        Tests of false perturbations made of control cells, with the columns of ``tests``.
    truth_check
        ``group``, ``n_true``, ``n_called``, ``false_discovery_rate``, ``power`` on a simulated screen.
    counts
        Further rows for the table of what went in, by name.
    calibration, detectable
        As for `evidence_section`, which needs both and more columns of ``perturbations``;
        ``perturbations_shifted`` is the share of `tasks.expression.calibration.shifted_share`.
    works_below
        A guide works if it leaves less than this share of its target's expression.
    """
    sections = [
        _screen_section(perturbations, counts or {}),
        _knock_down_section(perturbations, guides, works_below),
        _expression_section(tests, perturbations, fdr, min_log2_fold_change, calibration or {}),
    ]
    if calibration is not None:
        known = guides is not None and len(guides) > 0
        sections.append(
            evidence_section(perturbations, calibration, detectable=detectable, guides_known=known)
        )
    if null_tests is not None:
        sections.append(_null_section(null_tests))
    if truth_check is not None:
        sections.append(_truth_section(truth_check, fdr))
    return sections


def _screen_section(perturbations: pd.DataFrame, counts: Mapping[str, object]) -> Section:
    excluded = perturbations[perturbations["status"] == "excluded"]
    kept = perturbations[perturbations["status"] == "kept"]
    facts = {
        "perturbations in the screen": len(perturbations),
        "perturbations kept": len(kept),
        "perturbations excluded": len(excluded),
        "median number of cells of the kept perturbations": kept["n_cells"].median(),
        "kept perturbations with no DE gene": int(
            (kept["n_up"].fillna(0) + kept["n_down"].fillna(0) == 0).sum()
        ),
        **counts,
    }
    tables = [
        (
            "The screen in numbers",
            pd.DataFrame(
                {"item": list(facts), "number": [_without_point(value) for value in facts.values()]},
                dtype=object,
            ),
            "",
        )
    ]
    if len(excluded):
        listed = excluded.sort_values(["reason", "perturbation"])
        listed = listed[["perturbation", "n_cells", "n_guides", "reason"]].set_axis(
            ["perturbation", "cells", "guides", "reason"], axis=1
        )
        tables.append(("Excluded perturbations", listed, "No labels are made for these."))
    text = (
        "Each perturbation is a gene whose expression was reduced or disrupted in some cells. Its cells are "
        "compared with control cells, gene by gene. Perturbations that do not pass quality control, or that "
        "cannot be tested, are excluded."
    )
    return Section("Screen", text, tables=tables)


def _knock_down_section(
    perturbations: pd.DataFrame, guides: pd.DataFrame | None, works_below: float
) -> Section:
    caption = (
        "Remaining expression of the targets\n"
        "How to read this: 0 means that no transcript of the target is left, 1 (solid line) that there is "
        f"as much as in control cells. Guides at or above {works_below:g} (dashed line) count as not "
        "working. The values of guides with few cells vary widely by chance. A knock-out can destroy a "
        "protein and leave its transcript, so a high value does not prove that a knock-out failed. Values "
        "above 1.5 are drawn at 1.5."
    )
    tables = []
    if guides is not None:
        idle = idle_guides(guides, works_below=works_below)
        listed = idle[["perturbation", "guide", "n_cells", "target_remaining"]].set_axis(
            ["perturbation", "guide", "cells", "remaining expression"], axis=1
        )
        measured_guides = int(guides["target_remaining"].notna().sum())
        notes = f"{len(idle):,} of {measured_guides:,} guides whose target is measured."
        tables.append(("Guides that do not work, worst first", listed.head(MOST_LISTED), notes))
    measured = int(perturbations["target_measured"].astype(bool).sum())
    text = f"{measured:,} of {len(perturbations):,} perturbations have their target among the measured genes."
    figure = knock_down(perturbations, guides, works_below=works_below)
    return Section("Knock-down", text, figures=[(caption, figure)], tables=tables)


def _expression_section(
    tests: pd.DataFrame,
    perturbations: pd.DataFrame,
    fdr: float,
    min_log2_fold_change: float,
    calibration: Mapping[str, float],
) -> Section:
    ranked = most_responsive(perturbations)
    names = ranked["perturbation"].head(MOST_DRAWN).tolist()
    figures = [
        (
            "Perturbations with the most DE genes\n"
            "How to read this: each point is a gene. Genes on the right have higher expression in the "
            "perturbed cells than in control cells, genes on the left lower; the higher the point, the "
            "smaller the p-value. Coloured genes are called DE: their adjusted p-value is below "
            f"{fdr:g} and their log2 fold change is at least {min_log2_fold_change:g}, up or down. A ring "
            "marks the perturbed gene itself, which is not counted. Triangles are genes whose p-value is too "
            "small for the scale.",
            volcano(tests, names, fdr=fdr, min_log2_fold_change=min_log2_fold_change),
        ),
        (
            "Number of DE genes\n"
            "How to read this: orange-red is up, blue is down. If, on the right, the number of DE genes "
            "rises with the number of cells, perturbations with few cells may have effects that were "
            "not detected.",
            de_genes_per_perturbation(perturbations),
        ),
    ]
    kept = ranked.head(MOST_LISTED)
    listed = pd.DataFrame(
        {
            "perturbation": kept["perturbation"],
            "cells": kept["n_cells"],
            "genes up": kept["n_up"].fillna(0).astype(int),
            "genes down": kept["n_down"].fillna(0).astype(int),
            "target, log2 fold change": kept["target_log2_fold_change"],
        }
    )
    table = ("Perturbations with the most DE genes", listed, f"At most {MOST_LISTED} are listed.")
    return Section("Differential expression", _shift_warning(calibration), figures=figures, tables=[table])


def _shift_warning(calibration: Mapping[str, float]) -> str:
    """What to say where the median gene of many perturbations is not where the controls have it."""
    share = calibration.get("perturbations_shifted")
    if share is None or not share > MANY_SHIFTED:
        return ""
    return (
        f"Caution: in {share:.0%} of the perturbations the median of the better measured genes differs from "
        f"the controls by a log2 fold change of {LARGE_SHIFT:g} or more. Such a shift is rather a change in "
        "the size or composition of the libraries than a response of so many genes, and rank-sum tests call "
        "genes that only share it. The test pseudobulk removes it from its p-values."
    )


def _null_section(null_tests: pd.DataFrame) -> Section:
    share = small_p_share(null_tests)
    at_random = null_tests["pert"].astype(str).str.startswith(RANDOM_PART).all()
    held_out = "Control cells were split at random into" if at_random else "Control guides were held out as"
    observed = "none could be computed" if math.isnan(share) else f"here it is {share:.1%}"
    text = (
        f"{held_out} false perturbations and tested like real ones. Nothing was knocked down in them, so 5% "
        f"of the p-values should lie below 0.05; {observed}. A larger share means that the labels hold false "
        "positives. Genes that no cell expresses are left out; rarely detected ones give many p-values of 1, "
        "which does no harm."
    )
    caption = (
        "p-values of false perturbations\n"
        "How to read this: on the left, points on the line are as expected by chance; points above the grey "
        "band are p-values that are too small. On the right, all bars should be near the dashed line; a "
        "higher first bar means too many small p-values."
    )
    return Section("Calibration", text, figures=[(caption, null_calibration(null_tests))])


def _truth_section(truth_check: pd.DataFrame, fdr: float) -> Section:
    text = (
        "This screen is simulated, so it is known which genes each perturbation changes and by how much. The "
        "figures hold under the assumptions of the simulation; a real screen may have others."
    )
    caption = (
        "Power and false discovery rate\n"
        "How to read this: on the left, the share of the truly changed genes that are called DE, small "
        "changes first. On the right, the share of the calls that are false; it should not be far above the "
        "dashed line, the nominal rate."
    )
    return Section("Known truth", text, figures=[(caption, truth_figure(truth_check, fdr=fdr))])


def _without_point(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
