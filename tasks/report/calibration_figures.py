"""Figures of the tests' calibration: p-values of false perturbations, and the truth of a simulated screen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import beta

from tasks.expression.calibration import expressed_tests, small_p_share
from tasks.expression.side_by_side import null_quantiles
from tasks.report import drawing

#: What the tests of false perturbations are called where there is one kind.
NULL = "null tests"


def null_calibration(null_tests: pd.DataFrame) -> Figure:
    """QQ plot and histogram of p-values from false perturbations made of control cells.

    Parameters
    ----------
    null_tests
        DE tests in which no gene is truly changed; genes that no cell expresses are left out.

    Notes
    -----
    The band holds 95% of each ordered p-value of n independent tests: the i-th smallest follows
    Beta(i, n - i + 1). Genes are not independent, so real screens leave it a little more often.
    """
    tests = expressed_tests(null_tests)
    figure, axes = drawing.new_figure(3.8, columns=2)
    if tests.empty:
        for ax in axes[0]:
            drawing.say(ax, "no null tests")
        return figure
    quantile_panel(
        axes[0, 0],
        null_quantiles(tests).assign(test=NULL),
        {NULL: (drawing.BLUE, "o")},
        title=f"{len(tests):,} tests of false perturbations",
    )
    _histogram(axes[0, 1], tests)
    return figure


def quantile_panel(
    ax: Axes, quantiles: pd.DataFrame, looks: Mapping[str, tuple[str, str]], *, title: str
) -> None:
    """Observed against expected -log10 p of one or several tests, with the 95% band of the largest.

    Parameters
    ----------
    quantiles
        ``test, rank, n, minus_log10_p``, as from `tasks.expression.side_by_side.null_quantiles`.
    looks
        Colour and marker by test, in the order drawn; a test without quantiles is left out.
    """
    largest = quantiles[quantiles["test"] == quantiles["test"].iloc[quantiles["n"].argmax()]]
    rank, n = largest["rank"].to_numpy(), int(largest["n"].iloc[0])
    expected = -np.log10((rank - 0.5) / n)
    low, high = (-np.log10(beta.ppf(q, rank, n - rank + 1)) for q in (0.975, 0.025))
    ax.fill_between(expected, low, high, color=drawing.LIGHT, linewidth=0, label="95% band")
    ax.plot([0, expected[0]], [0, expected[0]], color=drawing.BLACK, linewidth=0.9, label="as expected")
    highest = max(1.15 * float(high[0]), 1.5 * float(expected[0]))
    for test, (colour, marker) in looks.items():
        rows = quantiles[quantiles["test"] == test]
        if len(rows):
            x = -np.log10((rows["rank"] - 0.5) / rows["n"])
            shown = np.minimum(rows["minus_log10_p"], highest)
            drawing.points(ax, x, shown, color=colour, marker=marker, s=12, alpha=0.8, label=test)
    ax.set_ylim(-0.1, 1.04 * highest)
    drawing.key(ax, loc="upper left")
    drawing.label_axes(ax, x="expected −log₁₀ p", y="observed −log₁₀ p", title=title)


def _histogram(ax: Axes, tests: pd.DataFrame) -> None:
    p_value, bins = tests["p_value"].to_numpy(np.float64), np.linspace(0, 1, 21)
    share = np.histogram(p_value, bins)[0] / len(p_value)
    ax.bar(bins[:-1], share, width=0.05, align="edge", color=drawing.SKY, edgecolor="white", linewidth=0.5)
    ax.axhline(0.05, color=drawing.BLACK, linewidth=0.9, linestyle="--")
    ax.set_xlim(0, 1)
    drawing.label_axes(
        ax,
        x="p-value",
        y="share of the tests",
        title=f"{small_p_share(tests):.1%} have p < 0.05 (5% expected)",
    )


def truth_figure(truth_check: pd.DataFrame, *, fdr: float) -> Figure:
    """Power and false discovery rate where the truth is known.

    Parameters
    ----------
    truth_check
        ``group`` ('all', or bins of the true absolute log2 fold change such as '0.25-0.5'), ``n_true``,
        ``n_called``, ``false_discovery_rate``, ``power``; rates may be NaN.
    fdr
        The adjusted p-value below which genes were called: the false discovery rate to be kept.
    """
    figure, axes = drawing.new_figure(3.4, columns=2, gridspec_kw={"width_ratios": [1.6, 1]})
    power, false = axes[0]
    _rate_bars(power, truth_check, "power", count="n_true", colour=drawing.GREEN)
    drawing.label_axes(
        power,
        x="true |log₂ fold change|",
        y="share called DE (power)",
        title="Truly changed genes that are called DE",
    )
    power.set_ylim(0, 1.12)
    _rate_bars(false, truth_check, "false_discovery_rate", count="n_called", colour=drawing.VERMILLION)
    false.axhline(fdr, color=drawing.BLACK, linewidth=0.9, linestyle="--")
    highest = truth_check["false_discovery_rate"].max()
    false.set_ylim(0, max(2.4 * fdr, 1.2 * (0.0 if np.isnan(highest) else highest)))
    drawing.label_axes(
        false,
        x="calls",
        y="false discovery rate",
        title=f"False calls (nominal: {100 * fdr:.3g}%)",
    )
    return figure


def _rate_bars(ax: Axes, truth_check: pd.DataFrame, column: str, *, count: str, colour: str) -> None:
    shown = truth_check[truth_check[column].notna()]
    if shown.empty:
        drawing.say(ax, "nothing to count")
        return
    places = np.arange(len(shown))
    ax.bar(places, shown[column], width=0.65, color=colour)
    for place, value, n in zip(places, shown[column], shown[count], strict=True):
        ax.annotate(
            f"{value:.2f}\nn = {n:,.0f}",
            (place, value),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=7,
            color=drawing.BLACK,
        )
    # Few bars keep the width they have among many.
    spare = max(0.0, 3 - len(shown)) / 2
    ax.set_xlim(-0.6 - spare, len(shown) - 0.4 + spare)
    ax.set_xticks(places, [drawing.short_name(group, 14) for group in shown["group"]])
