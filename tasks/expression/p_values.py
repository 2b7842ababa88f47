"""From rank-sum statistics to p-values, by the normal approximation."""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr, ndtr


def rank_sum_p(
    u: np.ndarray, ties: np.ndarray, *, n_pert: np.ndarray, n_control: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p-values of U statistics, and their log10, which stays exact below 1e-300.

    With tie correction and continuity, as in ``scipy.stats.mannwhitneyu(method="asymptotic")``.

    Parameters
    ----------
    u, ties
        As from `rank_sum_block`, any shape.
    n_pert, n_control
        Sample sizes, broadcastable against ``u``.

    Returns
    -------
    p_value, log10_p_value
        float64, shape of ``u``; 1 and 0 where all values are tied.
    """
    n_pert, n_control = np.asarray(n_pert, np.float64), np.asarray(n_control, np.float64)
    n = n_pert + n_control
    mean = n_pert * n_control / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        # Tied throughout, the variance is 0 or, from rounding, just below it: no evidence either way.
        variance = n_pert * n_control / 12 * ((n + 1) - ties / (n * (n - 1)))
        z = (np.maximum(u, n_pert * n_control - u) - mean - 0.5) / np.sqrt(np.maximum(variance, 0))
        z = np.where(variance > 0, z, -np.inf)
    p_value = np.clip(2 * ndtr(-z), 0, 1)
    log10_p = np.minimum((log_ndtr(-z) + np.log(2)) / np.log(10), 0)
    return p_value, log10_p


def stratified_p(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p-values of standardised statistics, and their log10; no continuity correction."""
    size = np.abs(z)
    return np.clip(2 * ndtr(-size), 0, 1), np.minimum((log_ndtr(-size) + np.log(2)) / np.log(10), 0)
