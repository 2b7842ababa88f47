"""Rank-sum tests of a matrix that is in memory already, as other libraries do them, by the same kernels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
from numba import njit
from scipy import sparse

from storage.errors import InputError
from tasks.expression.groups import CellGroups
from tasks.expression.kernels import rank_sum_block
from tasks.expression.p_values import rank_sum_p
from tasks.screens.tiles import check_counts
from tests.benchmarks.count_tallies import tally_sums

#: Values laid out by gene at once, a thread.
PANEL_VALUES = 2_000_000


@dataclass(frozen=True)
class RankSums:
    """Tests of every group and gene, float64 (n_groups, n_genes) each; ``mean`` has the controls last.

    ``mean`` is the mean ranked value of a group's cells, zeros included.
    """

    u_statistic: np.ndarray
    p_value: np.ndarray
    log10_p_value: np.ndarray
    mean: np.ndarray


def rank_sums(counts: sparse.csr_matrix, groups: CellGroups, *, threads: int = 1) -> RankSums:
    """Test every group against the controls for every gene of a CSR matrix.

    The same numbers as `tasks.expression.compare.compare_expression` writes for a screen store. The matrix
    is turned to gene-major order a few genes at a time, so that little memory is needed beside it.

    Parameters
    ----------
    counts
        (n_cells, n_genes): UMI counts, or normalised values with ``groups.library`` all ones.
    groups
        Cells of each perturbation and of the controls; ``stratum`` is not looked at.

    Raises
    ------
    InputError
        If values are negative, NaN or infinite, or the cells are others than the groups'.
    """
    _check(counts, groups)
    if not counts.has_canonical_format:
        # A value given twice would count as two cells.
        counts = counts.copy()
        counts.sum_duplicates()
    tallied = tally_sums(counts, groups, threads=threads)
    if tallied is not None:
        u, ties, totals = tallied
        return _tested(groups, u, ties=ties, totals=totals)
    lengths = np.zeros(counts.shape[1], np.int64)
    _count_genes(counts.indices, counts.data, lengths)
    shape = (len(groups.names), counts.shape[1])
    result = RankSums(*(np.empty(shape) for _ in range(3)), np.empty((shape[0] + 1, shape[1])))
    spans = _even_spans(lengths, 4 * threads)
    with ThreadPoolExecutor(threads) as pool:
        list(
            pool.map(
                lambda span: _test_span(counts, groups, lengths=lengths, span=span, result=result), spans
            )
        )
    return result


def _check(counts: sparse.csr_matrix, groups: CellGroups) -> None:
    problems = []
    if counts.shape[0] != len(groups.group):
        problems.append(f"{counts.shape[0]:,} cells in the matrix, {len(groups.group):,} in the groups")
    # The least and the greatest tell whether there is anything to count; NaN is neither above nor below.
    if counts.nnz and not (counts.data.min() >= 0 and counts.data.max() < np.inf):
        not_finite, negative, _, _ = check_counts(counts.data)
        problems += [f"{not_finite:,} values are NaN or infinite"] if not_finite else []
        problems += [f"{negative:,} values are negative"] if negative else []
    if problems:
        raise InputError("matrix", problems)


def _tested(groups: CellGroups, u: np.ndarray, *, ties: np.ndarray, totals: np.ndarray) -> RankSums:
    p_value, log10_p = rank_sum_p(u, ties, n_pert=groups.sizes[:-1, None], n_control=groups.sizes[-1])
    return RankSums(u, p_value, log10_p, totals / np.maximum(groups.sizes, 1)[:, None])


def _even_spans(lengths: np.ndarray, n: int) -> list[tuple[int, int]]:
    """Cut the genes into at most ``n`` consecutive spans of about the same number of values."""
    ends = np.searchsorted(np.cumsum(lengths), np.linspace(0, lengths.sum(), n + 1)[1:-1])
    cuts = np.unique([0, *ends, len(lengths)])
    return list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))


def _test_span(
    counts: sparse.csr_matrix,
    groups: CellGroups,
    *,
    lengths: np.ndarray,
    span: tuple[int, int],
    result: RankSums,
) -> None:
    """Lay out and test the genes of a span, a panel at a time, in buffers that are used again."""
    starts = counts.indptr.astype(np.int64)
    at = _first_entries(starts, counts.indices, span[0])
    room = max(PANEL_VALUES, int(lengths[slice(*span)].max(initial=0)))
    cells, values = np.empty(room, np.int32), np.empty(room, counts.dtype)
    first = span[0]
    while first < span[1]:
        filled = np.cumsum(lengths[first : span[1]])
        last = first + max(1, int(np.searchsorted(filled, room, side="right")))
        gene_starts = np.concatenate([[0], filled[: last - first]])
        cursor = np.zeros(last, np.int64)
        cursor[first:] = gene_starts[:-1]
        _lay_out_panel(starts, at, counts.indices, counts.data, last, cursor, cells, values)
        used = slice(0, gene_starts[-1])
        u, ties, totals = rank_sum_block(
            gene_starts,
            cells[used],
            counts=values[used],
            group=groups.group,
            library=groups.library,
            sizes=groups.sizes,
        )
        part = _tested(groups, u, ties=ties, totals=totals)
        for field in fields(RankSums):
            getattr(result, field.name)[:, first:last] = getattr(part, field.name)
        first = last


@njit(cache=True, nogil=True)
def _lay_out_panel(starts, at, genes, values, last_gene, cursor, rows_out, values_out):
    """Write a panel of consecutive genes of a CSR matrix in gene-major order, zeros left out.

    Parameters
    ----------
    starts, genes, values
        CSR, genes ascending in a row.
    at
        int64 (n_rows,): each row's first value not yet written; moved on in place to ``last_gene``.
    last_gene
        End of the panel.
    cursor
        int64 (n_genes,): where each gene's next value goes; moved on in place.
    """
    for row in range(np.uint64(len(starts) - 1)):
        entry, end = np.uint64(at[row]), np.uint64(starts[row + np.uint64(1)])
        while entry < end and genes[entry] < last_gene:
            if values[entry] != 0:
                gene = np.uint64(genes[entry])
                place = np.uint64(cursor[gene])
                rows_out[place] = row
                values_out[place] = values[entry]
                cursor[gene] += 1
            entry += np.uint64(1)
        at[row] = entry


@njit(cache=True, nogil=True)
def _count_genes(genes, values, lengths):
    """Add the number of non-zero values of each gene to ``lengths``, int64 (n_genes,), in place."""
    for position in range(np.uint64(len(genes))):
        lengths[np.uint64(genes[position])] += values[position] != 0


@njit(cache=True, nogil=True)
def _first_entries(starts, genes, first_gene):
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
