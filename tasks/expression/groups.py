"""Which cells are compared with which: perturbations, controls, and false perturbations made of controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tasks.random_streams import RandomStream

if TYPE_CHECKING:
    import pandas as pd

#: Begins the names of false perturbations that are no guides.
RANDOM_PART = "control part"
#: With fewer false perturbations of whole guides, one odd guide would be the whole calibration.
LEAST_FALSE_GUIDES = 3


@dataclass(frozen=True)
class CellGroups:
    """Groups of cells to be tested against one group of controls.

    Attributes
    ----------
    names
        The n groups tested.
    group
        int32 (n_cells,): 0 to n - 1, n for controls, -1 for cells left out.
    library
        float64 (n_cells,): what counts are divided by.
    sizes
        int64 (n + 1,): cells of each group, controls last.
    stratum
        int32 (n_cells,): the batch of each cell, for the stratified test; None to pool all cells.
    """

    names: tuple[str, ...]
    group: np.ndarray
    library: np.ndarray
    sizes: np.ndarray
    stratum: np.ndarray | None = None

    @classmethod
    def make(cls, names: Sequence[str], group: np.ndarray, library: np.ndarray) -> CellGroups:
        """Count the cells of each group and put the parts together."""
        sizes = np.bincount(group[group >= 0], minlength=len(names) + 1).astype(np.int64)
        return cls(tuple(names), group.astype(np.int32), library.astype(np.float64), sizes)

    def within(self, batches: pd.Series) -> CellGroups:
        """The same groups, to be compared within batches only."""
        strata = batches.astype(str).astype("category").cat.codes
        return replace(self, stratum=strata.to_numpy(np.int32))

    def controls_compared(self) -> tuple[np.ndarray, np.ndarray]:
        """How many controls each group is compared with, and how many they are worth.

        Within batches these are the controls of the batches that hold cells of the group. They are worth as
        many as one batch with all of the group's cells would have to hold: a batch with n and m cells says
        n m / (n + m), which is what van Elteren's weights add up.

        Returns
        -------
        n_control, effective
            int64 and float64 (n,).
        """
        if self.stratum is None:
            n_control = np.full(len(self.names), self.sizes[-1])
            return n_control, n_control.astype(np.float64)
        sizes = self.sizes_by_stratum()
        mine, controls = sizes[:, :-1], sizes[:, -1:]
        said = (mine * controls / np.maximum(mine + controls, 1)).sum(axis=0)
        n = self.sizes[:-1]
        return ((mine > 0) * controls).sum(axis=0), said * n / np.maximum(n - said, np.finfo(float).tiny)

    def control_shares(self) -> np.ndarray:
        """What each batch's controls count in the mean that a group is compared with, float64 (n, n_strata).

        The share of the group's own cells in the batch, so that a gene that is higher in some batches is
        not taken for one that is moved; 0 for a batch without controls.
        """
        sizes = self.sizes_by_stratum()
        shares = np.where(sizes[:, -1:] > 0, sizes[:, :-1], 0).T.astype(np.float64)
        return shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)

    def sizes_by_stratum(self) -> np.ndarray:
        """Cells of each group in each batch, int64 (n_strata, n + 1)."""
        shape = (int(self.stratum.max()) + 1, len(self.sizes))
        used = self.group >= 0
        cell = np.ravel_multi_index((self.stratum[used], self.group[used]), shape)
        return np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)


def perturbation_groups(
    cells: pd.DataFrame, perturbations: Sequence[str], *, usable: np.ndarray, normalise: str = "library"
) -> CellGroups:
    """Group cells by perturbation, controls last.

    Parameters
    ----------
    cells
        ``perturbation`` (categorical), ``control`` and ``library_size`` of each cell.
    usable
        bool (n_cells,): cells that passed quality control.
    normalise
        ``library``: ranked value = UMI count / library size; ``none``: the count itself.
    """
    codes = cells["perturbation"].cat.set_categories(list(perturbations)).cat.codes.to_numpy(np.int32)
    group = np.where(cells["control"], len(perturbations), codes)
    return CellGroups.make(perturbations, np.where(usable, group, -1), divisors(cells, normalise=normalise))


def false_perturbation_groups(
    cells: pd.DataFrame,
    *,
    usable: np.ndarray,
    seed: int,
    normalise: str = "library",
    most: int = 20,
    min_cells: int = 25,
    by_batch: bool = False,
    whole_guides: bool = True,
) -> CellGroups | None:
    """Hold out control cells as false perturbations, to see what the test calls where nothing is.

    Control guides are held out whole where guides are known and `LEAST_FALSE_GUIDES` false perturbations or
    more can be made of them, so that what differs between guides counts; otherwise control cells are drawn
    at random, and the false perturbations are called by `RANDOM_PART` and a number. At most ``most`` false
    perturbations of at least ``min_cells`` cells, made of at most half of the control cells; the other half
    stays control.

    Those of whole guides do not depend on the order of cells. Cells have no names here, so which are drawn
    at random does: the same seed draws others from a file whose cells are in another order.

    Parameters
    ----------
    by_batch
        Cells will be compared within batches: every false perturbation gets at least ``min_cells`` cells in
        batches that keep controls, and its cells in other batches are left out. Drawn at random are then at
        most half of the controls of each batch.
    whole_guides
        Whether guides may be held out whole.

    Returns
    -------
    CellGroups or None
        None where there are too few control cells to hold any out.
    """
    control = np.flatnonzero(cells["control"].to_numpy() & usable)
    rng = np.random.default_rng([seed, RandomStream.FALSE_PERTURBATIONS])
    batch = np.zeros(len(cells), np.int64)
    if by_batch and "batch" in cells:
        batch = cells["batch"].astype(str).astype("category").cat.codes.to_numpy(np.int64)
    held_out: dict[str, np.ndarray] = {}
    if whole_guides and "guide" in cells and cells["guide"].iloc[control].nunique() > 1:
        rows_of = {name: control[rows] for name, rows in _rows_by(cells["guide"].iloc[control]).items()}
        pools = _pooled(rows_of, min_cells, rng)
        held_out = _up_to_half(pools, control, batch=batch, most=most, min_cells=min_cells)
    if len(held_out) < LEAST_FALSE_GUIDES:
        held_out = _random_parts(control, batch[control], most=most, min_cells=min_cells, rng=rng)
    if not held_out:
        return None
    group = np.full(len(cells), -1, np.int32)
    group[control] = len(held_out)
    for index, name in enumerate(sorted(held_out)):
        group[held_out[name]] = index
    alone = ~np.isin(batch, batch[group == len(held_out)])
    group[alone] = -1
    return CellGroups.make(sorted(held_out), group, divisors(cells, normalise=normalise))


def _up_to_half(
    pools: dict[str, np.ndarray], control: np.ndarray, *, batch: np.ndarray, most: int, min_cells: int
) -> dict[str, np.ndarray]:
    """The first of the pools, at most ``most``, that together are at most half of the control cells.

    A pool that would leave itself or one before it with fewer than ``min_cells`` cells in batches that keep
    controls is passed over.
    """
    n_batches = int(batch.max(initial=0)) + 1
    left = np.bincount(batch[control], minlength=n_batches)
    chosen, counts = [], []
    n_left = len(control) // 2
    for name, rows in pools.items():
        mine = np.bincount(batch[rows], minlength=n_batches)
        beside_controls = [one[left > mine].sum() for one in (*counts, mine)]
        if len(chosen) < most and len(rows) <= n_left and min(beside_controls) >= min_cells:
            chosen.append(name)
            counts.append(mine)
            left = left - mine
            n_left -= len(rows)
    return {name: pools[name] for name in chosen}


def _random_parts(
    control: np.ndarray, batch: np.ndarray, *, most: int, min_cells: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Equal parts of at most half of the controls of each batch; ``batch`` is that of each control cell."""
    order = rng.permutation(len(control))
    drawn = np.zeros(len(order), bool)
    for one in np.unique(batch):
        here = np.flatnonzero(batch[order] == one)
        drawn[here[: len(here) // 2]] = True
    shuffled = control[order[drawn]]
    n = min(most, len(shuffled) // min_cells)
    size = len(shuffled) // n if n else 0
    return {f"{RANDOM_PART} {i + 1}": shuffled[i * size : (i + 1) * size] for i in range(n)}


def _pooled(
    rows_of: dict[str, np.ndarray], min_cells: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Whole guides in random order, small ones put together until they make ``min_cells`` cells."""
    pools, names, parts = {}, [], []
    for name in rng.permutation(np.array(sorted(rows_of), dtype=object)):
        names.append(str(name))
        parts.append(rows_of[name])
        if sum(map(len, parts)) >= min_cells:
            title = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
            pools[title] = np.concatenate(parts)
            names, parts = [], []
    return pools


def _rows_by(names: pd.Series) -> dict[str, np.ndarray]:
    return names.reset_index(drop=True).astype(str).groupby(names.astype(str).to_numpy()).indices


def divisors(cells: pd.DataFrame, *, normalise: str) -> np.ndarray:
    """What the counts of each cell are divided by, float64 (n_cells,).

    ``cells`` has ``library_size``; ``normalise`` is ``library`` or ``none``.
    """
    library = cells["library_size"].to_numpy(np.float64)
    # A cell without counts has only zeros; any divisor leaves them.
    return np.maximum(library, 1.0) if normalise == "library" else np.ones(len(cells))
