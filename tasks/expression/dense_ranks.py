"""Rank-sum statistics of one dense value a cell, for all groups against the same controls at once.

For values that most cells have, such as scores of gene sets; counts of genes, mostly zero, have kernels of
their own.
"""

from __future__ import annotations

import numpy as np


def rank_sums(values: np.ndarray, group: np.ndarray, *, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U statistics and tie terms of n groups against the controls.

    Source: Mann and Whitney 1947. Definitions are those of `tasks.expression.kernels.rank_sum_block`.

    Parameters
    ----------
    values
        float64 (n_cells,).
    group
        int (n_cells,): 0 to n - 1, n for controls, -1 for cells left out.

    Returns
    -------
    u, ties, totals
        float64 (n,): pairs won, ties half; the sum of t**3 - t over tied blocks of group and controls
        together; and (n + 1,) sums of the values, added up in ascending order, controls last.
    """
    used = group >= 0
    order = np.lexsort((group[used], values[used]))
    value, owner = values[used][order], group[used][order]
    if not len(value):
        return np.zeros(n), np.zeros(n), np.zeros(n + 1)
    new_value = np.concatenate([[True], value[1:] != value[:-1]])
    block = np.cumsum(new_value) - 1
    controls = np.bincount(block, owner == n)
    below = np.cumsum(controls) - controls
    # A group's cells with the same value stand next to each other.
    first = np.flatnonzero(new_value | np.concatenate([[True], owner[1:] != owner[:-1]]))
    count = np.diff(np.append(first, len(value))).astype(np.float64)
    first, count = first[owner[first] < n], count[owner[first] < n]
    mine, tied = owner[first], block[first]
    u = np.bincount(mine, count * (below[tied] + controls[tied] / 2), minlength=n)
    alone = controls**3 - controls
    both = count + controls[tied]
    ties = alone.sum() + np.bincount(mine, both**3 - both - alone[tied], minlength=n)
    return u, ties, np.bincount(owner, value, minlength=n + 1)


def stratified_rank_sums(
    values: np.ndarray, group: np.ndarray, *, stratum: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Van Elteren statistics of n groups against the controls of their own batches.

    Source: van Elteren 1960; weights as in `tasks.expression.kernels.stratified_block`.

    Parameters
    ----------
    values, group
        As in `rank_sums`.
    stratum
        int (n_cells,): the batch of each cell, 0 to n_strata - 1.
    sizes
        int (n_strata, n + 1): cells of each group in each batch, controls last.

    Returns
    -------
    u, z, totals, controls
        float64 (n,): U summed over batches; the standardised weighted sum, 0 where no batch holds both
        samples or all values are tied; (n + 1,) sums of the values, (n_strata,) those of the controls in
        each batch.
    """
    n = sizes.shape[1] - 1
    u, above, variance, controls = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(len(sizes))
    for batch, counts in enumerate(sizes.astype(np.float64)):
        won, tied, totals = rank_sums(values, np.where(stratum == batch, group, -1), n=n)
        controls[batch] = totals[n]
        pairs, both = counts[:n] * counts[n], counts[:n] + counts[n]
        here = pairs > 0
        weight = np.where(here, 1 / (both + 1), 0)
        u += np.where(here, won, 0)
        above += weight * (won - pairs / 2)
        spread = both + 1 - tied / np.maximum(both * (both - 1), 1)
        variance += weight**2 * pairs / 12 * np.maximum(spread, 0)
    z = np.divide(above, np.sqrt(variance), out=np.zeros(n), where=variance > 0)
    return u, z, rank_sums(values, group, n=n)[2], controls
