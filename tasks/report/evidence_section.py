"""The report's section on the evidence for the labels: what could be detected, and whether guides agree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.report import drawing
from tasks.report.page import Section
from tasks.report.screen_figures import MOST_NAMED_ROWS

#: Kinds of pairs: column of counts, name, colour.
KINDS = (
    ("n_de", "DE", drawing.VERMILLION),
    ("n_not_de", "not DE, and a change would have been detected", drawing.BLUE),
    ("n_uncertain", "uncertain", drawing.SKY),
    ("n_unmeasured", "not measured well enough", drawing.LIGHT),
)


def evidence_section(
    perturbations: pd.DataFrame, calibration: Mapping[str, float], *, detectable: float, guides_known: bool
) -> Section:
    """What is known of the pairs that were tested, and whether guides agree on the DE calls.

    Parameters
    ----------
    perturbations
        ``perturbation, status, n_up, n_down, n_not_de, n_uncertain, n_unmeasured, guides_compared,
        guide_agreement``.
    calibration
        ``guide_agreement``, ``guide_agreement_pairs``, ``guide_agreement_not_de``: shares over the screen,
        None or NaN where nothing could be compared.
    detectable
        The |log2 fold change| that had to be detectable for a pair to be labelled 0; 0: no such condition.
    guides_known
        Whether the screen says which guide is in which cell.
    """
    kept = perturbations[(perturbations["status"] == "kept") & perturbations["n_not_de"].notna()]
    kept = kept.assign(n_de=kept["n_up"] + kept["n_down"])
    total = {name: int(kept[column].sum()) for column, name, _ in KINDS}
    table = pd.DataFrame(
        {
            "kind of pair": list(total),
            "pairs": list(total.values()),
            "share": [value / max(sum(total.values()), 1) for value in total.values()],
            "label": ["1", "0 (for a random sample)", "none", "none"],
        }
    )
    condition = (
        "A pair that is not DE is labelled 0 only if a change would have been detected: with its number of "
        f"cells and the gene's UMIs, the test finds a log2 fold change of {detectable:g}, up or down, in "
        "four of five cases."
        if detectable
        else "Pairs that are not DE may be labelled 0 even if no change could have been detected "
        "(--detectable 0)."
    )
    text = (
        f"A pair is a perturbation and a gene. {condition} Uncertain pairs are not DE, but their p-value is "
        f"too small for the label 0.\n\n{_guide_sentence(calibration, guides_known)}"
    )
    caption = (
        "Kinds of pairs, and agreement of guides\n"
        "How to read this: on the left, the pairs of each perturbation by kind; for those in grey there are "
        "too few cells or UMIs to say whether the gene changes. On the right, each point is a perturbation: "
        "the share of its DE genes that all its guides change in the same direction. The dashed line is the "
        "same share among pairs that are not DE, which is about what chance gives."
    )
    notes = "The perturbed genes themselves are not counted."
    return Section(
        "Evidence for labels",
        text,
        figures=[(caption, evidence_figure(kept, calibration))],
        tables=[("Pairs tested", table, notes)],
    )


def evidence_figure(kept: pd.DataFrame, calibration: Mapping[str, float]) -> Figure:
    """Kinds of pairs by perturbation, and guide agreement against the number of DE genes."""
    few = len(kept) <= MOST_NAMED_ROWS
    figure, axes = drawing.new_figure(max(3.6, 1.0 + 0.2 * len(kept)) if few else 3.8, columns=2)
    pairs, agreement = axes[0]
    if kept.empty:
        drawing.say(pairs, "no perturbation was kept")
    else:
        (_named_kinds if few else _ranked_kinds)(pairs, kept.sort_values(["n_unmeasured", "perturbation"]))
    _agreement_panel(agreement, kept[kept["guide_agreement"].notna()], calibration)
    return figure


def _named_kinds(ax: Axes, kept: pd.DataFrame) -> None:
    rows, left = np.arange(len(kept)), np.zeros(len(kept))
    for column, name, colour in KINDS:
        ax.barh(rows, kept[column], left=left, height=0.75, color=colour, label=name)
        left += kept[column].to_numpy(np.float64)
    drawing.name_rows(ax, kept["perturbation"].astype(str).tolist())
    drawing.label_axes(ax, x="genes", title="Pairs of each perturbation")
    _legend_below(ax)


def _ranked_kinds(ax: Axes, kept: pd.DataFrame) -> None:
    heights = [kept[column].to_numpy(np.float64) for column, _, _ in KINDS]
    edges = np.vstack([np.zeros(len(kept)), np.cumsum(heights, axis=0)])
    rank = np.arange(1, len(kept) + 1)
    for (_, name, colour), low, high in zip(KINDS, edges[:-1], edges[1:], strict=True):
        look = {"color": colour, "linewidth": 0, "rasterized": len(kept) > drawing.RASTER_POINTS}
        ax.fill_between(rank, low, high, step="mid", label=name, **look)
    ax.set_ylim(0, None)
    x = "perturbations, best measured first"
    drawing.label_axes(ax, x=x, y="genes", title="Pairs of each perturbation")
    _legend_below(ax)


def _legend_below(ax: Axes) -> None:
    drawing.key(ax, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _agreement_panel(ax: Axes, compared: pd.DataFrame, calibration: Mapping[str, float]) -> None:
    if compared.empty:
        drawing.say(ax, "no guides could be compared")
        return
    drawing.points(ax, compared["n_de"], compared["guide_agreement"], color=drawing.BLUE, alpha=0.7, s=18)
    chance = calibration.get("guide_agreement_not_de")
    if chance is not None and not np.isnan(chance):
        ax.axhline(chance, color=drawing.BLACK, linewidth=0.9, linestyle="--")
    drawing.count_axis(ax, "x", compared["n_de"])
    ax.set_ylim(-0.03, 1.05)
    drawing.label_axes(
        ax,
        x="DE genes of the perturbation",
        y="share on which all guides agree",
        title="Do guides agree on DE genes?",
    )


def _guide_sentence(calibration: Mapping[str, float], known: bool) -> str:
    if not known:
        return (
            "Which guide is in which cell is not known (--guide-key names its column), so "
            "whether guides agree cannot be said."
        )
    pairs = calibration.get("guide_agreement_pairs")
    if not pairs:
        return "No perturbation with DE genes has two guides with enough cells, so guides are not compared."
    chance = calibration.get("guide_agreement_not_de")
    against = (
        ""
        if chance is None
        else f", against {chance:.0%} of the pairs that are not DE, about what chance gives"
    )
    return (
        f"In {calibration['guide_agreement']:.0%} of {pairs:,} DE calls all guides of the perturbation "
        f"change the gene in the same direction{against}. A call that rests on a single guide may be "
        "an off-target effect of that guide; guides that do not work lower the share too."
    )
