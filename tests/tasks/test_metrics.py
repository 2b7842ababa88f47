import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from storage.errors import InputError
from tasks.scoring.metrics import auroc_per_gene, join_predictions, score_summary

FEW_SCORES = st.sampled_from([-1.5, 0.0, 0.25, 3.0])
ROWS = st.lists(st.tuples(st.integers(0, 4), st.booleans(), FEW_SCORES), min_size=1, max_size=60)


def scored_pairs(n=4000, genes=150, perturbations=60, *, decimals=1, seed=0):
    """Random pairs with many tied scores and some genes of one class."""
    rng = np.random.default_rng(seed)
    cell = rng.choice(genes * perturbations, size=n, replace=False)
    gene = cell % genes
    return pd.DataFrame(
        {
            "pert": [f"P{i}" for i in cell // genes],
            "gene": [f"G{i}" for i in gene],
            "label": (rng.random(n) < 0.3).astype(np.int8) * (gene > 20),
            "score": rng.normal(size=n).round(decimals),
        }
    )


def sklearn_auroc(scored):
    return {
        gene: roc_auc_score(rows["label"], rows["score"])
        for gene, rows in scored.groupby("gene")
        if rows["label"].nunique() == 2
    }


@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_auroc_of_each_gene_is_that_of_sklearn(decimals):
    scored = scored_pairs(decimals=decimals)
    result = auroc_per_gene(scored).set_index("gene")
    expected = sklearn_auroc(scored)
    assert set(result.index[result["auroc"].notna()]) == set(expected)
    assert len(expected) < len(result)
    for gene, auroc in expected.items():
        assert result.loc[gene, "auroc"] == pytest.approx(auroc, abs=1e-12)
    counts = scored.groupby("gene")["label"].agg(["sum", "size"])
    assert (result["n_positive"] == counts["sum"]).all()
    assert (result["n_negative"] == counts["size"] - counts["sum"]).all()


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_any_small_table_agrees_with_sklearn(rows):
    scored = pd.DataFrame(rows, columns=["gene", "label", "score"])
    scored = scored.assign(pert=[f"P{i}" for i in range(len(rows))], label=scored["label"].astype(int))
    result = auroc_per_gene(scored).dropna().set_index("gene")["auroc"].to_dict()
    assert result == pytest.approx(sklearn_auroc(scored), abs=1e-12)


def test_equal_scores_count_half():
    scored = scored_pairs().assign(score=7.0)
    assert (auroc_per_gene(scored)["auroc"].dropna() == 0.5).all()


def test_row_order_monotone_scores_and_swapped_labels():
    scored = scored_pairs()
    result = auroc_per_gene(scored)
    shuffled = scored.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(auroc_per_gene(shuffled), result)
    pd.testing.assert_frame_equal(auroc_per_gene(scored.assign(score=np.exp(scored["score"]) - 9)), result)
    swapped = auroc_per_gene(scored.assign(label=1 - scored["label"]))
    np.testing.assert_allclose(swapped["auroc"], 1 - result["auroc"], atol=1e-12)
    assert (swapped["n_positive"] == result["n_negative"]).all()


def test_summary_averages_over_genes_with_both_classes():
    scored = scored_pairs()
    scores = score_summary(scored)
    expected = sklearn_auroc(scored)
    assert scores.auroc == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
    assert scores.n_genes == len(expected)
    assert scores.n_genes + scores.n_genes_dropped == scored["gene"].nunique()
    assert scores.pooled_auroc == roc_auc_score(scored["label"], scored["score"])
    assert scores.pooled_auprc == average_precision_score(scored["label"], scored["score"])
    assert (scores.n_pairs, scores.n_perturbations) == (4000, 60)
    assert scores.as_dict()["positive_rate"] == pytest.approx(scored["label"].mean())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("label", [0, 1])
def test_no_gene_with_both_classes_gives_nan_without_warnings(label):
    scores = score_summary(scored_pairs().assign(label=label))
    assert np.isnan([scores.auroc, scores.pooled_auroc, scores.pooled_auprc]).all()
    assert (scores.n_genes, scores.n_genes_dropped) == (0, 150)


@pytest.mark.filterwarnings("error")
def test_an_empty_table_has_no_score():
    scores = score_summary(scored_pairs().head(0))
    assert np.isnan(scores.auroc)
    assert scores.n_pairs == 0


def test_bad_labels_and_scores_are_listed_together():
    scored = scored_pairs(50).astype({"label": "Int8"})
    scored.loc[0, "label"] = pd.NA
    scored.loc[1, "label"] = 2
    scored.loc[3, "score"] = np.inf
    with pytest.raises(InputError) as caught:
        auroc_per_gene(scored)
    assert caught.value.problems == ("2 labels are not 0 or 1", "1 scores are missing or infinite")
    with pytest.raises(InputError, match="columns pert, score are missing"):
        auroc_per_gene(scored[["gene", "label"]])


@pytest.fixture
def labels():
    return pd.DataFrame(
        {
            "pert": ["A", "B", "B", "C"],
            "gene": ["X", "X", "Y", "X"],
            "label": pd.array([1, 0, 1, 1], dtype="Int8"),
            "split": ["test", "test", "test", "train"],
        }
    )


@pytest.fixture
def predictions():
    return pd.DataFrame({"pert": list("CBBAZ"), "gene": list("XYXXX"), "score": [9.0, 3.0, 2.0, 1.0, 0.0]})


def test_join_keeps_the_test_rows_and_ignores_the_rest(labels, predictions):
    scored = join_predictions(labels, predictions)
    assert scored.to_dict("list") == {
        "pert": ["A", "B", "B"],
        "gene": ["X", "X", "Y"],
        "label": [1, 0, 1],
        "score": [1.0, 2.0, 3.0],
    }
    assert scored["label"].dtype == np.int8


@pytest.mark.parametrize("kind", [object, "category", "string"])
def test_join_takes_any_kind_of_names(labels, predictions, kind):
    names = {"pert": kind, "gene": kind}
    assert len(join_predictions(labels.astype(names), predictions.astype(names))) == 3


def test_join_lists_every_problem(labels, predictions):
    labels.loc[0, "label"] = pd.NA
    predictions.loc[1, "score"] = np.nan
    repeated = pd.concat([predictions, predictions.head(1)])
    with pytest.raises(InputError) as caught:
        join_predictions(labels, repeated)
    unknown, unscored, twice = caught.value.problems
    assert "labels of 1 of 3 test pairs are missing" in unknown
    assert "1 of 3 test pairs have no finite score, for example B, Y" in unscored
    assert "1 pairs are predicted more than once, for example C, X" in twice


def test_join_says_when_the_labels_are_not_known(labels, predictions):
    with pytest.raises(InputError, match="can be predicted but not scored"):
        join_predictions(labels.assign(label=pd.array([pd.NA] * 4, dtype="Int8")), predictions)


def test_join_needs_test_rows(labels, predictions):
    with pytest.raises(InputError, match="nothing to score"):
        join_predictions(labels.assign(split="train"), predictions)
