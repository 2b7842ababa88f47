"""Do the guides of one perturbation move a gene the same way? One pass over the counts, summed by guide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from distributed import Client

from storage.screens import Screen
from tasks.expression.blocks import (
    BlockLedger,
    GeneSpan,
    Unit,
    gene_spans,
    run_blocks,
    shared,
    write_block,
)
from tasks.expression.groups import divisors

#: What is counted for each perturbation, in the order of a block's rows.
COUNTS = ("de_compared", "de_agree", "not_de_compared", "not_de_agree")


@dataclass(frozen=True)
class GuideGroups:
    """Cells by guide.

    Attributes
    ----------
    owner
        int64 (n_guides,): number of each guide's perturbation, ascending.
    group
        int32 (n_cells,): 0 to n_guides - 1, n_guides for controls, -1 for cells left out.
    divisor
        float64 (n_cells,): what counts are divided by.
    sizes
        int64 (n_guides + 1,): cells of each guide, controls last.
    """

    owner: np.ndarray
    group: np.ndarray
    divisor: np.ndarray
    sizes: np.ndarray


def guide_groups(
    cells: pd.DataFrame,
    perturbations: Sequence[str],
    *,
    usable: np.ndarray,
    min_cells: int = 10,
    normalise: str = "library",
) -> GuideGroups:
    """Group cells by perturbation and guide; guides with fewer than ``min_cells`` usable cells are left out.

    Parameters
    ----------
    cells
        ``perturbation`` and ``guide`` (categorical), ``control`` and ``library_size`` of each cell.
    usable
        bool (n_cells,): cells that were tested.
    normalise
        ``library``: compared value = UMI count / library size; ``none``: the count itself.
    """
    control = cells["control"].to_numpy(bool)
    pert = pd.Categorical(cells["perturbation"], categories=list(perturbations)).codes.astype(np.int64)
    guide = cells["guide"].cat.codes.to_numpy(np.int64)
    used = np.flatnonzero(usable & ~control & (pert >= 0))
    n_guides = len(cells["guide"].cat.categories)
    pairs, pair_of_cell, sizes = np.unique(
        pert[used] * n_guides + guide[used], return_inverse=True, return_counts=True
    )
    kept = sizes >= min_cells
    number = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    group = np.full(len(cells), -1, np.int32)
    group[used] = number[pair_of_cell]
    group[control & usable] = kept.sum()
    return GuideGroups(
        pairs[kept] // n_guides,
        group,
        divisors(cells, normalise=normalise),
        np.append(sizes[kept], (control & usable).sum()).astype(np.int64),
    )


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
    controls' mean; a guide with just the controls' mean agrees with none.

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
    sums = _sums_by_group(span, groups)
    sizes = groups.sizes
    # Multiplied out, equal means of whole counts stay equal.
    side = np.sign(sums[:, :-1] * sizes[-1] - sums[:, -1:] * sizes[:-1]).astype(np.int64)
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


def _sums_by_group(span: GeneSpan, groups: GuideGroups) -> np.ndarray:
    """Sums of the compared value, float64 (n_genes, n_guides + 1), controls last."""
    block = span.read()
    n = len(groups.sizes)
    gene = np.repeat(np.arange(block.n_genes), np.diff(block.starts))
    group = groups.group[block.cells]
    kept = group >= 0
    value = block.counts[kept] / groups.divisor[block.cells[kept]]
    sums = np.bincount(gene[kept] * n + group[kept], value, minlength=block.n_genes * n)
    return sums.reshape(block.n_genes, n)


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
