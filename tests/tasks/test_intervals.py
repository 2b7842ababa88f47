import tracemalloc

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from storage.errors import InputError
from tasks.scoring import intervals
from tasks.scoring.intervals import (
    auroc_draws,
    bootstrap_auroc,
    draw_weights,
    leaderboard,
)
from tasks.scoring.metrics import score_summary


def scored_pairs(n=900, genes=40, perturbations=30, *, signal=0.7, seed=0):
    rng = np.random.default_rng(seed)
    cell = rng.choice(genes * perturbations, size=n, replace=False)
    label = (rng.random(n) < 0.35).astype(np.int8)
    return pd.DataFrame(
        {
            "pert": [f"P{i}" for i in cell // genes],
            "gene": [f"G{i}" for i in cell % genes],
            "label": label,
            "score": (signal * label + np.random.default_rng(seed + 1).normal(size=n)).round(1),
        }
    )


def duplicated_rows_auroc(scored, weights):
    """The slow way: write out every resampled perturbation's rows and let sklearn score each gene."""
    times = dict(zip(sorted(scored["pert"].unique()), weights.astype(int), strict=True))
    resampled = scored.loc[scored.index.repeat(scored["pert"].map(times))]
    per_gene = [
        roc_auc_score(rows["label"], rows["score"])
        for _, rows in resampled.groupby("gene")
        if rows["label"].nunique() == 2
    ]
    return np.mean(per_gene) if per_gene else np.nan


@pytest.mark.parametrize(("n", "genes", "perturbations"), [(900, 40, 30), (60, 25, 6), (40, 1, 60)])
def test_draws_are_those_of_written_out_rows(n, genes, perturbations):
    scored = scored_pairs(n, genes, perturbations)
    draws = auroc_draws(scored, draws=6, seed=5)
    present = scored["pert"].nunique()
    expected = [duplicated_rows_auroc(scored, draw_weights(present, 5, draw)) for draw in range(6)]
    np.testing.assert_allclose(draws, expected, atol=1e-12)


def test_weights_resample_all_perturbations():
    weights = np.array([draw_weights(20, 0, draw) for draw in range(400)])
    assert (weights.sum(axis=1) == 20).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(20), abs=0.25)
    assert (draw_weights(20, 0, 3) != draw_weights(20, 1, 3)).any()


def test_row_order_and_chunking_change_nothing(monkeypatch):
    scored = scored_pairs()
    whole = auroc_draws(scored, draws=37, seed=1)
    shuffled = scored.sample(frac=1, random_state=2)
    assert (auroc_draws(shuffled, draws=37, seed=1) == whole).all()
    for budget in (1, 5 * 48 * len(scored)):
        monkeypatch.setattr(intervals, "CHUNK_BYTES", budget)
        assert (auroc_draws(scored, draws=37, seed=1) == whole).all()


def test_interval_holds_the_estimate_and_narrows_with_more_perturbations():
    few, many = scored_pairs(900, 40, 30), scored_pairs(9000, 40, 300)
    widths = []
    for scored in (few, many):
        low, high = bootstrap_auroc(scored, draws=200)
        assert low < score_summary(scored).auroc < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_interval_is_the_percentiles_of_the_draws_around_the_estimate():
    scored = scored_pairs()
    draws = auroc_draws(scored, draws=100, seed=3)
    moved = draws - draws.mean() + score_summary(scored).auroc
    assert bootstrap_auroc(scored, draws=100, seed=3) == pytest.approx(np.percentile(moved, [2.5, 97.5]))


def test_interval_covers_the_true_mean_where_hard_genes_have_few_positives():
    """Draws that lose the rare genes slide upwards; the interval must not."""

    def screen(seed):
        rng = np.random.default_rng([seed, 7])
        gene = np.argsort(rng.random((120, 100)), axis=1)[:, :40].ravel()
        # The more often a gene responds, the better its score tells when.
        rate, signal = 0.02 + 0.003 * np.arange(100), 0.02 * np.arange(100)
        label = (rng.random(len(gene)) < rate[gene]).astype(np.int8)
        score = signal[gene] * label + rng.normal(size=len(gene))
        pert = np.repeat(np.arange(120), 40)
        return pd.DataFrame(
            {"pert": pert.astype(str), "gene": gene.astype(str), "label": label, "score": score}
        )

    true = np.mean([score_summary(screen(seed)).auroc for seed in range(100, 200)])
    limits = [bootstrap_auroc(screen(seed), draws=100) for seed in range(60)]
    assert np.mean([low <= true <= high for low, high in limits]) > 0.85
    assert abs(np.mean(limits) - true) < 0.005


def behind(scored_by_predictor, *, draws):
    """How far the last is behind the best, with its limits."""
    last = leaderboard(scored_by_predictor, draws=draws).iloc[-1]
    return tuple(last[f"difference_to_best{part}"] for part in ("", "_low", "_high"))


def test_the_same_draws_serve_both_predictors():
    a, b = scored_pairs(signal=1.0), scored_pairs(signal=0.2)
    scaled = a.assign(score=a["score"] * 3).sample(frac=1, random_state=0)
    assert behind({"a": [a], "scaled": [scaled]}, draws=50) == (0, 0, 0)
    estimate, low, high = behind({"a": [a], "b": [b]}, draws=200)
    assert 0 < low < estimate < high
    separate = [np.subtract(*bootstrap_auroc(scored, draws=200)[::-1]) for scored in (a, b)]
    assert high - low < np.hypot(*separate)


def test_different_pairs_or_labels_cannot_be_compared():
    scored = scored_pairs()
    with pytest.raises(InputError, match=r"b 0 \(899 pairs\) was not scored on the same pairs"):
        leaderboard({"a": [scored], "b": [scored.iloc[1:]]})
    changed = scored.assign(label=1 - scored["label"])
    with pytest.raises(InputError) as caught:
        leaderboard({"a": [scored], "b": [changed], "c": [scored.iloc[1:]]})
    assert [problem.split(" ")[0] for problem in caught.value.problems] == ["b", "c"]


def test_leaderboard_is_best_first_with_ties_by_name():
    good, poor = scored_pairs(signal=1.5), scored_pairs(signal=0.3)
    table = leaderboard({"z": [good], "poor": [poor], "a": [good]}, draws=60, seed=2)
    assert list(table["predictor"]) == ["a", "z", "poor"]
    assert list(table["difference_to_best"][:2]) == [0, 0]
    last = table.iloc[2]
    draws = np.subtract(*(auroc_draws(scored, draws=60, seed=2) for scored in (good, poor)))
    estimate = score_summary(good).auroc - score_summary(poor).auroc
    assert last["difference_to_best"] == pytest.approx(estimate)
    # The draws slide: their mean is moved to the estimate.
    limits = estimate + np.percentile(draws - draws.mean(), (2.5, 97.5))
    assert [last["difference_to_best_low"], last["difference_to_best_high"]] == pytest.approx(limits.tolist())
    assert (last["auroc_low"], last["auroc_high"]) == bootstrap_auroc(poor, draws=60, seed=2)
    scores = score_summary(poor).as_dict()
    for column in ("auroc", "pooled_auroc", "pooled_auprc", "n_genes", "n_genes_dropped", "n_pairs"):
        assert last[column] == scores[column]


def test_a_leaderboard_needs_a_predictor():
    with pytest.raises(InputError, match="no predictor"):
        leaderboard({})


def test_several_fits_count_with_their_mean():
    fits = [scored_pairs(signal=1.0), scored_pairs(signal=0.2)]
    table = leaderboard({"two": fits, "one": fits[:1]}, draws=60, seed=4).set_index("predictor")
    aurocs = [score_summary(fit).auroc for fit in fits]
    assert table.loc["two", "auroc"] == pytest.approx(np.mean(aurocs))
    assert table.loc["two", "auroc_fits_sd"] == pytest.approx(np.std(aurocs, ddof=1))
    assert list(table["n_fits"]) == [1, 2]
    assert np.isnan(table.loc["one", "auroc_fits_sd"])
    drawn = np.mean([auroc_draws(fit, draws=60, seed=4) for fit in fits], axis=0)
    width = np.subtract(*np.percentile(drawn, [97.5, 2.5]))
    assert table.loc["two", "auroc_high"] - table.loc["two", "auroc_low"] == pytest.approx(width)


@pytest.mark.filterwarnings("error")
def test_one_class_only_gives_nan_limits():
    scored = scored_pairs().assign(label=0)
    assert np.isnan(bootstrap_auroc(scored, draws=10)).all()
    table = leaderboard({"a": [scored]}, draws=10)
    assert table.loc[0, ["auroc", "auroc_low", "difference_to_best"]].isna().all()
    assert table.loc[0, "n_genes_dropped"] == 40


def test_memory_stays_bounded_at_the_benchmark_s_size():
    scored = scored_pairs(23_000, 3000, 267)
    tracemalloc.start()
    auroc_draws(scored, draws=250, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
