"""The stratified rank-sum test against van Elteren's formula written out with SciPy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import norm, rankdata

from storage.screens import Screen
from storage.tables import read_frame
from tasks.expression.blocks import batch_means
from tasks.expression.compare import compare_expression
from tasks.expression.designs import ComparisonPlan, screen_design
from tasks.expression.groups import CellGroups
from tasks.expression.kernels import rank_sum_block, stratified_block
from tasks.expression.p_values import rank_sum_p, stratified_p
from tasks.labels.label_tables import make_labels
from tests.screens import CONTROL, make_store


def within_batches(counts, group, batch, library):
    """U, p, log10 p (n_groups, n_genes), totals, the controls' by batch; the last group is the controls."""
    columns = sparse.csc_matrix(counts)
    groups = CellGroups.make([f"P{i}" for i in range(group.max())], group, library)
    groups = groups.within(pd.Series(batch))
    u, z, totals, controls = stratified_block(
        columns.indptr.astype(np.int64),
        columns.indices.astype(np.int32),
        columns.data.astype(np.uint32),
        groups.group,
        groups.stratum,
        groups.library,
        groups.sizes_by_stratum(),
    )
    return u, *stratified_p(z), totals, controls


def van_elteren(value, perturbed, control, batch):
    """U summed over batches, and the two-sided p-value, from ranks within each batch."""
    u = above = variance = 0.0
    for one in np.unique(batch):
        a, b = value[perturbed & (batch == one)], value[control & (batch == one)]
        if not len(a) or not len(b):
            continue
        n = len(a) + len(b)
        pooled = np.concatenate([a, b])
        won = rankdata(pooled)[: len(a)].sum() - len(a) * (len(a) + 1) / 2
        ties = np.unique(pooled, return_counts=True)[1].astype(float)
        weight = 1 / (n + 1)
        u += won
        above += weight * (won - len(a) * len(b) / 2)
        variance += weight**2 * len(a) * len(b) / 12 * (n + 1 - (ties**3 - ties).sum() / (n * (n - 1)))
    return u, 2 * norm.sf(abs(above) / np.sqrt(variance)) if variance > 0 else 1.0


def screen(seed=0, *, cells=400, genes=12, groups=4, batches=3):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(1, 1, genes), (cells, genes))
    group = rng.integers(0, groups + 1, cells)
    group[rng.random(cells) < 0.05] = -1
    return counts, group, rng.integers(0, batches, cells), rng.integers(50, 60, cells).astype(float)


@pytest.mark.parametrize("seed", range(4))
def test_statistic_and_p_are_van_elterens(seed):
    counts, group, batch, library = screen(seed)
    # A perturbation that shares no batch with any control, and one that does in one batch only.
    group[(group == group.max()) & (batch == 0)] = -1
    batch[group == 0] = 0
    u, p, log10_p, _, controls = within_batches(counts, group, batch, library)
    for one in range(group.max()):
        for gene in range(counts.shape[1]):
            value = counts[:, gene] / library
            expected = van_elteren(value, group == one, group == group.max(), batch)
            assert u[one, gene] == expected[0]
            assert p[one, gene] == pytest.approx(expected[1], rel=1e-10)
    assert (p[0] == 1).all()
    np.testing.assert_allclose(log10_p, np.log10(p), rtol=1e-9, atol=1e-12)
    for one in np.unique(batch):
        mine = (group == group.max()) & (batch == one)
        np.testing.assert_allclose(controls[one], (counts[mine] / library[mine, None]).sum(axis=0))


def test_one_batch_gives_the_plain_u():
    counts, group, batch, library = screen(batches=1)
    columns = sparse.csc_matrix(counts)
    sizes = np.bincount(group[group >= 0]).astype(np.int64)
    pieces = (columns.indptr.astype(np.int64), columns.indices, columns.data.astype(np.uint32))
    u, _, totals = rank_sum_block(*pieces, group.astype(np.int32), library, sizes)
    stratified = within_batches(counts, group, batch, library)
    assert (stratified[0] == u).all()
    assert (stratified[3] == totals).all()


def test_cell_order_and_names_of_batches_change_nothing():
    counts, group, batch, library = screen(7)
    order = np.random.default_rng(1).permutation(len(group))
    first = within_batches(counts, group, batch, library)
    for moved in (
        within_batches(counts[order], group[order], batch[order], library[order]),
        within_batches(counts, group, np.array(["z", "a", "m"])[batch], library),
    ):
        np.testing.assert_array_equal(moved[0], first[0])
        np.testing.assert_allclose(moved[1], first[1], rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_fold_change_is_against_the_controls_of_the_same_batches(seed):
    counts, group, batch, library = screen(seed)
    group[(group == 0) & (batch == 2)] = -1
    groups = CellGroups.make(["A", "B", "C", "D"], group, library).within(pd.Series(batch))
    controls = within_batches(counts, group, batch, library)[4]
    values = counts / library[:, None]
    for one in range(4):
        # Every perturbed cell stands for the mean of the controls of its own batch.
        of_cell = [values[(group == 4) & (batch == b)].mean(axis=0) for b in batch[group == one]]
        np.testing.assert_allclose(batch_means(controls, groups)[one], np.mean(of_cell, axis=0), rtol=1e-12)


def test_labels_are_up_where_genes_went_up_also_where_batches_differ(tmp_path, client):
    rng = np.random.default_rng(0)
    perturbation = np.array([CONTROL] * 1000 + [f"P{i}" for i in range(8) for _ in range(100)])
    # Perturbed cells are mostly in batch b, control cells mostly in batch a.
    batch = np.where(rng.random(1800) < np.where(perturbation == CONTROL, 0.1, 0.9), "b", "a")
    rate = np.full((1800, 60), 1.0)
    # Twenty genes are higher in batch b; every perturbation brings three of them down.
    rate[batch == "b", :20] *= 10
    down = {f"P{i}": range(2 * i, 2 * i + 3) for i in range(8)}
    for name, genes in down.items():
        rate[np.ix_(perturbation == name, genes)] *= 0.4
    names = [f"g{i}" for i in range(60)]
    store = make_store(tmp_path, rng.poisson(rate), perturbation, genes=names, batch=batch)
    cells = Screen(store).cells("perturbation", "batch", "control", "library_size")
    plan = ComparisonPlan("stratified", "paired", 20, 0.0, "none")
    design, _ = screen_design(cells, list(down), plan, usable=np.ones(1800, bool))
    table = tmp_path / "tests.parquet"
    places = {"blocks_folder": tmp_path / ".b", "table": table, "client": client, "recipe": {}}
    compare_expression(store, design.groups, normalise="none", **places)
    tests = read_frame(table).astype({"pert": str, "gene": str})
    labels = make_labels(tests.groupby("pert"), seed=0).dir
    planted = {(name, names[gene]) for name, genes in down.items() for gene in genes}
    found = labels[[pair in planted for pair in zip(labels["pert"], labels["gene"], strict=True)]]
    assert len(found) == len(planted)
    assert (found["label"] == 0).all()


def test_controls_of_other_batches_are_neither_counted_nor_worth_anything():
    group = np.array([0] * 8 + [1] * 2 + [2] * 95)
    batch = np.array([0] * 8 + [1, 0] + [0] * 5 + [1] * 30 + [2] * 60)
    groups = CellGroups.make(["A", "B"], group, np.ones(len(group)))
    for pooled in groups.controls_compared():
        np.testing.assert_array_equal(pooled, [95, 95])
    n_control, effective = groups.within(pd.Series(batch)).controls_compared()
    np.testing.assert_array_equal(n_control, [5, 35])
    # A's cells are in one batch. B's say 5 / 6 and 30 / 31, together 1.801: 18.1 controls of 2 cells' batch.
    np.testing.assert_allclose(effective, [5, 2 * (5 / 6 + 30 / 31) / (2 - 5 / 6 - 30 / 31)])


def test_a_shift_of_a_whole_batch_is_not_taken_for_an_effect():
    rng = np.random.default_rng(3)
    batch = rng.integers(0, 2, 4000)
    group = np.where(rng.random(4000) < 0.5, 1, 0)
    # The perturbation sits mostly in the batch whose cells express more of everything.
    group[(batch == 0) & (group == 0) & (rng.random(4000) < 0.9)] = -1
    counts = rng.poisson(np.where(batch == 1, 3.0, 2.0)[:, None], (4000, 300))
    library = np.ones(4000)
    columns = sparse.csc_matrix(counts)
    pieces = (columns.indptr.astype(np.int64), columns.indices, columns.data.astype(np.uint32))
    sizes = np.bincount(group[group >= 0]).astype(np.int64)
    u, ties, _ = rank_sum_block(*pieces, group.astype(np.int32), library, sizes)
    pooled, _ = rank_sum_p(u, ties, n_pert=sizes[:-1, None], n_control=sizes[-1])
    _, within, *_ = within_batches(counts, group, batch, library)
    assert (pooled < 0.05).mean() > 0.9
    assert 0.02 < (within < 0.05).mean() < 0.09
