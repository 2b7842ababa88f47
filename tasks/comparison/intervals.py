"""Bootstrap intervals over perturbations, and the leaderboard made with them.

Pairs of one perturbation share its cells and are not independent, so whole perturbations are resampled
(the cluster bootstrap; Efron & Tibshirani 1993). A draw often leaves a gene with few positives without any;
the genes that remain are easier on average, and all draws slide upwards. So the draws' mean is moved to
the estimate before the percentiles are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from storage.errors import InputError
from tasks.comparison.metrics import Scores, score_summary
from tasks.comparison.ranking import rank_pairs, weighted_auroc

PERCENTILES = (2.5, 97.5)
# Memory for the working arrays of one chunk of draws; about six arrays of (rows, draws) are alive at once.
CHUNK_BYTES = 96_000_000


@dataclass(frozen=True)
class Difference:
    """A difference between two mean AUROCs with its 95% interval."""

    estimate: float
    low: float
    high: float


def bootstrap_auroc(scored: pd.DataFrame, *, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of the mean AUROC, perturbations resampled with replacement.

    Parameters
    ----------
    scored
        ``pert``, ``gene``, ``label`` (0/1) and ``score``.
    draws
        Number of bootstrap draws.
    seed
        The same seed and set of perturbations give the same draws, whatever the scores and the row order.

    Returns
    -------
    low, high
        NaN if no draw has a gene with both classes.
    """
    return _auroc_limits(auroc_draws(scored, draws=draws, seed=seed), score_summary(scored).auroc)


def paired_difference(a: pd.DataFrame, b: pd.DataFrame, *, draws: int = 1000, seed: int = 0) -> Difference:
    """Mean AUROC of ``a`` minus that of ``b``, with a 95% interval from draws shared by both.

    Raises
    ------
    InputError
        If the two do not hold the same pairs with the same labels.
    """
    _require_same_pairs({"the first": a, "the second": b})
    difference = auroc_draws(a, draws=draws, seed=seed) - auroc_draws(b, draws=draws, seed=seed)
    estimate = score_summary(a).auroc - score_summary(b).auroc
    return Difference(estimate, *_limits(difference, estimate))


def auroc_draws(scored: pd.DataFrame, *, draws: int, seed: int) -> np.ndarray:
    """Mean AUROC in each bootstrap draw, shape (draws,); NaN where no gene has both classes.

    A gene that has one class only among the drawn perturbations is left out of that draw's mean, as the
    score itself does.
    """
    ranked = rank_pairs(scored, both_classes_only=True)
    mean = np.full(draws, np.nan)
    if not len(ranked.genes):
        return mean
    for chunk in _chunks(draws, rows=len(ranked.pert)):
        weights = np.column_stack([draw_weights(ranked.n_perturbations, seed, draw) for draw in chunk])
        auroc, _, _ = weighted_auroc(ranked, weights)
        # Summed along contiguous rows: numpy's order of adding is then the same for every chunk width.
        by_draw = np.ascontiguousarray(auroc.T)
        used = ~np.isnan(by_draw)
        total, count = np.where(used, by_draw, 0.0).sum(axis=1), used.sum(axis=1)
        mean[chunk.start : chunk.stop] = np.divide(
            total, count, out=np.full(len(chunk), np.nan), where=count > 0
        )
    return mean


def draw_weights(n_perturbations: int, seed: int, draw: int) -> np.ndarray:
    """How often each perturbation (in sorted order) is taken in one draw, shape (n_perturbations,)."""
    rng = np.random.default_rng([seed, draw])
    return rng.multinomial(n_perturbations, np.full(n_perturbations, 1 / n_perturbations)).astype(np.float64)


def leaderboard(
    scored_by_predictor: Mapping[str, pd.DataFrame],
    *,
    reference: str | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predictors on the same pairs, best first.

    Parameters
    ----------
    scored_by_predictor
        Scored pairs by the predictor's name; all must hold the same pairs with the same labels.
    reference
        A predictor every other is compared with, besides the best one.

    Returns
    -------
    DataFrame
        ``predictor``, ``auroc``, ``auroc_low``, ``auroc_high``, ``difference_to_best`` (best minus this one)
        with ``difference_to_best_low`` and ``_high``, ``pooled_auroc``, ``pooled_auprc``, ``n_genes``,
        ``n_genes_dropped``, ``n_pairs``, ``n_perturbations``; with a reference also ``gain_over_reference``
        (this one minus the reference), ``gain_over_reference_low`` and ``_high``. Equal scores stand in the
        order of their names; predictors without a score (NaN) come last.

    Raises
    ------
    InputError
        If there is no predictor, the reference is not among them, or their pairs differ.
    """
    if not scored_by_predictor:
        raise InputError("leaderboard", ["no predictor to compare"])
    if reference is not None and reference not in scored_by_predictor:
        names = ", ".join(sorted(scored_by_predictor))
        raise InputError("leaderboard", [f"reference '{reference}' is not a predictor; there are {names}"])
    _require_same_pairs(scored_by_predictor)
    scores = {name: score_summary(scored) for name, scored in scored_by_predictor.items()}
    means = {
        name: auroc_draws(scored, draws=draws, seed=seed) for name, scored in scored_by_predictor.items()
    }
    order = sorted(scores, key=lambda name: (np.isnan(scores[name].auroc), -scores[name].auroc, name))
    rows = [_row(name, best=order[0], reference=reference, scores=scores, means=means) for name in order]
    return pd.DataFrame(rows)


def _row(
    name: str,
    *,
    best: str,
    reference: str | None,
    scores: Mapping[str, Scores],
    means: Mapping[str, np.ndarray],
) -> dict[str, object]:
    own = scores[name]
    low, high = _auroc_limits(means[name], own.auroc)
    difference = scores[best].auroc - own.auroc
    behind = _limits(means[best] - means[name], difference)
    row = {
        "predictor": name,
        "auroc": own.auroc,
        "auroc_low": low,
        "auroc_high": high,
        "difference_to_best": difference,
        "difference_to_best_low": behind[0],
        "difference_to_best_high": behind[1],
        "pooled_auroc": own.pooled_auroc,
        "pooled_auprc": own.pooled_auprc,
        "n_genes": own.n_genes,
        "n_genes_dropped": own.n_genes_dropped,
        "n_pairs": own.n_pairs,
        "n_perturbations": own.n_perturbations,
    }
    if reference is not None:
        row["gain_over_reference"] = own.auroc - scores[reference].auroc
        gain = _limits(means[name] - means[reference], row["gain_over_reference"])
        row["gain_over_reference_low"], row["gain_over_reference_high"] = gain
    return row


def _auroc_limits(values: np.ndarray, estimate: float) -> tuple[float, float]:
    low, high = _limits(values, estimate)
    return max(low, 0.0), min(high, 1.0)


def _limits(values: np.ndarray, estimate: float) -> tuple[float, float]:
    """Percentiles of the draws, moved so that their mean is the estimate."""
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.percentile(values - values.mean(), PERCENTILES)
    return float(estimate + low), float(estimate + high)


def _chunks(draws: int, *, rows: int) -> Iterator[range]:
    width = max(1, CHUNK_BYTES // (6 * 8 * max(rows, 1)))
    for start in range(0, draws, width):
        yield range(start, min(start + width, draws))


def _require_same_pairs(scored_by_predictor: Mapping[str, pd.DataFrame]) -> None:
    """Raise if predictors were scored on different pairs: their difference would mean nothing."""
    keys = ["pert", "gene", "label"]
    sorted_pairs = {
        name: scored[keys].astype(object).sort_values(keys, ignore_index=True)
        for name, scored in scored_by_predictor.items()
    }
    first_name, first = next(iter(sorted_pairs.items()))
    different = [name for name, pairs in sorted_pairs.items() if not _equal(pairs, first)]
    if different:
        raise InputError(
            "comparing predictors",
            [
                f"{name} ({len(sorted_pairs[name]):,} pairs) was not scored on the same pairs and labels as "
                f"{first_name} ({len(first):,} pairs)"
                for name in different
            ],
        )


def _equal(pairs: pd.DataFrame, other: pd.DataFrame) -> bool:
    return len(pairs) == len(other) and bool((pairs.to_numpy() == other.to_numpy()).all())
