from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from storage.screens import Screen
from tasks.expression.guide_agreement import COUNTS, agreement_summary, guide_agreement, guide_groups
from tests.screens import CONTROL, make_store, random_counts, random_names

N_CELLS, N_GENES, N_PERT = 900, 23, 5


def arrays():
    """P0 has three guides, P4 one; every perturbation has a guide of very few cells besides."""
    counts, names = (
        random_counts(N_CELLS, N_GENES, seed=3, density=0.6),
        random_names(N_CELLS, N_PERT, seed=3),
    )
    rng = np.random.default_rng(3)
    number = rng.choice(4, N_CELLS, p=[0.34, 0.33, 0.31, 0.02])
    number[(names == "P4") & (number < 3)] = 0
    number[(names == "P3") & (number == 2)] = 1
    guide = np.array([f"{name}_{one}" for name, one in zip(names, number, strict=True)])
    # One effect that all guides share.
    counts[(names == "P0"), 5] += 2
    return counts, names, guide


def batches(names, guide):
    """Batches over which guides and controls are not spread alike."""
    rng = np.random.default_rng(4)
    mostly = np.where(names == CONTROL, 0, np.array([int(one[-1]) for one in guide]) % 3)
    return np.where(rng.random(N_CELLS) < 0.5, mostly, rng.integers(0, 3, N_CELLS)).astype(str)


def called(names):
    rng = np.random.default_rng(9)
    return rng.choice(np.array([1, 0, -1], np.int8), (len(names), N_GENES), p=[0.3, 0.6, 0.1])


def counted(store, client, folder, *, usable=None, min_cells=10, normalise="library", by_batch=False):
    screen = Screen(store)
    names = [f"P{i}" for i in range(N_PERT)]
    cells = screen.cells("perturbation", "guide", "control", "library_size", "batch")
    usable = np.ones(len(cells), bool) if usable is None else usable
    how = {"min_cells": min_cells, "normalise": normalise, "by_batch": by_batch}
    groups = guide_groups(cells, names, usable=usable, **how)
    blocks = folder / ".blocks"
    return guide_agreement(store, groups, calls=called(names), blocks_folder=blocks, client=client)


def by_pandas(usable, min_cells, normalise, by_batch):
    """The same counts, perturbation by perturbation and gene by gene."""
    counts, names, guide = arrays()
    library = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    values = pd.DataFrame(counts / library if normalise == "library" else counts)[usable]
    batch = batches(names, guide)[usable] if by_batch else np.zeros(usable.sum())
    names, guide = names[usable], guide[usable]
    of_batch = values[names == CONTROL].groupby(batch[names == CONTROL]).mean()
    # A cell is held against the controls of its batch.
    against = values - of_batch.loc[batch].to_numpy()
    control = values[names == CONTROL].mean()
    rows = []
    for name, calls in zip([f"P{i}" for i in range(N_PERT)], called(range(N_PERT)), strict=True):
        grouped = against[names == name].groupby(guide[names == name])
        means = grouped.mean()[grouped.size() >= min_cells]
        row = dict.fromkeys(COUNTS, 0) | {"guides_compared": len(means)}
        if len(means) > 1:
            agree = (means > 0).all() | (means < 0).all()
            not_de = (calls == 0) & (control > 0)
            row |= {
                "de_compared": (calls == 1).sum(),
                "de_agree": (agree & (calls == 1)).sum(),
                "not_de_compared": not_de.sum(),
                "not_de_agree": (agree & not_de).sum(),
            }
        rows.append(row)
    return pd.DataFrame(rows)[["guides_compared", *COUNTS]]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    counts, names, guide = arrays()
    return make_store(
        tmp_path_factory.mktemp("guides"), counts, names, guide=guide, batch=batches(names, guide)
    )


@pytest.mark.parametrize("normalise", ["library", "none"])
@pytest.mark.parametrize(("min_cells", "by_batch"), [(1, False), (10, False), (60, False), (10, True)])
def test_counts_are_those_of_pandas(store, client, tmp_path, monkeypatch, normalise, min_cells, by_batch):
    whole = Screen.gene_blocks
    monkeypatch.setattr(Screen, "gene_blocks", lambda self: whole(self, most_genes=7))
    usable = np.random.default_rng(0).random(N_CELLS) < 0.9
    how = {"usable": usable, "min_cells": min_cells, "normalise": normalise, "by_batch": by_batch}
    table, ledger = counted(store, client, tmp_path, **how)
    assert ledger.requested == ledger.done == 4
    pd.testing.assert_frame_equal(table, by_pandas(**how), check_dtype=False)
    if min_cells == 10:
        assert table["guides_compared"].tolist() == [3, 3, 3, 2, 1]
        assert table["de_compared"].tolist()[4] == 0
        assert 0 < table["de_agree"].sum() < table["de_compared"].sum()


def test_the_order_of_cells_changes_nothing(store, client, tmp_path):
    counts, names, guide = arrays()
    order = np.random.default_rng(1).permutation(N_CELLS)
    columns = {"guide": guide[order], "batch": batches(names, guide)[order]}
    shuffled = make_store(tmp_path / "b", counts[order], names[order], **columns)
    one, other = (counted(s, client, tmp_path / p)[0] for s, p in ((store, "x"), (shuffled, "y")))
    pd.testing.assert_frame_equal(one, other)


def test_finished_blocks_are_found_again(store, client, tmp_path, monkeypatch):
    whole = Screen.gene_blocks
    monkeypatch.setattr(Screen, "gene_blocks", lambda self: whole(self, most_genes=7))
    first, _ = counted(store, client, tmp_path)
    blocks = sorted((tmp_path / ".blocks").iterdir())
    blocks[1].unlink()
    again, ledger = counted(store, client, tmp_path)
    assert (ledger.skipped, ledger.done) == (3, 1)
    pd.testing.assert_frame_equal(first, again)


def test_without_two_guides_nothing_is_compared_and_the_shares_are_unknown(store, client, tmp_path):
    table, _ = counted(store, client, tmp_path, min_cells=10_000)
    assert (table == 0).all(axis=None)
    summary = agreement_summary(table)
    assert summary["guide_agreement_pairs"] == 0
    assert np.isnan(summary["guide_agreement"])
    assert np.isnan(summary["guide_agreement_not_de"])


def test_shares_are_over_all_pairs():
    table = pd.DataFrame([[2, 10, 9, 100, 30], [3, 30, 11, 300, 50]], columns=["guides_compared", *COUNTS])
    assert agreement_summary(table) == {
        "guide_agreement": 0.5,
        "guide_agreement_pairs": 40,
        "guide_agreement_not_de": 0.2,
    }
