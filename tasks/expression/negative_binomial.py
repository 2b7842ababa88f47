"""Negative-binomial regression of pseudobulk profiles: for designs of few batches and several guides.

The profiles are those of single guides in single batches, so that what differs between guides of one target,
and between guides of the controls, is part of the noise. By statsmodels, one fit a gene and perturbation:
some ten milliseconds each, for screens of thousands of tests and not of millions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq

from tasks.expression.blocks import GeneSpan, write_block
from tasks.expression.moderation import student_p
from tasks.expression.profiles import Profiles

if TYPE_CHECKING:
    from statsmodels.genmod.generalized_linear_model import GLMResults

#: What a block's file holds for each group and gene, in this order.
REGRESSION_FIELDS = ("t", "p_value", "log10_p_value")
#: Refits of the dispersion and the means in turn, and the relative change of the dispersion that ends them.
MOST_REFITS, CLOSE = 10, 1e-3
LARGEST_DISPERSION = 1e3


@dataclass(frozen=True)
class Comparison:
    """One perturbation's regression: its own and the controls' profiles in the batches both share.

    Attributes
    ----------
    rows
        (n_profiles,): where they are among all profiles.
    design
        float64 (n_profiles, n_batches + 1): a level a batch, then 1 for perturbed profiles.
    offset
        (n_profiles,): log of the library, for perturbed profiles with the shift in composition.
    """

    rows: np.ndarray
    design: np.ndarray
    offset: np.ndarray

    @classmethod
    def of(cls, profiles: Profiles, number: int, *, shift: float) -> Comparison:
        """That of the perturbation with this number; ``shift`` is log2, as most genes show it."""
        mine = np.arange(profiles.first[number], profiles.first[number + 1])
        controls = np.arange(profiles.first[-2], profiles.first[-1])
        shared = np.intersect1d(profiles.batch[mine], profiles.batch[controls])
        rows = np.concatenate([mine, controls])
        rows = rows[np.isin(profiles.batch[rows], shared)]
        perturbed = (profiles.group[rows] == number).astype(np.float64)
        levels = (profiles.batch[rows][:, None] == shared).astype(np.float64)
        offset = np.log(profiles.library[rows]) + perturbed * shift * np.log(2)
        return cls(rows, np.column_stack([levels, perturbed]), offset)


def regression_block(
    span: GeneSpan, profiles: Profiles, *, shifts: np.ndarray, measured: np.ndarray, min_umis: float
) -> Path:
    """Regress one block of genes and write (3, n, n_genes) float64, fields as in `REGRESSION_FIELDS`.

    Parameters
    ----------
    shifts
        (n,): each perturbation's median log2 difference over genes.
    measured
        bool (n, n_genes of the block): pairs to be tested.
    min_umis
        UMIs that have to be expected on average in a perturbed profile; genes with fewer get NaN.
    """
    block = span.read()
    n, n_profiles = len(shifts), len(profiles.group)
    comparisons = [Comparison.of(profiles, number, shift=shifts[number]) for number in range(n)]
    result = np.full((len(REGRESSION_FIELDS), n, block.n_genes), np.nan)
    for gene in range(block.n_genes):
        values = slice(block.starts[gene], block.starts[gene + 1])
        profile = profiles.profile[block.cells[values]]
        kept = profile >= 0
        sums = np.bincount(profile[kept], block.counts[values][kept].astype(np.float64), n_profiles)
        for number in np.flatnonzero(measured[:, gene]):
            rows = comparisons[number].rows
            library, perturbed = profiles.library[rows], comparisons[number].design[:, -1] > 0
            expected = sums[rows].sum() / library.sum() * library[perturbed].mean()
            if expected >= min_umis and sums[rows].sum() > 0:
                t, degrees = regression_t(sums[rows], comparisons[number])
                result[:, number, gene] = t, *student_p(np.array(t), np.array(float(degrees)))
    write_block(span.target, result)
    return span.target


def regression_t(counts: np.ndarray, comparison: Comparison) -> tuple[float, int]:
    """Signed root of the likelihood ratio between the regression with and without the perturbation.

    Counts are negative binomial around ``library x level of the batch x fold change``. Their dispersion is
    the one at which Pearson's statistic of the full regression is its degrees of freedom (0, Poisson, where
    they scatter less), so that the root is compared with Student's t at these degrees of freedom. On a
    likelihood ratio, a gene that one side has lost altogether is the strong evidence that it is: its profiles
    say nothing of how counts scatter, so dispersion and degrees of freedom are then those of the other side.

    Parameters
    ----------
    counts
        float64 (n_profiles,): summed UMIs of the comparison's profiles, not all zero.

    Returns
    -------
    float, int
        Positive where the perturbed profiles have more than the batches' levels and their libraries expect;
        NaN where the batches with counts, or the one side that has any, leave no degrees of freedom.
    """
    design = comparison.design
    # A batch without any count says nothing, and its level would be minus infinity.
    seen = design[:, :-1].T @ counts > 0
    kept = design[:, :-1] @ seen > 0
    counts, offset = counts[kept], comparison.offset[kept]
    levels, perturbed = design[kept][:, :-1][:, seen], design[kept][:, -1]
    degrees = len(counts) - levels.shape[1] - 1
    total = (counts * perturbed).sum()
    if 0 < total < counts.sum():
        part = np.ones(len(counts), bool)
        full = np.column_stack([levels, perturbed])
    else:
        # One side has no counts: its expectation is 0, its likelihood 1, and the other side is the fit.
        part = perturbed == (total > 0)
        full = levels
        degrees = int(part.sum()) - levels.shape[1]
    if degrees < 1:
        return np.nan, 1
    dispersion, fitted = _dispersion(counts[part], full[part], offset=offset[part], degrees=degrees)
    without = _fit(counts, levels, offset=offset, dispersion=dispersion)
    ratio = max(2 * (fitted.llf - without.llf), 0.0)
    more = fitted.params[-1] > 0 if full is not levels else total > 0
    return float(np.sqrt(ratio) if more else -np.sqrt(ratio)), degrees


def _dispersion(
    counts: np.ndarray, design: np.ndarray, *, offset: np.ndarray, degrees: int
) -> tuple[float, GLMResults]:
    """Dispersion and means in turn until Pearson's statistic is its degrees of freedom, and the last fit."""
    dispersion, fitted = 0.0, _fit(counts, design, offset=offset, dispersion=0.0)
    for _ in range(MOST_REFITS):
        before, dispersion = dispersion, _by_moments(counts, fitted.mu, degrees=degrees)
        if dispersion == before:
            break
        fitted = _fit(counts, design, offset=offset, dispersion=dispersion, start=fitted.params)
        if abs(dispersion - before) <= CLOSE * dispersion:
            break
    return dispersion, fitted


def _by_moments(counts: np.ndarray, mean: np.ndarray, *, degrees: int) -> float:
    """The dispersion at which Pearson's statistic of counts about their means is its degrees of freedom."""
    square = (counts - mean) ** 2

    def above(dispersion: float) -> float:
        return float((square / (mean + dispersion * mean**2)).sum() - degrees)

    if above(0.0) <= 0:
        return 0.0
    return brentq(above, 0.0, LARGEST_DISPERSION) if above(LARGEST_DISPERSION) < 0 else LARGEST_DISPERSION


def _fit(
    counts: np.ndarray,
    design: np.ndarray,
    *,
    offset: np.ndarray,
    dispersion: float,
    start: np.ndarray | None = None,
) -> GLMResults:
    """Regress counts at a given dispersion; 0 is Poisson's."""
    # Takes a second to import, and only this test needs it.
    import statsmodels.api as sm

    family = sm.families.NegativeBinomial(alpha=dispersion) if dispersion else sm.families.Poisson()
    return sm.GLM(counts, design, family=family, offset=offset).fit(start_params=start)
