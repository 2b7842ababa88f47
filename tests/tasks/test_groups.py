from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.expression.groups import (
    LEAST_FALSE_GUIDES,
    RANDOM_PART,
    false_perturbation_groups,
    perturbation_groups,
)
from tests.screens import CONTROL


def cells_of(n=1200, *, guides=12, seed=0):
    """Half the cells are controls, with guides of very different sizes."""
    rng = np.random.default_rng(seed)
    control = rng.random(n) < 0.5
    share = rng.dirichlet(np.full(guides, 2.0)) if guides else None
    guide = rng.choice([f"nt_{i}" for i in range(guides)], n, p=share) if guides else np.full(n, "x")
    cells = pd.DataFrame(
        {
            "perturbation": pd.Categorical(np.where(control, CONTROL, rng.choice(["A", "B", "C"], n))),
            "control": control,
            "library_size": rng.integers(0, 50, n),
            "guide": pd.Categorical(np.where(control, guide, "other")),
        }
    )
    return cells if guides else cells.drop(columns="guide")


def members(groups):
    """Rows of each false perturbation by name, and of the controls."""
    rows = {name: np.flatnonzero(groups.group == index) for index, name in enumerate(groups.names)}
    return rows, np.flatnonzero(groups.group == len(groups.names))


def test_cells_are_grouped_by_perturbation_with_controls_last():
    cells = cells_of()
    usable = np.random.default_rng(1).random(len(cells)) < 0.8
    groups = perturbation_groups(cells, ["C", "A"], usable=usable)
    names = cells["perturbation"].astype(str)
    assert groups.names == ("C", "A")
    for index, name in enumerate(["C", "A", CONTROL]):
        np.testing.assert_array_equal(groups.group == index, (names == name) & usable)
        assert groups.sizes[index] == ((names == name) & usable).sum()
    assert ((groups.group == -1) == ((names == "B") | ~usable)).all()


def test_counts_are_divided_by_library_size_or_by_nothing_never_by_zero():
    cells = cells_of()
    usable = np.ones(len(cells), bool)
    by_library = perturbation_groups(cells, ["A"], usable=usable).library
    np.testing.assert_array_equal(by_library, cells["library_size"].clip(lower=1).astype(float))
    assert (perturbation_groups(cells, ["A"], usable=usable, normalise="none").library == 1).all()


@pytest.mark.parametrize("guides", [0, 2, 3, 12, 60])
@pytest.mark.parametrize("seed", range(4))
def test_false_perturbations_are_disjoint_control_cells_and_at_most_half_of_them(guides, seed):
    cells = cells_of(guides=guides, seed=seed)
    usable = np.random.default_rng(seed).random(len(cells)) < 0.9
    groups = false_perturbation_groups(cells, usable=usable, seed=seed, most=7, min_cells=20)
    false, controls = members(groups)
    held_out = np.concatenate(list(false.values()))
    real = np.flatnonzero(cells["control"].to_numpy() & usable)
    assert sorted([*held_out, *controls]) == real.tolist()
    assert 0 < len(held_out) <= len(real) / 2
    assert 1 <= len(groups.names) <= 7
    assert all(len(rows) >= 20 for rows in false.values())
    assert groups.sizes.tolist() == [len(rows) for rows in false.values()] + [len(controls)]
    # Of three guides or fewer, at most one is held out in half of the cells.
    if any(name.startswith(RANDOM_PART) for name in false):
        assert guides in (0, 2, 3)
        return
    assert len(groups.names) >= LEAST_FALSE_GUIDES
    guide = cells["guide"].astype(str).to_numpy()
    for name, rows in false.items():
        whole = np.isin(guide[real], np.unique(guide[rows]))
        np.testing.assert_array_equal(np.sort(rows), np.sort(real[whole]))
        assert name.split(" and ")[0] in guide[rows]


def test_false_perturbations_of_guides_do_not_depend_on_the_order_of_cells():
    cells = cells_of()
    usable = np.ones(len(cells), bool)
    order = np.random.default_rng(1).permutation(len(cells))
    shuffled = cells.iloc[order].reset_index(drop=True)
    one = false_perturbation_groups(cells, usable=usable, seed=3)
    other = false_perturbation_groups(shuffled, usable=usable, seed=3)
    assert one.names == other.names
    np.testing.assert_array_equal(one.group[order], other.group)


def test_the_same_seed_holds_out_the_same_cells_and_another_seed_others():
    for guides in (0, 40):
        cells = cells_of(guides=guides)
        usable = np.ones(len(cells), bool)
        groups = [false_perturbation_groups(cells, usable=usable, seed=seed, most=5) for seed in (1, 1, 2)]
        np.testing.assert_array_equal(groups[0].group, groups[1].group)
        assert not np.array_equal(groups[0].group, groups[2].group)


@pytest.mark.parametrize("n_controls", [0, 1, 30, 49])
def test_too_few_control_cells_are_not_held_out(n_controls):
    cells = pd.DataFrame({"control": np.arange(200) < n_controls, "library_size": 5})
    usable = np.ones(200, bool)
    assert false_perturbation_groups(cells, usable=usable, seed=0, min_cells=25) is None
    fifty = cells.assign(control=np.arange(200) < 50)
    assert len(false_perturbation_groups(fifty, usable=usable, seed=0, min_cells=25).names) == 1


@pytest.mark.parametrize("sizes", [[1000, 10], [900, 100], [800, 100, 100], [700, 300], [250] * 4])
def test_where_fewer_than_three_control_guides_can_be_held_out_parts_are_drawn_at_random(sizes):
    guide = np.repeat([f"nt_{i}" for i in range(len(sizes))], sizes)
    cells = pd.DataFrame({"control": True, "guide": guide, "library_size": 5})
    groups = false_perturbation_groups(cells, usable=np.ones(len(cells), bool), seed=0)
    assert len(groups.names) == 20
    assert all(name.startswith(RANDOM_PART) for name in groups.names)
    assert groups.sizes[-1] >= len(cells) / 2


def test_many_small_control_guides_are_put_together():
    guides = [f"safe-{i}" for i in range(200)]
    cells = pd.DataFrame(
        {"guide": pd.Categorical(np.repeat(guides, 15)), "control": True, "library_size": 100}
    )
    groups = false_perturbation_groups(cells, usable=np.ones(len(cells), bool), seed=0, min_cells=25)
    assert len(groups.names) == 20
    assert set(groups.sizes[:-1]) == {30}
    assert all("and 1 more" in name for name in groups.names)


def batched(*, guides, per_guide=100, batches=4, confounded):
    """Controls whose guides are in one batch each, or spread over all."""
    guide = np.repeat(np.arange(guides), per_guide)
    batch = guide % batches if confounded else np.arange(len(guide)) % batches
    return pd.DataFrame(
        {
            "control": True,
            "guide": [f"nt_{i}" for i in guide],
            "batch": [f"b{i}" for i in batch],
            "library_size": 50,
        }
    )


@pytest.mark.parametrize(("guides", "confounded"), [(4, True), (6, True), (12, True), (12, False)])
def test_false_perturbations_compared_within_batches_are_beside_controls(guides, confounded):
    cells = batched(guides=guides, confounded=confounded)
    usable = np.ones(len(cells), bool)
    for seed in range(5):
        groups = false_perturbation_groups(cells, usable=usable, seed=seed, min_cells=25, by_batch=True)
        false, controls = members(groups)
        with_controls = set(cells["batch"].iloc[controls])
        assert len(false) >= 1
        for rows in false.values():
            assert len(rows) >= 25
            assert set(cells["batch"].iloc[rows]) <= with_controls
        # Six guides are two each in two batches and one in the others: two can be held out whole.
        assert (guides <= 6) == any(name.startswith(RANDOM_PART) for name in false)


def test_cells_of_a_false_perturbation_in_a_batch_without_other_controls_are_left_out():
    cells = batched(guides=8, confounded=False)
    only = (cells["guide"] == "nt_3") & (np.arange(len(cells)) % 8 < 2)
    cells.loc[only, "batch"] = "its own"
    for seed in range(8):
        groups = false_perturbation_groups(
            cells, usable=np.ones(len(cells), bool), seed=seed, min_cells=25, by_batch=True
        )
        if "nt_3" in groups.names:
            assert groups.sizes[groups.names.index("nt_3")] == 100 - only.sum()
            assert (groups.group[only] == -1).all()
            break
    else:
        raise AssertionError("nt_3 was never held out")
