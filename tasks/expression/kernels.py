"""Compiled kernels of the rank-sum tests, for a block of genes at a time: pooled, and within batches.

They share one file because a compiled kernel's cache on disk does not see changes in other files.

Three facts make it cheap. A gene's values are sorted once, all groups together, and one sweep upwards serves
every perturbation: what a value beats is the number of controls passed so far. Positive floats order like
their bits, so the sort is a distribution by leading bits with few left to mend. Zeros, most of the data, are
a single block of ties and are never stored.

Positions and owners are unsigned in the inner loops: numba would otherwise test each index for being
negative, which cost a quarter of the time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Columns of a group's tally: twice the pairs won, non-zero values, and, within the run of equal values that
#: was seen last, its values and where that run begins.
WON, FILLED, IN_RUN, RUN = range(4)
#: Columns of a group's sums: what it adds to the controls' tie term, and its values.
EXTRA, TOTAL = range(2)
#: Buckets of the distribution sort for each value; more cost memory, fewer leave more to mend.
BUCKETS_PER_VALUE = 2
#: Moves a value after which mending the sort by insertion is given up.
MOVES_PER_VALUE = 24


@njit(cache=True, nogil=True)
def rank_sum_block(starts, cells, counts, group, library, sizes):
    """U statistics and tie terms for all groups and genes of a block.

    Source: Mann and Whitney 1947.

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
    values, ordered, owners, ordered_owners, above, bounds = _scratch(starts)
    sums, tally = np.empty((n + 1, 2)), np.empty((n + 1, 4), np.int64)
    for gene in range(n_genes):
        size = _form_values(starts[gene], starts[gene + 1], cells, counts, group, library, values, owners)
        _sort_values(values[:size], owners[:size], ordered[:size], ordered_owners[:size], bounds)
        control_ties = _sweep(ordered[:size], ordered_owners[:size], above, sums, tally)
        control_zeros = sizes[n] - tally[n, FILLED]
        totals[n, gene] = sums[n, TOTAL]
        for index in range(n):
            zeros = sizes[index] - tally[index, FILLED]
            block = float(zeros + control_zeros)
            u[index, gene] = 0.5 * tally[index, WON] + (tally[index, FILLED] + 0.5 * zeros) * control_zeros
            ties[index, gene] = control_ties + sums[index, EXTRA] + (block**3 - block)
            totals[index, gene] = sums[index, TOTAL]
    return u, ties, totals


@njit(cache=True, nogil=True)
def _scratch(starts):
    """Buffers for the gene with most values: values and owners, both also in order, the sort's buckets."""
    longest = 0
    for gene in range(len(starts) - 1):
        longest = max(longest, starts[gene + 1] - starts[gene])
    values, ordered = np.empty(longest), np.empty(longest)
    owners, ordered_owners = np.empty(longest, np.uint32), np.empty(longest, np.uint32)
    above, bounds = np.empty(longest, np.uint32), np.empty(BUCKETS_PER_VALUE * longest + 2, np.uint32)
    return values, ordered, owners, ordered_owners, above, bounds


@njit(cache=True, nogil=True)
def _form_values(first, last, cells, counts, group, library, values, owners):
    """Form a gene's ranked values and note whose they are; returns how many belong to a group."""
    size = np.uint64(0)
    for position in range(np.uint64(first), np.uint64(last)):
        cell = np.uint64(cells[position])
        values[size] = counts[position] / library[cell]
        owners[size] = group[cell]
        size += np.uint64(group[cell] >= 0)
    return np.int64(size)


@njit(cache=True, nogil=True)
def _sort_values(values, owners, ordered, ordered_owners, bounds):
    """Sort positive values, and their owners with them, into ``ordered`` and ``ordered_owners``.

    Values are counted and laid out by the leading bits of their floats; insertion mends the order inside a
    bucket. Different values that crowd into few buckets (an outlier far away, say) are sorted in the general
    way.
    """
    n = np.uint64(len(values))
    if n == 0:
        return
    one = np.uint64(1)
    bits = values.view(np.uint64)
    low, high = bits.min(), bits.max()
    shift = np.uint64(0)
    while (high >> shift) - (low >> shift) >= np.uint64(BUCKETS_PER_VALUE) * n:
        shift += one
    base = low >> shift
    n_buckets = (high >> shift) - base + one
    bounds[: n_buckets + one] = 0
    for position in range(n):
        bounds[(bits[position] >> shift) - base + one] += 1
    for bucket in range(n_buckets):
        bounds[bucket + one] += bounds[bucket]
    for position in range(n):
        bucket = (bits[position] >> shift) - base
        slot = np.uint64(bounds[bucket])
        ordered[slot] = values[position]
        ordered_owners[slot] = owners[position]
        bounds[bucket] += 1
    if not _mend(ordered, ordered_owners):
        order = np.argsort(values)
        for position in range(n):
            ordered[position] = values[order[position]]
            ordered_owners[position] = owners[order[position]]


@njit(cache=True, nogil=True)
def _mend(ordered, owners):
    """Insertion sort in place, for values nearly in order; False, and given up, where they are not."""
    one, left = np.uint64(1), MOVES_PER_VALUE * len(ordered)
    for position in range(one, np.uint64(len(ordered))):
        value = ordered[position]
        if ordered[position - one] > value:
            owner, gap = owners[position], position
            while gap > 0 and ordered[gap - one] > value:
                ordered[gap] = ordered[gap - one]
                owners[gap] = owners[gap - one]
                gap -= one
            ordered[gap] = value
            owners[gap] = owner
            left -= np.int64(position - gap)
            if left < 0:
                return False
    return True


@njit(cache=True, nogil=True)
def _sweep(ordered, owners, above, sums, tally):
    """Pass over a gene's sorted values, down and up, and fill ``sums`` and ``tally``, controls last.

    Most genes have many runs of two or three equal values, so that a branch on "is this a run" is guessed
    wrong too often; instead, the way down notes in ``above`` how many controls are greater than each value,
    and the way up does the same few sums for every value. Both are exact: twice a number of pairs, and
    t**3 - t built up as the sum of 3 x (x + 1). Values are added in ascending order, so that the order of
    cells changes no bit. Returns the controls' own tie term.
    """
    sums[:] = 0
    tally[:] = 0
    tally[:, RUN] = -1
    control = np.uint64(len(sums) - 1)
    n = np.uint64(len(ordered))
    seen, higher, next_value = 0, 0, np.inf
    for step in range(n):
        position = n - np.uint64(1) - step
        value = ordered[position]
        higher = seen if value != next_value else higher
        above[position] = higher
        seen += owners[position] == control
        next_value = value
    controls = seen
    seen, below, start, previous, control_ties = 0, 0, 0, -1.0, 0.0
    for position in range(n):
        value, owner = ordered[position], np.uint64(owners[position])
        fresh = value != previous
        below = seen if fresh else below
        start = np.int64(position) if fresh else start
        previous = value
        equal = controls - np.int64(above[position]) - below
        tally[owner, WON] += 2 * below + equal
        tally[owner, FILLED] += 1
        sums[owner, TOTAL] += value
        same = tally[owner, IN_RUN] if tally[owner, RUN] == start else 0
        tally[owner, IN_RUN] = same + 1
        tally[owner, RUN] = start
        tied = float(same + equal)
        if tied > 0:
            sums[owner, EXTRA] += 3.0 * tied * (tied + 1.0)
        if owner == control:
            tied = float(seen - below)
            control_ties += 3.0 * tied * (tied + 1.0)
            seen += 1
    return control_ties


@njit(cache=True, nogil=True)
def stratified_block(starts, cells, counts, group, stratum, library, sizes):
    """Van Elteren statistics for all groups and genes of a block.

    Source: van Elteren 1960, with his locally most powerful weights 1 / (cells compared in the batch + 1).
    A shift that a whole batch shares cannot make a gene look moved, as it can where all cells are pooled
    and a perturbation sits mostly in one batch.

    Parameters
    ----------
    starts, cells, counts, group, library
        As in `rank_sum_block`.
    stratum
        int32 (n_cells,): the batch of each cell, 0 to n_strata - 1.
    sizes
        int64 (n_strata, n + 1): cells of each group in each batch, controls last.

    Returns
    -------
    u, z, totals, controls
        float64 (n, n_genes): U summed over batches; the standardised weighted sum, 0 where no batch holds
        both samples or all values are tied; and (n + 1, n_genes) sums of the ranked values, (n_strata,
        n_genes) those of the controls in each batch.
    """
    n_strata, n = sizes.shape[0], sizes.shape[1] - 1
    n_genes = len(starts) - 1
    u, excess, variance = np.zeros((n, n_genes)), np.zeros((n, n_genes)), np.zeros((n, n_genes))
    totals, control_totals = np.zeros((n + 1, n_genes)), np.zeros((n_strata, n_genes))
    values, ordered, owners, ordered_owners, above, bounds = _scratch(starts)
    apart, apart_owners = np.empty_like(values), np.empty_like(owners)
    batch, ends = np.empty(len(values), np.int32), np.empty(n_strata + 1, np.int64)
    sums, tally = np.empty((n + 1, 2)), np.empty((n + 1, 4), np.int64)
    for gene in range(n_genes):
        span = slice(starts[gene], starts[gene + 1])
        size = _form_values(span.start, span.stop, cells, counts, group, library, values, owners)
        _note_batches(cells[span], group, stratum, batch)
        _by_batch(values[:size], owners[:size], batch[:size], apart, apart_owners, ends)
        for number in range(n_strata):
            here = slice(ends[number], ends[number + 1])
            rows = ends[number + 1] - ends[number]
            _sort_values(apart[here], apart_owners[here], ordered[:rows], ordered_owners[:rows], bounds)
            ties = _sweep(ordered[:rows], ordered_owners[:rows], above, sums, tally)
            totals[:, gene] += sums[:, TOTAL]
            control_totals[number, gene] = sums[n, TOTAL]
            controls = sizes[number, n]
            for index in range(n):
                perturbed = sizes[number, index]
                if perturbed == 0 or controls == 0:
                    continue
                filled = tally[index, FILLED]
                zeros, control_zeros = perturbed - filled, controls - tally[n, FILLED]
                block = float(zeros + control_zeros)
                tied = ties + sums[index, EXTRA] + (block**3 - block)
                won = 0.5 * tally[index, WON] + (filled + 0.5 * zeros) * control_zeros
                both = float(perturbed + controls)
                weight = 1.0 / (both + 1.0)
                u[index, gene] += won
                excess[index, gene] += weight * (won - 0.5 * perturbed * controls)
                spread = both + 1.0 - tied / (both * (both - 1.0))
                variance[index, gene] += weight**2 * perturbed * controls / 12.0 * max(spread, 0.0)
    z = np.zeros((n, n_genes))
    for index in range(n):
        for gene in range(n_genes):
            if variance[index, gene] > 0:
                z[index, gene] = excess[index, gene] / np.sqrt(variance[index, gene])
    return u, z, totals, control_totals


@njit(cache=True, nogil=True)
def _note_batches(cells, group, stratum, batch):
    """The batch of every value that `_form_values` kept, in its order."""
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
    for number in range(len(ends) - 1):
        ends[number + 1] += ends[number]
    for position in range(len(values)):
        slot = ends[batch[position]]
        apart[slot] = values[position]
        apart_owners[slot] = owners[position]
        ends[batch[position]] = slot + 1
    for number in range(len(ends) - 1, 0, -1):
        ends[number] = ends[number - 1]
    ends[0] = 0
