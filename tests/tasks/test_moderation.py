"""Moderated t against a slow direct computation, and against what it has to do where nothing changes."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from scipy.stats import kstest, t

from tasks.expression.moderation import inverse_trigamma, moderated_t, shrink_variances, student_p


def drawn(n=20_000, *, degrees=3.0, prior=6.0, level=0.5, seed=0):
    """Effects without any truth behind them, and variances as the model has them."""
    rng = np.random.default_rng(seed)
    true = level * prior / rng.chisquare(prior, n) if np.isfinite(prior) else np.full(n, level)
    variance = true * rng.chisquare(degrees, n) / degrees
    return rng.normal(0, np.sqrt(true)), variance, np.full(n, degrees + 1)


def test_posterior_variances_are_those_of_a_direct_computation():
    rng = np.random.default_rng(1)
    variance, degrees = rng.chisquare(2, 40) * np.exp(rng.normal(0, 2, 40)), rng.choice([1.0, 2.0, 3.0], 40)
    x = rng.normal(0, 1, 40)
    logs = [np.log(v) - digamma(d / 2) + np.log(d / 2) for v, d in zip(variance, degrees, strict=True)]
    slope, intercept = np.polyfit(x, logs, 1)
    beyond = np.mean(
        [
            (e - intercept - slope * a) ** 2 * 40 / 38 - polygamma(1, d / 2)
            for e, a, d in zip(logs, x, degrees, strict=True)
        ]
    )
    prior = 2 * brentq(lambda y: polygamma(1, y) - beyond, 1e-6, 1e9)
    expected = []
    for v, a, d in zip(variance, x, degrees, strict=True):
        centre = np.exp(intercept + slope * a + digamma(prior / 2) - np.log(prior / 2))
        expected.append((prior * centre + d * v) / (prior + d))
    design = np.column_stack([np.ones(40), x])
    moderated, total = shrink_variances(variance, degrees, design)
    np.testing.assert_allclose(moderated, expected, rtol=1e-8)
    np.testing.assert_allclose(total, prior + degrees, rtol=1e-8)


@pytest.mark.parametrize(("prior", "degrees"), [(4.0, 2.0), (9.0, 1.0), (3.0, 6.0)])
def test_prior_degrees_of_freedom_and_level_are_found(prior, degrees):
    _, variance, _ = drawn(50_000, degrees=degrees, prior=prior)
    moderated, total = shrink_variances(variance, np.full(50_000, degrees), np.ones((50_000, 1)))
    assert total[0] - degrees == pytest.approx(prior, rel=0.15)
    smallest = moderated[np.argmin(variance)]
    assert smallest == pytest.approx(prior * 0.5 / (prior + degrees), rel=0.1)


def test_variances_that_differ_by_chance_alone_are_not_believed_beyond_the_bound():
    variance = 2.0 * np.random.default_rng(0).chisquare(3, 5000) / 3
    three, ones = np.full(5000, 3.0), np.ones((5000, 1))
    assert shrink_variances(variance, three, ones)[1][0] == pytest.approx(13)
    level, total = shrink_variances(variance, three, ones, most_prior=np.inf)
    assert total[0] > 100
    assert level[0] == pytest.approx(2.0, rel=0.1)


def test_without_a_prior_it_is_the_plain_t():
    _, variance, pairs = drawn(100)
    moderated, total = shrink_variances(variance, pairs - 1, np.ones((100, 1)), most_prior=1e-9)
    np.testing.assert_allclose(moderated, variance, rtol=1e-6)
    np.testing.assert_allclose(total, 3, rtol=1e-6)


# With a single degree of freedom the log of a variance scatters so widely that the prior is known badly.
@pytest.mark.parametrize(("degrees", "most"), [(1.0, 0.004), (2.0, 0.0018), (5.0, 0.0018)])
def test_p_values_are_uniform_where_nothing_changes(degrees, most):
    effect, variance, pairs = drawn(degrees=degrees)
    n = len(effect)
    spread = np.exp(np.random.default_rng(2).normal(0, 1, n))
    _, p_value, log10_p = moderated_t(
        effect * spread,
        variance * spread**2,
        pairs=pairs,
        weight=np.ones(n),
        spread=spread,
        measured=np.ones(n, bool),
    )
    assert kstest(p_value, "uniform").pvalue > 0.001
    assert 0.0003 < (p_value < 0.001).mean() < most
    assert (p_value < 0.05).mean() == pytest.approx(0.05, abs=0.006)
    np.testing.assert_allclose(log10_p, np.log10(p_value), rtol=1e-9)


def test_what_all_genes_share_is_no_effect_and_what_one_has_more_is():
    effect, variance, pairs = drawn(500)
    spread = np.exp(np.random.default_rng(3).normal(0, 1, 500))
    given = {"pairs": pairs, "weight": np.ones(500), "spread": spread, "measured": np.ones(500, bool)}
    plain = moderated_t(effect, variance, **given)
    moved = moderated_t(effect + 7, variance, **given)
    np.testing.assert_allclose(moved[0], plain[0], atol=1e-9)
    mirrored = moderated_t(-effect, variance, **given)
    np.testing.assert_allclose(mirrored[0], -plain[0], atol=1e-12)
    np.testing.assert_allclose(mirrored[1], plain[1], rtol=1e-9)


def test_genes_not_measured_teach_nothing_and_are_not_tested():
    effect, variance, pairs = drawn(60)
    spread, measured = np.linspace(1, 2, 60), np.arange(60) < 50
    pairs[3] = 1
    given = {"pairs": pairs, "weight": np.ones(60), "spread": spread, "measured": measured}
    result = moderated_t(effect, variance, **given)
    left = np.setdiff1d(np.arange(50), [3])
    assert np.flatnonzero(~np.isnan(result[0])).tolist() == left.tolist()
    alone = {name: values[left] for name, values in given.items()}
    expected = moderated_t(effect[left], variance[left], **alone)
    np.testing.assert_allclose(result[1][left], expected[1], rtol=1e-12)


def test_a_gene_that_controls_lack_is_tested_as_one_of_the_largest_spread_and_teaches_nothing():
    effect, variance, pairs = drawn(60)
    spread = np.linspace(1, 9, 60)
    given = {"pairs": pairs, "weight": np.ones(60), "measured": np.ones(60, bool)}
    effect[7], variance[7] = 12.0, variance[59]
    lacking = spread.copy()
    lacking[7] = np.nan
    statistic, p_value, _ = moderated_t(effect, variance, spread=lacking, **given)
    assert np.isfinite(statistic).all()
    assert p_value[7] < 1e-4
    # Another variance there changes its own statistic and no other.
    wider = np.where(np.arange(60) == 7, 50 * variance, variance)
    other = moderated_t(effect, wider, spread=lacking, **given)[0]
    np.testing.assert_allclose(np.delete(other, 7), np.delete(statistic, 7), rtol=1e-12)
    assert 0 < other[7] < statistic[7] / 2


def test_two_genes_are_too_few_to_learn_from():
    effect, variance, pairs = drawn(2)
    given = {"pairs": pairs, "weight": np.ones(2), "spread": np.ones(2), "measured": np.ones(2, bool)}
    result = moderated_t(effect, variance, **given)
    assert np.isnan(result).all()


def test_variances_of_zero_do_not_make_infinite_statistics():
    effect, variance, pairs = drawn(50)
    variance[:5] = 0
    given = {"pairs": pairs, "weight": np.ones(50), "spread": np.ones(50), "measured": np.ones(50, bool)}
    result = moderated_t(effect, variance, **given)
    assert np.isfinite(result).all()


@pytest.mark.parametrize("value", [1e-8, 1e-3, 0.7, 3.0, 1e4, 1e9])
def test_trigamma_is_turned_round(value):
    assert polygamma(1, inverse_trigamma(value)) == pytest.approx(value, rel=1e-6)


def test_p_values_are_scipys_and_their_logarithms_go_on_where_floats_end():
    values = np.array([0.0, 0.3, -2.0, 5.0, 40.0, -1e4, 1e9])
    for degrees in (1.5, 4.0, 13.0, 300.0):
        p_value, log10_p = student_p(values, np.full(len(values), degrees))
        np.testing.assert_allclose(p_value, 2 * t.sf(np.abs(values), degrees), rtol=1e-9)
        with mpmath.workdps(60):
            exact = [
                mpmath.log10(
                    mpmath.betainc(degrees / 2, 0.5, 0, degrees / (degrees + v**2), regularized=True)
                )
                for v in map(mpmath.mpf, values)
            ]
        np.testing.assert_allclose(log10_p, [float(one) for one in exact], rtol=1e-8, atol=1e-12)
    normal = student_p(np.array([1.96, 60.0]), np.array([np.inf, np.inf]))
    assert normal[0][0] == pytest.approx(0.0499958)
    assert normal[1][1] == pytest.approx(float(mpmath.log10(mpmath.erfc(60 / mpmath.sqrt(2)))))
