"""Compiled loops of ingest: check raw values, pack rows of cells, and turn them into gene-major order."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np
from numba import njit

#: What a block of values can hold that is not a raw count, in the order of `check_counts`.
FAULTS = ("NaN or infinite", "negative", "not whole numbers")
#: What `pack_sparse` and `pack_dense` find, from bad to worse: nothing; entries of a row out of order or
#: given twice; a count that the target's type cannot hold; a value that is no count.
FINE, UNORDERED, TOO_LARGE, FAULTY = range(4)
#: Genes laid out at once: few enough that the places written to stay within reach of the processor's
#: address cache (all 8,500 at once took twice as long).
PANEL_GENES = 512
#: A tile has fewer rows than 2 to this power, and the places of its values fit beside one in 64 bits.
ROW_BITS = 24
#: Panels laid out while one is written.
AHEAD = 2


@njit(cache=True, nogil=True)
def check_counts(values):
    """Count what is not a raw count.

    Parameters
    ----------
    values
        (n,) numbers of any type.

    Returns
    -------
    tuple
        How many are not finite, negative, not whole; and the largest finite value.
    """
    not_finite = 0
    negative = 0
    fractional = 0
    largest = 0.0
    for value in values:
        number = np.float64(value)
        if not np.isfinite(number):
            not_finite += 1
            continue
        if number < 0:
            negative += 1
        if number != np.floor(number):
            fractional += 1
        if number > largest:
            largest = number
    return not_finite, negative, fractional, largest


# The two loops below, and those that copy a row, are written so that the processor takes several values at
# once: over places, not over values, and with nothing that depends on the value before.


@njit(cache=True, nogil=True)
def _looked_over(values, limit):
    """`FINE`, `TOO_LARGE` (``limit`` or above) or `FAULTY`, the worst of all; and whether there are zeros."""
    faulty, too_large, zeros = False, False, False
    for entry in range(len(values)):
        value = values[entry]
        faulty |= not ((value >= 0) & (value == np.floor(value)))
        # Infinity is too large as well, and found out where nothing else is.
        too_large |= value >= limit
        zeros |= value == 0
    return FAULTY if faulty else TOO_LARGE if too_large else FINE, zeros


@njit(cache=True, nogil=True)
def _out_of_order(columns):
    """1 unless a row's genes are ascending, else 0."""
    disordered = np.uint32(0)
    for entry in range(1, len(columns)):
        disordered |= np.uint32(columns[entry] <= columns[entry - 1])
    return disordered


@njit(cache=True, nogil=True)
def pack_sparse(starts, columns, values, keep, at, genes, counts, ends, library, lengths):
    """Append the kept rows of a CSR block, zeros left out, to a tile's ``genes`` and ``counts``.

    Parameters
    ----------
    starts, columns, values
        CSR with numbers of any type.
    keep
        bool (n_rows,).
    at
        Where the tile's next value goes; there has to be room for all of the block's.
    genes, counts
        Unsigned; the tile.
    ends, library
        int64 (n_kept,): filled with the position behind each kept row's last value, and its sum.
    lengths
        int64 (n_genes,): each gene's number of values, added to in place.

    Returns
    -------
    int, int
        The position behind the last value, and `FINE`, `UNORDERED`, `TOO_LARGE` or `FAULTY`, the worst of
        all kept rows. What was appended is of no use unless `FINE`, and ``lengths`` neither.
    """
    limit = np.float32(np.float64(np.iinfo(counts.dtype).max) + 1)
    position, row_out, verdict = at, 0, FINE
    for row in range(len(keep)):
        if not keep[row]:
            continue
        row_values, row_genes = values[starts[row] : starts[row + 1]], columns[starts[row] : starts[row + 1]]
        worst, zeros = _looked_over(row_values, limit)
        verdict = max(verdict, worst, UNORDERED * _out_of_order(row_genes))
        if verdict != FINE:
            continue
        first = position
        if zeros:
            for entry in range(len(row_values)):
                genes[position] = row_genes[entry]
                counts[position] = row_values[entry]
                position += row_values[entry] != 0
        else:
            position += len(row_values)
            # The row's own part, of which the processor copies several values at once.
            genes_out, counts_out = genes[first:position], counts[first:position]
            for entry in range(len(row_values)):
                genes_out[entry] = row_genes[entry]
            for entry in range(len(row_values)):
                counts_out[entry] = row_values[entry]
        library[row_out] = _tally(genes[first:position], counts[first:position], lengths)
        ends[row_out] = position
        row_out += 1
    return position, verdict


@njit(cache=True, nogil=True)
def pack_dense(block, keep, at, genes, counts, ends, library, lengths):
    """Append the non-zeros of the kept rows of a dense block; see `pack_sparse`."""
    limit = np.float32(np.float64(np.iinfo(counts.dtype).max) + 1)
    position, row_out, verdict = np.uint64(at), 0, FINE
    for row in range(len(keep)):
        if not keep[row]:
            continue
        row_values = block[row]
        verdict = max(verdict, _looked_over(row_values, limit)[0])
        if verdict != FINE:
            continue
        first = position
        # Two loops of little work each take half as long as one: zeros are half or more of the values.
        for gene in range(np.uint64(len(row_values))):
            genes[position] = gene
            position += np.uint64(row_values[gene] != 0)
        for entry in range(first, position):
            counts[entry] = row_values[genes[entry]]
        library[row_out] = _tally(genes[first:position], counts[first:position], lengths)
        ends[row_out] = position
        row_out += 1
    return np.int64(position), verdict


@njit(cache=True, nogil=True)
def _tally(genes, counts, lengths):
    """Count a row's values to their genes; gives the row's sum."""
    for gene in genes:
        lengths[np.uint64(gene)] += 1
    total = 0
    for count in counts:
        total += count
    return total


@njit(cache=True, nogil=True)
def _lay_out_gaps(starts, at, genes, counts, first_gene, cursor, gaps_out, counts_out):
    """Write a panel of consecutive genes of a tile in gene-major order, rows as differences within a gene.

    ``at`` is each row's first value in the panel. ``cursor``, uint64 (n_genes in the panel,), holds a gene's
    next place and, in its lowest `ROW_BITS`, the row before: one number to read and write a value in place
    of two.
    """
    bits, mask = np.uint64(ROW_BITS), np.uint64((1 << ROW_BITS) - 1)
    first, n_genes = np.uint64(first_gene), np.uint64(len(cursor))
    for row in range(np.uint64(len(starts) - 1)):
        entry, end = np.uint64(at[row]), np.uint64(starts[row + np.uint64(1)])
        while entry < end:
            gene = np.uint64(genes[entry]) - first
            if gene >= n_genes:
                break
            place, before = cursor[gene] >> bits, cursor[gene] & mask
            gaps_out[place] = np.uint64(row) - before
            counts_out[place] = counts[entry]
            cursor[gene] = ((place + np.uint64(1)) << bits) | np.uint64(row)
            entry += np.uint64(1)


def lay_out(
    starts: np.ndarray, genes: np.ndarray, *, counts: np.ndarray, gene_starts: np.ndarray, pool: Executor
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Turn a tile of packed rows into gene-major order.

    Parameters
    ----------
    starts, genes, counts
        The packed rows, CSR without zeros.
    gene_starts
        int64 (n_genes + 1,): where each gene's values begin.
    pool
        Whose threads lay out the panels to come.

    Yields
    ------
    ndarray, ndarray
        Of one panel of genes after the other: uint16 differences of a value's row to the gene's row before,
        and the counts.
    """
    n_genes = len(gene_starts) - 1

    def lay_out_genes(first: int) -> tuple[np.ndarray, np.ndarray]:
        own = gene_starts[first : first + PANEL_GENES + 1] - gene_starts[first]
        gaps, in_order = np.empty(own[-1], np.uint16), np.empty(own[-1], counts.dtype)
        cursor = own[:-1].astype(np.uint64) << np.uint64(ROW_BITS)
        at = first_entries(starts, genes, first)
        _lay_out_gaps(starts, at, genes, counts, first, cursor, gaps, in_order)
        return gaps, in_order

    coming = collections.deque()
    for first in range(0, n_genes, PANEL_GENES):
        coming.append(pool.submit(lay_out_genes, first))
        if len(coming) > AHEAD:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


@njit(cache=True, nogil=True)
def first_entries(starts, genes, first_gene):
    """Each CSR row's first entry of a gene not below ``first_gene``, int64 (n_rows,); genes ascending."""
    at = np.empty(len(starts) - 1, np.int64)
    for row in range(len(at)):
        low, high = starts[row], starts[row + 1]
        while low < high:
            middle = (low + high) // 2
            if genes[middle] < first_gene:
                low = middle + 1
            else:
                high = middle
        at[row] = low
    return at
