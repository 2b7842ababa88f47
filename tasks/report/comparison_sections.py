"""The report's sections on one task: the leaderboard, and what lies behind it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tasks.report.page import NOTHING, Section, format_value
from tasks.report.predictor_figures import auroc_distributions, leaderboard_figure, reliability
from tasks.scoring.task_names import QUESTIONS, TASK_HEADINGS

MOST_GENES = 20
#: Published methods that each predictor is held against in a table.
HELD_AGAINST = ("SUMMER", "Retrieval (no LLM)")


def comparison_sections(
    task: str,
    leaderboard: pd.DataFrame,
    *,
    scored_by_predictor: Mapping[str, pd.DataFrame],
    per_gene: Mapping[str, pd.DataFrame],
    published: Mapping[str, float] | None = None,
    name: str = "",
) -> list[Section]:
    """Two sections for one task: the scores, and the genes and scores behind them.

    Parameters
    ----------
    task
        'de' or 'dir'.
    leaderboard
        As from :func:`tasks.scoring.intervals.leaderboard`.
    scored_by_predictor
        Scored pairs by the predictor's name.
    per_gene
        Tables of :func:`tasks.scoring.metrics.auroc_per_gene` by the predictor's name.
    published
        Published AUROC by method, for the same data set and task.
    name
        What was scored, for example a cell line; stands in the titles, and is needed where one report has
        several.

    Raises
    ------
    ValueError
        If ``task`` is neither.
    """
    if task not in QUESTIONS:
        raise ValueError(f"task must be one of {', '.join(QUESTIONS)}; found {task!r}")
    title = ", ".join(part for part in (name, TASK_HEADINGS[task]) if part)
    order = [predictor for predictor in leaderboard["predictor"] if predictor in scored_by_predictor]
    return [
        _scores_section(title, task, leaderboard, published),
        _behind_section(
            title,
            {predictor: scored_by_predictor[predictor] for predictor in order},
            {predictor: per_gene[predictor] for predictor in order if predictor in per_gene},
        ),
    ]


def leaderboard_table(leaderboard: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard as shown to a reader, intervals in words."""
    low_high = _interval(leaderboard, "auroc_low", "auroc_high")
    behind = _interval(leaderboard, "difference_to_best_low", "difference_to_best_high")
    behind[0] = NOTHING
    table = pd.DataFrame(
        {
            "predictor": leaderboard["predictor"],
            "AUROC": leaderboard["auroc"],
            "95% interval": low_high,
            "best minus this": leaderboard["difference_to_best"],
            "95% interval of the difference": behind,
            "pooled AUROC": leaderboard["pooled_auroc"],
            "pooled AUPRC": leaderboard["pooled_auprc"],
            "genes": leaderboard["n_genes"],
        }
    )
    if (leaderboard["n_fits"] > 1).any():
        table.insert(3, "fits", leaderboard["n_fits"])
        table.insert(4, "sd over fits", leaderboard["auroc_fits_sd"])
    return table


def published_table(leaderboard: pd.DataFrame, published: Mapping[str, float]) -> pd.DataFrame:
    """How far each predictor is above the methods of `HELD_AGAINST`, with the interval of its own figure."""
    table = leaderboard[["predictor"]].copy()
    for method in (name for name in HELD_AGAINST if name in published):
        gain = leaderboard[["auroc", "auroc_low", "auroc_high"]] - published[method]
        table[f"minus {method} ({published[method]:.2f})"] = gain["auroc"]
        table[f"interval, {method}"] = _interval(gain, "auroc_low", "auroc_high")
    return table


def _scores_section(
    title: str, task: str, leaderboard: pd.DataFrame, published: Mapping[str, float] | None
) -> Section:
    first = leaderboard.iloc[0]
    text = (
        f"The question: {QUESTIONS[task]} It is asked of {first.n_pairs:,} pairs of "
        f"{first.n_perturbations:,} test perturbations, whose labels were not used in training.\n\n"
        "AUROC is the probability that a pair labelled 1 gets a higher score than a pair labelled 0: 0.5 is "
        "guessing, 1 is perfect. It is computed for each gene over its perturbations and averaged over "
        "genes, so that knowing which genes respond to most perturbations does not raise it. "
        f"{first.n_genes:,} genes are averaged; {first.n_genes_dropped:,} genes have only one kind of label "
        "among their test pairs and are left out."
    )
    hollow = " Hollow diamonds are published figures for the same data set." if published else ""
    caption = (
        "Leaderboard\n"
        "How to read this: dots are scores, bars their 95% intervals, which show how much a score depends on "
        f"the choice of test perturbations.{hollow} The dashed line is guessing."
    )
    notes = (
        "Intervals come from resampling whole perturbations; they do not include the randomness of training. "
        "'Best minus this' uses the same resamples for both predictors: if its interval does not include 0, "
        "the difference is unlikely to come from the choice of test perturbations. Pooled figures are over "
        "all pairs together; there, knowing which genes respond to most perturbations does raise the score."
    )
    tables = [("Scores, best first", leaderboard_table(leaderboard), notes)]
    if published and set(HELD_AGAINST) & set(published):
        notes = (
            "The intervals are those of the figures measured here; published figures come without intervals."
        )
        tables.append(("Against published figures", published_table(leaderboard, published), notes))
    return Section(
        f"{title}: scores",
        text,
        figures=[(caption, leaderboard_figure(leaderboard, published))],
        tables=tables,
    )


def _behind_section(
    title: str, scored_by_predictor: Mapping[str, pd.DataFrame], per_gene: Mapping[str, pd.DataFrame]
) -> Section:
    figures = []
    if per_gene:
        caption = (
            "AUROC over genes\n"
            "How to read this: each small dot is a gene, the box holds the middle half of them, the line in "
            "it is the median, the whiskers reach from 5% to 95%, the diamond is the mean (the score). Genes "
            "with few perturbations can have few values only, often 0 or 1."
        )
        figures.append((caption, auroc_distributions(per_gene)))
    if scored_by_predictor:
        caption = (
            "Share of pairs labelled 1, by score\n"
            "How to read this: pairs are sorted by score and divided into ten groups of equal size; a bar is "
            "the share of a group's pairs that are labelled 1, with its 95% interval. Bars should rise from "
            "left to right. The dashed line is the share over all pairs. Scores are not probabilities. Equal "
            "scores are in the same group, so a predictor with two different scores has two bars."
        )
        figures.append((caption, reliability(scored_by_predictor)))
    tables = [_gene_table(per_gene)] if per_gene else []
    return Section(f"{title}: in detail", figures=figures, tables=tables)


def _gene_table(per_gene: Mapping[str, pd.DataFrame]) -> tuple[str, pd.DataFrame, str]:
    """The genes with the most pairs of their rarer label: the AUROC of these is the most precise."""
    first = next(iter(per_gene.values()))
    genes = first[["gene", "n_positive", "n_negative"]]
    rarer = genes[["n_positive", "n_negative"]].min(axis=1)
    genes = genes.assign(rarer=rarer).query("rarer > 0")
    genes = genes.sort_values(["rarer", "gene"], ascending=[False, True]).head(MOST_GENES)
    table = genes[["gene", "n_positive", "n_negative"]].set_axis(
        ["gene", "pairs labelled 1", "pairs labelled 0"], axis=1
    )
    for predictor, scores in per_gene.items():
        auroc = scores.set_index("gene")["auroc"].reindex(genes["gene"]).to_numpy()
        table.insert(table.shape[1], predictor, auroc, allow_duplicates=True)
    notes = "The genes with the most pairs of their rarer label: the AUROC of these is the most precise."
    return "AUROC of single genes", table, notes


def _interval(leaderboard: pd.DataFrame, low: str, high: str) -> list[str]:
    pairs = zip(leaderboard[low], leaderboard[high], strict=True)
    return [NOTHING if np.isnan(a) else f"{format_value(a)}\u00a0to\u00a0{format_value(b)}" for a, b in pairs]
