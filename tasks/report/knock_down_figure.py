"""Figure of the knock-down: what is left of each target, and the guides that do not work."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.report import drawing
from tasks.report.screen_figures import MOST_NAMED_ROWS

MOST_REMAINING = 1.5


def knock_down(
    perturbations: pd.DataFrame, guides: pd.DataFrame | None = None, *, works_below: float = 0.7
) -> Figure:
    """Remaining expression of each target, and of each guide's target against its number of cells.

    Parameters
    ----------
    perturbations
        ``perturbation``, ``target_measured`` and ``target_remaining``: the target's mean in the perturbed
        cells as a share of its mean in control cells.
    guides
        ``perturbation``, ``guide``, ``n_cells``, ``target_remaining``; without it the second panel is left
        out.
    works_below
        A guide works if it leaves less than this share.
    """
    measured = perturbations[perturbations["target_remaining"].notna()]
    measured = measured.assign(name=measured["perturbation"].astype(str))
    measured = measured.sort_values(["target_remaining", "name"])
    few = len(measured) <= MOST_NAMED_ROWS
    height = max(3.4, 0.6 + 0.2 * len(measured)) if few else 3.6
    figure, axes = drawing.new_figure(height, columns=1 if guides is None else 2)
    targets = axes[0, 0]
    if measured.empty:
        drawing.say(targets, "no target is among the measured genes")
    elif few:
        _named_targets(targets, measured, guides, works_below=works_below)
    else:
        _target_histogram(targets, measured, works_below=works_below)
    if guides is not None:
        _guide_cells(axes[0, 1], guides, works_below=works_below)
    return figure


def idle_guides(guides: pd.DataFrame, *, works_below: float = 0.7) -> pd.DataFrame:
    """The guides that leave ``works_below`` or more of their target's expression, worst first."""
    idle = guides[guides["target_remaining"] >= works_below]
    return idle.sort_values(["target_remaining", "guide"], ascending=[False, True])


def _named_targets(
    ax: Axes, measured: pd.DataFrame, guides: pd.DataFrame | None, *, works_below: float
) -> None:
    names = list(measured["name"])
    if guides is not None:
        row_of = {name: row for row, name in enumerate(names)}
        shown = guides[guides["target_remaining"].notna()]
        shown = shown.assign(row=shown["perturbation"].astype(str).map(row_of)).dropna(subset="row")
        ax.scatter(
            shown["target_remaining"].clip(upper=MOST_REMAINING),
            shown["row"],
            s=20,
            facecolors="none",
            edgecolors=drawing.SKY,
            label="single guide",
        )
    ax.scatter(
        measured["target_remaining"].clip(upper=MOST_REMAINING),
        np.arange(len(names)),
        s=30,
        color=drawing.BLUE,
        label="all cells of the perturbation",
    )
    drawing.name_rows(ax, names)
    ax.grid(axis="y", color=drawing.LIGHT, linewidth=0.5)
    _mark_shares(ax, works_below, ax.axvline)
    ax.set_xlim(-0.03, MOST_REMAINING + 0.05)
    drawing.key(ax, loc="best")
    drawing.label_axes(ax, x="remaining expression (1 = as in control cells)", title="Targets")


def _target_histogram(ax: Axes, measured: pd.DataFrame, *, works_below: float) -> None:
    remaining = measured["target_remaining"].clip(upper=MOST_REMAINING)
    ax.hist(remaining, bins=np.linspace(0, MOST_REMAINING, 46), color=drawing.BLUE)
    _mark_shares(ax, works_below, ax.axvline)
    share = float((measured["target_remaining"] < works_below).mean())
    drawing.label_axes(
        ax,
        x="remaining expression of the target (1 = as in control cells)",
        y="perturbations",
        title=f"{share:.0%} of {len(measured):,} measured targets below {works_below:g}; "
        f"median {measured['target_remaining'].median():.2f}",
    )


def _guide_cells(ax: Axes, guides: pd.DataFrame, *, works_below: float) -> None:
    shown = guides[guides["target_remaining"].notna()]
    if shown.empty:
        drawing.say(ax, "no guide with a measured target")
        return
    idle = shown["target_remaining"] >= works_below
    for chosen, colour, marker, label in (
        (~idle, drawing.GREEN, "o", "works"),
        (idle, drawing.VERMILLION, "^", "does not work"),
    ):
        remaining = shown["target_remaining"][chosen].clip(upper=MOST_REMAINING)
        drawing.points(
            ax,
            shown["n_cells"][chosen],
            remaining,
            color=colour,
            marker=marker,
            s=16,
            alpha=0.65,
            label=f"{label} ({int(chosen.sum()):,})",
        )
    drawing.count_axis(ax, "x", shown["n_cells"])
    ax.set_ylim(-0.03, MOST_REMAINING + 0.3)
    _mark_shares(ax, works_below, ax.axhline)
    drawing.key(ax, loc="upper right", ncols=2)
    drawing.label_axes(
        ax,
        x="cells with the guide",
        y="remaining expression of the target",
        title="Guides",
    )


def _mark_shares(ax: Axes, works_below: float, line) -> None:
    line(1.0, color=drawing.BLACK, linewidth=0.8)
    line(works_below, color=drawing.BLACK, linewidth=0.8, linestyle="--")
