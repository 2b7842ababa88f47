"""Filters and adjusted p-values: against pandas and statsmodels, on rank-sum tests of a made-up screen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from statsmodels.stats.multitest import multipletests

from storage.expression_tables import read_by_perturbation
from storage.screens import Screen
from storage.tables import read_frame
from tasks.expression import compare
from tasks.expression.calibration import null_summary
from tasks.expression.compare import compare_expression, untested
from tasks.expression.false_discovery import AdjustOverAll, adjust_within
from tasks.expression.gene_filters import GeneFilters
from tasks.expression.groups import perturbation_groups
from tasks.labels.label_tables import make_labels
from tests.screens import CONTROL, gene_names, make_store, random_counts, random_names

N_CELLS, N_GENES = 600, 30
NAMES = ["P0", "P1", "P2", "P3", "P4"]
P_VALUES = ["u_statistic", "p_value", "p_adj", "log10_p_value", "direction"]


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    counts, names = random_counts(N_CELLS, N_GENES, seed=3, density=0.15), random_names(N_CELLS, 5, seed=3)
    counts[names == "P1", 7] += 4
    counts[names == "P2", 8:12] += 3
    return counts, names, make_store(tmp_path_factory.mktemp("screen"), counts, names)


def table_of(screen, folder, client, **how):
    _, names, store = screen
    cells = Screen(store).cells("perturbation", "control", "library_size")
    groups = perturbation_groups(cells, NAMES, usable=np.ones(len(names), bool))
    path = folder / "tests.parquet"
    places = {"blocks_folder": folder / ".b", "table": path}
    compare_expression(store, groups, client=client, recipe={}, **places, **how)
    return path


def passed_by_pandas(screen, filters):
    counts, names, _ = screen
    frame = pd.DataFrame(counts, columns=gene_names(N_GENES))
    passed = {}
    for name in NAMES:
        both = frame[(names == name) | (names == CONTROL)]
        enough = (both.mean() >= filters.min_mean_umis) & ((both > 0).sum() >= filters.min_expressing_cells)
        passed |= {(name, gene): kept for gene, kept in enough.items()}
    return passed


@pytest.mark.parametrize("scope", ["within", "all"])
@pytest.mark.parametrize("filters", [GeneFilters(0.2), GeneFilters(0, 40), GeneFilters(0.1, 60)])
def test_filters_are_pandas_and_p_values_are_adjusted_over_what_is_left(
    screen, tmp_path, monkeypatch, client, filters, scope
):
    whole = Screen.gene_blocks
    monkeypatch.setattr(Screen, "gene_blocks", lambda self: whole(self, most_genes=8))
    monkeypatch.setattr(compare, "ROWS_AT_ONCE", 2)
    plain = read_frame(table_of(screen, tmp_path / "plain", client))
    path = table_of(screen, tmp_path / "kept", client, filters=filters, fdr_scope=scope)
    table = read_frame(path)
    others = [column for column in table if column not in P_VALUES]
    pd.testing.assert_frame_equal(table[others], plain[others])
    expected = passed_by_pandas(screen, filters)
    kept = np.array([expected[pair] for pair in zip(table["pert"], table["gene"], strict=True)])
    assert 0.1 < kept.mean() < 0.9
    assert table.loc[~kept, P_VALUES].isna().all().all()
    assert untested(path) == (~kept).sum()
    pd.testing.assert_frame_equal(table.loc[kept, ["p_value"]], plain.loc[kept, ["p_value"]])
    if scope == "all":
        adjusted = multipletests(table.loc[kept, "p_value"], method="fdr_bh")[1]
    else:
        adjusted = np.concatenate(
            [
                multipletests(rows["p_value"], method="fdr_bh")[1]
                for _, rows in table[kept].groupby("pert", observed=True)
            ]
        )
    np.testing.assert_allclose(table.loc[kept, "p_adj"], adjusted, rtol=1e-12)


def test_what_was_not_tested_is_null_in_the_file_and_not_nan(screen, tmp_path, client):
    path = table_of(screen, tmp_path, client, filters=GeneFilters(0.2))
    column = pq.read_table(path, columns=["p_value"])["p_value"]
    assert column.null_count == untested(path) > 0
    assert not np.isnan(column.drop_null().to_numpy()).any()


def test_what_was_not_tested_is_neither_1_nor_0(screen, tmp_path, client):
    path = table_of(screen, tmp_path, client, filters=GeneFilters(0.2))
    columns = ["gene", "log2_fold_change", "direction", "p_value", "p_adj", "log10_p_value"]
    made = make_labels(read_by_perturbation(path, columns), negatives=10_000, negative_min_p=0.0)
    tests = read_frame(path).astype({"pert": str, "gene": str})
    joined = made.de.merge(tests, on=["pert", "gene"], validate="one_to_one")
    assert joined["p_value"].notna().all()
    left = (tests["p_value"].notna() & (tests["pert"] != tests["gene"])).sum()
    assert len(made.de) == left < len(tests)


def test_what_was_not_tested_is_not_counted_in_the_calibration():
    tests = pd.DataFrame(
        {
            "pert": ["A"] * 4,
            "mean_pert": [1.0, 1, 1, 0],
            "mean_control": [1.0, 1, 1, 0],
            "log2_fold_change": 1.0,
            "direction": 1,
            "p_value": [0.01, 0.5, np.nan, 1.0],
            "p_adj": [0.02, 0.5, np.nan, 1.0],
        }
    )
    summary = null_summary(tests, fdr=0.05, min_log2_fold_change=0.1)
    assert (summary["null_tests"], summary["null_share_p_below_05"]) == (2, 0.5)


@pytest.mark.parametrize("n", [0, 1, 2_500])
def test_adjusting_in_pieces_is_adjusting_the_whole(n):
    rng = np.random.default_rng(n)
    p_value = np.round(rng.random(n) ** 4, 3)  # rounded: many ties, and zeros
    p_value[rng.random(n) < 0.1] = np.nan
    pieces = np.array_split(p_value, 7)
    adjust = AdjustOverAll(iter(pieces), n)
    found = np.concatenate([adjust(piece) for piece in pieces])
    tested = ~np.isnan(p_value)
    assert np.isnan(found[~tested]).all()
    if tested.any():
        expected = multipletests(p_value[tested], method="fdr_bh")[1]
        np.testing.assert_allclose(found[tested], expected, rtol=1e-12)


def test_rows_are_adjusted_each_by_itself():
    p_value = np.array([[0.01, 0.02, np.nan], [np.nan] * 3, [0.01, 0.5, 0.9]])
    expected = [[0.02, 0.02, np.nan], [np.nan] * 3, [0.03, 0.75, 0.9]]
    np.testing.assert_allclose(adjust_within(p_value), expected)
