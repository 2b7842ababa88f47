"""Figures that compare predictors: the leaderboard, AUROC over genes, and the share of positives by score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata
from statsmodels.stats.proportion import proportion_confint

from tasks.report import drawing


def leaderboard_figure(leaderboard: pd.DataFrame, published: Mapping[str, float] | None = None) -> Figure:
    """AUROC of each predictor with its 95% interval, published figures as hollow markers.

    Parameters
    ----------
    leaderboard
        As from :func:`tasks.scoring.intervals.leaderboard`.
    published
        AUROC by method; a method of the same name as a predictor shares its row.
    """
    published = dict(published or {})
    own = leaderboard.set_index("predictor")
    known = published | own["auroc"].to_dict()
    names = sorted(known, key=lambda name: (np.isnan(known[name]), -known[name], name))
    figure, axes = drawing.new_figure(1.3 + 0.3 * len(names))
    ax = axes[0, 0]
    row_of = {name: row for row, name in enumerate(names)}
    rows = [row_of[name] for name in own.index]
    ax.hlines(rows, own["auroc_low"], own["auroc_high"], color=drawing.BLUE, linewidth=2.2)
    ax.scatter(own["auroc"], rows, s=44, color=drawing.BLUE, zorder=3, label="measured here, 95% interval")
    if published:
        ax.scatter(
            list(published.values()),
            [row_of[name] for name in published],
            s=44,
            facecolors="white",
            edgecolors=drawing.VERMILLION,
            linewidths=1.4,
            marker="D",
            zorder=2,
            label="published",
        )
    for name in own.index[own["auroc"].isna()]:
        ax.text(0.505, row_of[name], "no gene with both classes", va="center", fontsize=8, color=drawing.GREY)
    _finish_auroc_axis(ax, names)
    finite = pd.concat([own[["auroc", "auroc_low", "auroc_high"]].stack(), pd.Series(published, dtype=float)])
    ax.set_xlim(min(0.45, finite.min() - 0.02), max(0.65, finite.max() + 0.02))
    drawing.key(figure, loc="outside lower center", ncols=2)
    drawing.label_axes(ax, x="AUROC, mean over genes (0.5 = guessing)")
    return figure


def auroc_distributions(per_gene_by_predictor: Mapping[str, pd.DataFrame]) -> Figure:
    """AUROC of single genes: half of them inside each box, the mean as a diamond.

    Parameters
    ----------
    per_gene_by_predictor
        Tables of :func:`tasks.scoring.metrics.auroc_per_gene` by the predictor's name, in the order shown.
    """
    names = list(per_gene_by_predictor)
    figure, axes = drawing.new_figure(1.1 + 0.55 * len(names))
    ax = axes[0, 0]
    for row, table in enumerate(per_gene_by_predictor.values()):
        auroc = table["auroc"].dropna().sort_values().to_numpy()
        if not len(auroc):
            ax.text(0.505, row, "no gene with both classes", va="center", fontsize=8, color=drawing.GREY)
            continue
        # Multiples of the golden ratio spread evenly: jitter without a random generator.
        jitter = (np.arange(len(auroc)) * 0.6180339887 % 1 - 0.5) * 0.6
        drawing.points(ax, auroc, row + jitter, color=drawing.SKY, alpha=0.5, s=7 if len(auroc) > 100 else 20)
        ax.boxplot(
            auroc,
            orientation="horizontal",
            positions=[row],
            widths=0.34,
            showfliers=False,
            whis=(5, 95),
            medianprops={"color": drawing.BLACK},
            boxprops={"color": drawing.BLACK},
        )
        ax.scatter(auroc.mean(), row, marker="D", s=30, color=drawing.VERMILLION, zorder=4)
    _finish_auroc_axis(ax, names)
    ax.set_xlim(-0.02, 1.02)
    drawing.label_axes(ax, x="AUROC of one gene over its test perturbations (0.5 = guessing)")
    return figure


def reliability(scored_by_predictor: Mapping[str, pd.DataFrame]) -> Figure:
    """Share of positives in each tenth of the scores, one panel a predictor.

    Scores are ranks and not probabilities, so the x axis is the score's quantile. Pairs with equal scores
    stay together: a predictor with few different scores has few bars.

    Parameters
    ----------
    scored_by_predictor
        Scored pairs by the predictor's name, in the order shown.
    """
    rows = -(-len(scored_by_predictor) // 3)
    columns = max(2, -(-len(scored_by_predictor) // rows))
    figure, axes = drawing.new_figure(0.4 + 2.2 * rows, rows=rows, columns=columns, sharex=True, sharey=True)
    for ax, (name, scored) in zip(axes.flat, scored_by_predictor.items(), strict=False):
        tenths = rate_by_score_tenth(scored)
        ax.bar(tenths["centre"], tenths["rate"], width=0.08, color=drawing.SKY)
        ax.vlines(tenths["centre"], tenths["low"], tenths["high"], color=drawing.BLACK, linewidth=0.9)
        ax.axhline(scored["label"].astype(float).mean(), color=drawing.BLACK, linewidth=0.9, linestyle="--")
        drawing.label_axes(
            ax, x="score, from lowest to highest", y="share labelled 1", title=drawing.short_name(name)
        )
        ax.set_xlim(0, 1)
        ax.set_xticks([0.25, 0.5, 0.75], ["25%", "50%", "75%"])
    drawing.finish_grid(axes, len(scored_by_predictor))
    return figure


def rate_by_score_tenth(scored: pd.DataFrame) -> pd.DataFrame:
    """Observed rate of positives by tenth of the score, with 95% Wilson (1927) intervals.

    Returns
    -------
    DataFrame
        ``centre`` (mean quantile of the scores in the bin), ``n``, ``rate``, ``low``, ``high``; bins without
        pairs are absent.
    """
    quantile = (rankdata(scored["score"]) - 0.5) / max(len(scored), 1)
    tenth = np.minimum((quantile * 10).astype(np.int64), 9)
    table = pd.DataFrame({"quantile": quantile, "label": scored["label"].to_numpy(np.float64)})
    bins = table.groupby(tenth).agg(centre=("quantile", "mean"), n=("label", "size"), rate=("label", "mean"))
    low, high = proportion_confint(bins["rate"] * bins["n"], bins["n"], method="wilson")
    return bins.assign(low=low, high=high).reset_index(drop=True)


def _finish_auroc_axis(ax: Axes, names: list[str]) -> None:
    ax.axvline(0.5, color=drawing.BLACK, linewidth=0.9, linestyle="--", zorder=1)
    drawing.name_rows(ax, names)
    ax.grid(axis="x", color=drawing.LIGHT, linewidth=0.5)
