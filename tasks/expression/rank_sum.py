"""The rank-sum test of every perturbation against the controls, for a block of genes at a time.

Source: Mann and Whitney 1947; normal approximation with tie correction and continuity as in
``scipy.stats.mannwhitneyu(method="asymptotic")``, whose statistic and p-value these are.

Three facts make it cheap. Controls are sorted once a gene and serve all perturbations. A perturbation's few
values are looked up among them, so no combined sample is ever sorted. Zeros, most of the data, are a single
block of ties and are never stored.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.special import log_ndtr, ndtr


@njit(cache=True, nogil=True)
def rank_sum_block(starts, cells, counts, group, library, sizes):
    """U statistics and tie terms for all groups and genes of a block.

    Parameters
    ----------
    starts, cells, counts
        The block: int64 (n_genes + 1,), int32 and unsigned (n_values,); see `storage.screens.GeneBlock`.
    group
        int32 (n_cells,): 0 to n - 1 for the perturbations, n for the controls, -1 for cells left out.
    library
        float64 (n_cells,): the ranked value is count / library, formed once, in float64.
    sizes
        int64 (n + 1,): cells of each perturbation, then of the controls; zeros included.

    Returns
    -------
    u, ties, totals
        float64 (n, n_genes): pairs (perturbed, control) in which the perturbed cell has more, ties half;
        the sum of t**3 - t over tied blocks of the two samples together; and (n + 1, n_genes) sums of the
        ranked values, controls last.
    """
    n = len(sizes) - 1
    n_genes = len(starts) - 1
    u = np.zeros((n, n_genes))
    ties = np.zeros((n, n_genes))
    totals = np.zeros((n + 1, n_genes))
    ends = np.empty(n + 2, np.int64)
    longest = 0
    for gene in range(n_genes):
        longest = max(longest, starts[gene + 1] - starts[gene])
    values = np.empty(longest)
    for gene in range(n_genes):
        _by_group(starts[gene], starts[gene + 1], cells, counts, group, library, values, ends)
        control = values[ends[n] : ends[n + 1]]
        control.sort()
        distinct, below, tied, control_ties = _tie_blocks(control)
        control_zeros = sizes[n] - len(control)
        totals[n, gene] = control.sum()
        for one in range(n):
            sample = values[ends[one] : ends[one + 1]]
            _sort_few(sample)
            zeros = sizes[one] - len(sample)
            more, extra, total = _against(sample, distinct, below, tied, control_zeros)
            block = float(zeros + control_zeros)
            u[one, gene] = more + 0.5 * zeros * control_zeros
            ties[one, gene] = control_ties + extra + (block**3 - block)
            totals[one, gene] = total
    return u, ties, totals


@njit(cache=True, nogil=True)
def _by_group(first, last, cells, counts, group, library, values, ends):
    """Form a gene's ranked values and lay them out group by group: ``ends[g]`` to ``ends[g + 1]``."""
    ends[:] = 0
    for position in range(first, last):
        one = group[cells[position]]
        if one >= 0:
            ends[one + 1] += 1
    for one in range(len(ends) - 1):
        ends[one + 1] += ends[one]
    for position in range(first, last):
        cell = cells[position]
        one = group[cell]
        if one >= 0:
            values[ends[one]] = counts[position] / library[cell]
            ends[one] += 1
    for one in range(len(ends) - 1, 0, -1):
        ends[one] = ends[one - 1]
    ends[0] = 0


@njit(cache=True, nogil=True)
def _tie_blocks(ordered):
    """Distinct values of a sorted sample, how many lie below each, how often each occurs, its tie term."""
    distinct = np.empty(len(ordered))
    below = np.empty(len(ordered) + 1, np.int64)
    tied = np.empty(len(ordered), np.int64)
    n = 0
    term = 0.0
    start = 0
    while start < len(ordered):
        stop = start + 1
        while stop < len(ordered) and ordered[stop] == ordered[start]:
            stop += 1
        distinct[n] = ordered[start]
        below[n] = start
        tied[n] = stop - start
        length = float(stop - start)
        term += length**3 - length
        n += 1
        start = stop
    below[n] = len(ordered)
    return distinct[:n], below[: n + 1], tied[:n], term


@njit(cache=True, nogil=True)
def _against(sample, distinct, below, tied, control_zeros):
    """Compare a sorted sample of non-zero values with the controls' tie blocks.

    Returns the pairs won (ties half), what the sample adds to the tie term, and its sum. The sum runs in
    ascending order, so it does not depend on the order of the cells.
    """
    more = 0.0
    extra = 0.0
    total = 0.0
    low = 0
    start = 0
    while start < len(sample):
        value = sample[start]
        stop = start + 1
        while stop < len(sample) and sample[stop] == value:
            stop += 1
        count = stop - start
        low = _lower_bound(distinct, value, low)
        here = 0
        if low < len(distinct) and distinct[low] == value:
            here = tied[low]
        more += count * (control_zeros + below[low] + 0.5 * here)
        both, alone = float(count + here), float(here)
        extra += (both**3 - both) - (alone**3 - alone)
        total += value * count
        start = stop
    return more, extra, total


@njit(cache=True, nogil=True)
def _lower_bound(ordered, value, low):
    """First position from ``low`` on that is not below ``value``; doubling steps, then halving."""
    step = 1
    high = low
    while high < len(ordered) and ordered[high] < value:
        low = high + 1
        high += step
        step *= 2
    if high > len(ordered):
        high = len(ordered)
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _sort_few(sample):
    """Sort in place; insertion beats the general sort on the few dozen values a perturbation has."""
    if len(sample) > 64:
        sample.sort()
        return
    for i in range(1, len(sample)):
        value = sample[i]
        j = i - 1
        while j >= 0 and sample[j] > value:
            sample[j + 1] = sample[j]
            j -= 1
        sample[j + 1] = value


def rank_sum_p(
    u: np.ndarray, ties: np.ndarray, n_pert: np.ndarray, n_control
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p-values of U statistics, and their log10, which stays exact below 1e-300.

    Parameters
    ----------
    u, ties
        As from `rank_sum_block`, any shape.
    n_pert, n_control
        Sample sizes, broadcastable against ``u``.

    Returns
    -------
    p_value, log10_p_value
        float64, shape of ``u``; 1 and 0 where all values are tied.
    """
    n_pert, n_control = np.asarray(n_pert, np.float64), np.asarray(n_control, np.float64)
    n = n_pert + n_control
    mean = n_pert * n_control / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        # Tied throughout, the variance is 0 or, from rounding, just below it: no evidence either way.
        variance = n_pert * n_control / 12 * ((n + 1) - ties / (n * (n - 1)))
        z = (np.maximum(u, n_pert * n_control - u) - mean - 0.5) / np.sqrt(np.maximum(variance, 0))
        z = np.where(variance > 0, z, -np.inf)
    p_value = np.clip(2 * ndtr(-z), 0, 1)
    log10_p = np.minimum((log_ndtr(-z) + np.log(2)) / np.log(10), 0)
    return p_value, log10_p
