"""Compiled loops of ingest: check a block of cells, and turn it to gene-major order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import sparse

#: What a block of values can hold that is not a raw count, in the order of `check_counts`.
FAULTS = ("NaN or infinite", "negative", "not whole numbers")
#: What looking a block over finds, from bad to worse: nothing; entries of a row out of order or given
#: twice; a count that the tile cannot hold; a value that is no count.
FINE, UNORDERED, TOO_LARGE, FAULTY = range(4)
#: Genes of a sparse block laid out at once: few enough that the lines of memory written to stay in the
#: processor's nearest cache (all 8,500 at once took twice as long).
PANEL_GENES = 512
#: Genes of a dense block read beside each other: as many as share a line of memory.
LINE_GENES = 16


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


# The loops over a row are written so that the processor takes several values at once: over places, not over
# values, each of little work and with nothing that depends on the value before.


@njit(cache=True, nogil=True)
def _worst_of_values(values, limit):
    """`FINE`, `TOO_LARGE` (``limit`` or above) or `FAULTY`, the worst of all."""
    faulty, too_large = False, False
    for entry in range(len(values)):
        value = values[entry]
        faulty |= not ((value >= 0) & (value == np.floor(value)))
        # Infinity too: `count_problems` then tells it from a number.
        too_large |= value >= limit
    return FAULTY if faulty else TOO_LARGE if too_large else FINE


@njit(cache=True, nogil=True)
def _out_of_order(columns):
    """1 unless a row's genes are ascending, else 0."""
    disordered = np.uint32(0)
    for entry in range(1, len(columns)):
        disordered |= np.uint32(columns[entry] <= columns[entry - 1])
    return disordered


@njit(cache=True, nogil=True)
def _sum(values, limit):
    """Sum of counts below ``limit``; 32 bits are taken several at once, 64 are not."""
    total = 0
    if limit <= np.float32(1 << 31):
        for entry in range(len(values)):
            total += np.int32(values[entry])
    else:
        for entry in range(len(values)):
            total += np.int64(values[entry])
    return total


@dataclass(frozen=True)
class Piece:
    """Some rows of a block, looked over.

    Attributes
    ----------
    rows
        Which rows of the block.
    verdict
        `FINE`, or the worst of what was found; then the rest is of no use.
    lengths
        int64 (n_genes,): each gene's number of non-zeros.
    library, detected
        int64 (n_rows,): each row's sum and number of non-zeros.
    """

    rows: slice
    verdict: int
    lengths: np.ndarray
    library: np.ndarray
    detected: np.ndarray


def look_over(block: np.ndarray | sparse.csr_matrix, rows: slice, *, limit: int) -> Piece:
    """Check some rows of a block of raw values, dense or CSR, and count what they hold.

    ``limit`` is the first count that the tile cannot hold.
    """
    n_rows = rows.stop - rows.start
    lengths, library, detected = (np.zeros(n, np.int64) for n in (block.shape[1], n_rows, n_rows))
    filled = {"limit": np.float32(limit), "lengths": lengths, "library": library, "detected": detected}
    if sparse.issparse(block):
        starts = block.indptr[rows.start : rows.stop + 1]
        verdict = _look_over_sparse(starts, block.indices, block.data, **filled)
    else:
        verdict = _look_over_dense(block[rows], **filled)
    return Piece(rows, verdict, lengths, library, detected)


def lay_out(
    block: np.ndarray | sparse.csr_matrix,
    rows: slice,
    *,
    first_row: int,
    starts: np.ndarray,
    tile: np.ndarray,
) -> None:
    """Put the non-zeros of some rows of a block into a tile, gene after gene.

    Parameters
    ----------
    block, rows
        Dense or CSR with the genes ascending in a row; looked over.
    first_row
        The first of these rows in the tile.
    starts
        uint32 (n_genes + 1,): where in the tile each gene's values begin, and the last one's end. The place
        there may be written to as well: a dense block's zeros are written and then written over.
    tile
        uint32 or uint64: filled with row in the upper half of the bits and count in the lower one.
    """
    cursor = starts[:-1].astype(np.uint64)
    if sparse.issparse(block):
        row_starts = block.indptr[rows.start : rows.stop + 1]
        _lay_out_sparse(row_starts, block.indices, block.data, first_row, cursor, tile)
    else:
        _lay_out_dense(block[rows], first_row, cursor, tile)


@njit(cache=True, nogil=True)
def _look_over_sparse(starts, columns, values, limit, lengths, library, detected):
    """`look_over` of CSR rows: adds to ``lengths``, fills ``library`` and ``detected``, gives the verdict."""
    verdict = FINE
    for row in range(len(library)):
        row_values, row_genes = values[starts[row] : starts[row + 1]], columns[starts[row] : starts[row + 1]]
        verdict = max(verdict, _worst_of_values(row_values, limit), UNORDERED * _out_of_order(row_genes))
        if verdict != FINE:
            continue
        found = 0
        for entry in range(len(row_values)):
            one = row_values[entry] != 0
            lengths[np.uint64(row_genes[entry])] += one
            found += one
        library[row], detected[row] = _sum(row_values, limit), found
    return verdict


@njit(cache=True, nogil=True)
def _look_over_dense(block, limit, lengths, library, detected):
    """As `_look_over_sparse`, of dense rows."""
    verdict = FINE
    counted = np.zeros(len(lengths), np.uint32)
    for row in range(len(library)):
        values = block[row]
        verdict = max(verdict, _worst_of_values(values, limit))
        if verdict != FINE:
            continue
        found = np.int32(0)
        for gene in range(len(values)):
            one = np.int32(values[gene] != 0)
            counted[gene] += np.uint32(one)
            found += one
        library[row], detected[row] = _sum(values, limit), found
    lengths[:] = counted
    return verdict


@njit(cache=True, nogil=True)
def _lay_out_sparse(starts, columns, values, first_row, cursor, tile):
    """`lay_out` of CSR rows; ``cursor``, uint64 (n_genes,), is where each gene's next value goes."""
    half = np.uint64(tile.itemsize * 4)
    at = starts[:-1].copy()
    for panel_end in range(PANEL_GENES, len(cursor) + PANEL_GENES, PANEL_GENES):
        for row in range(len(at)):
            place_of_row = np.uint64(first_row + row) << half
            entry, end = np.uint64(at[row]), np.uint64(starts[row + 1])
            while entry < end and columns[entry] < panel_end:
                count = np.int64(values[entry])
                if count != 0:
                    gene = np.uint64(columns[entry])
                    tile[cursor[gene]] = place_of_row | np.uint64(count)
                    cursor[gene] += np.uint64(1)
                entry += np.uint64(1)
            at[row] = entry


@njit(cache=True, nogil=True)
def _lay_out_dense(block, first_row, cursor, tile):
    """As `_lay_out_sparse`, of dense rows."""
    half, n_genes = np.uint64(tile.itemsize * 4), len(cursor)
    for first in range(0, n_genes, LINE_GENES):
        for gene in range(np.uint64(first), np.uint64(min(first + LINE_GENES, n_genes))):
            place = cursor[gene]
            for row in range(np.uint64(len(block))):
                # Zeros are written too, and written over: faster than to decide.
                count = np.int64(block[row, gene])
                tile[place] = ((np.uint64(first_row) + row) << half) | np.uint64(count)
                place += np.uint64(count != 0)
            cursor[gene] = place
