from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.expression.side_by_side import call_codes, null_quantiles, shared_calls
from tasks.report.page import Report, report_html
from tasks.report.side_by_side_section import side_by_side_section

RULE = {"fdr": 0.05, "min_log2_fold_change": 0.2}


def made_up(seed, n=300):
    """Tests of five perturbations, some of them not done."""
    rng = np.random.default_rng(seed)
    p_value = rng.random(n) ** 5
    p_value[rng.random(n) < 0.15] = np.nan
    fold_change = rng.normal(0, 0.5, n)
    return pd.DataFrame(
        {
            "pert": [f"P{i % 5}" for i in range(n)],
            "gene": [f"G{i // 5}" for i in range(n)],
            "log2_fold_change": fold_change,
            "direction": np.sign(fold_change),
            "mean_pert": 1.0,
            "mean_control": 1.0,
            "p_value": p_value,
            "p_adj": np.minimum(1, p_value * 4),
            "log10_p_value": np.log10(p_value),
        }
    )


def test_shared_calls_are_counted_by_hand():
    tables = {"wilcoxon": made_up(0), "pseudobulk": made_up(1)[lambda t: t["pert"] != "P4"]}
    perturbations, genes = [f"P{i}" for i in range(5)], [f"G{i}" for i in range(59, -1, -1)]
    codes = {name: call_codes(t.groupby("pert"), perturbations, genes, **RULE) for name, t in tables.items()}
    done, called = {}, {}
    for name, table in tables.items():
        pairs = list(zip(table["pert"], table["gene"], strict=True))
        is_done = table["p_value"].notna()
        is_called = (table["p_adj"] < 0.05) & (table["log2_fold_change"].abs() >= 0.2)
        done[name] = {pair for pair, one in zip(pairs, is_done, strict=True) if one}
        called[name] = {pair for pair, one in zip(pairs, is_called, strict=True) if one}
        assert (codes[name] >= 0).sum() == len(done[name])
        assert (codes[name] == 1).sum() == len(called[name])
    both = done["wilcoxon"] & done["pseudobulk"]
    shared = shared_calls(codes).set_index(["test", "other"])
    assert len(shared) == 2
    for test, other in (("wilcoxon", "pseudobulk"), ("pseudobulk", "wilcoxon")):
        row = shared.loc[(test, other)]
        mine = called[test] & both
        assert row["n_both"] == len(both) < len(done[test])
        assert row["n_called"] == len(mine) > 0
        assert row["n_shared"] == len(mine & called[other])
        assert row["share"] == pytest.approx(len(mine & called[other]) / len(mine))


def test_the_perturbed_gene_itself_is_no_call():
    table = made_up(0).assign(p_value=0.0, p_adj=0.0, log2_fold_change=-4.0, direction=-1)
    table.loc[table["pert"] == "P2", "gene"] = [f"P{i}" for i in range(60)]
    codes = call_codes(table.groupby("pert"), ["P1", "P2"], [f"P{i}" for i in range(60)], **RULE)
    assert codes[1].tolist() == [-1 if i == 2 else 1 for i in range(60)]


def test_quantiles_are_the_ordered_p_values_of_expressed_genes():
    tests = made_up(2)
    tests.loc[:9, ["mean_pert", "mean_control"]] = 0.0
    quantiles = null_quantiles(tests)
    ordered = np.sort(tests["p_value"].iloc[10:].dropna())
    assert set(quantiles["n"]) == {len(ordered)}
    rank = quantiles["rank"].to_numpy()
    assert rank[0] == 1
    assert rank[-1] == len(ordered)
    np.testing.assert_allclose(quantiles["minus_log10_p"], -np.log10(ordered[rank - 1]), atol=1e-12)
    assert null_quantiles(tests.iloc[:10]).empty


def summary(**more):
    return pd.DataFrame(
        {
            "test": ["wilcoxon", "stratified", "pseudobulk"],
            "model": ["", "", "glm"],
            "perturbations": [5, 5, 4],
            "tests": [300, 300, 200],
            "de_calls": [40, 38, 0],
        }
        | more
    )


def agreement(calls=(40, 38, 0)):
    names = ["wilcoxon", "stratified", "pseudobulk"]
    rows = [
        (
            a,
            b,
            200,
            calls[i],
            min(calls[i], calls[j]),
            min(calls[i], calls[j]) / calls[i] if calls[i] else np.nan,
        )
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if a != b
    ]
    return pd.DataFrame(rows, columns=["test", "other", "n_both", "n_called", "n_shared", "share"])


def test_the_section_names_every_test_and_its_figures():
    quantiles = pd.concat(
        [null_quantiles(made_up(i)).assign(test=t) for i, t in enumerate(summary()["test"])]
    )
    null = {"null_perturbations": 3, "null_tests": 90, "null_share_p_below_05": [0.05, 0.061, np.nan]}
    truth = {"realised_fdr": [0.0894, 0.087, np.nan], "power": [0.2, 0.19, 0.0]}
    shown = summary(**null, null_de_calls=[2, 1, 0], **truth)
    section = side_by_side_section(shown, agreement(), quantiles, chosen="stratified")
    page = report_html(Report("title", sections=[section]))
    for text in (
        "stratified (gives the labels)",
        "pseudobulk, glm",
        "8.9%",
        "6.1%",
        "false discovery rate is near",
        "no calls",
        "95%",
        "stratified and wilcoxon",
    ):
        assert text in page, text
    assert "nan" not in page.lower().replace("nano", "")


def test_without_false_perturbations_and_truth_it_says_so():
    section = side_by_side_section(summary(), agreement(), None, chosen="wilcoxon")
    page = report_html(Report("title", sections=[section]))
    assert "no false perturbations were tested" in page
    assert "realised" not in page
    assert "the most calls has the most power" in page
