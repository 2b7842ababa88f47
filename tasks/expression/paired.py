"""Pseudobulk differences paired by batch: the part of the paired test that reads counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numba import njit

from tasks.expression.blocks import GeneSpan, batch_means, write_block
from tasks.expression.groups import CellGroups
from tasks.expression.profiles import Profiles

#: What a block's file holds for each group and gene, in this order. In the controls' row ``effect`` holds the
#: spread between control cells, and only ``mean`` beside it.
PAIRED_FIELDS = ("effect", "variance", "pairs", "weight", "mean", "mean_control")
#: Added to summed counts before the logarithm: log2(count + 1/2) is nearly unbiased for Poisson counts
#: above 2, whatever the depth of the profile (Anscombe 1948).
PRIOR_COUNT = 0.5


def paired_block(
    span: GeneSpan, groups: CellGroups, *, profiles: Profiles, min_umis: float, scale: float
) -> Path:
    """Compare one block of genes batch by batch and write (6, n_groups + 1, n_genes) float64.

    Fields are as in `PAIRED_FIELDS`, means times ``scale``; see `paired_differences`.

    Parameters
    ----------
    profiles
        One profile a perturbation and batch.
    min_umis
        UMIs to be expected in both profiles of a batch that counts.
    """
    block = span.read()
    result = np.full((len(PAIRED_FIELDS), len(groups.sizes), block.n_genes), np.nan)
    # Without batches all cells are of one.
    within = groups if groups.stratum is not None else replace(groups, stratum=np.zeros_like(groups.group))
    effect, variance, pairs, weight, totals, controls, squares = paired_differences(
        block.starts,
        block.cells,
        counts=block.counts,
        group=groups.group,
        library=groups.library,
        stratum=within.stratum,
        profile=profiles.profile,
        first=profiles.first,
        batch=profiles.batch,
        profile_library=profiles.library,
        control_of_batch=profiles.control_of_batch,
        min_umis=min_umis,
    )
    result[0, :-1], result[1, :-1], result[2, :-1], result[3, :-1] = effect, variance, pairs, weight
    result[4] = totals / np.maximum(groups.sizes, 1)[:, None] * scale
    result[5, :-1] = batch_means(controls, within) * scale
    result[0, -1] = _spread(totals[-1], squares, groups.sizes[-1])
    write_block(span.target, result)
    return span.target


def _spread(total: np.ndarray, square: np.ndarray, n: int) -> np.ndarray:
    """Squared coefficient of variation of a gene between control cells; NaN where it is not expressed."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / n
        return np.where(total > 0, np.maximum(square / n - mean**2, 0) / mean**2, np.nan)


@njit(cache=True, nogil=True)
def paired_differences(
    starts,
    cells,
    counts,
    group,
    library,
    stratum,
    profile,
    first,
    batch,
    profile_library,
    control_of_batch,
    min_umis,
):
    """Weighted mean and variance over batches of a gene's log2 differences from the controls.

    In batch b the difference is ``log2((c_b + 1/2) / l_b) - log2((k_b + 1/2) / m_b)`` with summed counts c, k
    and libraries l, m of perturbed cells and controls. A batch counts with weight ``l m / (l + m)``, the
    reciprocal of its sampling variance up to the gene's level, and not at all where fewer than ``min_umis``
    UMIs are expected in one of the two profiles: ``min(l, m) * (c + k) / (l + m)``.

    Parameters
    ----------
    starts, cells, counts
        The block, as in `tasks.expression.kernels.rank_sum_block`.
    group, library, stratum
        As in `CellGroups`.
    profile, first, batch, profile_library, control_of_batch
        As in `Profiles`, one profile a perturbation and batch.

    Returns
    -------
    effect, variance, pairs, weight
        float64 (n, n_genes): weighted mean of the differences; their weighted sum of squares about it over
        ``pairs - 1`` (the variance of a difference of weight 1); batches used; sum of their weights. NaN
        where no batch (for the variance: fewer than two) could be used.
    totals, controls, squares
        (n + 1, n_genes) sums of count / library; (n_strata, n_genes) those of the controls in each batch;
        (n_genes,) sums of its square over the controls.
    """
    n, n_genes = len(first) - 2, len(starts) - 1
    effect, variance = np.full((n, n_genes), np.nan), np.full((n, n_genes), np.nan)
    pairs, weight = np.zeros((n, n_genes)), np.zeros((n, n_genes))
    totals, squares = np.zeros((n + 1, n_genes)), np.zeros(n_genes)
    controls = np.zeros((stratum.max() + 1, n_genes))
    sums = np.zeros(first[-1])
    difference, weights = np.empty(len(control_of_batch)), np.empty(len(control_of_batch))
    for gene in range(n_genes):
        sums[:] = 0
        for position in range(starts[gene], starts[gene + 1]):
            cell = cells[position]
            if group[cell] >= 0:
                value = counts[position] / library[cell]
                sums[profile[cell]] += counts[position]
                totals[group[cell], gene] += value
                if group[cell] == n:
                    squares[gene] += value * value
                    controls[stratum[cell], gene] += value
        for index in range(n):
            used = 0
            for mine in range(first[index], first[index + 1]):
                control = control_of_batch[batch[mine]]
                if control < 0:
                    continue
                here, there = profile_library[mine], profile_library[control]
                rate = (sums[mine] + sums[control]) / (here + there)
                if rate * min(here, there) < min_umis or rate == 0:
                    continue
                ratio = (sums[mine] + PRIOR_COUNT) / here / ((sums[control] + PRIOR_COUNT) / there)
                difference[used] = np.log2(ratio)
                weights[used] = here * there / (here + there)
                used += 1
            if used > 0:
                weight[index, gene] = weights[:used].sum()
                effect[index, gene] = (weights[:used] * difference[:used]).sum() / weight[index, gene]
            if used > 1:
                apart = difference[:used] - effect[index, gene]
                variance[index, gene] = (weights[:used] * apart**2).sum() / (used - 1)
            pairs[index, gene] = used
    return effect, variance, pairs, weight, totals, controls, squares
