"""A logistic regression with weights of at least 0 over several scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

# Penalty on the squared weights, as a share of a row's loss: decides between members that say the same.
PENALTY = 1e-3


@dataclass(frozen=True, eq=False)
class Blend:
    """Log odds = intercept + weights . (scores - mean) / deviation.

    Attributes
    ----------
    intercept
        Log odds where every score is at its mean.
    weights, mean, deviation
        float64 [n_scores].
    """

    intercept: float
    weights: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def fit(cls, scores: np.ndarray, labels: np.ndarray) -> Self:
        """Minimise the mean logistic loss of ``labels`` (0 or 1, [n]) over ``scores`` [n, n_scores].

        With labels of one class only it is `even`.
        """
        even = cls.even(scores)
        if labels.min() == labels.max():
            return even
        count, unit = scores.shape[1], (scores - even.mean) / even.deviation

        def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
            odds = values[0] + unit @ values[1:]
            off = expit(odds) - labels
            value = np.mean(np.logaddexp(0, odds) - labels * odds) + PENALTY * (values[1:] @ values[1:])
            slope = np.append(off.mean(), off @ unit / len(labels) + 2 * PENALTY * values[1:])
            return float(value), slope

        bounds = [(None, None)] + [(0, None)] * count
        optimum = minimize(loss, np.zeros(count + 1), jac=True, method="L-BFGS-B", bounds=bounds)
        return replace(even, intercept=float(optimum.x[0]), weights=optimum.x[1:])

    @classmethod
    def even(cls, scores: np.ndarray) -> Self:
        """All weigh the same, per standard deviation over ``scores`` [n, n_scores]."""
        deviation = scores.std(axis=0)
        deviation = np.where(deviation > 0, deviation, 1.0)
        return cls(0.0, np.ones(scores.shape[1]), scores.mean(axis=0), deviation)

    def log_odds(self, scores: np.ndarray) -> np.ndarray:
        """Log odds of each row of ``scores``, float64 [n]."""
        return self.intercept + ((scores - self.mean) / self.deviation) @ self.weights

    def state(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays, their names starting with ``prefix``."""
        state = {f"{prefix}_{name}": getattr(self, name) for name in ("weights", "mean", "deviation")}
        return state | {f"{prefix}_intercept": np.float64(self.intercept)}

    @classmethod
    def from_state(cls, prefix: str, state: Mapping[str, np.ndarray]) -> Self:
        """Build the blend whose ``state`` lies in ``state``."""
        plain = {name: np.asarray(state[f"{prefix}_{name}"]) for name in ("weights", "mean", "deviation")}
        return cls(float(state[f"{prefix}_intercept"]), **plain)
