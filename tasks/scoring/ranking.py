"""The area under the ROC curve of every gene at once, with a weight for each perturbation.

One kernel serves the score itself (all weights 1) and the bootstrap (weights = how often a perturbation was
drawn), so that the two can never disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from storage.errors import InputError

SCORED_COLUMNS = ("pert", "gene", "label", "score")


@dataclass(frozen=True)
class RankedPairs:
    """Scored pairs sorted by gene and score, with the bounds that the AUROC kernel needs.

    Attributes
    ----------
    genes
        Names of the genes, sorted, shape (genes,).
    n_perturbations
        Perturbations in the whole table, also those of genes left out here.
    pert
        Perturbation of each row, as a position among the sorted names, shape (rows,).
    label
        True for positive rows, shape (rows,).
    gene_bounds
        First row of each gene and the end of the last, shape (genes + 1,).
    tie_bounds
        For each positive row, first and last + 1 row of its gene with the same score, shape (positives, 2).
    """

    genes: np.ndarray
    n_perturbations: int
    pert: np.ndarray
    label: np.ndarray
    gene_bounds: np.ndarray
    tie_bounds: np.ndarray


def rank_pairs(scored: pd.DataFrame, *, both_classes_only: bool = False) -> RankedPairs:
    """Sort scored pairs for :func:`weighted_auroc`.

    Parameters
    ----------
    scored
        ``pert``, ``gene``, ``label`` (0/1) and ``score``; higher = more likely 1.
    both_classes_only
        Leave out genes that have positives only or negatives only: they have no AUROC, whatever the weights.

    Raises
    ------
    InputError
        If a column is missing, a label is not 0/1 or a score is not finite.
    """
    label, score = checked_columns(scored)
    pert, perturbations = pd.factorize(scored["pert"].astype(object), sort=True)
    if both_classes_only:
        by_gene = pd.Series(label).groupby(scored["gene"].to_numpy(object))
        keep = (by_gene.transform("min") != by_gene.transform("max")).to_numpy(bool)
    else:
        keep = np.ones(len(label), dtype=bool)
    gene, genes = pd.factorize(scored["gene"].to_numpy(object)[keep], sort=True)
    order = np.lexsort((score[keep], gene))
    gene, score = gene[order], score[keep][order]
    positive = label[keep][order] == 1
    starts_tie = np.ones(len(gene), dtype=bool)
    starts_tie[1:] = (np.diff(gene) != 0) | (np.diff(score) != 0)
    tie_edges = np.append(np.flatnonzero(starts_tie), len(gene))
    tie = np.cumsum(starts_tie)[positive] - 1
    return RankedPairs(
        genes=np.asarray(genes, dtype=object),
        n_perturbations=len(perturbations),
        pert=pert[keep][order],
        label=positive,
        gene_bounds=np.searchsorted(gene, np.arange(len(genes) + 1)),
        tie_bounds=np.column_stack([tie_edges[tie], tie_edges[tie + 1]]),
    )


def weighted_auroc(ranked: RankedPairs, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUROC of each gene, its pairs weighted by perturbation, ties counted half.

    The AUROC is the Mann-Whitney U over the number of positive-negative pairs (Hanley & McNeil 1982). A
    perturbation of weight w counts as w copies of its rows.

    Parameters
    ----------
    weights
        Whole numbers as float64, shape (perturbations, draws). All sums are then exact, and the result does
        not depend on the order of the rows.

    Returns
    -------
    auroc, positives, negatives
        Each of shape (genes, draws); ``auroc`` is NaN where either class has no weight.
    """
    row_weights = weights[ranked.pert]
    negatives_below = _running_total(np.where(ranked.label[:, None], 0.0, row_weights))
    positive_rows = np.flatnonzero(ranked.label)
    positive_weights = row_weights[positive_rows]
    positive_bounds = np.searchsorted(positive_rows, ranked.gene_bounds)
    gene_of_positive = np.repeat(np.arange(len(ranked.genes)), np.diff(positive_bounds))

    wins = negatives_below[ranked.tie_bounds[:, 0]] + negatives_below[ranked.tie_bounds[:, 1]]
    wins *= 0.5
    wins -= negatives_below[ranked.gene_bounds[gene_of_positive]]
    wins *= positive_weights

    won = np.diff(_running_total(wins)[positive_bounds], axis=0)
    positives = np.diff(_running_total(positive_weights)[positive_bounds], axis=0)
    negatives = np.diff(negatives_below[ranked.gene_bounds], axis=0)
    compared = positives * negatives
    auroc = np.divide(won, compared, out=np.full_like(won, np.nan), where=compared > 0)
    return auroc, positives, negatives


def checked_columns(scored: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Labels (int8) and scores (float64) of a scored table, or an error that lists what is wrong."""
    missing = [column for column in SCORED_COLUMNS if column not in scored]
    if missing:
        raise InputError("scored pairs", [f"columns {', '.join(missing)} are missing"])
    label = pd.to_numeric(scored["label"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    score = pd.to_numeric(scored["score"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    problems = []
    if not np.isin(label, (0.0, 1.0)).all():
        problems.append(f"{int((~np.isin(label, (0.0, 1.0))).sum())} labels are not 0 or 1")
    if not np.isfinite(score).all():
        problems.append(f"{int((~np.isfinite(score)).sum())} scores are missing or infinite")
    if problems:
        raise InputError("scored pairs", problems)
    return label.astype(np.int8), score


def _running_total(values: np.ndarray) -> np.ndarray:
    """Sum of the rows before each row, and of all rows at the end; shape (rows + 1, draws)."""
    total = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=total[1:])
    return total
