from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hmean

from storage.errors import InputError
from storage.screens import Screen
from tasks.screens.quality import check_quality, usable_cells
from tests.screens import CONTROL, make_store, random_counts, random_names

N_CELLS, N_GENES, N_PERT = 400, 12, 6


def arrays():
    """P0 to P2 have a measured target of their own name; P0 is not expressed at all."""
    counts, names = random_counts(N_CELLS, N_GENES, seed=8), random_names(N_CELLS, N_PERT, seed=8)
    counts[names == "P1", 1] = 0
    counts[:, 2] += 1
    guide = np.array([f"{name}_{i % 3}" for i, name in enumerate(names)])
    return counts, names, guide


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    counts, names, guide = arrays()
    return make_store(tmp_path_factory.mktemp("quality"), counts, names, guide=guide)


def by_pandas(min_cell_umis):
    """Each usable cell's names and share of UMIs in the measured targets."""
    counts, names, guide = arrays()
    library = counts.sum(axis=1)
    shares = counts[:, :3] / np.maximum(library, 1)[:, None]
    cells = pd.DataFrame(shares, columns=["P0", "P1", "P2"]).assign(name=names, guide=guide)
    cells["usable"] = library >= min_cell_umis
    return cells


@pytest.mark.parametrize("min_cell_umis", [1, 8])
def test_counts_and_knock_down_are_those_of_pandas(store, min_cell_umis):
    table, guides = check_quality(store, min_cell_umis=min_cell_umis)
    cells = by_pandas(min_cell_umis)
    perturbed = cells[cells["name"] != CONTROL]
    assert table["perturbation"].tolist() == sorted(perturbed["name"].unique())
    assert table["n_cells"].tolist() == perturbed.groupby("name").size().tolist()
    assert table["n_usable"].tolist() == perturbed.groupby("name")["usable"].sum().tolist()
    library = pd.Series(arrays()[0].sum(axis=1))[cells["usable"]].groupby(cells["name"])
    expected = library.apply(hmean)[table["perturbation"]]
    np.testing.assert_allclose(table["umis_per_cell"], expected, rtol=1e-12)
    assert table["n_guides"].tolist() == perturbed.groupby("name")["guide"].nunique().tolist()
    usable = cells[cells["usable"]]
    for row in table.itertuples():
        assert row.target_measured == (row.perturbation in {"P0", "P1", "P2"})
        if row.perturbation in {"P1", "P2"}:
            means = usable.groupby("name")[row.perturbation].mean()
            expected = means[row.perturbation] / means[CONTROL]
            np.testing.assert_allclose(row.target_remaining, expected, rtol=1e-12)
            with np.errstate(divide="ignore"):
                np.testing.assert_allclose(row.target_log2_fold_change, np.log2(expected), rtol=1e-9)
        else:
            assert np.isnan(row.target_remaining)
    assert table.set_index("perturbation")["target_remaining"]["P1"] == 0
    expected = perturbed.groupby(["name", "guide"])["usable"].sum()
    assert guides.set_index(["perturbation", "guide"])["n_cells"].to_dict() == expected.to_dict()
    by_guide = usable[usable["name"] == "P2"].groupby("guide")["P2"].mean()
    by_guide = by_guide / usable.loc[usable["name"] == CONTROL, "P2"].mean()
    got = guides[guides["perturbation"] == "P2"].set_index("guide")["target_remaining"]
    np.testing.assert_allclose(got[by_guide.index], by_guide, rtol=1e-12)


def test_perturbations_are_excluded_for_the_reasons_given_and_no_others(store):
    plain, _ = check_quality(store, min_cells=2)
    assert (plain["status"] == "kept").all()
    assert (plain["reason"] == "").all()
    least = int(plain["n_usable"].median())
    few, _ = check_quality(store, min_cells=least)
    np.testing.assert_array_equal(few["status"] == "excluded", few["n_usable"] < least)
    excluded = few[few["status"] == "excluded"].iloc[0]
    assert excluded["reason"] == f"{excluded['n_usable']} usable cells, fewer than {least}"
    weak, _ = check_quality(store, min_cells=2, max_target_remaining=0.01)
    assert weak.loc[weak["status"] == "excluded", "perturbation"].tolist() == ["P2"]
    both, _ = check_quality(store, min_cells=10_000, max_target_remaining=0.01)
    reason = both.set_index("perturbation")["reason"]["P2"]
    assert "fewer than 10000; target keeps" in reason


def test_the_order_of_cells_changes_no_library_size(tmp_path, store):
    counts, names, guide = arrays()
    order = np.random.default_rng(0).permutation(N_CELLS)
    shuffled = make_store(tmp_path, counts[order], names[order], guide=guide[order])
    one, other = (check_quality(place)[0]["umis_per_cell"] for place in (store, shuffled))
    np.testing.assert_array_equal(one, other)


def test_a_screen_without_guides_has_no_guide_rows(tmp_path):
    counts, names, _ = arrays()
    table, guides = check_quality(make_store(tmp_path, counts, names))
    assert (table["n_guides"] == 0).all()
    assert list(guides) == ["perturbation", "guide", "n_cells", "target_remaining"]
    assert len(guides) == 0


def test_usable_cells_have_the_umis_asked_for(store):
    library = arrays()[0].sum(axis=1)
    for least in (1, 5, 20):
        np.testing.assert_array_equal(usable_cells(Screen(store), min_cell_umis=least), library >= least)


def test_a_screen_whose_controls_have_too_few_umis_is_refused(store):
    with pytest.raises(InputError, match="no control cell has 1,000,000 UMIs; lower --min-cell-umis"):
        check_quality(store, min_cell_umis=1_000_000)
