"""Compiled kernels of the rank-sum tests, for a block of genes at a time: pooled, and within batches.

They share one file because a compiled kernel's cache on disk does not see changes in other files.

Three facts make it cheap. A gene's values are sorted once, all groups together, and one sweep upwards serves
every perturbation: what a value beats is the number of controls passed so far. Positive floats order like
their bits, so the sort is a distribution by leading bits with few left to mend. Zeros, most of the data, are
a single block of ties and are never stored.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Cells of the distribution sort for each value; more cost memory, fewer leave more to mend.
CELLS_A_VALUE = 2
#: A cell fuller than this is no longer worth mending by insertion.
FULLEST_CELL = 48


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
    longest = 0
    for gene in range(n_genes):
        longest = max(longest, starts[gene + 1] - starts[gene])
    values, ordered = np.empty(longest), np.empty(longest)
    owners, ordered_owners = np.empty(longest, np.int32), np.empty(longest, np.int32)
    bounds = np.empty(CELLS_A_VALUE * longest + 2, np.int32)
    more, extra, total = np.empty(n + 1), np.empty(n + 1), np.empty(n + 1)
    filled, in_run = np.empty(n + 1, np.int64), np.zeros(n + 1, np.int64)
    for gene in range(n_genes):
        size = _form_values(starts[gene], starts[gene + 1], cells, counts, group, library, values, owners)
        _sort_values(values[:size], owners[:size], ordered[:size], ordered_owners[:size], bounds)
        control_ties = _sweep(ordered[:size], ordered_owners[:size], more, extra, total, filled, in_run)
        control_zeros = sizes[n] - filled[n]
        totals[n, gene] = total[n]
        for one in range(n):
            zeros = sizes[one] - filled[one]
            block = float(zeros + control_zeros)
            u[one, gene] = more[one] + (filled[one] + 0.5 * zeros) * control_zeros
            ties[one, gene] = control_ties + extra[one] + (block**3 - block)
            totals[one, gene] = total[one]
    return u, ties, totals


@njit(cache=True, nogil=True)
def _form_values(first, last, cells, counts, group, library, values, owners):
    """Form a gene's ranked values and note whose they are; returns how many belong to a group."""
    size = 0
    for position in range(first, last):
        cell = cells[position]
        values[size] = counts[position] / library[cell]
        owners[size] = group[cell]
        size += group[cell] >= 0
    return size


@njit(cache=True, nogil=True)
def _sort_values(values, owners, ordered, ordered_owners, bounds):
    """Sort positive values, and their owners with them, into ``ordered`` and ``ordered_owners``.

    Values are counted and laid out by the leading bits of their floats; insertion mends the order inside a
    cell. Values that crowd into few cells (an outlier far away, say) are sorted in the general way.
    """
    n = len(values)
    if n == 0:
        return
    bits = values.view(np.int64)
    low, high = bits.min(), bits.max()
    shift = 0
    while (high >> shift) - (low >> shift) >= CELLS_A_VALUE * n:
        shift += 1
    base = low >> shift
    n_cells = (high >> shift) - base + 1
    bounds[: n_cells + 1] = 0
    for position in range(n):
        bounds[(bits[position] >> shift) - base + 1] += 1
    fullest = 0
    for cell in range(n_cells):
        fullest = max(fullest, bounds[cell + 1])
        bounds[cell + 1] += bounds[cell]
    if fullest > FULLEST_CELL and shift > 0:
        order = np.argsort(values)
        for position in range(n):
            ordered[position] = values[order[position]]
            ordered_owners[position] = owners[order[position]]
        return
    for position in range(n):
        cell = (bits[position] >> shift) - base
        ordered[bounds[cell]] = values[position]
        ordered_owners[bounds[cell]] = owners[position]
        bounds[cell] += 1
    _mend(ordered, ordered_owners)


@njit(cache=True, nogil=True)
def _mend(ordered, owners):
    """Insertion sort in place, for values that are nearly in order."""
    for position in range(1, len(ordered)):
        value, owner = ordered[position], owners[position]
        gap = position
        while gap > 0 and ordered[gap - 1] > value:
            ordered[gap] = ordered[gap - 1]
            owners[gap] = owners[gap - 1]
            gap -= 1
        ordered[gap] = value
        owners[gap] = owner


@njit(cache=True, nogil=True)
def _sweep(ordered, owners, more, extra, total, filled, in_run):
    """Pass over a gene's sorted values once and fill the sums of every group, controls last.

    ``more``: pairs won against non-zero controls, ties half; ``extra``: what the group adds to the controls'
    tie term; ``total``: sum of its values, in ascending order, so that the order of cells changes no bit;
    ``filled``: its non-zero values. ``in_run`` has to be, and is left, all zero. Returns the controls' own
    tie term.
    """
    more[:] = 0
    extra[:] = 0
    total[:] = 0
    filled[:] = 0
    control = len(more) - 1
    control_ties = 0.0
    below = 0
    start = 0
    while start < len(ordered):
        value = ordered[start]
        stop = start + 1
        while stop < len(ordered) and ordered[stop] == value:
            stop += 1
        if stop == start + 1:
            # Most values stand alone; they need no counting of who shares them.
            more[owners[start]] += below
            total[owners[start]] += value
            filled[owners[start]] += 1
            below += owners[start] == control
            start = stop
            continue
        for position in range(start, stop):
            in_run[owners[position]] += 1
        controls = in_run[control]
        alone = float(controls) ** 3 - controls
        for position in range(start, stop):
            one = owners[position]
            count = in_run[one]
            if count > 0:
                in_run[one] = 0
                both = float(count + controls)
                more[one] += count * (below + 0.5 * controls)
                extra[one] += (both**3 - both) - alone
                total[one] += value * count
                filled[one] += count
        control_ties += alone
        below += controls
        start = stop
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
    bounds = np.empty(CELLS_A_VALUE * longest + 2, np.int32)
    ends = np.empty(n_strata + 1, np.int64)
    more, extra, total = np.empty(n + 1), np.empty(n + 1), np.empty(n + 1)
    filled, in_run = np.empty(n + 1, np.int64), np.zeros(n + 1, np.int64)
    for gene in range(n_genes):
        span = slice(starts[gene], starts[gene + 1])
        size = _form_values(span.start, span.stop, cells, counts, group, library, values, owners)
        _note_batches(cells[span], group, stratum, batch)
        _by_batch(values[:size], owners[:size], batch[:size], apart, apart_owners, ends)
        for one in range(n_strata):
            here = slice(ends[one], ends[one + 1])
            rows = ends[one + 1] - ends[one]
            _sort_values(apart[here], apart_owners[here], ordered[:rows], ordered_owners[:rows], bounds)
            ties = _sweep(ordered[:rows], ordered_owners[:rows], more, extra, total, filled, in_run)
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
