"""The rank-sum test within batches: cells are compared with controls of their own batch only.

Source: van Elteren 1960, with his locally most powerful weights 1 / (cells compared in the batch + 1). A
shift that a whole batch shares cannot make a gene look moved, as it can where all cells are pooled and a
perturbation sits mostly in one batch.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.special import log_ndtr, ndtr

from tasks.expression.rank_sum import form_values, sort_values, sweep


@njit(cache=True, nogil=True)
def stratified_block(starts, cells, counts, group, stratum, library, sizes):
    """Van Elteren statistics for all groups and genes of a block.

    Parameters
    ----------
    starts, cells, counts, group, library
        As in `tasks.expression.rank_sum.rank_sum_block`.
    stratum
        int32 (n_cells,): the batch of each cell, 0 to n_strata - 1.
    sizes
        int64 (n_strata, n + 1): cells of each group in each batch, controls last.

    Returns
    -------
    u, z, totals
        float64 (n, n_genes): U summed over batches; the standardised weighted sum, 0 where no batch holds
        both samples or all values are tied; and (n + 1, n_genes) sums of the ranked values.
    """
    n_strata, n = sizes.shape[0], sizes.shape[1] - 1
    n_genes = len(starts) - 1
    u, above, variance = np.zeros((n, n_genes)), np.zeros((n, n_genes)), np.zeros((n, n_genes))
    totals = np.zeros((n + 1, n_genes))
    longest = 0
    for gene in range(n_genes):
        longest = max(longest, starts[gene + 1] - starts[gene])
    values, ordered, apart = np.empty(longest), np.empty(longest), np.empty(longest)
    owners, ordered_owners = np.empty(longest, np.int32), np.empty(longest, np.int32)
    apart_owners, batch = np.empty(longest, np.int32), np.empty(longest, np.int32)
    bounds = np.empty(2 * longest + 2, np.int32)
    ends = np.empty(n_strata + 1, np.int64)
    more, extra, total = np.empty(n + 1), np.empty(n + 1), np.empty(n + 1)
    filled, in_run = np.empty(n + 1, np.int64), np.zeros(n + 1, np.int64)
    for gene in range(n_genes):
        span = slice(starts[gene], starts[gene + 1])
        size = form_values(span.start, span.stop, cells, counts, group, library, values, owners)
        _note_batches(cells[span], group, stratum, batch)
        _by_batch(values[:size], owners[:size], batch[:size], apart, apart_owners, ends)
        for one in range(n_strata):
            here = slice(ends[one], ends[one + 1])
            rows = ends[one + 1] - ends[one]
            sort_values(apart[here], apart_owners[here], ordered[:rows], ordered_owners[:rows], bounds)
            ties = sweep(ordered[:rows], ordered_owners[:rows], more, extra, total, filled, in_run)
            totals[:, gene] += total
            controls = sizes[one, n]
            for index in range(n):
                perturbed = sizes[one, index]
                if perturbed == 0 or controls == 0:
                    continue
                zeros, control_zeros = perturbed - filled[index], controls - filled[n]
                block = float(zeros + control_zeros)
                tied = ties + extra[index] + (block**3 - block)
                won = more[index] + (filled[index] + 0.5 * zeros) * control_zeros
                both = float(perturbed + controls)
                weight = 1.0 / (both + 1.0)
                u[index, gene] += won
                above[index, gene] += weight * (won - 0.5 * perturbed * controls)
                spread = both + 1.0 - tied / (both * (both - 1.0))
                variance[index, gene] += weight**2 * perturbed * controls / 12.0 * max(spread, 0.0)
    z = np.zeros((n, n_genes))
    for index in range(n):
        for gene in range(n_genes):
            if variance[index, gene] > 0:
                z[index, gene] = above[index, gene] / np.sqrt(variance[index, gene])
    return u, z, totals


@njit(cache=True, nogil=True)
def _note_batches(cells, group, stratum, batch):
    """The batch of every value that `form_values` kept, in its order."""
    size = 0
    for cell in cells:
        batch[size] = stratum[cell]
        size += group[cell] >= 0


@njit(cache=True, nogil=True)
def _by_batch(values, owners, batch, apart, apart_owners, ends):
    """Lay values and owners out batch by batch: ``ends[b]`` to ``ends[b + 1]``, cells in order within."""
    ends[:] = 0
    for position in range(len(values)):
        ends[batch[position] + 1] += 1
    for one in range(len(ends) - 1):
        ends[one + 1] += ends[one]
    for position in range(len(values)):
        at = ends[batch[position]]
        apart[at] = values[position]
        apart_owners[at] = owners[position]
        ends[batch[position]] = at + 1
    for one in range(len(ends) - 1, 0, -1):
        ends[one] = ends[one - 1]
    ends[0] = 0


def stratified_p(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p-values of standardised statistics, and their log10; no continuity correction."""
    size = np.abs(z)
    return np.clip(2 * ndtr(-size), 0, 1), np.minimum((log_ndtr(-size) + np.log(2)) / np.log(10), 0)
