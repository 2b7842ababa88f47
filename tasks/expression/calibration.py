"""How far the calls can be trusted: false perturbations, and, on a simulated screen, the truth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

#: Bins of true |log2 fold change| in which power is reported.
EFFECT_BINS = (0.0, 0.25, 0.5, 1.0, np.inf)


def called(tests: pd.DataFrame, *, fdr: float, min_log2_fold_change: float) -> np.ndarray:
    """The DE call: adjusted p below ``fdr`` and absolute log2 fold change at least the minimum."""
    return ((tests["p_adj"] < fdr) & (tests["log2_fold_change"].abs() >= min_log2_fold_change)).to_numpy()


def null_summary(null_tests: pd.DataFrame, *, fdr: float, min_log2_fold_change: float) -> dict[str, float]:
    """What the test says of false perturbations, where every call is wrong."""
    calls = called(null_tests, fdr=fdr, min_log2_fold_change=min_log2_fold_change)
    # A gene that no cell expresses has p = 1 by definition and says nothing about calibration.
    expressed = (null_tests["mean_pert"] + null_tests["mean_control"]) > 0
    return {
        "null_perturbations": int(null_tests["pert"].nunique()),
        "null_tests": int(expressed.sum()),
        "null_share_p_below_05": float((null_tests["p_value"][expressed] < 0.05).mean()),
        "null_de_calls": int(calls.sum()),
        "null_de_calls_per_perturbation": float(calls.sum() / null_tests["pert"].nunique()),
    }


def check_against_truth(
    tests: pd.DataFrame, truth: pd.DataFrame, *, fdr: float, min_log2_fold_change: float
) -> pd.DataFrame:
    """Hold calls against a simulated screen's planted effects.

    Parameters
    ----------
    truth
        ``pert, gene, true_log2_fold_change``: the planted effects; a pair not listed has none.

    Returns
    -------
    DataFrame
        ``group`` ('all', then bins of true |log2 fold change|), ``n_true``, ``n_called``,
        ``false_discovery_rate`` (all only) and ``power``.
    """
    columns = ["pert", "gene", "log2_fold_change", "p_adj"]
    tests = tests[columns].astype({"pert": str, "gene": str})
    tests = tests.assign(called=called(tests, fdr=fdr, min_log2_fold_change=min_log2_fold_change))
    joined = tests.merge(truth, on=["pert", "gene"], how="left", validate="one_to_one")
    effect = joined["true_log2_fold_change"].fillna(0).abs()
    calls, true = joined["called"], effect > 0
    n_called = int(calls.sum())
    rate = float((calls & ~true).sum() / n_called) if n_called else np.nan
    rows = [("all", int(true.sum()), n_called, rate, _share(calls, true))]
    for low, high in pairwise(EFFECT_BINS):
        inside = (effect > low) & (effect <= high)
        name = f"{low:g}-{high:g}" if np.isfinite(high) else f"above {low:g}"
        rows.append((name, int(inside.sum()), int((calls & inside).sum()), np.nan, _share(calls, inside)))
    return pd.DataFrame(rows, columns=["group", "n_true", "n_called", "false_discovery_rate", "power"])


def _share(calls: pd.Series, among: pd.Series) -> float:
    return float(calls[among].mean()) if among.any() else np.nan
