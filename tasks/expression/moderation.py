"""Empirical Bayes for few replicates: a gene's variance drawn towards what genes like it show.

Source: Smyth 2004 (Stat. Appl. Genet. Mol. Biol. 3:3), with the prior's level depending on a covariate as in
limma-trend (Law et al. 2014, Genome Biol. 15:R29).
"""

from __future__ import annotations

import numpy as np
from scipy.special import betaln, digamma, hyp2f1, log_ndtr, ndtr, polygamma, stdtr

#: Genes needed to learn what variances are like: two for the line, one to lie off it.
LEAST_GENES = 3
#: A variance is taken for at least this share of the median one: chance zeros would weigh infinitely.
SMALLEST_SHARE = 1e-5
#: The prior counts for at most so many degrees of freedom. Some hundred variances of one or two degrees of
#: freedom often look as if they differed by chance alone; to believe that gave calls among false
#: perturbations (docs/experiments.md).
MOST_PRIOR = 10.0


def moderated_t(
    effect: np.ndarray,
    variance: np.ndarray,
    *,
    pairs: np.ndarray,
    weight: np.ndarray,
    spread: np.ndarray,
    measured: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moderated t of one perturbation's genes, their p-values, and log10 of these.

    Effects are taken from their median first: most genes do not respond, so what they share is a shift in
    composition (a few strong genes take a larger part of a library) and not a response. Variances are drawn
    towards ``exp(a + b log(spread))``, fitted over the perturbation's genes.

    Parameters
    ----------
    effect, variance, pairs, weight
        (n_genes,), as from `tasks.expression.paired.paired_differences`.
    spread
        (n_genes,): squared coefficient of variation of each gene between control cells; NaN where these have
        none of it. It is large for rare genes, so such a gene is drawn towards what the one of the largest
        spread shows, and is not among those the line is fitted to.
    measured
        bool (n_genes,): genes to be tested; the others get NaN and teach nothing.

    Returns
    -------
    t, p_value, log10_p_value
        float64 (n_genes,); NaN where not measured, seen in fewer than two batches, or where fewer than
        three genes are left to fit the line to.
    """
    t, p_value, log10_p = (np.full(len(effect), np.nan) for _ in range(3))
    with np.errstate(invalid="ignore"):
        known = spread > 0
    tested = measured & (pairs > 1)
    teaching = known[tested]
    if teaching.sum() < LEAST_GENES:
        return t, p_value, log10_p
    degrees, widest = pairs[tested] - 1, spread[tested & known].max()
    line = np.column_stack([np.ones(len(teaching)), np.log(np.where(known, spread, widest)[tested])])
    moderated, total = shrink_variances(variance[tested], degrees, line, teaching=teaching)
    centred = effect[tested] - np.median(effect[tested])
    t[tested] = centred / np.sqrt(moderated / weight[tested])
    p_value[tested], log10_p[tested] = student_p(t[tested], total)
    return t, p_value, log10_p


def shrink_variances(
    variance: np.ndarray,
    degrees: np.ndarray,
    design: np.ndarray,
    *,
    teaching: np.ndarray | None = None,
    most_prior: float = MOST_PRIOR,
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior variances and their degrees of freedom.

    Model: ``variance ~ level * F(degrees, prior)``, with log level linear in ``design``. Level and prior
    degrees of freedom are fitted to the first two moments of log variance.

    Parameters
    ----------
    variance, degrees
        (n,): sample variances and their degrees of freedom.
    design
        (n, k): covariates of log variance, a constant among them.
    teaching
        bool (n,): the variances that level and prior are fitted to; all of them without it.
    most_prior
        Bound of the prior's degrees of freedom; infinity takes what is estimated, as limma does.

    Returns
    -------
    variance, degrees
        (n,): ``(prior * level + degrees * variance) / (prior + degrees)`` and ``prior + degrees``; with an
        unbounded prior the level and infinity, where variances differ no more than by chance.
    """
    taught = np.ones(len(variance), bool) if teaching is None else teaching
    smallest = max(SMALLEST_SHARE * float(np.median(variance[taught])), np.finfo(float).tiny)
    log_variance = np.log(np.maximum(variance, smallest)) - digamma(degrees / 2) + np.log(degrees / 2)
    level = design @ np.linalg.lstsq(design[taught], log_variance[taught], rcond=None)[0]
    n, k = design[taught].shape
    scatter = (log_variance - level)[taught] ** 2 * n / (n - k)
    beyond = float(np.mean(scatter - polygamma(1, degrees[taught] / 2)))
    prior = min(2 * inverse_trigamma(beyond) if beyond > 0 else np.inf, most_prior)
    if np.isinf(prior):
        return np.exp(level), np.full(len(level), np.inf)
    centre = np.exp(level + digamma(prior / 2) - np.log(prior / 2))
    return (prior * centre + degrees * variance) / (prior + degrees), prior + degrees


def inverse_trigamma(value: float) -> float:
    """The y with trigamma(y) = ``value`` > 0, by Newton's method on its reciprocal (Smyth 2004, appendix)."""
    if value > 1e7:
        return value**-0.5
    if value < 1e-6:
        return 1 / value
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, y))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-10:
            break
    return y


def student_p(t: np.ndarray, degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p-values of Student's t, and their log10, which goes on where a float ends.

    Infinite degrees of freedom are the normal distribution.
    """
    t, degrees = np.broadcast_arrays(np.abs(np.asarray(t, np.float64)), np.asarray(degrees, np.float64))
    normal = np.isinf(degrees)
    finite = np.where(normal, 1.0, degrees)
    p_value = np.where(normal, 2 * ndtr(-t), 2 * stdtr(finite, -t))
    with np.errstate(divide="ignore"):
        log_p = np.where(normal, log_ndtr(-t) + np.log(2), np.log(p_value))
    far = ~normal & (p_value < 1e-250)
    log_p[far] = _log_tail(t[far], finite[far])
    return np.clip(p_value, 0, 1), np.minimum(log_p / np.log(10), 0)


def _log_tail(t: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Log of the incomplete beta function that a two-sided p-value is, by its hypergeometric series."""
    a, x = degrees / 2, degrees / (degrees + t**2)
    series = np.log(hyp2f1(a + 0.5, 1.0, a + 1.0, x))
    return a * np.log(x) + 0.5 * np.log1p(-x) - np.log(a) - betaln(a, 0.5) + series
