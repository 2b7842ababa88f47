"""Rank-sum statistics of counts ranked as they are: whole numbers need no sort.

Where values are small whole numbers, all that a rank-sum test needs of a group is how many of its cells have
each count of each gene. One table of that, a few hundred kilobytes, is filled from the group's rows of a CSR
matrix as they lie, so that nothing has to be turned to gene-major order either.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from scipy import sparse

from tasks.expression.groups import CellGroups

#: Entries of the largest table worth filling: one for every gene and count up to the gene's highest.
MOST_ENTRIES = 1 << 22


def tally_sums(
    counts: sparse.csr_matrix, groups: CellGroups, *, threads: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """U statistics, tie terms and totals, as from `tasks.expression.kernels.rank_sum_block`.

    None where the values are not small whole numbers, or are to be divided by library sizes.
    """
    n, n_genes = len(groups.names), counts.shape[1]
    highest = np.zeros(n_genes, np.int64)
    if (groups.library != 1).any() or not _highest_counts(counts.indices, counts.data, highest):
        return None
    offsets = np.concatenate([[0], np.cumsum(highest + 1)])
    if offsets[-1] > MOST_ENTRIES:
        return None
    starts = counts.indptr.astype(np.int64)
    order = np.argsort(groups.group, kind="stable")
    bounds = np.searchsorted(groups.group[order], np.arange(n + 2))
    matrix = (starts, counts.indices, counts.data, offsets)
    control = np.zeros(offsets[-1], np.int64)
    _tally(order[bounds[n] : bounds[n + 1]], *matrix, control)
    u, ties, totals = np.empty((n, n_genes)), np.empty((n, n_genes)), np.empty((n + 1, n_genes))
    level = np.arange(offsets[-1]) - np.repeat(offsets[:-1], highest + 1)
    totals[n] = np.add.reduceat(level * control, offsets[:-1])
    controls = _control_terms(control, offsets, groups.sizes[n])

    def test(one: int) -> None:
        table = np.zeros(offsets[-1], np.int64)
        _tally(order[bounds[one] : bounds[one + 1]], *matrix, table)
        sums = _sums(table, control, *controls, offsets, groups.sizes[one], groups.sizes[n])
        u[one], ties[one], totals[one] = sums

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(test, range(n)))
    return u, ties, totals


@njit(cache=True, nogil=True)
def _highest_counts(genes, values, highest):
    """Find each gene's highest value; False if one is not a whole number or is too high for any table."""
    whole = True
    for position in range(np.uint64(len(values))):
        value = values[position]
        whole &= (value == np.floor(value)) & (value < MOST_ENTRIES)
        gene = np.uint64(genes[position])
        highest[gene] = max(highest[gene], np.int64(value))
    return whole


@njit(cache=True, nogil=True)
def _tally(rows, starts, genes, values, offsets, table):
    """Add to ``table[offsets[gene] + count]`` for every value of some rows."""
    for row in rows:
        for position in range(np.uint64(starts[row]), np.uint64(starts[row + 1])):
            place = offsets[np.uint64(genes[position])] + np.int64(values[position])
            table[np.uint64(place)] += 1


@njit(cache=True, nogil=True)
def _control_terms(control, offsets, size):
    """What a cell of each count wins against the controls, twice; and the controls' tie term of each gene.

    Zeros are not stored, so their number, here and for the groups, is what is left of the sample.
    """
    won, ties = np.zeros(len(control), np.int64), np.zeros(len(offsets) - 1)
    for gene in range(len(offsets) - 1):
        first, last = offsets[gene], offsets[gene + 1]
        control[first] = size - control[first + 1 : last].sum()
        below = 0
        for place in range(first, last):
            won[place] = 2 * below + control[place]
            below += control[place]
            if place > first:
                ties[gene] += float(control[place]) ** 3 - control[place]
    return won, ties


@njit(cache=True, nogil=True)
def _sums(table, control, won, control_ties, offsets, size, control_size):
    """U, tie terms and totals of one group, (3, n_genes); ``table`` gets its zeros filled in."""
    result = np.empty((3, len(offsets) - 1))
    for gene in range(len(offsets) - 1):
        first, last = offsets[gene], offsets[gene + 1]
        zeros, twice, total, extra = size, 0, 0, 0.0
        for place in range(first + 1, last):
            count = table[place]
            zeros -= count
            twice += count * won[place]
            total += count * (place - first)
            both, alone = float(count + control[place]), float(control[place])
            extra += (both**3 - both) - (alone**3 - alone)
        block = float(zeros + control[first])
        result[0, gene] = 0.5 * (twice + zeros * won[first])
        result[1, gene] = control_ties[gene] + extra + (block**3 - block)
        result[2, gene] = total
    return result
