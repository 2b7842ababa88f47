"""What a test could have seen: the smallest change of a gene that it finds with good power.

A pair without evidence of an effect says "not differentially expressed" only where an effect would have
shown. What would have shown follows from the number of cells and of UMIs, before any p-value is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from tasks.expression.blocks import MEAN_SCALE

#: Share of changes of the detectable size that are found.
POWER = 0.8
#: Variance of expression beyond Poisson, as a share of the squared mean. The median over genes with 0.5 or
#: more UMIs a cell is 0.35 and 0.34 in the control cells of two published screens, 0.23 in the simulated one.
DISPERSION = 0.3


def detectable_log2_fold_change(
    n_pert: np.ndarray,
    n_control: np.ndarray,
    *,
    umis: np.ndarray,
    alpha: np.ndarray,
    power: float = POWER,
    dispersion: float = DISPERSION,
) -> np.ndarray:
    """The smallest |log2 fold change| that a rank-sum test finds with ``power``, whichever its direction.

    It is the smallest *fall* to a share f of the controls' expression; a rise by the same factor is easier to
    see. With squared coefficients of variation ``1 / umis + dispersion`` in the controls and
    ``f / umis + dispersion * f**2`` (in units of the controls' mean) in the perturbed cells, f solves ::

        1 - f = z(1 - alpha / 2) * sqrt((1 / umis + dispersion) * (1 / n_pert + 1 / n_control))
              + z(power) * sqrt((f / umis + dispersion * f**2) / n_pert + (1 / umis + dispersion) / n_control)

    that is, the normal approximation to the power of comparing two means, with the null's variance for
    significance and the alternative's for power. On counts the rank-sum test has about the power of that
    comparison: where few cells have any UMI both compare shares of cells, elsewhere its efficiency is near
    one. tests/tasks/test_detectable.py holds it against simulated tests.

    Parameters
    ----------
    n_pert, n_control
        Cells of both groups.
    umis
        Expected UMIs of the gene in a cell: its share of UMIs times the harmonic mean of library sizes.
    alpha
        Two-sided significance that would have been needed.

    Returns
    -------
    ndarray
        float64, broadcast over the arguments; infinite where not even a loss of all UMIs would be found.
    """
    n_pert, n_control, umis, alpha = (
        np.asarray(value, np.float64) for value in (n_pert, n_control, umis, alpha)
    )
    z_power = ndtri(power)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = 1 / umis + dispersion
        room = 1 + ndtri(alpha / 2) * np.sqrt(variance * (1 / n_pert + 1 / n_control))
        # (room - f)**2 = z_power**2 * (variance of the difference of means), a quadratic in f.
        square = 1 - z_power**2 * dispersion / n_pert
        linear = 2 * room + z_power**2 / (umis * n_pert)
        constant = room**2 - z_power**2 * variance / n_control
        share = (linear - np.sqrt(linear**2 - 4 * square * constant)) / (2 * square)
        solved = (room > 0) & (constant > 0) & (share > 0)
        return np.where(solved, -np.log2(np.where(solved, share, 1.0)), np.inf)


@dataclass(frozen=True)
class Family:
    """Tests whose p-values are adjusted together: how many, and how many are significant."""

    tested: int = 0
    significant: int = 0

    @classmethod
    def of(cls, p_adj: np.ndarray, *, fdr: float) -> Family:
        """Count adjusted p-values; missing ones were not tested."""
        p_adj = np.asarray(p_adj, np.float64)
        return cls(int((~np.isnan(p_adj)).sum()), int((p_adj < fdr).sum()))

    def __add__(self, other: Family) -> Family:
        return Family(self.tested + other.tested, self.significant + other.significant)

    def needed_p(self, *, fdr: float) -> float:
        """The p-value at which one more test would have been significant under Benjamini-Hochberg.

        With R of G tests significant already, a further one is so from ``fdr * (R + 1) / G`` down; NaN
        without tests.
        """
        return fdr * min(self.significant + 1, self.tested) / self.tested if self.tested else np.nan


def gene_umis(umis_per_cell: Mapping[str, float] | None) -> Callable[[str, pd.DataFrame], np.ndarray]:
    """Expected UMIs of each gene in a cell of a perturbation, from the mean of the controls.

    Parameters
    ----------
    umis_per_cell
        Harmonic mean of library sizes by perturbation; None where ``mean_control`` is in UMIs already.
    """
    if umis_per_cell is None:
        return lambda name, rows: rows["mean_control"].to_numpy()
    return lambda name, rows: rows["mean_control"].to_numpy() * umis_per_cell[name] / MEAN_SCALE


def with_detectable(
    tests: Iterable[tuple[str, pd.DataFrame]],
    umis: Callable[[str, pd.DataFrame], np.ndarray],
    *,
    fdr: float,
    family: Family | None = None,
    dispersion: float = DISPERSION,
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Add ``detectable_log2_fold_change`` to each perturbation's tests.

    Parameters
    ----------
    tests
        Each perturbation's name and tests, with ``n_pert, n_control_effective, p_adj``.
    umis
        Expected UMIs in a cell for each row of a perturbation's tests.
    family
        All tests, where all were adjusted together; None: each perturbation's were.
    dispersion
        As for `detectable_log2_fold_change`.
    """
    for name, rows in tests:
        alpha = (family or Family.of(rows["p_adj"], fdr=fdr)).needed_p(fdr=fdr)
        cells = rows["n_pert"], rows["n_control_effective"]
        smallest = detectable_log2_fold_change(
            *cells, umis=umis(name, rows), alpha=alpha, dispersion=dispersion
        )
        yield name, rows.assign(detectable_log2_fold_change=smallest)
