"""Bootstrap intervals over perturbations, and the leaderboard made with them.

Pairs of one perturbation share its cells and are not independent, so whole perturbations are resampled
(the cluster bootstrap; Efron & Tibshirani 1993). A draw often leaves a gene with few positives without any;
the genes that remain are easier on average, and all draws slide upwards. So the draws' mean is moved to
the estimate before the percentiles are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from storage.errors import InputError
from tasks.scoring.metrics import Scores, score_summary
from tasks.scoring.ranking import rank_pairs, weighted_auroc

PERCENTILES = (2.5, 97.5)
# Memory for the working arrays of one chunk of draws; about six arrays of (rows, draws) are alive at once.
CHUNK_BYTES = 96_000_000


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
    scored_by_predictor: Mapping[str, Sequence[pd.DataFrame]],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predictors on the same pairs, best first.

    Parameters
    ----------
    scored_by_predictor
        Scored pairs of each fit, one a seed, by the predictor's name; all must hold the same pairs with the
        same labels.

    Returns
    -------
    DataFrame
        ``predictor``, ``auroc`` (mean over the fits), ``auroc_low``, ``auroc_high``, ``n_fits``,
        ``auroc_fits_sd`` (standard deviation over the fits, NaN of one), ``difference_to_best`` (best minus
        this one) with ``difference_to_best_low`` and ``_high``, ``pooled_auroc``, ``pooled_auprc`` (means
        over the fits), ``n_genes``, ``n_genes_dropped``, ``n_pairs``, ``n_perturbations``. Equal scores
        stand in the order of their names; predictors without a score (NaN) come last.

    Raises
    ------
    InputError
        If there is no predictor, or their pairs differ.
    """
    if not scored_by_predictor:
        raise InputError("leaderboard", ["no predictor to compare"])
    _require_same_pairs(
        {f"{name} {at}": fit for name, fits in scored_by_predictor.items() for at, fit in enumerate(fits)}
    )
    rows = {
        name: _Row.of(
            [score_summary(fit) for fit in fits], [auroc_draws(f, draws=draws, seed=seed) for f in fits]
        )
        for name, fits in scored_by_predictor.items()
    }
    order = sorted(rows, key=lambda name: (np.isnan(rows[name].auroc), -rows[name].auroc, name))
    best = rows[order[0]]
    return pd.DataFrame([rows[name].told(name, best) for name in order])


@dataclass(frozen=True)
class _Row:
    """One predictor's fits: their scores, and the mean over them of each draw."""

    fits: Sequence[Scores]
    draws: np.ndarray
    auroc: float

    @classmethod
    def of(cls, fits: Sequence[Scores], draws: Sequence[np.ndarray]) -> _Row:
        return cls(fits, np.mean(draws, axis=0), float(np.mean([fit.auroc for fit in fits])))

    def told(self, name: str, best: _Row) -> dict[str, object]:
        first, spread = self.fits[0], [fit.auroc for fit in self.fits]
        low, high = _auroc_limits(self.draws, self.auroc)
        behind = best.auroc - self.auroc
        behind_low, behind_high = _limits(best.draws - self.draws, behind)
        return {
            "predictor": name,
            "auroc": self.auroc,
            "auroc_low": low,
            "auroc_high": high,
            "n_fits": len(spread),
            "auroc_fits_sd": float(np.std(spread, ddof=1)) if len(spread) > 1 else np.nan,
            "difference_to_best": behind,
            "difference_to_best_low": behind_low,
            "difference_to_best_high": behind_high,
            "pooled_auroc": float(np.mean([fit.pooled_auroc for fit in self.fits])),
            "pooled_auprc": float(np.mean([fit.pooled_auprc for fit in self.fits])),
            "n_genes": first.n_genes,
            "n_genes_dropped": first.n_genes_dropped,
            "n_pairs": first.n_pairs,
            "n_perturbations": first.n_perturbations,
        }


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
