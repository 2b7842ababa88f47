"""Figures of a screen: volcano plots, DE genes of each perturbation, and how well the knock-down worked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tasks.expression.calibration import called, is_target
from tasks.report import drawing

MOST_NAMED_ROWS = 40
# -log10 p above this is drawn at this height: beyond it, differences do not matter.
HIGHEST = 50.0
# A panel with more genes is drawn as pixels: a page holds several.
RASTER_GENES = 300


def volcano(
    tests: pd.DataFrame,
    perturbations: Sequence[str],
    *,
    fdr: float,
    min_log2_fold_change: float,
    named_genes: int = 6,
) -> Figure:
    """Fold change against p-value, one panel for each of a few perturbations.

    Parameters
    ----------
    tests
        The DE tests: ``pert``, ``gene``, ``log2_fold_change``, ``p_value``, ``p_adj``, ``log10_p_value``.
    perturbations
        Those to show.
    fdr, min_log2_fold_change
        What makes a gene DE, as for `tasks.expression.calibration.called`.
    named_genes
        Strongest genes to name in each direction.
    """
    rule = {"fdr": fdr, "min_log2_fold_change": min_log2_fold_change}
    shown = tests[tests["pert"].isin(list(perturbations)) & tests["p_value"].notna()]
    if shown.empty:
        figure, axes = drawing.new_figure(1.5)
        drawing.say(axes[0, 0], "no tests to show")
        return figure
    height = np.minimum(-shown["log10_p_value"].to_numpy(np.float64), HIGHEST)
    shown = shown.assign(height=height, called=called(shown, **rule))
    fold_change = shown["log2_fold_change"].to_numpy(np.float64)
    widest = float(np.clip(np.abs(fold_change).max(), 0.5, 6.0)) * 1.05
    shown["place"] = np.clip(fold_change, -widest, widest)

    columns = min(3, len(perturbations))
    rows = -(-len(perturbations) // columns)
    figure, axes = drawing.new_figure(0.5 + 2.9 * rows, rows=rows, columns=columns, sharex=True, sharey=True)
    top = float(max(shown["height"].max(), 2.0))
    for ax, perturbation in zip(axes.flat, perturbations, strict=False):
        own = shown[shown["pert"] == perturbation]
        _volcano_panel(ax, own)
        _name_genes(ax, own, most=named_genes, top=top, widest=widest)
        ax.set_xlim(-1.6 * widest, 1.6 * widest)
        ax.set_ylim(-0.03 * top, 1.08 * top)
    drawing.finish_grid(axes, len(perturbations))
    return figure


def _volcano_panel(ax: Axes, tests: pd.DataFrame) -> None:
    up = tests["called"] & (tests["log2_fold_change"] > 0)
    down = tests["called"] & ~up
    kinds = [(~(up | down), drawing.LIGHT), (up, drawing.VERMILLION), (down, drawing.BLUE)]
    for chosen, colour in kinds:
        kind = tests[chosen]
        capped = kind["height"] >= HIGHEST
        look = {"color": colour, "rasterized": len(tests) > RASTER_GENES}
        drawing.points(ax, kind["place"][~capped], kind["height"][~capped], **look)
        drawing.points(ax, kind["place"][capped], kind["height"][capped], marker="^", s=22, **look)
    name = str(tests["pert"].iloc[0]) if len(tests) else ""
    target = is_target(tests["gene"], tests["pert"])
    own = tests[target]
    ax.scatter(own["place"], own["height"], s=46, facecolors="none", edgecolors=drawing.BLACK, linewidths=1)
    ax.axvline(0, color=drawing.GREY, linewidth=0.6)
    n_up, n_down = int((up & ~target).sum()), int((down & ~target).sum())
    drawing.label_axes(
        ax,
        x="log₂ fold change against control",
        y="−log₁₀ p",
        title=f"{drawing.short_name(name, 22)}: {n_up} up, {n_down} down",
    )


def _name_genes(ax: Axes, tests: pd.DataFrame, *, most: int, top: float, widest: float) -> None:
    """Write gene names outwards of their points, each lower than the one before."""
    named = tests[tests["called"]]
    gap = 0.062 * top
    for sign in (1, -1):
        side = named[np.sign(named["log2_fold_change"]) == sign]
        side = side.assign(size=side["log2_fold_change"].abs())
        side = side.sort_values(["height", "size", "gene"], ascending=[False, False, True]).head(most)
        heights = _spread(side["height"].to_numpy(np.float64), gap)
        for gene, x, y, text_y in zip(side["gene"], side["place"], side["height"], heights, strict=True):
            text_x = x + sign * 0.12 * widest
            ax.plot([x, text_x], [y, text_y], linewidth=0.4, color=drawing.GREY, zorder=1)
            ax.text(
                text_x,
                text_y,
                drawing.short_name(gene, 12),
                ha="left" if sign > 0 else "right",
                va="center",
                fontsize=7,
                color=drawing.BLACK,
                parse_math=False,
            )


def _spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """Move falling heights down, and back up from the floor, until all are ``gap`` apart."""
    spread = heights.copy()
    for place in range(1, len(spread)):
        spread[place] = min(spread[place], spread[place - 1] - gap)
    floor = 0.3 * gap
    for place in range(len(spread) - 1, -1, -1):
        spread[place] = max(spread[place], floor)
        floor = spread[place] + gap
    return spread


def most_responsive(perturbations: pd.DataFrame) -> pd.DataFrame:
    """Kept perturbations with their number of DE genes, ``n_de``, most first."""
    kept = perturbations[perturbations["status"] == "kept"]
    kept = kept.assign(n_de=kept["n_up"].fillna(0) + kept["n_down"].fillna(0))
    return kept.sort_values(["n_de", "perturbation"], ascending=[False, True])


def de_genes_per_perturbation(perturbations: pd.DataFrame) -> Figure:
    """Genes up and down for each kept perturbation, and their number against the number of cells.

    Parameters
    ----------
    perturbations
        ``perturbation``, ``n_cells``, ``status`` ('kept' or 'excluded'), ``n_up``, ``n_down``.
    """
    kept = most_responsive(perturbations)
    few = len(kept) <= MOST_NAMED_ROWS
    figure, axes = drawing.new_figure(max(3.4, 0.6 + 0.2 * len(kept)) if few else 3.6, columns=2)
    bars, scatter = axes[0]
    if kept.empty:
        drawing.say(bars, "no perturbation was kept")
        drawing.say(scatter, "no perturbation was kept")
        return figure
    (_named_bars if few else _ranked_bars)(bars, kept)
    drawing.points(scatter, kept["n_cells"], kept["n_de"], color=drawing.BLUE, alpha=0.7, s=28 if few else 14)
    drawing.count_axis(scatter, "x", kept["n_cells"])
    drawing.count_axis(scatter, "y", kept["n_de"])
    drawing.label_axes(
        scatter,
        x="cells of the perturbation",
        y="differentially expressed genes",
        title="DE genes and number of cells",
    )
    return figure


def _named_bars(ax: Axes, kept: pd.DataFrame) -> None:
    rows = np.arange(len(kept))
    ax.barh(rows, kept["n_up"], color=drawing.VERMILLION, height=0.7, label="up")
    ax.barh(
        rows, -kept["n_down"], color=drawing.BLUE, height=0.7, label="down", hatch="///", edgecolor="white"
    )
    drawing.name_rows(ax, kept["perturbation"].astype(str).tolist())
    _signed_counts(ax, "x")
    drawing.label_axes(ax, x="genes down (left) and up (right)", title="DE genes of each perturbation")


def _ranked_bars(ax: Axes, kept: pd.DataFrame) -> None:
    rank = np.arange(1, len(kept) + 1)
    look = {"linewidth": 0, "rasterized": len(kept) > drawing.RASTER_POINTS}
    ax.fill_between(rank, 0, kept["n_up"], step="mid", color=drawing.VERMILLION, label="up", **look)
    ax.fill_between(rank, 0, -kept["n_down"], step="mid", color=drawing.BLUE, label="down", **look)
    _signed_counts(ax, "y")
    none = int((kept["n_de"] == 0).sum())
    drawing.label_axes(
        ax,
        x=f"perturbations, most DE genes first ({none:,} of {len(kept):,} have none)",
        y="genes down (below 0) and up",
        title="DE genes of each perturbation",
    )


def _signed_counts(ax: Axes, axis: str) -> None:
    chosen = getattr(ax, f"{axis}axis")
    chosen.set_major_locator(MaxNLocator(integer=True))
    chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):,.0f}"))
    (ax.axvline if axis == "x" else ax.axhline)(0, color=drawing.BLACK, linewidth=0.8)
    drawing.key(ax, loc="lower right" if axis == "x" else "upper right")
