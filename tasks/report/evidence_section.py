"""The report's section on what the labels rest on: pairs that could be seen, and guides that agree."""

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
    ("n_not_de", "not DE, and could have been seen", drawing.BLUE),
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
        The |log2 fold change| a test had to be able to see for a pair to be called not DE; 0: not asked.
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
            "label": ["1", "0 (some are drawn)", "none", "none"],
        }
    )
    asked = (
        f"a log2 fold change of {detectable:g}, up or down, would have been found in four of five cases, "
        "given the number of cells and the gene's UMIs"
        if detectable
        else "whether a change could have been seen was not asked (--detectable 0)"
    )
    text = (
        "A pair is one perturbation and one gene. Without evidence of a change it is labelled 0 only where a "
        f"change would have shown: {asked}. Uncertain pairs have a small p-value that is not small enough."
        f"\n\n{_guide_sentence(calibration, guides_known)}"
    )
    caption = (
        "What is known of each perturbation's pairs, and whether its guides agree\n"
        "How to read this: on the left, the more grey, the less the screen can say of the genes that did "
        "not change: too few cells, or too few UMIs. On the right, each point is a perturbation: the share "
        "of its DE genes that all its guides move the same way. The dashed line is that share among pairs "
        "that were not called DE, which is what chance gives."
    )
    notes = "The perturbed genes themselves are not counted."
    return Section(
        "Evidence behind labels",
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
            "Which guide is in which cell is not known (--guide-key names its column), so nothing can be "
            "said of whether guides agree."
        )
    pairs = calibration.get("guide_agreement_pairs")
    if not pairs:
        return "No perturbation with DE genes has two guides with enough cells, so none could be compared."
    chance = calibration.get("guide_agreement_not_de")
    against = (
        "" if chance is None else f"; among pairs not called DE on {chance:.0%}, about what chance gives"
    )
    return (
        f"On {calibration['guide_agreement']:.0%} of {pairs:,} DE calls all guides of the perturbation move "
        f"the gene the same way{against}. A call that rests on one guide alone may be an effect of that "
        "guide and not of its target; guides that do not work lower the share too."
    )
