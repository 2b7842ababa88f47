from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import mannwhitneyu

import tests.benchmarks.count_tallies
import tests.benchmarks.csr_rank_sums
from storage.errors import InputError
from tasks.expression.groups import CellGroups
from tests.benchmarks.count_tallies import tally_sums
from tests.benchmarks.csr_rank_sums import rank_sums
from tests.screens import random_counts

N_CELLS, N_GENES, N_GROUPS = 400, 37, 5


def made(seed=0, dtype=np.float32):
    counts = random_counts(N_CELLS, N_GENES, seed=seed).astype(dtype)
    group = np.random.default_rng(seed).integers(-1, N_GROUPS + 1, N_CELLS)
    library = np.maximum(counts.sum(axis=1), 1).astype(np.float64)
    return counts, CellGroups.make([f"P{i}" for i in range(N_GROUPS)], group, library)


def assert_scipys(result, values, groups):
    control = values[groups.group == N_GROUPS]
    for one in range(N_GROUPS):
        perturbed = values[groups.group == one]
        expected = mannwhitneyu(perturbed, control, method="asymptotic", axis=0)
        np.testing.assert_array_equal(result.u_statistic[one], expected.statistic)
        np.testing.assert_allclose(result.p_value[one], expected.pvalue, rtol=1e-12)
        np.testing.assert_allclose(10 ** result.log10_p_value[one], expected.pvalue, rtol=1e-10)
        np.testing.assert_allclose(result.mean[one], perturbed.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.mean[-1], control.mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16", "int64"])
def test_counts_are_tested_as_shares_of_the_library(dtype):
    counts, groups = made(1, dtype)
    result = rank_sums(sparse.csr_matrix(counts), groups)
    assert_scipys(result, counts.astype(np.float64) / groups.library[:, None], groups)


@pytest.mark.parametrize("dtype", ["float32", "uint16", "int64"])
@pytest.mark.parametrize("seed", range(3))
def test_counts_ranked_as_they_are_are_tallied_to_the_same_numbers(monkeypatch, dtype, seed):
    counts, groups = made(seed, dtype)
    counts[:, 5] *= 7
    groups = dataclasses.replace(groups, library=np.ones(N_CELLS))
    tallied = rank_sums(sparse.csr_matrix(counts), groups, threads=2)
    assert_scipys(tallied, counts.astype(np.float64), groups)
    assert tally_sums(sparse.csr_matrix(counts), groups) is not None
    monkeypatch.setattr(tests.benchmarks.count_tallies, "MOST_ENTRIES", 0)
    assert tally_sums(sparse.csr_matrix(counts), groups) is None
    swept = rank_sums(sparse.csr_matrix(counts), groups)
    for field in dataclasses.fields(swept):
        np.testing.assert_array_equal(getattr(tallied, field.name), getattr(swept, field.name))


def test_values_that_cannot_be_tallied_are_not(monkeypatch):
    counts, groups = made()
    assert tally_sums(sparse.csr_matrix(counts), groups) is None
    plain = dataclasses.replace(groups, library=np.ones(N_CELLS))
    assert tally_sums(sparse.csr_matrix(counts / 2), plain) is None
    counts[0, 0] = 2.0**31
    assert tally_sums(sparse.csr_matrix(counts), plain) is None
    assert_scipys(rank_sums(sparse.csr_matrix(counts), plain), counts.astype(np.float64), plain)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normalised_values_are_taken_as_they_are(dtype):
    counts, groups = made(2)
    values = (counts / groups.library[:, None] * 1e4).astype(dtype)
    groups = dataclasses.replace(groups, library=np.ones(N_CELLS))
    assert_scipys(rank_sums(sparse.csr_matrix(values), groups), values.astype(np.float64), groups)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("panel", [1, 300, 10**6])
def test_panels_and_threads_change_no_bit(monkeypatch, threads, panel):
    counts, groups = made(3)
    whole = rank_sums(sparse.csr_matrix(counts), groups)
    monkeypatch.setattr(tests.benchmarks.csr_rank_sums, "PANEL_VALUES", panel)
    again = rank_sums(sparse.csr_matrix(counts), groups, threads=threads)
    for field in dataclasses.fields(whole):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(whole, field.name))


def test_order_of_entries_and_stored_zeros_do_not_matter_and_the_input_is_left_alone():
    counts, groups = made(4)
    matrix = sparse.csr_matrix(np.ones_like(counts))
    matrix.data = counts[matrix.nonzero()]
    mixed = matrix.copy()
    for row in range(N_CELLS):
        span = slice(mixed.indptr[row], mixed.indptr[row + 1])
        mixed.indices[span], mixed.data[span] = mixed.indices[span][::-1], mixed.data[span][::-1]
    mixed.has_sorted_indices = False
    before = mixed.indices.copy()
    expected = rank_sums(sparse.csr_matrix(counts), groups)
    for given in (matrix, mixed):
        np.testing.assert_array_equal(rank_sums(given, groups).u_statistic, expected.u_statistic)
    np.testing.assert_array_equal(mixed.indices, before)


def test_a_value_given_in_parts_is_their_sum():
    counts, groups = made(4)
    expected = rank_sums(sparse.csr_matrix(counts), groups)
    twice = sparse.coo_matrix(sparse.csr_matrix(counts) * 2)
    halves = [np.concatenate([part, part]) for part in (twice.row, twice.col, twice.data / 4)]
    order = np.argsort(halves[0], kind="stable")
    row, column, value = (part[order] for part in halves)
    starts = np.searchsorted(row, np.arange(N_CELLS + 1))
    for normalised in (value, value + 0.0):
        parts = sparse.csr_matrix((normalised, column, starts), shape=counts.shape)
        assert not parts.has_canonical_format
        found = rank_sums(parts, groups)
        np.testing.assert_array_equal(found.u_statistic, expected.u_statistic)
        np.testing.assert_allclose(found.mean, expected.mean)
        assert parts.nnz == len(value)


def test_values_that_cannot_be_ranked_are_refused_all_at_once():
    counts, groups = made()
    bad = sparse.csr_matrix(counts[:-1])
    bad.data[[0, 1, 2]] = np.nan, np.inf, -1
    with pytest.raises(InputError) as error:
        rank_sums(bad, groups)
    assert len(error.value.problems) == 3
    assert "2 values are NaN or infinite" in str(error.value)
    assert "399 cells in the matrix, 400 in the groups" in str(error.value)
