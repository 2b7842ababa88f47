from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import false_discovery_control, mannwhitneyu, norm
from statsmodels.stats.multitest import multipletests

import storage.screens
import tasks.screens.ingest
from flows.dask_cluster import dask_client
from storage.screens import Screen
from storage.tables import read_frame, read_recipe
from tasks.expression import compare
from tasks.expression.compare import compare_expression
from tasks.expression.groups import CellGroups, perturbation_groups
from tasks.expression.kernels import rank_sum_block
from tasks.expression.p_values import rank_sum_p
from tests.screens import CONTROL, gene_names, make_store, random_counts, random_names


def ours(counts, group, library=None):
    """U, p, log10 p (n_groups, n_genes) and totals of dense counts; the last group is the controls."""
    counts, group = np.asarray(counts), np.asarray(group, np.int32)
    columns = sparse.csc_matrix(counts)
    library = np.ones(len(counts)) if library is None else np.asarray(library, np.float64)
    sizes = np.bincount(group[group >= 0], minlength=group.max() + 1).astype(np.int64)
    block = columns.indptr.astype(np.int64), columns.indices.astype(np.int32), columns.data.astype(np.uint32)
    u, ties, totals = rank_sum_block(*block, group, library, sizes)
    return u, *rank_sum_p(u, ties, n_pert=sizes[:-1, None], n_control=sizes[-1]), totals


def by_scipy(counts, group, library=None):
    """The same by SciPy, one call a group, over all genes at once."""
    values = np.asarray(counts, np.float64)
    values = values if library is None else values / np.asarray(library, np.float64)[:, None]
    group = np.asarray(group)
    n = group.max()
    results = [
        mannwhitneyu(values[group == one], values[group == n], method="asymptotic", axis=0)
        for one in range(n)
    ]
    return np.array([r.statistic for r in results]), np.array([r.pvalue for r in results])


def assert_exact(counts, group, library=None):
    u, p_value, log10_p, _ = ours(counts, group, library)
    with np.errstate(all="ignore"):
        expected_u, expected_p = by_scipy(counts, group, library)
    np.testing.assert_array_equal(u, expected_u)
    np.testing.assert_allclose(p_value, expected_p, rtol=1e-12, atol=0)
    usual = expected_p > 1e-300
    np.testing.assert_allclose(log10_p[usual], np.log10(expected_p[usual]), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("normalised", [True, False])
def test_u_and_p_are_scipys_on_random_screens(seed, normalised):
    rng = np.random.default_rng(seed)
    counts = random_counts(900, 40, seed=seed, density=rng.random() + 0.1)
    group = rng.choice(6, 900, p=[0.02, 0.08, 0.1, 0.1, 0.2, 0.5])
    assert_exact(counts, group, np.maximum(counts.sum(axis=1), 1) if normalised else None)


ADVERSARIAL = {
    "all zero": (np.zeros((40, 2), int), [0] * 10 + [1] * 30),
    "all tied above zero": (np.full((40, 2), 7), [0] * 10 + [1] * 30),
    "case constant, control constant": (np.repeat([[3], [5]], 20, axis=0), [0] * 20 + [1] * 20),
    "case zero, control never": (np.repeat([[0], [5]], 20, axis=0), [0] * 20 + [1] * 20),
    "one perturbed cell": (np.arange(40)[:, None], [0] + [1] * 39),
    "one control cell": (np.arange(40)[::-1, None], [0] * 39 + [1]),
    "one cell each": (np.array([[1, 0, 2], [1, 3, 0]]), [0, 1]),
    "a single count": (np.eye(50, 1, dtype=int), [0] * 10 + [1] * 40),
    "huge counts": (np.random.default_rng(0).integers(2**31, 2**32 - 1, (60, 3)), [0] * 20 + [1] * 40),
    "no zeros": (np.random.default_rng(1).integers(1, 4, (60, 3)), [0] * 20 + [1] * 40),
    "more than 64 values a group": (
        np.random.default_rng(2).integers(0, 200, (400, 3)),
        [0] * 150 + [1] * 250,
    ),
    "p near 1e-300": (np.arange(1400)[:, None], [1] * 700 + [0] * 700),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_u_and_p_are_scipys_on_adversarial_input(name):
    counts, group = ADVERSARIAL[name]
    assert_exact(counts, group)


def test_tied_throughout_is_no_evidence_at_all():
    for value in (0, 1, 70_000):
        for sizes in ((1, 1), (3, 97), (1000, 3001)):
            group = np.repeat([0, 1], sizes)
            u, p_value, log10_p, _ = ours(np.full((sum(sizes), 1), value), group)
            assert (u, p_value, log10_p) == (sizes[0] * sizes[1] / 2, 1.0, 0.0)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_u_and_p_are_scipys_whatever_the_counts_groups_and_library_sizes(data):
    n_cells = data.draw(st.integers(2, 30))
    count = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 2**32 - 1))
    counts = data.draw(st.lists(count, min_size=n_cells, max_size=n_cells))
    group = data.draw(st.lists(st.integers(-1, 2), min_size=n_cells, max_size=n_cells))
    group = np.array(group)
    group[:2] = 0, 2
    if not (group == 1).any():
        group[group == 2] = 1
    library = data.draw(st.lists(st.integers(1, 12), min_size=n_cells, max_size=n_cells))
    with np.errstate(all="ignore"):
        assert_exact(np.array(counts)[:, None], group, library)


@pytest.mark.parametrize(("n_pert", "n_control"), [(3_000, 3_000), (1_500, 30_000), (60_000, 50_000)])
def test_log10_p_goes_on_where_p_is_zero(n_pert, n_control):
    counts = np.repeat([[2], [1]], [n_pert, n_control], axis=0)
    u, p_value, log10_p, _ = ours(counts, np.repeat([0, 1], [n_pert, n_control]))
    n = n_pert + n_control
    ties = n_pert**3 - n_pert + n_control**3 - n_control
    variance = Fraction(n_pert * n_control, 12) * (n + 1 - Fraction(ties, n * (n - 1)))
    z = (n_pert * n_control / 2 - 0.5) / float(variance) ** 0.5
    assert u[0, 0] == n_pert * n_control
    assert p_value[0, 0] == 0.0
    expected = (norm.logsf(z) + np.log(2)) / np.log(10)
    assert expected < -300
    np.testing.assert_allclose(log10_p[0, 0], expected, rtol=1e-12)


def test_the_ranked_value_is_formed_in_float64_so_that_equal_ratios_tie():
    counts = [[1], [2], [3], [4], [5], [6]]
    library = [3, 6, 9, 12, 15, 18]
    u, p_value, _, _ = ours(counts, [0, 1, 0, 1, 0, 1], library)
    assert (u[0, 0], p_value[0, 0]) == (4.5, 1.0)
    # In float32 these two would be one value.
    u, _, _, _ = ours([[2**25 + 1], [2**25]], [0, 1])
    assert u[0, 0] == 1.0


def test_cells_left_out_do_not_count():
    counts = random_counts(300, 10, seed=1)
    group = np.random.default_rng(0).integers(-1, 3, 300)
    kept = group >= 0
    for got, expected in zip(ours(counts, group), ours(counts[kept], group[kept]), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_swapping_case_and_control_mirrors_u_and_leaves_p():
    rng = np.random.default_rng(3)
    counts = random_counts(400, 30, seed=3)
    library = np.maximum(counts.sum(axis=1), 1)
    group = rng.integers(0, 2, 400)
    u, p_value, log10_p, totals = ours(counts, group, library)
    swapped_u, swapped_p, swapped_log10_p, swapped_totals = ours(counts, 1 - group, library)
    np.testing.assert_array_equal(swapped_u, (group == 0).sum() * (group == 1).sum() - u)
    np.testing.assert_array_equal(swapped_p, p_value)
    np.testing.assert_array_equal(swapped_log10_p, log10_p)
    np.testing.assert_allclose(swapped_totals, totals[::-1], rtol=1e-13)


def test_sums_are_those_of_numpy():
    rng = np.random.default_rng(3)
    counts, group = random_counts(400, 30, seed=3), rng.integers(0, 4, 400)
    library = np.maximum(counts.sum(axis=1), 1)
    expected = [(counts / library[:, None])[group == one].sum(axis=0) for one in range(4)]
    np.testing.assert_allclose(ours(counts, group, library)[3], expected, rtol=1e-12)


N_CELLS, N_GENES, N_PERT = 600, 31, 5


def screen_arrays():
    return random_counts(N_CELLS, N_GENES, seed=9), random_names(N_CELLS, N_PERT, seed=9)


def run_tests(store, table, client, *, normalise="library", pseudocount=0.1):
    screen = Screen(store)
    cells = screen.cells("perturbation", "control", "library_size")
    names = sorted(set(cells["perturbation"].astype(str)) - {CONTROL})
    usable = (cells["library_size"] > 0).to_numpy()
    groups = perturbation_groups(cells, names, usable=usable, normalise=normalise)
    how = {"normalise": normalise, "pseudocount": pseudocount, "client": client, "recipe": {"test": "x"}}
    n_tests, ledger = compare_expression(
        store, groups, blocks_folder=table.parent / f".{table.stem}-blocks", table=table, **how
    )
    assert n_tests == len(names) * screen.n_genes
    return ledger


@pytest.fixture(scope="module")
def reference(tmp_path_factory, client):
    """Store, Parquet file and frame of one ordinary run."""
    folder = tmp_path_factory.mktemp("reference")
    store = make_store(folder, *screen_arrays())
    run_tests(store, folder / "tests.parquet", client)
    return (
        store,
        folder / "tests.parquet",
        read_frame(folder / "tests.parquet").astype({"pert": str, "gene": str}),
    )


def test_the_table_holds_every_pair_once_with_scipys_u_and_p(reference):
    _, _, table = reference
    counts, names = screen_arrays()
    values = counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    values, names = values[counts.sum(axis=1) > 0], names[counts.sum(axis=1) > 0]
    perturbations = sorted(set(names) - {CONTROL})
    assert table["pert"].tolist() == list(np.repeat(perturbations, N_GENES))
    assert table["gene"].tolist() == gene_names(N_GENES) * len(perturbations)
    control = values[names == CONTROL]
    for name, rows in table.groupby("pert"):
        with np.errstate(all="ignore"):
            expected = mannwhitneyu(values[names == name], control, method="asymptotic", axis=0)
        np.testing.assert_array_equal(rows["u_statistic"], expected.statistic)
        np.testing.assert_allclose(rows["p_value"], expected.pvalue, rtol=1e-12)
        assert set(rows["n_pert"]) == {(names == name).sum()}
        assert set(rows["n_control"]) == {len(control)}


def test_means_and_fold_change_follow_their_formula(tmp_path, reference, client):
    store, _, library = reference
    counts, names = screen_arrays()
    names = names[counts.sum(axis=1) > 0]
    counts = counts[counts.sum(axis=1) > 0]
    run_tests(store, tmp_path / "plain.parquet", client, normalise="none", pseudocount=0.5)
    plain = read_frame(tmp_path / "plain.parquet").astype({"pert": str})
    for table, values, c in (
        (library, 1e4 * counts / counts.sum(axis=1)[:, None], 0.1),
        (plain, counts, 0.5),
    ):
        means = pd.DataFrame(values).groupby(names).mean()
        for name, rows in table.groupby("pert"):
            case, control = means.loc[name].to_numpy(), means.loc[CONTROL].to_numpy()
            np.testing.assert_allclose(rows["mean_pert"], case, rtol=1e-12)
            np.testing.assert_allclose(rows["mean_control"], control, rtol=1e-12)
            np.testing.assert_allclose(
                rows["log2_fold_change"], np.log2((case + c) / (control + c)), rtol=1e-9, atol=1e-12
            )


def test_adjusted_p_values_are_benjamini_hochberg_within_a_perturbation(reference):
    for _, rows in reference[2].groupby("pert"):
        for expected in (
            multipletests(rows["p_value"], method="fdr_bh")[1],
            false_discovery_control(rows["p_value"]),
        ):
            np.testing.assert_allclose(rows["p_adj"], expected, rtol=1e-13)


def test_the_order_of_cells_changes_no_byte(tmp_path, reference, client):
    counts, names = screen_arrays()
    order = np.random.default_rng(0).permutation(N_CELLS)
    run_tests(make_store(tmp_path, counts[order], names[order]), tmp_path / "tests.parquet", client)
    assert (tmp_path / "tests.parquet").read_bytes() == reference[1].read_bytes()


def test_the_order_of_genes_changes_no_value(tmp_path, reference, client):
    counts, names = screen_arrays()
    order = np.random.default_rng(0).permutation(N_GENES)
    store = make_store(tmp_path, counts[:, order], names, genes=np.array(gene_names(N_GENES))[order])
    run_tests(store, tmp_path / "tests.parquet", client)
    table = read_frame(tmp_path / "tests.parquet").astype({"pert": str, "gene": str})
    sorted_tables = [
        frame.sort_values(["pert", "gene"], ignore_index=True) for frame in (table, reference[2])
    ]
    pd.testing.assert_frame_equal(*sorted_tables, check_exact=True)


@pytest.mark.parametrize("most_genes", [4, 11])
@pytest.mark.parametrize("workers", [1, 2])
def test_tiles_gene_blocks_and_workers_change_no_byte(tmp_path, monkeypatch, reference, most_genes, workers):
    monkeypatch.setattr(storage.screens, "TILE_CELLS", 50)
    monkeypatch.setattr(tasks.screens.ingest, "TILE_CELLS", 50)
    whole = Screen.gene_blocks
    monkeypatch.setattr(Screen, "gene_blocks", lambda self: whole(self, most_genes=most_genes))
    store = make_store(tmp_path, *screen_arrays())
    with dask_client(None, workers=workers) as client:
        ledger = run_tests(store, tmp_path / "tests.parquet", client)
    assert ledger.requested == ledger.done == -(-N_GENES // most_genes)
    assert (tmp_path / "tests.parquet").read_bytes() == reference[1].read_bytes()


def test_blocks_that_are_whole_are_taken_up_again_and_the_others_computed(
    tmp_path, monkeypatch, reference, client
):
    whole = Screen.gene_blocks
    monkeypatch.setattr(Screen, "gene_blocks", lambda self: whole(self, most_genes=8))
    store, expected, _ = reference
    table, blocks = tmp_path / "tests.parquet", tmp_path / ".tests-blocks"
    assert run_tests(store, table, client).done == 4
    table.unlink()
    (blocks / "genes-0001.npy").unlink()
    (blocks / "genes-0002.npy").write_bytes((blocks / "genes-0002.npy").read_bytes()[:-8])
    times = {path.name: path.stat().st_mtime_ns for path in blocks.iterdir()}
    ledger = run_tests(store, table, client)
    assert (ledger.requested, ledger.skipped, ledger.done) == (4, 2, 2)
    assert table.read_bytes() == expected.read_bytes()
    for kept in ("genes-0000.npy", "genes-0003.npy"):
        assert (blocks / kept).stat().st_mtime_ns == times[kept]


def test_a_table_of_many_perturbations_is_the_same_in_one_piece_or_several(tmp_path, monkeypatch, client):
    counts, names = random_counts(500, 6, seed=2), random_names(500, 20, seed=2)
    store = make_store(tmp_path, counts, names)
    frames = []
    for rows in (3, 64):
        monkeypatch.setattr(compare, "ROWS_AT_ONCE", rows)
        run_tests(store, tmp_path / f"{rows}.parquet", client)
        frames.append(read_frame(tmp_path / f"{rows}.parquet").astype({"pert": str, "gene": str}))
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    assert frames[0]["pert"].is_monotonic_increasing
    assert read_recipe(tmp_path / "3.parquet") == {"test": "x"}


def test_a_group_without_cells_or_a_screen_without_groups_gives_no_evidence(tmp_path, client):
    counts, names = screen_arrays()
    store = make_store(tmp_path, counts, names)
    control = np.where(names == CONTROL, 1, -1).astype(np.int32)
    empty = CellGroups.make(["nobody"], control, np.ones(N_CELLS))
    places = {"blocks_folder": tmp_path / "a", "table": tmp_path / "a.parquet"}
    compare_expression(store, empty, client=client, recipe={}, **places)
    table = read_frame(tmp_path / "a.parquet")
    assert len(table) == N_GENES
    assert (table["p_value"] == 1).all()
    nobody = CellGroups.make([], control - 1, np.ones(N_CELLS))
    places = {"blocks_folder": tmp_path / "b", "table": tmp_path / "b.parquet"}
    compare_expression(store, nobody, client=client, recipe={}, **places)
    assert len(read_frame(tmp_path / "b.parquet")) == 0


def test_every_small_sample_agrees_with_counting_pairs():
    for case in itertools.product([0, 1, 2], repeat=2):
        for control in itertools.product([0, 1, 2], repeat=3):
            pairs = sum((a > b) + 0.5 * (a == b) for a in case for b in control)
            u, *_ = ours(np.array([*case, *control])[:, None], [0, 0, 1, 1, 1])
            assert u[0, 0] == pairs
