"""The pseudobulk tests of a whole screen: against pandas, SciPy and statsmodels, and what must not matter."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import sparse
from scipy.optimize import brentq
from scipy.stats import t, ttest_rel

from storage.screens import Screen
from storage.tables import read_frame
from tasks.expression.compare import compare_expression
from tasks.expression.designs import ComparisonPlan, null_design, screen_design
from tasks.expression.groups import CellGroups
from tasks.expression.moderation import shrink_variances, student_p
from tasks.expression.negative_binomial import Comparison, regression_t
from tasks.expression.paired import paired_differences
from tasks.expression.profiles import Profiles
from tests.screens import CONTROL, make_store

N_CELLS, GENES = 1500, [f"g{i}" for i in range(40)]
NAMES = ("A", "B", "C", "few", "alone")


def cells(seed=0):
    """Counts with batch shifts, strong genes and rare ones; 'alone' is in one batch, 'few' in few cells."""
    rng = np.random.default_rng(seed)
    names = rng.choice([*NAMES, CONTROL], N_CELLS, p=[0.15, 0.15, 0.15, 0.005, 0.045, 0.5])
    batch = rng.choice(["b1", "b2", "b10"], N_CELLS, p=[0.5, 0.3, 0.2])
    batch[names == "alone"] = "b2"
    guide = np.array(
        [f"{name}-{number}" for name, number in zip(names, rng.integers(0, 3, N_CELLS), strict=True)]
    )
    level = np.exp(rng.normal(0, 1.3, len(GENES))) * np.exp(rng.normal(0, 0.2, (3, len(GENES))))
    rate = level[pd.factorize(batch, sort=True)[0]] * rng.gamma(4, 0.25, (N_CELLS, 1))
    rate[names == "A", :5] *= 3
    return rng.poisson(rate), names, batch, guide


def table_of(folder, client, made=None, *, model="paired", least=2.0, genes=GENES, **how):
    """The table of tests, and why perturbations were left out."""
    counts, names, batch, guide = made or cells()
    store = make_store(folder, counts, names, genes=genes, batch=batch, guide=guide)
    screen = Screen(store)
    columns = screen.cells("perturbation", "guide", "batch", "control", "library_size")
    plan = ComparisonPlan("pseudobulk", model, 20, least, "library")
    design, reasons = screen_design(columns, NAMES, plan, usable=np.ones(len(names), bool))
    table = folder / "tests.parquet"
    how = {"client": client, "recipe": {}} | how
    places = {"blocks_folder": folder / ".b", "table": table}
    compare_expression(store, design.groups, pseudobulk=design.pseudobulk, **places, **how)
    return read_frame(table).astype({"pert": str, "gene": str}), reasons


def by_pandas(made, least):
    """Effect, variance, pairs and weight of every pair, by pandas' groupby and a loop over batches."""
    counts, names, batch, _ = made
    frame = pd.DataFrame(counts, columns=GENES).assign(name=names, batch=batch)
    sums = frame.groupby(["name", "batch"]).sum()
    library = sums.sum(axis=1)
    rows = []
    for name in ("A", "B", "C"):
        for gene in GENES:
            d, w = [], []
            for one in sums.loc[name].index:
                c, k = sums.loc[(name, one), gene], sums.loc[(CONTROL, one), gene]
                a, b = library[name, one], library[CONTROL, one]
                if (c + k) / (a + b) * min(a, b) >= least and c + k > 0:
                    d.append(np.log2((c + 0.5) / a) - np.log2((k + 0.5) / b))
                    w.append(a * b / (a + b))
            d, w = np.array(d), np.array(w)
            mean = (w * d).sum() / w.sum() if len(d) else np.nan
            variance = (w * (d - mean) ** 2).sum() / (len(d) - 1) if len(d) > 1 else np.nan
            rows.append((name, gene, mean, variance, len(d), w.sum()))
    return pd.DataFrame(rows, columns=["pert", "gene", "effect", "variance", "pairs", "weight"])


@pytest.mark.parametrize("least", [0.0, 2.0, 20.0])
def test_the_paired_test_is_the_formula_written_out_with_pandas(tmp_path, monkeypatch, client, least):
    whole = Screen.gene_blocks
    monkeypatch.setattr(Screen, "gene_blocks", lambda self: whole(self, most_genes=7))
    made = cells()
    table, _ = table_of(tmp_path, client, made, least=least)
    counts, names, _, _ = made
    value = counts / counts.sum(axis=1, keepdims=True)
    control = value[names == CONTROL]
    spread = pd.Series(control.var(axis=0) / control.mean(axis=0) ** 2, GENES)
    expected = by_pandas(made, least)
    untested = 0
    for name, rows in expected.groupby("pert"):
        kept = rows[rows["pairs"] > 1]
        design = np.column_stack([np.ones(len(kept)), np.log(spread[kept["gene"]])])
        moderated, degrees = shrink_variances(
            kept["variance"].to_numpy(), kept["pairs"].to_numpy() - 1, design
        )
        statistic = (kept["effect"] - kept["effect"].median()) / np.sqrt(moderated / kept["weight"])
        found = table[table["pert"] == name].set_index("gene")
        np.testing.assert_allclose(found.loc[kept["gene"], "u_statistic"], statistic, rtol=1e-8)
        p_value = 2 * t.sf(np.abs(statistic), degrees)
        np.testing.assert_allclose(found.loc[kept["gene"], "p_value"], p_value, rtol=1e-7)
        left = found.drop(kept["gene"])
        untested += len(left)
        assert left[["u_statistic", "p_value", "p_adj", "log10_p_value"]].isna().all().all()
        assert left[["mean_pert", "log2_fold_change"]].notna().all().all()
    assert (untested > 0) == (least == 20)


def test_a_gene_that_only_perturbed_cells_have_is_called(tmp_path, client):
    counts, names, batch, guide = cells()
    counts[:, 7] = np.where(names == "A", np.random.default_rng(1).poisson(5, N_CELLS), 0)
    table, _ = table_of(tmp_path, client, (counts, names, batch, guide))
    found = table[(table["pert"] == "A") & (table["gene"] == "g7")].iloc[0]
    assert found["mean_control"] == 0
    assert found["u_statistic"] > 0
    assert found["p_value"] < 1e-9


def test_with_equal_libraries_a_pairs_effect_over_its_error_is_scipys_paired_t():
    rng = np.random.default_rng(5)
    per_batch, batches, genes = 30, 4, 6
    group = np.tile(np.repeat([0, 1], per_batch), batches).astype(np.int32)
    batch = np.repeat(np.arange(batches), 2 * per_batch).astype(np.int32)
    counts = rng.poisson(4, (len(group), genes))
    groups = CellGroups.make(["A"], group, np.full(len(group), 50.0)).within(pd.Series(batch))
    profiles = Profiles.of(groups)
    columns = sparse.csc_matrix(counts)
    effect, variance, pairs, weight, totals, controls, squares = paired_differences(
        columns.indptr.astype(np.int64),
        columns.indices.astype(np.int32),
        counts=columns.data.astype(np.uint32),
        group=groups.group,
        library=groups.library,
        stratum=groups.stratum,
        profile=profiles.profile,
        first=profiles.first,
        batch=profiles.batch,
        profile_library=profiles.library,
        control_of_batch=profiles.control_of_batch,
        min_umis=0.0,
    )
    sums = np.array(
        [[counts[(group == g) & (batch == b)].sum(axis=0) for b in range(batches)] for g in (0, 1)]
    )
    expected = ttest_rel(*np.log2(sums + 0.5), axis=0)
    np.testing.assert_allclose(effect / np.sqrt(variance / weight), expected.statistic[None], rtol=1e-10)
    assert (pairs == batches).all()
    np.testing.assert_allclose(totals, [counts[group == g].sum(axis=0) / 50 for g in (0, 1)])
    by_batch = [counts[(group == 1) & (batch == b)].sum(axis=0) / 50 for b in range(batches)]
    np.testing.assert_allclose(controls, by_batch)
    np.testing.assert_allclose(squares, ((counts[group == 1] / 50) ** 2).sum(axis=0))


def test_perturbations_that_cannot_be_tested_are_left_out_with_the_reason(tmp_path, client):
    table, reasons = table_of(tmp_path, client)
    assert set(table["pert"]) == {"A", "B", "C"}
    assert set(reasons) == {"few", "alone"}
    assert "usable cells in batches that have controls, fewer than 20" in reasons["few"]
    assert "share 1 of the batches, the paired test needs 2" in reasons["alone"]


def test_a_regression_needs_profiles_and_degrees_of_freedom():
    rng = np.random.default_rng(0)
    names = np.repeat(["one", "two", CONTROL], [40, 40, 40])
    frame = pd.DataFrame(
        {
            "perturbation": pd.Categorical(names),
            "control": names == CONTROL,
            "library_size": rng.integers(50, 60, 120),
            "guide": pd.Categorical(np.where(names == "two", rng.choice(["x", "y"], 120), names)),
        }
    )
    plan = ComparisonPlan("pseudobulk", "glm", 20, 2.0, "library")
    _, reasons = screen_design(frame, ["one", "two"], plan, usable=np.ones(120, bool))
    assert reasons["one"].startswith("1 profiles (batch x guide) beside controls, the regression needs 2")
    assert reasons["two"].startswith("1 residual degrees of freedom")
    assert null_design(frame, plan, usable=np.ones(120, bool), seed=0) is None


@pytest.mark.parametrize("model", ["paired", "glm"])
def test_order_of_cells_and_genes_blocks_and_workers_change_nothing(tmp_path, monkeypatch, client, model):
    from flows.dask_cluster import dask_client

    counts, names, batch, guide = cells()
    # A regression is slow: fewer genes.
    counts, genes = (counts, GENES) if model == "paired" else (counts[:, :8], GENES[:8])
    made = (counts, names, batch, guide)
    first, _ = table_of(tmp_path / "a", client, made, model=model, genes=genes)
    whole = Screen.gene_blocks
    monkeypatch.setattr(Screen, "gene_blocks", lambda self: whole(self, most_genes=3))
    with dask_client(None, workers=1) as one:
        table_of(tmp_path / "b", one, made, model=model, genes=genes)
    assert (tmp_path / "a/tests.parquet").read_bytes() == (tmp_path / "b/tests.parquet").read_bytes()
    rng = np.random.default_rng(2)
    rows, columns = rng.permutation(N_CELLS), rng.permutation(len(genes))
    moved = (counts[rows][:, columns], names[rows], batch[rows], guide[rows])
    other, _ = table_of(tmp_path / "c", client, moved, model=model, genes=[genes[i] for i in columns])
    joined = first.merge(other, on=["pert", "gene"], suffixes=("", "_moved"), validate="one_to_one")
    for column in ("u_statistic", "p_value", "p_adj", "log2_fold_change"):
        np.testing.assert_allclose(joined[f"{column}_moved"], joined[column], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("model", ["paired", "glm"])
def test_finished_blocks_are_found_again(tmp_path, monkeypatch, client, model):
    whole = Screen.gene_blocks
    monkeypatch.setattr(Screen, "gene_blocks", lambda self: whole(self, most_genes=3))
    counts, names, batch, guide = cells()
    made = (counts[:, :8], names, batch, guide)
    table_of(tmp_path, client, made, model=model, genes=GENES[:8])
    before = (tmp_path / "tests.parquet").read_bytes()
    blocks = sorted((tmp_path / ".b").rglob("genes-*.npy"))
    assert len(blocks) == (3 if model == "paired" else 6)
    ages = {path: path.stat().st_mtime_ns for path in blocks}
    blocks[0].unlink()
    (tmp_path / "tests.parquet").unlink()
    table_of(tmp_path, client, made, model=model, genes=GENES[:8])
    assert (tmp_path / "tests.parquet").read_bytes() == before
    again = {path for path in blocks if path.stat().st_mtime_ns != ages[path]}
    assert again == {blocks[0]}


def by_statsmodels(counts, batch, perturbed, library, shift):
    """t and its degrees of freedom by formulas, the dispersion from a root search over whole fits."""
    frame = pd.DataFrame({"y": counts, "batch": batch, "x": perturbed.astype(float)})
    offset = np.log(library) + shift * np.log(2) * perturbed
    left = len(frame) - frame["batch"].nunique() - 1

    def fit(formula, dispersion):
        family = sm.families.NegativeBinomial(alpha=dispersion) if dispersion else sm.families.Poisson()
        return smf.glm(formula, frame, family=family, offset=offset).fit()

    def above(dispersion):
        mean = fit("y ~ C(batch) + x", dispersion).mu
        return ((counts - mean) ** 2 / (mean + dispersion * mean**2)).sum() - left

    dispersion = brentq(above, 0, 50, xtol=1e-8) if above(0.0) > 0 else 0.0
    full, without = fit("y ~ C(batch) + x", dispersion), fit("y ~ C(batch)", dispersion)
    return np.sign(full.params["x"]) * np.sqrt(2 * (full.llf - without.llf)), left


def profiles_of(seed=0, *, guides=4, batches=3):
    """Libraries of profiles and their comparison: perturbed ones first."""
    rng = np.random.default_rng(seed)
    group = np.repeat([0, 1], [guides * batches, 2 * guides * batches]).astype(np.int32)
    batch = np.sort(np.tile(np.arange(batches), guides)).astype(np.int32)
    batch = np.concatenate([batch, np.sort(np.tile(np.arange(batches), 2 * guides)).astype(np.int32)])
    library = rng.uniform(2e4, 8e4, len(group))
    first = np.array([0, guides * batches, len(group)], np.int64)
    return Profiles(np.zeros(0, np.int32), group, batch, library, first), rng


@pytest.mark.parametrize("dispersion", [0.0, 0.3])
def test_the_regression_is_statsmodels_formula_with_the_moment_dispersion(dispersion):
    profiles, rng = profiles_of()
    for seed in range(3):
        mean = profiles.library * 3e-4 * np.exp(0.3 * profiles.batch) * np.where(profiles.group == 0, 1.4, 1)
        drawn = rng.gamma(1 / dispersion, dispersion * mean) if dispersion else mean
        counts, shift = rng.poisson(drawn).astype(float), 0.2 * seed
        found, left = regression_t(counts, Comparison.of(profiles, 0, shift=shift))
        expected = by_statsmodels(counts, profiles.batch, profiles.group == 0, profiles.library, shift)
        # The dispersion is refitted until it changes by less than a thousandth.
        assert found == pytest.approx(expected[0], rel=2e-3)
        assert left == expected[1]


def test_a_gene_that_one_side_has_lost_altogether_is_strong_evidence():
    profiles, rng = profiles_of()
    comparison = Comparison.of(profiles, 0, shift=0.0)
    mean = profiles.library * 3e-4
    lost = rng.poisson(np.where(profiles.group == 0, 0, mean)).astype(float)
    gained = rng.poisson(np.where(profiles.group == 0, mean, 0)).astype(float)
    nearly = lost.copy()
    nearly[0] = 1
    assert regression_t(lost, comparison)[0] < regression_t(nearly, comparison)[0] < -6
    assert regression_t(gained, comparison)[0] > 6


def few_profiles(perturbed, control):
    """Profiles of one batch and equal libraries."""
    n = perturbed + control
    group = np.repeat([0, 1], [perturbed, control]).astype(np.int32)
    first = np.array([0, perturbed, n], np.int64)
    profiles = Profiles(np.zeros(0, np.int32), group, np.zeros(n, np.int32), np.full(n, 1e4), first)
    return Comparison.of(profiles, 0, shift=0.0)


def test_a_side_without_counts_says_nothing_of_how_counts_scatter():
    lost = few_profiles(6, 2)
    found, degrees = regression_t(np.array([0.0] * 6 + [60, 0]), lost)
    assert degrees == 1
    assert student_p(np.array(found), np.array(1.0))[0] > 0.05
    # The dispersion at which the Pearson statistic of 60 and 0 about 30 is its one degree of freedom.
    dispersion = (2 * 30**2 - 30) / 30**2
    expected = 2 * (
        sm.GLM([60, 0], np.ones(2), family=sm.families.NegativeBinomial(alpha=dispersion)).fit().llf
        - sm.GLM([60, 0] + [0] * 6, np.ones(8), family=sm.families.NegativeBinomial(alpha=dispersion))
        .fit()
        .llf
    )
    assert found == pytest.approx(-np.sqrt(expected), rel=2e-3)
    # A single profile with counts shows no scatter at all.
    alone = few_profiles(1, 5)
    assert np.isnan(regression_t(np.array([40.0] + [0] * 5), alone)[0])


def test_where_nothing_changes_genes_that_one_side_lacks_are_not_all_called():
    comparison, rng = few_profiles(2, 6), np.random.default_rng(0)
    p_value = []
    for _ in range(400):
        counts = rng.poisson(rng.gamma(2, 1, 8)).astype(float)
        if counts.sum():
            t, degrees = regression_t(counts, comparison)
            p_value.append(float(student_p(np.array(t), np.array(float(degrees)))[0]))
    assert (np.array(p_value) < 0.05).mean() < 0.05


def test_batches_without_any_count_or_without_controls_take_no_part():
    profiles, rng = profiles_of()
    counts = rng.poisson(profiles.library * 3e-4).astype(float)
    counts[profiles.batch == 1] = 0
    found = regression_t(counts, Comparison.of(profiles, 0, shift=0.0))
    kept = profiles.batch != 1
    alone = Profiles(
        np.zeros(0, np.int32),
        profiles.group[kept],
        profiles.batch[kept],
        profiles.library[kept],
        np.array([0, (kept & (profiles.group == 0)).sum(), kept.sum()]),
    )
    assert found == pytest.approx(regression_t(counts[kept], Comparison.of(alone, 0, shift=0.0)))
    apart = Profiles(
        profiles.profile,
        profiles.group,
        np.where((profiles.batch == 1) & (profiles.group == 1), 2, profiles.batch).astype(np.int32),
        profiles.library,
        profiles.first,
    )
    assert set(apart.batch[Comparison.of(apart, 0, shift=0.0).rows]) == {0, 2}


def test_a_gene_of_one_batch_with_a_guide_a_side_cannot_be_tested():
    profiles, _ = profiles_of(guides=1, batches=4)
    # One perturbed and one control profile in each batch: three residual degrees of freedom, of all batches.
    kept = np.flatnonzero((profiles.group == 0) | (np.arange(12) % 2 == 0))
    pair = Profiles(
        np.zeros(0, np.int32),
        profiles.group[kept],
        profiles.batch[kept],
        profiles.library[kept],
        np.array([0, 4, 8], np.int64),
    )
    comparison = Comparison.of(pair, 0, shift=0.0)
    everywhere = np.full(8, 30.0)
    assert np.isfinite(regression_t(everywhere, comparison)[0])
    assert np.isnan(regression_t(np.where(pair.batch == 1, 30.0, 0.0), comparison)[0])


def test_regressions_of_a_screen_find_what_was_changed_and_little_else(tmp_path, client):
    counts, names, batch, guide = cells()
    genes = GENES[:10]
    table, reasons = table_of(
        tmp_path, client, (counts[:, :10], names, batch, guide), model="glm", genes=genes
    )
    assert set(reasons) == {"few"}
    changed = (table["pert"] == "A") & table["gene"].isin(GENES[:5])
    # Half of the genes respond, so that their median is no shift of the others: direction is all there is.
    strong = table[changed & table["p_value"].notna()]
    others = table[~table["pert"].isin(["A"]) & table["p_value"].notna()]
    assert len(strong) >= 3
    assert (strong["p_value"] < 1e-3).sum() >= len(strong) - 1
    assert (others["p_value"] < 0.01).mean() < 0.1
