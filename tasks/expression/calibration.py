"""How far the calls can be trusted: false perturbations, and, on a simulated screen, the truth."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pandas as pd

#: Bins of true |log2 fold change| in which power is reported.
EFFECT_BINS = (0.0, 0.25, 0.5, 1.0, np.inf)
#: Log2 fold change that the median gene does not have by chance: 25 cells with two UMIs of each of 50 genes
#: leave the median a standard error of 0.04. It is twice the least change that is called by default.
LARGE_SHIFT = 0.2
#: Genes that such a median is taken over, at least.
LEAST_SHIFT_GENES = 10


def called(tests: pd.DataFrame, *, fdr: float, min_log2_fold_change: float) -> np.ndarray:
    """The DE call: adjusted p below ``fdr``, log2 fold change at least the minimum, on the test's own side.

    A few cells with huge counts can lift a mean where ranks fall: of such a pair no direction can be told.
    """
    effect = tests["log2_fold_change"].to_numpy()
    agrees = np.sign(effect) == tests["direction"].to_numpy(np.float64, na_value=np.nan)
    return (tests["p_adj"] < fdr).to_numpy() & (np.abs(effect) >= min_log2_fold_change) & agrees


def median_shift(tests: pd.DataFrame) -> float:
    """Median log2 fold change of one perturbation over the better measured half of the genes.

    Most genes do not respond, so a median away from 0 is a shift in the composition of libraries: what a few
    strong genes gain, all others lose.

    Parameters
    ----------
    tests
        ``mean_control``, ``log2_fold_change``; genes that the controls lack do not count.

    Returns
    -------
    float
        NaN with fewer than `LEAST_SHIFT_GENES` genes in that half.
    """
    level = tests["mean_control"].to_numpy(np.float64)
    level = np.where(level > 0, level, np.nan)
    if np.isfinite(level).sum() < 2 * LEAST_SHIFT_GENES:
        return np.nan
    return float(np.median(tests["log2_fold_change"].to_numpy(np.float64)[level >= np.nanmedian(level)]))


def shifted_share(tests: Iterable[tuple[str, pd.DataFrame]]) -> float:
    """Share of the perturbations with a `median_shift` of at least `LARGE_SHIFT`; NaN where none is known."""
    shifts = np.array([median_shift(rows) for _, rows in tests], np.float64)
    known = shifts[~np.isnan(shifts)]
    return float((np.abs(known) >= LARGE_SHIFT).mean()) if len(known) else np.nan


def is_target(genes: pd.Series, perturbation: object) -> np.ndarray:
    """Which genes are the perturbed one itself, bool (n,): labels and counts of DE genes leave it out."""
    return (genes.astype(str) == np.asarray(perturbation, str)).to_numpy()


def called_genes(
    tests: pd.DataFrame, perturbation: object, *, fdr: float, min_log2_fold_change: float
) -> np.ndarray:
    """`called`, less the perturbed gene itself; ``perturbation`` is one name, or one for each test."""
    calls = called(tests, fdr=fdr, min_log2_fold_change=min_log2_fold_change)
    return calls & ~is_target(tests["gene"], perturbation)


def expressed_tests(null_tests: pd.DataFrame) -> pd.DataFrame:
    """Tests of genes that some cell expresses: of the others p = 1 by definition, which says nothing."""
    expressed = null_tests["mean_pert"] + null_tests["mean_control"] > 0
    return null_tests[expressed & null_tests["p_value"].notna()]


def small_p_share(null_tests: pd.DataFrame) -> float:
    """Share of the tests of expressed genes with a p-value below 0.05; NaN without tests."""
    p_value = expressed_tests(null_tests)["p_value"]
    return float((p_value < 0.05).mean()) if len(p_value) else np.nan


def null_summary(null_tests: pd.DataFrame, *, fdr: float, min_log2_fold_change: float) -> dict[str, float]:
    """What the test says of false perturbations, where every call is wrong."""
    calls = called(null_tests, fdr=fdr, min_log2_fold_change=min_log2_fold_change)
    tested = expressed_tests(null_tests)
    return {
        "null_perturbations": int(null_tests["pert"].nunique()),
        "null_tests": len(tested),
        "null_share_p_below_05": small_p_share(tested),
        "null_de_calls": int(calls.sum()),
        "null_de_calls_per_perturbation": float(calls.sum() / null_tests["pert"].nunique()),
    }


def hidden_effects(labels: pd.DataFrame, truth: pd.DataFrame, *, least: float) -> float:
    """Share of the pairs labelled 0 with a planted |log2 fold change| of at least ``least``."""
    zeros = labels.loc[labels["label"] == 0, ["pert", "gene"]].merge(truth, on=["pert", "gene"], how="left")
    effect = zeros["true_log2_fold_change"].fillna(0).abs()
    return float(((effect > 0) & (effect >= least)).mean()) if len(effect) else np.nan


def check_against_truth(
    tests: Iterable[tuple[str, pd.DataFrame]],
    truth: pd.DataFrame,
    *,
    fdr: float,
    min_log2_fold_change: float,
) -> pd.DataFrame:
    """Hold calls against a simulated screen's planted effects; the perturbed genes themselves do not count.

    A call is true if an effect of its sign was planted there.

    Parameters
    ----------
    tests
        Each perturbation's name and DE tests (``gene, log2_fold_change, p_adj``), one after the other.
    truth
        ``pert, gene, true_log2_fold_change``: the planted effects; a pair not listed has none.

    Returns
    -------
    DataFrame
        ``group`` ('all', then bins of true |log2 fold change|), ``n_true``, ``n_called``,
        ``false_discovery_rate`` (all only) and ``power``. ``n_called`` of a bin are its true calls.
    """
    effects = truth.set_index("gene")["true_log2_fold_change"].groupby(truth["pert"].to_numpy())
    planted = {str(name): rows for name, rows in effects}
    bins = [(0.0, np.inf), *pairwise(EFFECT_BINS)]
    true, true_called = np.zeros(len(bins), np.int64), np.zeros(len(bins), np.int64)
    n_called = 0
    for name, rows in tests:
        rows = rows[~is_target(rows["gene"], name)]
        calls = called(rows, fdr=fdr, min_log2_fold_change=min_log2_fold_change)
        effect = np.zeros(len(rows))
        if name in planted:
            effect = rows["gene"].astype(str).map(planted[name]).fillna(0).to_numpy()
        n_called += int(calls.sum())
        right = calls & (np.sign(effect) == np.sign(rows["log2_fold_change"].to_numpy()))
        for index, (low, high) in enumerate(bins):
            inside = (np.abs(effect) > low) & (np.abs(effect) <= high)
            true[index] += inside.sum()
            true_called[index] += (right & inside).sum()
    with np.errstate(invalid="ignore"):
        power = true_called / true
    names = [f"{low:g}-{high:g}" if np.isfinite(high) else f"above {low:g}" for low, high in bins]
    table = pd.DataFrame({"group": ["all", *names[1:]], "n_true": true, "n_called": true_called})
    table.loc[0, "n_called"] = n_called
    table["false_discovery_rate"] = np.nan
    table.loc[0, "false_discovery_rate"] = (n_called - true_called[0]) / n_called if n_called else np.nan
    return table.assign(power=power)
