"""Compiled loops of ingest: check raw values, and turn rows of cells into gene-major tiles."""

from __future__ import annotations

import numpy as np
from numba import njit

#: What a block of values can hold that is not a raw count, in the order of `check_counts`.
FAULTS = ("NaN or infinite", "negative", "not whole numbers")


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
def compress_rows(block):
    """Non-zeros of a dense block of cells, as CSR.

    Parameters
    ----------
    block
        (n_cells, n_genes) checked counts.

    Returns
    -------
    starts, genes, counts
        int64 (n_cells + 1,), int32 and uint32 (n_values,).
    """
    n_cells, n_genes = block.shape
    starts = np.zeros(n_cells + 1, np.int64)
    for cell in range(n_cells):
        filled = 0
        for gene in range(n_genes):
            filled += block[cell, gene] != 0
        starts[cell + 1] = starts[cell] + filled
    genes = np.empty(starts[-1], np.int32)
    counts = np.empty(starts[-1], np.uint32)
    at = 0
    for cell in range(n_cells):
        for gene in range(n_genes):
            value = block[cell, gene]
            if value != 0:
                genes[at] = gene
                counts[at] = np.uint32(value)
                at += 1
    return starts, genes, counts


@njit(cache=True, nogil=True)
def count_genes(genes, counts, lengths):
    """Add the number of non-zero values of each gene to ``lengths``, int64 (n_genes,), in place."""
    for position in range(len(genes)):
        if counts[position] != 0:
            lengths[genes[position]] += 1


@njit(cache=True, nogil=True)
def scatter_rows(starts, genes, counts, first_row, cursor, rows_out, counts_out):
    """Write a CSR block into gene-major order.

    ``cursor`` (int64, (n_genes,)) says where each gene's next value goes and is moved on in place, so that
    blocks given in cell order leave every gene's cells in order.
    """
    for row in range(len(starts) - 1):
        for position in range(starts[row], starts[row + 1]):
            if counts[position] != 0:
                at = cursor[genes[position]]
                rows_out[at] = first_row + row
                counts_out[at] = counts[position]
                cursor[genes[position]] = at + 1
