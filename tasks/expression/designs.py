"""Who is compared with whom: the perturbations a test can be done on, false ones, and why others cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tasks.expression.groups import (
    LEAST_FALSE_GUIDES,
    CellGroups,
    false_perturbation_groups,
    perturbation_groups,
)
from tasks.expression.profiles import Profiles, PseudobulkDesign, why_no_regression, why_not_paired


@dataclass(frozen=True)
class ComparisonPlan:
    """Which test, and what it takes.

    Attributes
    ----------
    test
        ``wilcoxon``, ``stratified`` or ``pseudobulk``.
    model
        Of pseudobulk: ``paired`` (moderated t over batches) or ``glm`` (negative-binomial regression).
    min_cells
        Perturbations with fewer cells that can be used are excluded.
    min_profile_umis
        See `PseudobulkDesign`.
    normalise
        ``library`` or ``none``.
    """

    test: str
    model: str
    min_cells: int
    min_profile_umis: float
    normalise: str

    @property
    def by_batch(self) -> bool:
        """Whether cells are compared within batches."""
        return self.test != "wilcoxon"


@dataclass(frozen=True)
class Design:
    """Groups of cells, and for a pseudobulk test their profiles."""

    groups: CellGroups
    pseudobulk: PseudobulkDesign | None = None


def comparable_cells(cells: pd.DataFrame, usable: np.ndarray) -> np.ndarray:
    """Usable cells of batches that have usable controls: the others can be compared with nothing."""
    if "batch" not in cells:
        return usable
    with_controls = cells["batch"][cells["control"].to_numpy(bool) & usable].unique()
    return usable & cells["batch"].isin(with_controls).to_numpy()


def screen_design(
    cells: pd.DataFrame, perturbations: Sequence[str], plan: ComparisonPlan, *, usable: np.ndarray
) -> tuple[Design, dict[str, str]]:
    """The comparison of every perturbation with which it can be done.

    Parameters
    ----------
    cells
        ``perturbation`` (categorical), ``control`` and ``library_size`` of each cell, ``batch`` and ``guide``
        where they are known.
    usable
        bool (n_cells,): cells that take part.

    Returns
    -------
    Design, dict
        And the reason for each perturbation that is left out, by name.
    """
    left = cells["perturbation"][usable].value_counts()
    left = pd.Series(list(perturbations)).map(left).fillna(0).astype(int).to_numpy()
    where = " in batches that have controls" if plan.by_batch and "batch" in cells else ""
    why = f"usable cells{where}, fewer than {plan.min_cells}"
    reasons = {name: f"{n} {why}" for name, n in zip(perturbations, left, strict=True) if n < plan.min_cells}

    def group(names: Sequence[str]) -> CellGroups:
        return perturbation_groups(cells, names, usable=usable, normalise=plan.normalise)

    tested = [name for name in perturbations if name not in reasons]
    return _planned(cells, group(tested), plan=plan, reasons=reasons)


def null_design(cells: pd.DataFrame, plan: ComparisonPlan, *, usable: np.ndarray, seed: int) -> Design | None:
    """The comparison of false perturbations made of control cells; None where there can be none.

    Where the test cannot be done on enough of the whole guides that could be held out (a paired test of
    guides that are in one batch each), cells are drawn at random.
    """
    for least, whole_guides in ((LEAST_FALSE_GUIDES, True), (1, False)):
        groups = false_perturbation_groups(
            cells,
            usable=usable,
            seed=seed,
            normalise=plan.normalise,
            min_cells=plan.min_cells,
            by_batch=plan.by_batch,
            whole_guides=whole_guides,
        )
        if groups is not None:
            design, _ = _planned(cells, groups, plan=plan, reasons={})
            if len(design.groups.names) >= least:
                return design
    return None


def _planned(
    cells: pd.DataFrame, groups: CellGroups, *, plan: ComparisonPlan, reasons: dict[str, str]
) -> tuple[Design, dict[str, str]]:
    """The comparison of groups with which the test can be done; ``reasons`` with those of the others."""
    if plan.by_batch and "batch" in cells:
        groups = groups.within(cells["batch"])
    if plan.test != "pseudobulk":
        return Design(groups), reasons
    guides = cells["guide"] if plan.model == "glm" and "guide" in cells else None
    judge: Callable[[Profiles], list[str]] = why_no_regression if plan.model == "glm" else why_not_paired
    against = judge(Profiles.of(groups, guides))
    reasons = reasons | {name: why for name, why in zip(groups.names, against, strict=True) if why}
    groups = _only(groups, [not why for why in against])
    regressed = Profiles.of(groups, guides) if plan.model == "glm" else None
    return Design(groups, PseudobulkDesign(Profiles.of(groups), regressed, plan.min_profile_umis)), reasons


def _only(groups: CellGroups, kept: Sequence[bool]) -> CellGroups:
    """The same without some of the perturbations; the cells of those are left out."""
    kept = np.asarray(kept, bool)
    number = np.append(np.where(kept, np.cumsum(kept) - 1, -1), kept.sum())
    names = [name for name, stays in zip(groups.names, kept, strict=True) if stays]
    group = np.where(groups.group >= 0, number[groups.group], -1)
    return replace(CellGroups.make(names, group, groups.library), stratum=groups.stratum)
