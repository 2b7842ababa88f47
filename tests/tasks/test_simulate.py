from __future__ import annotations

import itertools

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from storage.errors import InputError
from storage.tables import read_frame
from tasks.screens.planted_network import SMALLEST_EFFECT, observed_knowledge, plant_network
from tasks.screens.simulate import CONTROL, ScreenSizes, design_cells, simulate_screen

SIZES = {"cells": 9_000, "genes": 300, "perturbations": 20, "seed": 5}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    simulated = simulate_screen(folder / "screen.h5ad", **SIZES)
    table = anndata.read_h5ad(simulated.screen)
    return simulated, table, read_frame(simulated.truth)


@pytest.fixture(scope="module")
def shares(made):
    """Each cell's counts over its library size, cells x genes."""
    counts = made[1].X.toarray()
    return pd.DataFrame(counts / counts.sum(axis=1, keepdims=True), columns=made[1].var_names)


def all_bytes(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_counts_are_whole_and_sizes_as_asked_for(made):
    simulated, table, _ = made
    assert table.shape == (9_000, 300)
    assert sparse.issparse(table.X)
    assert (table.X.data > 0).all()
    assert (table.X.data == np.round(table.X.data)).all()
    assert table.X.has_sorted_indices
    assert simulated.n_values == table.X.nnz
    names = table.obs["perturbation"].astype(str)
    assert (names == CONTROL).sum() == 9_000 // 8
    assert names.nunique() == 21
    assert set(names) - {CONTROL} <= set(table.var_names)
    assert table.obs["batch"].nunique() == 4
    guides = table.obs.groupby("perturbation", observed=True)["guide_id"].nunique()
    assert (guides.drop(CONTROL) == 3).all()
    assert guides[CONTROL] == 8
    assert (table.obs["guide_id"].astype(str).str.rsplit("_", n=1).str[0] == names).all()
    assert table.X.sum() / 9_000 == pytest.approx(1.5 * 300, rel=0.15)


def test_the_same_seed_gives_the_same_bytes_whatever_was_drawn_before(tmp_path):
    small = SIZES | {"cells": 2_500}
    simulate_screen(tmp_path / "a" / "screen.h5ad", **small)
    np.random.default_rng(1).random(1000)
    np.random.seed(7)
    np.random.random(1000)
    simulate_screen(tmp_path / "other" / "screen.h5ad", **(small | {"seed": 6}))
    simulate_screen(tmp_path / "b" / "screen.h5ad", **small)
    assert all_bytes(tmp_path / "a") == all_bytes(tmp_path / "b")
    assert len(all_bytes(tmp_path / "a")) == 4
    other = all_bytes(tmp_path / "other")
    assert all(other[name] != data for name, data in all_bytes(tmp_path / "a").items())


def test_counts_vary_more_than_poisson_and_batches_differ(made, shares):
    table = made[1]
    control = (table.obs["perturbation"] == CONTROL).to_numpy()
    counts = table.X.toarray()[control]
    expected = counts.mean(axis=0) * (counts.sum(axis=1) / counts.sum(axis=1).mean())[:, None]
    high = counts.mean(axis=0) > 2
    dispersion = ((counts - expected) ** 2).mean(axis=0)[high] / expected.mean(axis=0)[high]
    assert high.sum() > 20
    assert (dispersion > 1.05).mean() > 0.9
    means = shares[control].groupby(table.obs["batch"][control].to_numpy(), observed=True).mean()
    spread = np.log(means.loc[:, high]).std()
    assert 0.05 < spread.median() < 0.25


def test_targets_go_down_with_the_guides_that_work_and_not_with_the_last(made, shares):
    table, truth = made[1], made[2]
    names = table.obs["perturbation"].astype(str).to_numpy()
    number = table.obs["guide_id"].astype(str).str.rsplit("_", n=1).str[1].to_numpy()
    working, idle, planted = [], [], []
    for target in sorted(set(names) - {CONTROL}):
        base = shares[target][names == CONTROL].mean()
        working.append(np.log2(shares[target][(names == target) & (number != "3")].mean() / base))
        idle.append(np.log2(shares[target][(names == target) & (number == "3")].mean() / base))
        own = truth[(truth["pert"] == target) & (truth["gene"] == target)]
        planted.append(own["true_log2_fold_change"].item())
    assert max(working) < -0.8
    assert np.abs(idle).max() < 0.5
    assert (np.log2(0.08) <= np.array(planted)).all()
    assert (np.array(planted) <= np.log2(0.35)).all()
    # A cell or two with another guide add their share of the target's expression.
    off = np.exp2(working) - np.exp2(planted)
    assert np.median(np.abs(off)) < 0.08
    assert np.abs(off).max() < 0.2
    assert np.corrcoef(working, planted)[0, 1] > 0.8


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_planted_effects_are_found_again_in_the_counts(made, shares):
    table, truth = made[1], made[2]
    names = table.obs["perturbation"].astype(str).to_numpy()
    works = ~table.obs["guide_id"].astype(str).str.endswith("_3").to_numpy()
    control = shares[names == CONTROL].mean()
    # About one UMI a cell: a fold change of fewer is mostly noise.
    expressed = control.index[(control > 1 / 450).to_numpy()]
    planted = truth.pivot(index="pert", columns="gene", values="true_log2_fold_change").fillna(0)
    planted = planted.reindex(columns=expressed, fill_value=0)
    observed = pd.DataFrame(
        {name: np.log2(shares[(names == name) & works].mean() / control)[expressed] for name in planted.index}
    ).T
    strong = planted.abs().to_numpy() > 0.5
    none = planted.to_numpy() == 0
    assert strong.sum() > 50
    assert np.corrcoef(observed.to_numpy()[strong], planted.to_numpy()[strong])[0, 1] > 0.9
    assert np.abs(observed.to_numpy()[strong]).mean() > 3 * np.abs(observed.to_numpy()[none]).mean()
    assert (np.sign(observed) == np.sign(planted)).to_numpy()[strong].mean() > 0.95


def test_the_truth_lists_each_effect_once_and_none_of_nothing(made):
    truth = made[2]
    assert not truth.duplicated(["pert", "gene"]).any()
    assert made[0].n_effects == len(truth)
    assert truth["true_log2_fold_change"].abs().min() >= SMALLEST_EFFECT
    assert (truth["pert"] == truth["gene"]).sum() == 20
    others = truth[truth["pert"] != truth["gene"]]
    assert (others["true_log2_fold_change"] > 0).any()
    assert (others["true_log2_fold_change"] < 0).any()
    assert (others["true_log2_fold_change"].abs() < 1).mean() > 0.6


def sizes_of(**given):
    """50 targets with three guides each in four batches, and what is given."""
    plain = {"genes": 50, "perturbations": 50, "guides": 3, "batches": 4, "mean_umis": None, "seed": 0}
    return ScreenSizes(**({"wrong_guide": 0.0, "batch_imbalance": 0.0} | plain | given))


@pytest.mark.parametrize("wrong", [0.0, 0.02, 0.3])
def test_the_share_of_cells_with_another_guide_than_recorded_is_as_asked_for(wrong):
    names = np.array([f"G{i}" for i in range(50)])
    sizes = sizes_of(cells=40_000, controls=5_000, wrong_guide=wrong)
    obs, carried = design_cells(sizes, names, rng=np.random.default_rng(0))
    recorded = pd.Index(names).get_indexer(obs["perturbation"].astype(str))
    idle = obs["guide_id"].astype(str).str.endswith("_3").to_numpy() & (recorded >= 0)
    at_work = np.where(idle, -1, recorded)
    # One of 51 wrong guides is by chance the right one. Controls and idle guides can be wrong too.
    for cells in (idle, recorded < 0, ~idle & (recorded >= 0)):
        assert (carried != at_work)[cells].mean() == pytest.approx(wrong * 50 / 51, abs=0.008)


def test_imbalance_gives_each_perturbation_a_batch_with_most_of_its_cells():
    names = np.array([f"G{i}" for i in range(30)])
    largest = []
    for imbalance in (0.0, 1.0):
        sizes = sizes_of(cells=30_000, controls=3_000, batch_imbalance=imbalance)
        obs, _ = design_cells(sizes, names, rng=np.random.default_rng(0))
        table = pd.crosstab(obs["perturbation"], obs["batch"], normalize="index")
        largest.append(table.max(axis=1))
    assert (largest[0] < 0.35).all()
    assert (largest[1] > 0.7).all()


def test_the_knowledge_graph_has_lost_true_edges_and_holds_wrong_ones():
    network = plant_network(600, seed=2)
    edges, memberships = observed_knowledge(network, seed=2)
    position = {gene: index for index, gene in enumerate(network.genes)}
    pairs = {
        tuple(sorted((position[a], position[b])))
        for a, b in zip(edges["source_gene"], edges["target_gene"], strict=True)
    }
    assert len(pairs) == len(edges)
    together = (network.member @ network.member.T).toarray() > 0
    linked = network.regulation.toarray() != 0
    true = {
        (i, j)
        for i, j in itertools.combinations(range(600), 2)
        if together[i, j] or linked[i, j] or linked[j, i]
    }
    modules = {(i, j) for i, j in true if together[i, j]}
    assert 0.4 < len(pairs & modules) / len(modules) < 0.6
    assert 0.1 < len(pairs - true) / len(pairs) < 0.25
    assert all(i != j for i, j in pairs)
    known = memberships[memberships["target"].str.startswith("MODULE")]
    stated = {
        (position[gene], int(term.partition(":")[2]))
        for gene, term in zip(known["source_gene"], known["target"], strict=True)
    }
    planted = set(zip(*network.member.nonzero(), strict=True))
    assert 0.65 < len(stated & planted) / len(planted) < 0.85
    assert 0.05 < len(stated - planted) / len(stated) < 0.15
    assert memberships["target"].str.startswith("GENERIC").sum() == 600


def test_effects_travel_two_steps_and_fade():
    network = plant_network(400, seed=3)
    targets, down = np.array([5, 300]), np.array([-1.0, -3.0])
    effects = network.effects(targets, down)
    regulation = network.regulation.toarray()
    for row, target in enumerate(targets):
        direct = down[row] * regulation[target]
        expected = np.clip(direct + 0.5 * direct @ regulation, -3, 3)
        expected[np.abs(expected) < SMALLEST_EFFECT] = 0
        expected[target] = down[row]
        np.testing.assert_allclose(effects[row], expected, atol=1e-12)


def test_sizes_that_cannot_be_are_all_named(tmp_path):
    with pytest.raises(InputError) as error:
        simulate_screen(tmp_path / "x.h5ad", cells=0, genes=10, perturbations=11, seed=-1, batches=0)
    said = " | ".join(error.value.problems)
    for part in ("cells must", "perturbations must be 1 to the number of genes", "batches", "seed"):
        assert part in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "sizes",
    [
        {"cells": 1, "genes": 1, "perturbations": 1},
        {"cells": 10, "genes": 5, "perturbations": 5, "controls": 10},
        {"cells": 30, "genes": 4, "perturbations": 2, "guides": 1, "batches": 1},
    ],
)
def test_the_smallest_screens_can_be_made(tmp_path, sizes):
    made = simulate_screen(tmp_path / "x.h5ad", **sizes)
    table = anndata.read_h5ad(made.screen)
    assert table.shape == (sizes["cells"], sizes["genes"])
    assert len(read_frame(made.truth)) >= sizes["perturbations"]
