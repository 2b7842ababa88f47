from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

from storage.errors import InputError
from storage.screens import Screen
from storage.tables import read_frame
from tasks.expression.compare import compare_expression
from tasks.expression.dense_ranks import rank_sums, stratified_rank_sums
from tasks.expression.gene_sets import compare_gene_sets, measured_sets, set_score
from tasks.expression.groups import false_perturbation_groups, perturbation_groups
from tasks.expression.p_values import rank_sum_p, stratified_p
from tests.screens import CONTROL, gene_names, make_store, random_counts, random_names

N_CELLS, N_GENES, N_PERT = 700, 20, 4
SETS = {
    "one gene": ("gene5",),
    "three": ("gene4", "gene8", "P2", "not measured"),
    "all": tuple(gene_names(N_GENES)),
}


def arrays():
    counts, names = random_counts(N_CELLS, N_GENES, seed=2), random_names(N_CELLS, N_PERT, seed=2)
    batch = np.random.default_rng(2).choice(["b1", "b2", "b3"], N_CELLS)
    return counts, names, batch


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    counts, names, batch = arrays()
    return make_store(tmp_path_factory.mktemp("sets"), counts, names, batch=batch)


def groups_of(store, *, stratified=False):
    screen = Screen(store)
    cells = screen.cells("perturbation", "batch", "control", "library_size")
    groups = perturbation_groups(cells, [f"P{i}" for i in range(N_PERT)], usable=np.ones(len(cells), bool))
    return groups.within(cells["batch"]) if stratified else groups


def by_numpy(counts, names, symbols):
    """The mean z-score of a set's genes in each cell, all cells and genes at once."""
    table = pd.DataFrame(
        counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), columns=gene_names(N_GENES)
    )
    control = table[names == CONTROL]
    z = (table - control.mean()) / control.std()
    z = z.loc[:, (control.std() > 0) & table.columns.isin(symbols)]
    return z.mean(axis=1).to_numpy()


@pytest.mark.parametrize("name", SETS)
def test_the_score_is_the_mean_z_score_moved_and_scaled(store, name):
    counts, names, _ = arrays()
    position = {gene: index for index, gene in enumerate(gene_names(N_GENES))}
    genes = [position[symbol] for symbol in sorted(SETS[name]) if symbol in position]
    score = set_score(Screen(store), genes, groups=groups_of(store))
    expected = by_numpy(counts, names, SETS[name])
    assert np.corrcoef(score, expected)[0, 1] == pytest.approx(1, abs=1e-12)
    assert score[names == CONTROL].mean() == pytest.approx(1)
    assert score.min() >= 0
    slope = np.std(score) / np.std(expected)
    np.testing.assert_allclose(score - 1, slope * expected, atol=1e-9)


def test_every_test_is_scipys_on_the_scores(store, client, tmp_path):
    _, names, _ = arrays()
    made, ledger = compare_gene_sets(
        store, SETS, groups=groups_of(store), null_groups=None, blocks_folder=tmp_path, client=client
    )
    assert ledger.requested == ledger.done == 3
    assert made.null_tests is None
    assert list(made.tests) == list(_gene_tests(store, client, tmp_path))
    tests = made.tests.astype({"pert": str, "gene": str})
    assert tests["pert"].tolist() == [f"P{i}" for i in range(N_PERT) for _ in SETS]
    screen, groups = Screen(store), groups_of(store)
    position = {gene: index for index, gene in enumerate(gene_names(N_GENES))}
    for set_name, rows in tests.groupby("gene"):
        genes = [position[symbol] for symbol in sorted(SETS[set_name]) if symbol in position]
        score = set_score(screen, genes, groups=groups)
        for row in rows.itertuples():
            mine, control = score[names == row.pert], score[names == CONTROL]
            expected = mannwhitneyu(mine, control, method="asymptotic")
            assert row.u_statistic == expected.statistic
            assert row.p_value == pytest.approx(expected.pvalue, rel=1e-12)
            assert (row.n_pert, row.n_control) == (len(mine), len(control))
            assert row.mean_pert == pytest.approx(mine.mean())
            fold = np.log2((mine.mean() + 0.1) / (control.mean() + 0.1))
            assert row.log2_fold_change == pytest.approx(fold, abs=1e-12)
        place = list(SETS).index(set_name)
        expected = (score[names == CONTROL].mean() / score[names == CONTROL].std(ddof=1)) ** 2
        assert made.umis[place] == pytest.approx(expected)


def _gene_tests(store, client, folder, *, stratified=False):
    table = folder / "tests.parquet"
    groups = groups_of(store, stratified=stratified)
    compare_expression(store, groups, blocks_folder=folder / ".genes", table=table, client=client, recipe={})
    return read_frame(table)


@pytest.mark.parametrize("stratified", [False, True])
def test_a_set_of_one_gene_is_tested_as_the_gene_itself(store, client, tmp_path, stratified):
    genes = _gene_tests(store, client, tmp_path, stratified=stratified).astype({"pert": str, "gene": str})
    alone = {
        gene: (gene,) for gene in gene_names(N_GENES) if genes["mean_control"][genes["gene"] == gene].all()
    }
    groups = groups_of(store, stratified=stratified)
    made, _ = compare_gene_sets(
        store, alone, groups=groups, null_groups=None, blocks_folder=tmp_path / "sets", client=client
    )
    tests = made.tests.astype({"pert": str, "gene": str}).merge(genes, on=["pert", "gene"])
    assert len(tests) == N_PERT * len(alone) > 40
    np.testing.assert_allclose(tests["u_statistic_x"], tests["u_statistic_y"], rtol=1e-12)
    np.testing.assert_allclose(tests["p_value_x"], tests["p_value_y"], rtol=1e-9)
    np.testing.assert_allclose(tests["log10_p_value_x"], tests["log10_p_value_y"], rtol=1e-9, atol=1e-12)


def test_the_order_of_cells_and_genes_changes_no_bit(store, client, tmp_path):
    counts, names, batch = arrays()
    rng = np.random.default_rng(4)
    rows, columns = rng.permutation(N_CELLS), rng.permutation(N_GENES)
    genes = np.array(gene_names(N_GENES))[columns]
    other = make_store(tmp_path, counts[rows][:, columns], names[rows], genes=genes, batch=batch[rows])
    one, two = (
        compare_gene_sets(
            place,
            SETS,
            groups=groups_of(place),
            null_groups=None,
            blocks_folder=tmp_path / name,
            client=client,
        )[0]
        for name, place in (("one", store), ("two", other))
    )
    pd.testing.assert_frame_equal(one.tests, two.tests, check_exact=True)
    np.testing.assert_array_equal(one.umis, two.umis)


def test_false_perturbations_are_tested_on_the_same_scores_and_finished_sets_are_found_again(
    store, client, tmp_path
):
    screen = Screen(store)
    cells = screen.cells("perturbation", "batch", "control", "library_size")
    null = false_perturbation_groups(cells, usable=np.ones(len(cells), bool), seed=0, min_cells=20)
    groups = groups_of(store)
    first, _ = compare_gene_sets(
        store, SETS, groups=groups, null_groups=null, blocks_folder=tmp_path, client=client
    )
    assert first.null_tests["pert"].nunique() == len(null.names) > 1
    score = set_score(screen, [5], groups=groups)
    row = first.null_tests[first.null_tests["gene"] == "one gene"].iloc[0]
    mine = score[null.group == null.names.index(str(row["pert"]))]
    expected = mannwhitneyu(mine, score[null.group == len(null.names)], method="asymptotic")
    assert row["p_value"] == pytest.approx(expected.pvalue, rel=1e-12)
    (tmp_path / "set-0001.npy").unlink()
    again, ledger = compare_gene_sets(
        store, SETS, groups=groups, null_groups=null, blocks_folder=tmp_path, client=client
    )
    assert (ledger.skipped, ledger.done) == (2, 1)
    pd.testing.assert_frame_equal(first.null_tests, again.null_tests)


def test_genes_that_controls_do_not_show_are_left_out_and_a_set_of_them_is_not_tested(client, tmp_path):
    counts, names, batch = arrays()
    counts[names == CONTROL, 7] = 0
    counts[names == "P1", 7] += 3
    place = make_store(tmp_path, counts, names, batch=batch)
    sets = {"blind": ("gene7",), "half": ("gene7", "gene8"), "other half": ("gene8",)}
    made, _ = compare_gene_sets(
        place, sets, groups=groups_of(place), null_groups=None, blocks_folder=tmp_path / "sets", client=client
    )
    p_value = made.tests.astype({"gene": str}).groupby("gene")["p_value"].apply(np.array)
    assert np.isnan(p_value["blind"]).all()
    np.testing.assert_array_equal(p_value["half"], p_value["other half"])
    assert made.tests["p_adj"].isna().sum() == N_PERT


def test_sets_with_too_few_measured_genes_are_excluded_by_name(store):
    screen = Screen(store)
    table = measured_sets(SETS, screen, min_genes=3).set_index("gene_set")
    assert table["status"].to_dict() == {"one gene": "excluded", "three": "kept", "all": "kept"}
    assert table.loc["one gene", "reason"] == "1 of 1 genes measured, fewer than 3"
    assert table.loc["three", ["n_genes", "n_measured", "missing"]].tolist() == [4, 3, "not measured"]
    silent = [gene for gene, n in zip(screen.genes, screen.values_per_gene, strict=True) if n == 0]
    assert table.loc["all", "missing"].split(", ") == silent
    with pytest.raises(
        InputError, match=r"2 problems(.|\n)*'one gene': 1 of 1(.|\n)*'three': 3 of 4(.|\n)*--gene-key"
    ):
        measured_sets({name: SETS[name] for name in ("one gene", "three")}, screen, min_genes=4)


@pytest.mark.parametrize("kind", ["ties", "constant", "distinct", "huge"])
@pytest.mark.parametrize("seed", range(3))
def test_rank_sums_are_scipys_on_adversarial_values(kind, seed):
    rng = np.random.default_rng(seed)
    n, group = 6, np.random.default_rng(seed).integers(-1, 8, 300)
    group = np.where(group > 6, 6, group)
    group[group == 3] = -1
    group[:1] = 4
    values = {
        "ties": rng.integers(0, 4, 300).astype(float),
        "constant": np.full(300, 2.5),
        "distinct": rng.normal(size=300),
        "huge": rng.integers(0, 2, 300) * 1e300,
    }[kind]
    u, ties, totals = rank_sums(values, group, n=n)
    sizes = np.bincount(group[group >= 0], minlength=n + 1)
    p_value, _ = rank_sum_p(u, ties, n_pert=sizes[:-1], n_control=sizes[-1])
    for one in range(n):
        mine, control = values[group == one], values[group == n]
        if one == 3:
            assert u[one] == 0
            continue
        expected = mannwhitneyu(mine, control, method="asymptotic")
        assert u[one] == expected.statistic
        if kind != "constant":
            assert p_value[one] == pytest.approx(expected.pvalue, rel=1e-12)
        else:
            assert p_value[one] == 1
        assert totals[one] == pytest.approx(mine.sum())


def test_stratified_rank_sums_are_weighted_sums_of_the_batches():
    rng = np.random.default_rng(7)
    values, group, stratum = rng.integers(0, 9, 400) / 2, rng.integers(0, 4, 400), rng.integers(0, 3, 400)
    group[(stratum == 2) & (group == 3)] = 0
    sizes = np.stack([np.bincount(group[stratum == one], minlength=4) for one in range(3)])
    u, z, *_ = stratified_rank_sums(values, group, stratum=stratum, sizes=sizes)
    for one in range(3):
        above, variance, won = 0.0, 0.0, 0.0
        for batch in (0, 1):
            mine = values[(group == one) & (stratum == batch)]
            control = values[(group == 3) & (stratum == batch)]
            a, b = len(mine), len(control)
            statistic = mannwhitneyu(mine, control).statistic
            counts = np.unique(np.append(mine, control), return_counts=True)[1]
            spread = a * b / 12 * (a + b + 1 - (counts**3 - counts).sum() / ((a + b) * (a + b - 1)))
            won += statistic
            above += (statistic - a * b / 2) / (a + b + 1)
            variance += spread / (a + b + 1) ** 2
        assert u[one] == won
        assert z[one] == pytest.approx(above / np.sqrt(variance), rel=1e-12)
    assert (stratified_p(z)[0] <= 1).all()
