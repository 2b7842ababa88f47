"""Pseudobulk profiles of a comparison: which cells are summed together, and who has enough of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.expression.groups import CellGroups

#: A paired test has one difference a batch; two are the fewest that show how differences vary.
LEAST_PAIRS = 2
#: Fewest perturbed profiles, and residual degrees of freedom, that a regression on profiles is given.
LEAST_PERTURBED, LEAST_RESIDUAL = 2, 3


@dataclass(frozen=True)
class Profiles:
    """Groups of cells whose UMIs are summed, ordered by perturbation (controls last), then by batch.

    Attributes
    ----------
    profile
        int32 (n_cells,): the profile of each cell, -1 for cells left out.
    group
        int32 (n_profiles,): perturbation of each profile, as in `CellGroups`.
    batch
        int32 (n_profiles,).
    library
        float64 (n_profiles,): what summed counts are divided by, summed over the profile's cells.
    first
        int64 (n + 2,): group ``g``'s profiles are ``[first[g], first[g + 1])``.
    """

    profile: np.ndarray
    group: np.ndarray
    batch: np.ndarray
    library: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, groups: CellGroups, guides: pd.Series | None = None) -> Profiles:
        """Cut groups by batch (``groups.stratum``, where it is set) and, where given, by guide."""
        used = groups.group >= 0
        zeros = np.zeros(len(groups.group), np.int32)
        keys = {
            "group": groups.group,
            "batch": zeros if groups.stratum is None else groups.stratum,
            "guide": zeros if guides is None else pd.factorize(guides.astype(str), sort=True)[0],
        }
        cut = pd.DataFrame(keys)[used].groupby(list(keys), sort=True)
        profile = np.full(len(used), -1, np.int32)
        profile[used] = cut.ngroup()
        keys_of = cut.size().index
        group, batch = (keys_of.get_level_values(name).to_numpy(np.int32) for name in ("group", "batch"))
        first = np.searchsorted(group, np.arange(len(groups.sizes) + 1)).astype(np.int64)
        library = np.bincount(profile[used], groups.library[used], minlength=len(group))
        return cls(profile, group, batch, library, first)

    @property
    def control_of_batch(self) -> np.ndarray:
        """int64 (n_batches,): the controls' profile in each batch, -1 where there is none.

        Where controls have several profiles in a batch, the last of them.
        """
        profiles = np.full(int(self.batch.max(initial=0)) + 1, -1, np.int64)
        profiles[self.batch[self.first[-2] :]] = np.arange(self.first[-2], self.first[-1])
        return profiles

    def paired_batches(self) -> np.ndarray:
        """Batches in which a perturbation and controls both have cells, int64 (n,)."""
        shared = self.control_of_batch[self.batch] >= 0
        pairs = pd.DataFrame({"group": self.group, "batch": self.batch})[shared].drop_duplicates()
        return np.bincount(pairs["group"], minlength=len(self.first) - 1)[:-1]

    def residual(self) -> tuple[np.ndarray, np.ndarray]:
        """Perturbed profiles in batches with controls, and degrees of freedom a regression on batches leaves.

        The regression has a level for each shared batch and one difference; int64 (n,) both.
        """
        shared = self.control_of_batch[self.batch] >= 0
        n = len(self.first) - 2
        perturbed, left = np.zeros(n, np.int64), np.zeros(n, np.int64)
        controls = np.bincount(self.batch[self.first[-2] :], minlength=len(self.control_of_batch))
        for index in range(n):
            mine = slice(self.first[index], self.first[index + 1])
            batches = np.unique(self.batch[mine][shared[mine]])
            perturbed[index] = shared[mine].sum()
            left[index] = perturbed[index] + controls[batches].sum() - len(batches) - 1
        return perturbed, left


@dataclass(frozen=True)
class PseudobulkDesign:
    """What a pseudobulk test compares.

    Attributes
    ----------
    paired
        One profile a perturbation and batch.
    regressed
        One profile a perturbation, batch and guide, for the regression; None for the paired test.
    min_profile_umis
        UMIs of a gene that have to be expected in a profile where nothing changes: for the paired test in
        both profiles of a batch, or the batch is not used for the gene; for the regression in a perturbed
        profile on average, or the gene is not tested.
    """

    paired: Profiles
    regressed: Profiles | None
    min_profile_umis: float


def why_not_paired(profiles: Profiles) -> list[str]:
    """For each perturbation the reason why the paired test cannot be done, '' where it can."""
    return [
        ""
        if n >= LEAST_PAIRS
        else f"cells of it and of controls share {n} of the batches, the paired test needs {LEAST_PAIRS}"
        for n in profiles.paired_batches()
    ]


def why_no_regression(profiles: Profiles) -> list[str]:
    """For each perturbation the reason why the regression cannot be done, '' where it can."""
    reasons = []
    for perturbed, left in zip(*profiles.residual(), strict=True):
        if perturbed < LEAST_PERTURBED:
            few = f"{perturbed} profiles (batch x guide) beside controls"
            reasons.append(f"{few}, the regression needs {LEAST_PERTURBED}")
        elif left < LEAST_RESIDUAL:
            few = f"{left} residual degrees of freedom from its and the controls' profiles"
            reasons.append(f"{few}, the regression needs {LEAST_RESIDUAL}")
        else:
            reasons.append("")
    return reasons
