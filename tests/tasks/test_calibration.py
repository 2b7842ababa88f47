from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.expression.calibration import (
    called,
    check_against_truth,
    hidden_effects,
    median_shift,
    null_summary,
    shifted_share,
)

RULE = {"fdr": 0.05, "min_log2_fold_change": 0.25}


def made_up(seed=0, n=400):
    rng = np.random.default_rng(seed)
    p_value = rng.random(n) ** 3
    fold_change = rng.normal(0, 1, n)
    return pd.DataFrame(
        {
            "pert": pd.Categorical([f"P{i % 8}" for i in range(n)]),
            "gene": pd.Categorical([f"G{i // 8}" for i in range(n)]),
            "mean_pert": rng.integers(0, 2, n).astype(float),
            "mean_control": rng.integers(0, 2, n).astype(float),
            "log2_fold_change": fold_change,
            "direction": np.sign(fold_change).astype(int),
            "p_value": p_value,
            "p_adj": np.minimum(1, p_value * 5),
        }
    )


def by_perturbation(tests):
    return tests.astype({"pert": str}).groupby("pert")


def test_a_call_needs_both_the_adjusted_p_and_the_fold_change():
    tests = pd.DataFrame({"p_adj": [0.049, 0.05, 0.049, 0.0], "log2_fold_change": [0.25, 9.0, -0.25, 0.249]})
    tests["direction"] = [1, 1, -1, 1]
    assert called(tests, **RULE).tolist() == [True, False, True, False]


def test_a_call_needs_test_and_fold_change_on_the_same_side():
    # Most cells have more, but a few controls have so much that their mean is higher.
    tests = pd.DataFrame({"p_adj": 1e-9, "log2_fold_change": [1.0, -1.0, 1.0, -1.0, 1.0]})
    tests["direction"] = pd.array([1, 1, 0, -1, None], "Int8")
    assert called(tests, **RULE).tolist() == [True, False, False, True, False]


def test_what_is_said_of_false_perturbations_is_counted_by_hand():
    tests = made_up()
    summary = null_summary(tests, **RULE)
    expressed = [row for row in tests.itertuples() if row.mean_pert + row.mean_control > 0]
    calls = sum(row.p_adj < 0.05 and abs(row.log2_fold_change) >= 0.25 for row in tests.itertuples())
    assert 0 < len(expressed) < len(tests)
    assert calls > 0
    assert summary == {
        "null_perturbations": 8,
        "null_tests": len(expressed),
        "null_share_p_below_05": pytest.approx(sum(row.p_value < 0.05 for row in expressed) / len(expressed)),
        "null_de_calls": calls,
        "null_de_calls_per_perturbation": calls / 8,
    }


def test_realised_fdr_and_power_are_counted_by_hand():
    tests = made_up()
    rng = np.random.default_rng(1)
    pairs = tests[["pert", "gene"]].astype(str)
    truth = pairs.sample(90, random_state=0).assign(true_log2_fold_change=rng.normal(0, 0.8, 90))
    planted = {(row.pert, row.gene): row.true_log2_fold_change for row in truth.itertuples()}
    table = check_against_truth(by_perturbation(tests), truth, **RULE).set_index("group")
    calls = {
        (row.pert, row.gene): row.log2_fold_change
        for row in tests.itertuples()
        if row.p_adj < 0.05 and abs(row.log2_fold_change) >= 0.25
    }
    right = {pair for pair, change in calls.items() if planted.get(pair, 0) * change > 0}
    assert 0 < len(right) < len(calls.keys() & planted.keys())
    assert table.loc["all", "n_called"] == len(calls)
    assert table.loc["all", "n_true"] == 90
    assert table.loc["all", "false_discovery_rate"] == pytest.approx(1 - len(right) / len(calls))
    assert table.loc["all", "power"] == pytest.approx(len(right) / 90)
    for name, low, high in (
        ("0-0.25", 0, 0.25),
        ("0.25-0.5", 0.25, 0.5),
        ("0.5-1", 0.5, 1),
        ("above 1", 1, 99),
    ):
        inside = {pair for pair, effect in planted.items() if low < abs(effect) <= high}
        assert table.loc[name, "n_true"] == len(inside)
        assert table.loc[name, "power"] == pytest.approx(len(right & inside) / len(inside))
    assert table["n_true"].iloc[1:].sum() == 90


def test_the_perturbed_gene_itself_is_neither_a_call_nor_an_effect():
    tests = made_up().astype({"pert": str, "gene": str})
    truth = tests[["pert", "gene"]].sample(90, random_state=0).assign(true_log2_fold_change=1.0)
    own = pd.DataFrame(
        {"pert": [f"P{i}" for i in range(8)], "gene": [f"P{i}" for i in range(8)], "p_adj": 0.0}
    ).assign(log2_fold_change=-3.0)
    with_own = pd.concat([tests, own])
    both = pd.concat([truth, own[["pert", "gene"]].assign(true_log2_fold_change=-3.0)])
    alone = check_against_truth(by_perturbation(tests), truth, **RULE)
    for planted in (truth, both):
        found = check_against_truth(by_perturbation(with_own), planted, **RULE)
        pd.testing.assert_frame_equal(found, alone)


def test_without_a_call_or_an_effect_the_shares_are_unknown_not_zero():
    tests = made_up().assign(p_adj=1.0)
    truth = pd.DataFrame({"pert": ["P0"], "gene": ["elsewhere"], "true_log2_fold_change": [1.0]})
    table = check_against_truth(by_perturbation(tests), truth, **RULE).set_index("group")
    assert np.isnan(table.loc["all", "false_discovery_rate"])
    assert np.isnan(table.loc["all", "power"])
    assert table.loc["all", ["n_true", "n_called"]].tolist() == [0, 0]


def test_hidden_effects_are_counted_among_zeros_only():
    labels = pd.DataFrame({"pert": list("aaab"), "gene": list("xyzx"), "label": [0, 0, 1, 0]})
    truth = pd.DataFrame(
        {"pert": list("aaa"), "gene": list("xyz"), "true_log2_fold_change": [-1.0, 0.4, 3.0]}
    )
    assert hidden_effects(labels, truth, least=0.0) == pytest.approx(2 / 3)
    assert hidden_effects(labels, truth, least=1.0) == pytest.approx(1 / 3)
    assert np.isnan(hidden_effects(labels.head(0), truth, least=1.0))


def test_the_shift_is_the_median_of_the_better_measured_half_of_the_genes():
    rng = np.random.default_rng(0)
    level = np.concatenate([np.zeros(10), np.geomspace(0.01, 100, 60)])
    change = np.where(level > 1, 0.3, -2.0) + rng.normal(0, 0.01, 70)
    tests = pd.DataFrame({"mean_control": level, "log2_fold_change": change})
    assert median_shift(tests) == pytest.approx(np.median(change[level >= np.median(level[level > 0])]))
    # A third of the genes that respond strongly are no shift.
    response = tests.assign(log2_fold_change=np.where(np.arange(70) % 3 == 0, 2.0, 0.0))
    assert median_shift(response) == 0
    assert np.isnan(median_shift(tests.tail(15)))
    named = [("A", tests), ("B", response), ("C", tests.tail(15))]
    assert shifted_share(named) == 0.5
    assert np.isnan(shifted_share(named[2:]))
