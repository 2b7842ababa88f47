"""The report's section in which several tests of one screen stand side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.report import drawing
from tasks.report.calibration_figures import quantile_panel
from tasks.report.page import Section

#: Colour and marker of each test; told apart by shape too.
LOOKS = {
    "wilcoxon": (drawing.BLUE, "o"),
    "stratified": (drawing.VERMILLION, "s"),
    "pseudobulk": (drawing.GREEN, "^"),
}
SHARES = {"null_share_p_below_05", "realised_fdr", "power"}
ASSUMPTIONS = {
    "wilcoxon": "cells are independent; batches are spread alike over perturbation and controls; library "
    "sizes are not changed by the response",
    "stratified": "cells are independent within a batch; library sizes are not changed by the response",
    "pseudobulk": "batches (glm: profiles of guide and batch) are independent; most genes do not respond",
}


def side_by_side_section(
    summary: pd.DataFrame,
    agreement: pd.DataFrame,
    quantiles: pd.DataFrame | None,
    *,
    chosen: str,
    impossible: Mapping[str, str] | None = None,
) -> Section:
    """Tests of the same screen: how much each calls, where nothing changes too, and what they share.

    Parameters
    ----------
    summary
        One row a test: ``test, model`` (of pseudobulk), ``perturbations, tests, de_calls`` and, where there
        are false perturbations,
        ``null_perturbations, null_tests, null_share_p_below_05, null_de_calls``, on a simulated screen
        ``realised_fdr, power``.
    agreement
        ``test, other, n_both, n_called, n_shared, share``.
    quantiles
        ``test, rank, n, minus_log10_p`` of false perturbations; None without any.
    chosen
        The test that labels come from.
    impossible
        Tests that could be done on no perturbation, with the reason.
    """
    text = (
        f"The same cells were compared by {_number(len(summary))}. The labels come from {chosen}. A "
        "reliable test makes almost no calls among false perturbations, which are made of control cells"
        + (
            ", and its realised false discovery rate is near the nominal rate or below."
            if "realised_fdr" in summary
            else "; among reliable tests, the one with the most calls has the most power."
        )
    )
    caption = (
        "p-values of false perturbations, and calls in common\n"
        "How to read this: on the left, points on the line are as expected by chance, points above it are "
        "p-values that are too small; the band should hold 95% of the points of the test with the most "
        "p-values. On the right, each square is the share of the calls of the row's test that the column's "
        "test makes too."
    )
    shown = _agreement_table(agreement)
    assumed = summary["test"].map(ASSUMPTIONS).to_numpy()
    tables = [
        ("Tests side by side", _summary_table(summary, chosen), _notes(summary)),
        ("Calls shared", shown, "Among the pairs of perturbation and gene that both tests have tested."),
        ("Assumptions", pd.DataFrame({"test": summary["test"], "assumption": assumed}), ""),
    ]
    if impossible:
        listed = pd.DataFrame({"test": list(impossible), "reason": list(impossible.values())})
        tables.insert(0, ("Tests that cannot be done on this screen", listed, ""))
    figure = side_by_side_figure(summary["test"].tolist(), agreement, quantiles)
    return Section("Tests side by side", text, figures=[(caption, figure)], tables=tables)


def side_by_side_figure(tests: list[str], agreement: pd.DataFrame, quantiles: pd.DataFrame | None) -> Figure:
    """QQ curves of all tests' p-values where nothing changes, and the shares of calls they have in common."""
    figure, axes = drawing.new_figure(4.0, columns=2, gridspec_kw={"width_ratios": [1.25, 1]})
    if quantiles is None or quantiles.empty:
        drawing.say(axes[0, 0], "no false perturbations were tested")
    else:
        looks = {test: LOOKS[test] for test in tests}
        quantile_panel(axes[0, 0], quantiles, looks, title="Tests of false perturbations")
    _shares(axes[0, 1], tests, agreement)
    return figure


def _shares(ax: Axes, tests: list[str], agreement: pd.DataFrame) -> None:
    share = agreement.pivot(index="test", columns="other", values="share").reindex(index=tests, columns=tests)
    values = share.to_numpy(np.float64)
    ax.imshow(np.nan_to_num(values), cmap="Blues", vmin=0, vmax=1.9, aspect="auto")
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        text = "" if row == column else "no calls" if np.isnan(value) else f"{value:.0%}"
        ax.text(column, row, text, ha="center", va="center", fontsize=9, color=drawing.BLACK)
    ax.spines[:].set_visible(False)
    ax.set_xticks(range(len(tests)), tests, fontsize=8)
    ax.set_yticks(range(len(tests)), tests, fontsize=8)
    ax.tick_params(length=0)
    drawing.label_axes(
        ax, x="… made by this test too", y="share of the calls of this test …", title="Calls in common"
    )


def _summary_table(summary: pd.DataFrame, chosen: str) -> pd.DataFrame:
    """A column a test: there are few of them and many figures."""
    names = {
        "perturbations": "perturbations tested",
        "tests": "pairs tested",
        "de_calls": "DE calls",
        "null_perturbations": "false perturbations",
        "null_tests": "pairs of false perturbations tested",
        "null_share_p_below_05": "of these with p < 0.05 (5% expected)",
        "null_de_calls": "of these called DE, all false",
        "realised_fdr": "realised false discovery rate",
        "power": "power: share of planted effects called DE",
    }
    shown = [column for column in names if column in summary]
    table = pd.DataFrame({"figure": [names[column] for column in shown]})
    for row in summary.to_dict("records"):
        title = row["test"] + (f", {row['model']}" if row["model"] else "")
        title += " (gives the labels)" if row["test"] == chosen else ""
        table[title] = [_share(row[c]) if c in SHARES else _count(row[c]) for c in shown]
    return table


def _agreement_table(agreement: pd.DataFrame) -> pd.DataFrame:
    """Each pair of tests once."""
    once = agreement[agreement["test"] < agreement["other"]]
    back = agreement.set_index(["other", "test"])["n_called"]
    theirs = [back[pair] for pair in zip(once["test"], once["other"], strict=True)]
    union = once["n_called"].to_numpy() + np.array(theirs, np.int64) - once["n_shared"].to_numpy()
    return pd.DataFrame(
        {
            "tests": [f"{a} and {b}" for a, b in zip(once["test"], once["other"], strict=True)],
            "pairs tested by both": once["n_both"].to_numpy(),
            "called by the first": once["n_called"].to_numpy(),
            "called by the second": theirs,
            "called by both": once["n_shared"].to_numpy(),
            "share of all calls": [
                _share(both / any_) if any_ else "-"
                for both, any_ in zip(once["n_shared"], union, strict=True)
            ],
        }
    )


def _notes(summary: pd.DataFrame) -> str:
    notes = "Pairs excluded by a filter or by the requirements of a test are not counted among its tests."
    if "power" in summary:
        notes += (
            " Power is the share of all planted effects in the perturbations tested, also of those on "
            "genes that were not tested."
        )
    return notes


def _share(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.1%}"


def _count(value: float) -> str:
    return "-" if pd.isna(value) else f"{int(value):,}"


def _number(n: int) -> str:
    return "one test" if n == 1 else f"{ {2: 'two', 3: 'three'}.get(n, str(n)) } tests"
