"""Do the guides of one perturbation move a gene the same way? One pass over the counts, summed by guide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from distributed import Client

from storage.screens import GeneBlock, Screen
from tasks.expression.blocks import (
    BlockLedger,
    GeneSpan,
    Unit,
    batch_means,
    gene_spans,
    run_blocks,
    shared,
    write_block,
)
from tasks.expression.groups import CellGroups, divisors

#: What is counted for each perturbation, in the order of a block's rows.
COUNTS = ("de_compared", "de_agree", "not_de_compared", "not_de_agree")


@dataclass(frozen=True)
class GuideGroups:
    """Cells by guide.

    Attributes
    ----------
    owner
        int64 (n_guides,): number of each guide's perturbation, ascending.
    cells
        The guides as groups, with strata where they are compared within batches.
    """

    owner: np.ndarray
    cells: CellGroups


def guide_groups(
    cells: pd.DataFrame,
    perturbations: Sequence[str],
    *,
    usable: np.ndarray,
    min_cells: int = 10,
    normalise: str = "library",
    by_batch: bool = False,
) -> GuideGroups:
    """Group cells by perturbation and guide; guides with fewer than ``min_cells`` usable cells are left out.

    Parameters
    ----------
    cells
        ``perturbation`` and ``guide`` (categorical), ``control`` and ``library_size`` of each cell, and
        ``batch``.
    usable
        bool (n_cells,): cells that were tested.
    normalise
        ``library``: compared value = UMI count / library size; ``none``: the count itself.
    by_batch
        Compare guides with the controls of their batches, as the test did.
    """
    control = cells["control"].to_numpy(bool)
    pert = pd.Categorical(cells["perturbation"], categories=list(perturbations)).codes.astype(np.int64)
    guide = cells["guide"].cat.codes.to_numpy(np.int64)
    used = np.flatnonzero(usable & ~control & (pert >= 0))
    n_guides = len(cells["guide"].cat.categories)
    codes = pert[used] * n_guides + guide[used]
    pairs, pair_of_cell, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    kept = sizes >= min_cells
    number = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    group = np.full(len(cells), -1, np.int32)
    group[used] = number[pair_of_cell]
    group[control & usable] = kept.sum()
    names = [str(pair) for pair in pairs[kept]]
    groups = CellGroups.make(names, group, divisors(cells, normalise=normalise))
    return GuideGroups(pairs[kept] // n_guides, groups.within(cells["batch"]) if by_batch else groups)


def guide_agreement(
    store: Path,
    groups: GuideGroups,
    *,
    calls: np.ndarray,
    blocks_folder: Path,
    client: Client,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[pd.DataFrame, BlockLedger]:
    """Count the pairs on which all guides of a perturbation lie on the same side of the controls.

    Compared are perturbations with two or more guides. A guide's side is the sign of its mean minus the
    mean of the controls that it is compared with; a guide with just their mean agrees with none.

    Parameters
    ----------
    calls
        int8 (n_perturbations, n_genes): 1 = called DE, 0 = tested and not called, -1 = not to be counted.

    Returns
    -------
    DataFrame, BlockLedger
        A row a perturbation: ``guides_compared`` (guides with enough cells), ``de_compared``, ``de_agree``,
        and, to see what chance gives, ``not_de_compared``, ``not_de_agree`` over pairs that were not called
        and of which the controls have any UMI. The ledger counts gene blocks.
    """
    guides = shared(client, groups)
    units = [
        Unit(
            span,
            (len(COUNTS), len(calls)),
            {"groups": guides, "calls": calls[:, span.first : span.last]},
        )
        for span in gene_spans(Screen(store), blocks_folder)
    ]
    ledger = run_blocks(client, agreement_block, units, progress=progress)
    total = sum(unit.file.read() for unit in units)
    table = pd.DataFrame(dict(zip(COUNTS, total, strict=True)))
    table.insert(0, "guides_compared", np.bincount(groups.owner, minlength=len(calls)))
    return table, ledger


def agreement_block(span: GeneSpan, groups: GuideGroups, *, calls: np.ndarray) -> Path:
    """Count one block of genes; writes int64 (4, n_perturbations), rows as in `COUNTS`."""
    sums, side = _sums_and_sides(span.read(), groups.cells)
    starts = np.flatnonzero(np.diff(groups.owner, prepend=-1))
    perturbation, n_guides = groups.owner[starts], np.diff(np.append(starts, len(groups.owner)))
    several = n_guides > 1
    result = np.zeros((len(COUNTS), len(calls)), np.int64)
    if several.any():
        total = np.add.reduceat(side, starts, axis=1)[:, several].T
        agree = np.abs(total) == n_guides[several, None]
        mine = calls[perturbation[several]]
        kinds = (mine == 1, (mine == 0) & (sums[:, -1] > 0))
        counts = [part.sum(axis=1) for kind in kinds for part in (kind, kind & agree)]
        result[:, perturbation[several]] = counts
    write_block(span.target, result)
    return span.target


def _sums_and_sides(block: GeneBlock, groups: CellGroups) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the compared value, float64 (n_genes, n_guides + 1), controls last; guides' sides, int64."""
    gene = np.repeat(np.arange(block.n_genes), np.diff(block.starts))
    group = groups.group[block.cells]
    value = block.counts / groups.library[block.cells]
    n, sizes = len(groups.sizes), groups.sizes
    sums = _summed(gene, group, value, where=group >= 0, shape=(block.n_genes, n))
    # Multiplied out, equal means of whole counts stay equal.
    difference = sums[:, :-1] * sizes[-1] - sums[:, -1:] * sizes[:-1]
    if groups.stratum is not None:
        batch, shape = groups.stratum[block.cells], (block.n_genes, int(groups.stratum.max()) + 1)
        controls = _summed(gene, batch, value, where=group == n - 1, shape=shape)
        difference = sums[:, :-1] - batch_means(controls.T, groups).T * sizes[:-1]
    return sums, np.sign(difference).astype(np.int64)


def _summed(
    gene: np.ndarray, column: np.ndarray, value: np.ndarray, *, where: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Sums of values by gene and column."""
    cell = gene[where] * shape[1] + column[where]
    return np.bincount(cell, value[where], minlength=shape[0] * shape[1]).reshape(shape)


def agreement_summary(table: pd.DataFrame) -> dict[str, float]:
    """The shares over the whole screen; NaN where no pair could be compared."""
    totals = table[list(COUNTS)].sum()
    return {
        "guide_agreement": _share(totals["de_agree"], totals["de_compared"]),
        "guide_agreement_pairs": int(totals["de_compared"]),
        "guide_agreement_not_de": _share(totals["not_de_agree"], totals["not_de_compared"]),
    }


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else np.nan
