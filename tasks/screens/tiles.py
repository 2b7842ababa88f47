"""Compiled loops of ingest: check raw values, pack rows of cells, and turn them into gene-major order."""

from __future__ import annotations

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
        The position behind the last value, and `FINE`, `UNORDERED`, `TOO_LARGE` or `FAULTY`. What was
        appended is of no use unless `FINE`, and ``lengths`` neither.
    """
    most = np.float64(np.iinfo(counts.dtype).max)
    position, row_out = np.uint64(at), 0
    unordered, too_large, faulty = False, False, False
    for row in range(len(keep)):
        if not keep[row]:
            continue
        total, last = 0, -1
        for entry in range(np.uint64(starts[row]), np.uint64(starts[row + 1])):
            gene, number = np.int64(columns[entry]), np.float64(values[entry])
            whole = (number >= 0) & (number == np.floor(number)) & (number < np.inf)
            faulty |= not whole
            too_large |= number > most
            unordered |= gene <= last
            last = gene
            count = np.int64(number)
            genes[position] = gene
            counts[position] = count
            filled = count != 0
            lengths[np.uint64(gene)] += filled
            position += np.uint64(filled)
            total += count
        ends[row_out] = position
        library[row_out] = total
        row_out += 1
    return np.int64(position), FAULTY if faulty else TOO_LARGE if too_large else UNORDERED * unordered


@njit(cache=True, nogil=True)
def pack_dense(block, keep, at, genes, counts, ends, library, lengths):
    """Append the non-zeros of the kept rows of a dense block; see `pack_sparse`."""
    most = np.float64(np.iinfo(counts.dtype).max)
    position, row_out = np.uint64(at), 0
    too_large, faulty = False, False
    for row in range(len(keep)):
        if not keep[row]:
            continue
        total = 0
        for gene in range(np.uint64(block.shape[1])):
            number = np.float64(block[row, gene])
            whole = (number >= 0) & (number == np.floor(number)) & (number < np.inf)
            faulty |= not whole
            too_large |= number > most
            count = np.int64(number)
            genes[position] = gene
            counts[position] = count
            filled = count != 0
            lengths[gene] += filled
            position += np.uint64(filled)
            total += count
        ends[row_out] = position
        library[row_out] = total
        row_out += 1
    return np.int64(position), FAULTY if faulty else TOO_LARGE * too_large


@njit(cache=True, nogil=True)
def lay_out_panel(starts, at, genes, values, last_gene, relative, cursor, rows_out, values_out):
    """Write a panel of consecutive genes of a CSR matrix in gene-major order.

    Parameters
    ----------
    starts, genes, values
        CSR, genes ascending in a row.
    at
        int64 (n_rows,): each row's first value not yet written; moved on in place to ``last_gene``.
    last_gene
        End of the panel.
    relative
        Whether to write rows as the difference to the gene's row before, or as they are.
    cursor
        int64 (n_genes, 2): where each gene's next value goes, and its row before (0 at first); moved on in
        place.
    """
    for row in range(np.uint64(len(starts) - 1)):
        entry, end = np.uint64(at[row]), np.uint64(starts[row + np.uint64(1)])
        while entry < end and genes[entry] < last_gene:
            if values[entry] != 0:
                gene = np.uint64(genes[entry])
                place = np.uint64(cursor[gene, 0])
                rows_out[place] = np.int64(row) - cursor[gene, 1]
                values_out[place] = values[entry]
                cursor[gene, 0] += 1
                if relative:
                    cursor[gene, 1] = row
            entry += np.uint64(1)
        at[row] = entry


def lay_out(starts, genes, values, lengths, *, rows_out, values_out) -> np.ndarray:
    """Turn a tile of packed rows into gene-major order, rows as differences within a gene.

    Parameters
    ----------
    starts, genes, values
        The packed rows, CSR.
    lengths
        int64 (n_genes,): values of each gene.
    rows_out, values_out
        Filled up to the number of values.

    Returns
    -------
    ndarray
        int64 (n_genes + 1,): where each gene's values begin.
    """
    n_genes = len(lengths)
    gene_starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    cursor = np.stack([gene_starts[:-1], np.zeros(n_genes, np.int64)], axis=1)
    at = starts[:-1].copy()
    for first in range(0, n_genes, PANEL_GENES):
        last = min(first + PANEL_GENES, n_genes)
        lay_out_panel(starts, at, genes, values, last, True, cursor, rows_out, values_out)
    return gene_starts


@njit(cache=True, nogil=True)
def count_genes(genes, values, lengths):
    """Add the number of non-zero values of each gene to ``lengths``, int64 (n_genes,), in place."""
    for position in range(np.uint64(len(genes))):
        lengths[np.uint64(genes[position])] += values[position] != 0


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
