from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from storage.errors import InputError
from tasks.labels import label_tables
from tasks.labels.label_tables import split_perturbations


def made_up_tests(n_perturbations=24, n_genes=60, *, seed=0, strong=0.3):
    """DE tests with many, few and no DE genes a perturbation; perturbations are genes too."""
    rng = np.random.default_rng(seed)
    pert, gene = np.divmod(np.arange(n_perturbations * n_genes), n_genes)
    share = np.repeat(np.linspace(0, 1, n_perturbations) ** 3 * strong, n_genes)
    p_value = np.where(
        rng.random(len(pert)) < share, 10.0 ** -rng.uniform(5, 30, len(pert)), rng.random(len(pert))
    )
    return pd.DataFrame(
        {
            "pert": pd.Categorical([f"G{i}" for i in pert]),
            "gene": pd.Categorical([f"G{i}" for i in gene]),
            "log2_fold_change": rng.normal(0, 1, len(pert)),
            "p_value": p_value,
            "p_adj": np.minimum(1, p_value * 20),
            "log10_p_value": np.log10(p_value),
        }
    )


def make_labels(tests, **rule):
    tests = tests.assign(direction=tests.get("direction", np.sign(tests["log2_fold_change"])))
    return label_tables.make_labels(tests.astype({"pert": str}).groupby("pert"), **rule)


def plain(tests):
    return tests.astype({"pert": str, "gene": str})


RULE = {"fdr": 0.05, "min_log2_fold_change": 0.3, "negative_min_p": 0.2}


def test_the_rule_by_hand():
    rows = [
        # gene, log2 fold change, p, adjusted p, label expected
        ("a", 0.5, 1e-9, 0.001, 1),
        ("b", -0.5, 1e-8, 0.049, 1),
        ("c", 0.1, 1e-7, 0.001, None),  # too small a change to be 1, too small a p to be 0
        ("d", 0.5, 0.04, 0.05, None),  # adjusted p not below 5 %
        ("e", 0.3, 1e-6, 0.04, 1),  # reaches the fold change
        ("f", 0.0, 0.2, 0.9, 0),  # reaches the p of a negative
        ("g", 2.0, 0.199, 0.9, None),
        ("h", 2.0, 0.9, 0.99, 0),  # a large change that is not significant is no positive
        ("P", -3.0, 1e-99, 1e-90, None),  # the perturbation itself
    ]
    tests = pd.DataFrame(rows, columns=["gene", "log2_fold_change", "p_value", "p_adj", "label"])
    tests["log10_p_value"] = np.log10(tests["p_value"])
    others = [tests.assign(pert=name) for name in ("P", "Q", "R", "S")]
    made = make_labels(pd.concat(others), **RULE)
    expected = {row[0]: row[4] for row in rows if row[4] is not None}
    of_p = made.de[made.de["pert"] == "P"]
    assert dict(zip(of_p["gene"], of_p["label"], strict=True)) == expected
    direction = made.dir[made.dir["pert"] == "P"]
    assert dict(zip(direction["gene"], direction["label"], strict=True)) == {"a": 1, "b": 0, "e": 1}
    counts = made.counts.set_index("perturbation")
    assert counts.loc["P", ["n_up", "n_down"]].tolist() == [2, 1]
    # The gene P is measured under the other perturbations, where it is a pair like any other.
    assert counts.loc["Q", ["n_up", "n_down"]].tolist() == [2, 2]


def test_tables_have_the_published_columns_and_types_and_no_pair_twice():
    made = make_labels(made_up_tests(), **RULE)
    for table in (made.de, made.dir):
        assert list(table) == ["pert", "gene", "label", "split"]
        assert table["label"].dtype == "Int8"
        assert set(table["label"]) == {0, 1}
        assert set(table["split"]) == {"train", "test"}
        assert not table.duplicated(["pert", "gene"]).any()
        assert (table["pert"] != table["gene"]).all()


def test_labels_come_from_where_the_rule_allows():
    tests = plain(made_up_tests())
    joined = make_labels(tests, **RULE).de.merge(tests, on=["pert", "gene"], validate="one_to_one")
    positive = joined["label"] == 1
    assert (joined["p_adj"][positive] < 0.05).all()
    assert (joined["log2_fold_change"][positive].abs() >= 0.3).all()
    assert (joined["p_value"][~positive] >= 0.2).all()
    assert positive.any()
    assert (~positive).any()


def test_direction_is_the_sign_of_the_same_positives():
    tests = plain(made_up_tests())
    made = make_labels(tests, **RULE)
    positives = made.de[made.de["label"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(made.dir.drop(columns="label"), positives.drop(columns="label"))
    joined = made.dir.merge(tests, on=["pert", "gene"])
    np.testing.assert_array_equal(joined["label"] == 1, joined["log2_fold_change"] > 0)


@pytest.mark.parametrize("by", ["strongest", "random"])
def test_positives_and_negatives_are_capped(by):
    tests = plain(made_up_tests(strong=0.9))
    made = make_labels(tests, max_positives=5, negatives=9, positives_by=by, **RULE)
    sizes = made.de.groupby(["pert", "label"]).size().unstack(fill_value=0)
    counts = made.counts.set_index("perturbation")
    n_de = (counts["n_up"] + counts["n_down"])[sizes.index]
    assert (n_de > 5).any()
    np.testing.assert_array_equal(sizes[1], n_de.clip(upper=5))
    pool = tests[(tests["p_value"] >= 0.2) & (tests["pert"] != tests["gene"])].groupby("pert").size()
    np.testing.assert_array_equal(sizes[0], pool[sizes.index].clip(upper=9))
    if by == "strongest":
        called = tests[(tests["p_adj"] < 0.05) & (tests["log2_fold_change"].abs() >= 0.3)]
        called = called[called["pert"] != called["gene"]]
        strongest = called.sort_values("p_value").groupby("pert").head(5)
        assert set(zip(strongest["pert"], strongest["gene"], strict=True)) == set(
            zip(made.dir["pert"], made.dir["gene"], strict=True)
        )


def test_all_pairs_of_a_perturbation_are_on_one_side_and_a_quarter_of_them_are_tested():
    made = make_labels(made_up_tests(n_perturbations=80), **RULE)
    assert (made.de.groupby("pert")["split"].nunique() == 1).all()
    sides = made.counts["split"].value_counts()
    assert (sides["train"], sides["test"]) == (60, 20)
    of_dir = made.dir.drop_duplicates("pert").set_index("pert")["split"]
    of_de = made.de.drop_duplicates("pert").set_index("pert")["split"]
    assert (of_dir == of_de[of_dir.index]).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("n", "share"),
    [(80, 0.25), (81, 0.25), (7, 0.25), (40, 0.1), (50, 0.5), (50, 0.4), (40, 0.75), (10, 0.9)],
)
def test_the_split_is_stratified_by_the_number_of_de_genes(seed, n, share):
    n_de = np.random.default_rng(seed).permutation(n) + 1
    counts = pd.DataFrame({"n_up": n_de // 2, "n_down": n_de - n_de // 2})
    split = split_perturbations(counts, test_share=share, seed=seed)
    n_test = (split == "test").sum()
    assert n_test == min(max(1, round(share * n)), n - 1)
    assert (split == "train").sum() == n - n_test
    # Of any number of those with fewest DE genes, the share is in the test side, give or take one.
    in_order = split[np.argsort(n_de)] == "test"
    assert np.abs(np.cumsum(in_order) - n_test / n * np.arange(1, n + 1)).max() <= 1.25


def test_perturbations_without_de_genes_are_capped_and_the_others_all_kept():
    counts = pd.DataFrame({"n_up": [0] * 50 + [3] * 30, "n_down": 0})
    split = split_perturbations(counts, max_without_de=10)
    assert (split[:50] != "").sum() == 10
    assert (split[50:] != "").all()
    tests = made_up_tests(strong=0.1)
    made = make_labels(tests, max_without_de=2, **RULE)
    n_de = made.counts["n_up"] + made.counts["n_down"]
    assert (n_de == 0).sum() > 2
    assert ((n_de == 0) & (made.counts["split"] != "")).sum() == 2
    left_out = set(made.counts["perturbation"][made.counts["split"] == ""])
    assert left_out.isdisjoint(made.de["pert"])


def test_the_order_of_rows_changes_nothing():
    tests = made_up_tests()
    shuffled = tests.sample(frac=1, random_state=1)
    for by in ("strongest", "random"):
        one, other = (make_labels(t, max_positives=4, positives_by=by, **RULE) for t in (tests, shuffled))
        for name in ("de", "dir", "counts"):
            pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))


def test_a_perturbation_draws_the_same_negatives_whatever_the_others_are():
    tests = plain(made_up_tests())
    fewer = tests[tests["pert"].isin([f"G{i}" for i in range(10, 24)])]
    whole, part = (make_labels(t, negatives=9, **RULE).de.drop(columns="split") for t in (tests, fewer))
    whole = whole[whole["pert"].isin(part["pert"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, whole)


def test_the_seed_decides_the_draws():
    tests = made_up_tests()
    one, same, other = (make_labels(tests, negatives=9, seed=seed, **RULE) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one.de, same.de)
    assert not one.de.equals(other.de)
    assert one.counts["split"].tolist() != other.counts["split"].tolist()


@pytest.mark.parametrize(
    ("n", "share", "least"), [(0, 0.25, 4), (1, 0.25, 4), (3, 0.25, 4), (1, 0.9, 2), (9, 0.1, 10)]
)
def test_too_few_perturbations_to_split_are_said_to_be(n, share, least):
    tests = plain(made_up_tests(n_perturbations=max(n, 1)))
    tests = tests[tests["pert"].isin([f"G{i}" for i in range(n)])]
    with pytest.raises(InputError, match=f"{n} perturbations are too few .* at least {least} are needed"):
        make_labels(tests, test_share=share)


def test_a_pair_is_0_only_where_the_test_could_have_seen_an_effect():
    tests = plain(made_up_tests())
    rng = np.random.default_rng(5)
    tests["detectable_log2_fold_change"] = np.where(
        rng.random(len(tests)) < 0.1, np.inf, rng.gamma(3, 0.4, len(tests))
    )
    tests.loc[rng.random(len(tests)) < 0.1, ["p_value", "p_adj", "log10_p_value"]] = np.nan
    made = make_labels(tests, detectable=1.2, negatives=1000, **RULE)
    tests["called"] = (tests["p_adj"] < 0.05) & (tests["log2_fold_change"].abs() >= 0.3)
    others = tests[tests["pert"] != tests["gene"]]
    seen = (others["detectable_log2_fold_change"] <= 1.2) & others["p_value"].notna()
    may_be_0 = ~others["called"] & seen & (others["p_value"] >= 0.2)
    zeros = made.de[made.de["label"] == 0]
    assert set(zip(zeros["pert"], zeros["gene"], strict=True)) == set(
        zip(others["pert"][may_be_0], others["gene"][may_be_0], strict=True)
    )
    counts = made.counts.set_index("perturbation")
    for column, kind in (
        ("n_not_de", may_be_0),
        ("n_uncertain", ~others["called"] & seen & (others["p_value"] < 0.2)),
        ("n_unmeasured", ~others["called"] & ~seen),
    ):
        assert counts[column].to_dict() == kind.groupby(others["pert"]).sum().to_dict()
        assert counts[column].sum() > 0
    total = counts[["n_up", "n_down", "n_not_de", "n_uncertain", "n_unmeasured"]].sum(axis=1)
    assert total.to_dict() == others.groupby("pert").size().to_dict()


def test_without_asking_what_could_be_seen_the_tables_are_those_of_old():
    tests = plain(made_up_tests())
    asked = tests.assign(detectable_log2_fold_change=np.inf)
    for name in ("de", "dir", "counts"):
        frames = [getattr(make_labels(t, **RULE), name) for t in (tests, asked)]
        pd.testing.assert_frame_equal(*frames)


def test_perturbations_of_which_nothing_can_be_said_are_on_no_side():
    tests = plain(made_up_tests(strong=0.0)).assign(detectable_log2_fold_change=0.5)
    blind = tests["pert"].isin(["G3", "G4"])
    tests.loc[blind, "detectable_log2_fold_change"] = np.inf
    tests["p_adj"] = 1.0
    made = make_labels(tests, detectable=1.0, **RULE)
    assert set(made.counts["perturbation"][made.counts["split"] == ""]) == {"G3", "G4"}
    assert made.de["pert"].nunique() == 22
    tests["detectable_log2_fold_change"] = np.inf
    with pytest.raises(InputError, match=r"24 of 24 perturbations have no DE gene.*raise --detectable"):
        make_labels(tests, detectable=1.0, **RULE)


def test_a_split_that_is_settled_is_kept():
    tests = plain(made_up_tests())
    split = {f"G{i}": "test" if i % 3 else "train" for i in range(20)} | {"G1": ""}
    made = make_labels(tests, split=split, **RULE)
    of_pert = made.de.drop_duplicates("pert").set_index("pert")["split"].to_dict()
    assert of_pert == {name: side for name, side in split.items() if side}


def test_a_perturbation_without_any_allowed_negative_has_positives_only():
    tests = plain(made_up_tests(n_perturbations=8, strong=0.9))
    tests.loc[tests["pert"] == "G7", ["p_value", "p_adj", "log10_p_value"]] = 1e-20, 1e-19, -20
    tests.loc[tests["pert"] == "G7", "log2_fold_change"] = 1.0
    made = make_labels(tests, **RULE)
    assert set(made.de["label"][made.de["pert"] == "G7"]) == {1}
