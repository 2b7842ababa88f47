from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from storage.screens import Screen
from tasks.expression.pseudobulk import pseudobulk
from tests.screens import gene_names, make_store, random_counts, random_names

N_CELLS, N_GENES = 500, 17


def arrays():
    counts, names = random_counts(N_CELLS, N_GENES, seed=6), random_names(N_CELLS, 4, seed=6)
    batch = np.random.default_rng(6).choice(["b1", "b2", "b10"], N_CELLS, p=[0.6, 0.39, 0.01])
    return counts, names, batch


def summed(store, usable, folder, client):
    n, ledger = pseudobulk(
        store, usable, blocks_folder=folder / ".blocks", target=folder / "profiles.h5ad", client=client
    )
    table = anndata.read_h5ad(folder / "profiles.h5ad")
    assert n == table.n_obs
    assert ledger.requested == ledger.done + ledger.skipped
    return table


@pytest.mark.parametrize("batches", [True, False])
def test_profiles_are_the_sums_of_pandas_groupby(tmp_path, monkeypatch, client, batches):
    whole = Screen.gene_blocks
    monkeypatch.setattr(Screen, "gene_blocks", lambda self: whole(self, most_genes=5))
    counts, names, batch = arrays()
    usable = np.random.default_rng(0).random(N_CELLS) < 0.8
    store = make_store(tmp_path, counts, names, **({"batch": batch} if batches else {}))
    table = summed(store, usable, tmp_path, client)
    keys = {"perturbation": names, "batch": batch} if batches else {"perturbation": names}
    frame = pd.DataFrame(counts, columns=gene_names(N_GENES)).assign(**keys)[usable]
    grouped = frame.groupby(list(keys), sort=True)
    expected = grouped.sum()
    np.testing.assert_array_equal(table.X.toarray(), expected.to_numpy())
    assert table.X.dtype == np.int32
    assert list(table.var_names) == gene_names(N_GENES)
    for number, key in enumerate(keys):
        assert table.obs[key].astype(str).tolist() == expected.index.get_level_values(number).tolist()
    assert table.obs["n_cells"].tolist() == grouped.size().tolist()
    assert table.obs["library_size"].tolist() == expected.sum(axis=1).tolist()
    assert table.obs["control"].tolist() == (table.obs["perturbation"] == "non-targeting").tolist()


def test_sums_too_large_for_32_bits_are_right_too(tmp_path, client):
    counts, names, batch = arrays()
    counts[:, 3] = 2**31 - 10
    table = summed(make_store(tmp_path, counts, names, batch=batch), np.ones(N_CELLS, bool), tmp_path, client)
    expected = pd.DataFrame(counts.astype(np.int64)).groupby([names, batch]).sum()
    np.testing.assert_array_equal(table.X.toarray(), expected.to_numpy())
    assert table.X.max() > 2**32


def test_the_order_of_cells_changes_no_sum_and_the_same_input_gives_the_same_bytes(tmp_path, client):
    counts, names, batch = arrays()
    order = np.random.default_rng(1).permutation(N_CELLS)
    files = []
    for place, rows in (("a", slice(None)), ("b", slice(None)), ("c", order)):
        store = make_store(tmp_path / place, counts[rows], names[rows], batch=batch[rows])
        summed(store, np.ones(N_CELLS, bool), tmp_path / place, client)
        files.append((tmp_path / place / "profiles.h5ad").read_bytes())
    assert files[0] == files[1] == files[2]


def test_sums_go_beyond_32_bits(tmp_path, client):
    counts = np.full((60, 2), 2**31)
    store = make_store(tmp_path, counts, ["non-targeting", "A"] * 30)
    table = summed(store, np.ones(60, bool), tmp_path, client)
    assert table.X.toarray().tolist() == [[30 * 2**31] * 2] * 2
