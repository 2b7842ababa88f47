from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu
from statsmodels.stats.multitest import multipletests

from tasks.labels.detectable import (
    DISPERSION,
    Family,
    detectable_log2_fold_change,
    gene_umis,
    with_detectable,
)

N_CONTROL = 1000
SPREAD = 0.4


def share_found(rng, n, umis, fold, alpha, *, dispersion=DISPERSION, draws=250):
    """How often SciPy's rank-sum test on count / library size finds a change: simulated screens."""

    def values(size, mean):
        library = np.exp(rng.normal(-(SPREAD**2) / 2, SPREAD, (size, draws)))
        return rng.poisson(mean * library * rng.gamma(1 / dispersion, dispersion, library.shape)) / library

    # The harmonic mean of these library sizes is exp(-SPREAD**2).
    mean = umis * np.exp(SPREAD**2)
    perturbed, control = values(n, mean * fold), values(N_CONTROL, mean)
    return (mannwhitneyu(perturbed, control, axis=0, method="asymptotic").pvalue <= alpha).mean()


@pytest.mark.parametrize("alpha", [1e-2, 1e-4])
@pytest.mark.parametrize(
    ("n", "umis"),
    [(40, 1.0), (40, 4.0), (100, 0.5), (100, 2.0), (100, 8.0), (400, 0.2), (400, 1.0), (400, 5.0)],
)
def test_the_power_claimed_is_the_power_of_simulated_tests(n, umis, alpha):
    rng = np.random.default_rng([n, int(10 * umis), int(1 / alpha)])
    size = float(detectable_log2_fold_change(n, N_CONTROL, umis=umis, alpha=alpha))
    assert 0.2 < size < 4
    down = share_found(rng, n, umis, 2.0**-size, alpha)
    # 250 draws leave a standard error of .025; with few counts the formula errs towards more power.
    assert 0.72 <= down <= (1.0 if size > 0.7 else 0.93)
    assert share_found(rng, n, umis, 2.0**size, alpha) > down - 0.1
    assert share_found(rng, n, umis, 2.0 ** (-size / 2), alpha) < 0.6


def test_more_cells_more_umis_and_a_milder_test_see_smaller_changes():
    umis = np.geomspace(0.01, 100, 40)
    for n, alpha in ((30, 1e-3), (300, 1e-3), (300, 1e-2)):
        sizes = detectable_log2_fold_change(n, N_CONTROL, umis=umis, alpha=alpha)
        finite = np.isfinite(sizes)
        # Once something can be seen, more can be seen with more UMIs.
        assert (np.diff(finite.astype(int)) >= 0).all()
        assert (np.diff(sizes[finite]) < 0).all()
        assert (sizes > 0).all()
    at = {"n_control": N_CONTROL, "umis": 1.0, "alpha": 1e-3}
    cells = detectable_log2_fold_change(np.array([30, 100, 1000]), **at)
    assert (np.diff(cells) < 0).all()
    strict = detectable_log2_fold_change(100, N_CONTROL, umis=1.0, alpha=np.array([1e-8, 1e-4, 1e-2]))
    assert (np.diff(strict) < 0).all()


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_seen_is_infinite_and_not_an_error():
    assert detectable_log2_fold_change(20, N_CONTROL, umis=0.0, alpha=1e-3) == np.inf
    assert detectable_log2_fold_change(20, N_CONTROL, umis=0.01, alpha=1e-3) == np.inf
    assert detectable_log2_fold_change(0, N_CONTROL, umis=5.0, alpha=1e-3) == np.inf
    assert detectable_log2_fold_change(20, N_CONTROL, umis=5.0, alpha=np.nan) == np.inf


@pytest.mark.parametrize("significant", [0, 1, 30])
def test_the_p_value_needed_is_where_benjamini_hochberg_turns(significant):
    rng = np.random.default_rng(significant)
    p_value = np.append(np.full(significant, 1e-9), rng.uniform(0.2, 1, 60))
    adjusted = multipletests(p_value, method="fdr_bh")[1]
    needed = Family.of(np.append(adjusted, np.nan), fdr=0.05).needed_p(fdr=0.05)
    for factor, found in ((0.999, True), (1.001, False)):
        changed = p_value.copy()
        changed[-1] = needed * factor
        assert (multipletests(changed, method="fdr_bh")[1][-1] < 0.05) == found


def test_families_add_up():
    one, other = (Family.of(np.array(values), fdr=0.05) for values in ([0.01, 0.5, np.nan], [0.2, 0.04]))
    assert one + other == Family(tested=4, significant=2)
    assert np.isnan(Family().needed_p(fdr=0.05))


def test_each_perturbation_is_judged_by_its_own_cells_library_and_tests():
    rows = pd.DataFrame({"mean_control": [0.5, 5.0, 50.0], "p_adj": [0.001, 0.9, np.nan]})
    rows = rows.assign(n_pert=80, n_control_effective=900)
    umis = gene_umis({"P": 2000.0, "Q": 500.0})
    made = dict(with_detectable([("P", rows), ("Q", rows)], umis, fdr=0.05))
    for name, library in (("P", 2000.0), ("Q", 500.0)):
        # Two of three genes were tested and one of them is significant.
        expected = detectable_log2_fold_change(80, 900, umis=rows["mean_control"] * library / 1e4, alpha=0.05)
        np.testing.assert_array_equal(made[name]["detectable_log2_fold_change"], expected)
    together = dict(with_detectable([("P", rows)], umis, fdr=0.05, family=Family(1000, 9)))
    expected = detectable_log2_fold_change(80, 900, umis=rows["mean_control"] * 0.2, alpha=0.05 * 10 / 1000)
    np.testing.assert_array_equal(together["P"]["detectable_log2_fold_change"], expected)


def test_means_that_are_umis_already_are_taken_as_they_are():
    rows = pd.DataFrame({"mean_control": [0.5, 5.0]})
    assert gene_umis(None)("P", rows).tolist() == [0.5, 5.0]
