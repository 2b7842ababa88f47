"""Quality control: how many cells, does the knock-down work, and what is left out for which reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from storage.errors import InputError
from storage.screens import Screen


def usable_cells(screen: Screen, *, min_cell_umis: int = 1) -> np.ndarray:
    """Cells with at least ``min_cell_umis`` UMIs over all genes, bool (n_cells,)."""
    return screen.cells("library_size")["library_size"].to_numpy() >= min_cell_umis


def check_quality(
    store: Path | str,
    *,
    min_cells: int = 25,
    min_cell_umis: int = 1,
    max_target_remaining: float | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judge every perturbation and every guide of a screen.

    Parameters
    ----------
    min_cells
        Perturbations with fewer usable cells are excluded.
    max_target_remaining
        Where given, perturbations whose measured target keeps more than this share of its expression in the
        controls are excluded.

    Returns
    -------
    perturbations
        ``perturbation, n_cells, n_usable, n_guides, umis_per_cell, target_measured, target_remaining,
        target_log2_fold_change, status`` (``kept`` or ``excluded``) ``, reason``. ``umis_per_cell`` is the
        harmonic mean over usable cells, the one that says how exactly count / library size is measured. The
        target is the gene of the perturbation's name, its remaining expression the ratio of mean count /
        library size to the controls'.
    guides
        ``perturbation, guide, n_cells, target_remaining``; no rows where guides are not known.
    """
    screen = Screen(store)
    design = _Design.of(screen, usable_cells(screen, min_cell_umis=min_cell_umis))
    if not design.n_controls:
        message = f"no control cell has {min_cell_umis:,} UMIs; lower --min-cell-umis"
        raise InputError("quality control", [message])
    table, guides = design.perturbations, design.guides
    table["umis_per_cell"] = _harmonic_means(design)
    table["target_measured"] = table["perturbation"].isin(screen.genes)
    table["target_remaining"], guides["target_remaining"] = _target_remaining(screen, design)
    with np.errstate(divide="ignore"):
        table["target_log2_fold_change"] = np.log2(table["target_remaining"])
    table["reason"] = [
        _reason(n_usable, remaining, min_cells=min_cells, max_target_remaining=max_target_remaining)
        for n_usable, remaining in zip(table["n_usable"], table["target_remaining"], strict=True)
    ]
    table["status"] = np.where(table["reason"] == "", "kept", "excluded")
    return table, guides


@dataclass(frozen=True)
class _Design:
    """Who is in which cell, by number, so that everything is counted in one pass over the cells.

    ``group``: row of ``perturbations``, their number for controls; ``guide``: row of ``guides``; both int64
    (n_cells,), -1 for cells that are not usable (and, ``guide``, for controls).
    """

    perturbations: pd.DataFrame
    guides: pd.DataFrame
    group: np.ndarray
    guide: np.ndarray
    library: np.ndarray
    n_controls: int

    @classmethod
    def of(cls, screen: Screen, usable: np.ndarray) -> _Design:
        known = screen.has_column("guide")
        cells = screen.cells("perturbation", *(["guide"] if known else []), "control", "library_size")
        perturbed = ~cells["control"].to_numpy()
        names, group = _numbered(cells["perturbation"], perturbed)
        table = pd.DataFrame({"perturbation": names, "n_cells": np.bincount(group[perturbed])})
        table["n_usable"] = np.bincount(group[perturbed & usable], minlength=len(names))
        guides = pd.DataFrame(columns=["perturbation", "guide", "n_cells"])
        guide = np.full(len(cells), -1)
        table["n_guides"] = 0
        if known:
            guide_names, number = _numbered(cells["guide"], perturbed)
            pairs, guide[perturbed] = np.unique(
                group[perturbed] * len(guide_names) + number[perturbed], return_inverse=True
            )
            owner, which = np.divmod(pairs, len(guide_names))
            guides = pd.DataFrame({"perturbation": names[owner], "guide": guide_names[which]})
            guides["n_cells"] = np.bincount(guide[perturbed & usable], minlength=len(pairs))
            table["n_guides"] = np.bincount(owner, minlength=len(names))
        group[~perturbed] = len(names)
        library = np.maximum(cells["library_size"].to_numpy(np.float64), 1)
        return cls(
            table,
            guides,
            np.where(usable, group, -1),
            np.where(usable, guide, -1),
            library,
            int((usable & ~perturbed).sum()),
        )


def _numbered(column: pd.Series, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values found among some cells, in order, and each cell's number among them (-1 for the others)."""
    codes = column.cat.codes.to_numpy(np.int64)
    names = column.cat.categories.to_numpy(object).astype(str).astype(object)
    used = np.unique(codes[among])
    used = used[np.argsort(names[used], kind="stable")]
    number = np.full(len(names), -1)
    number[used] = np.arange(len(used))
    return names[used], np.where(among, number[codes], -1)


def _harmonic_means(design: _Design) -> np.ndarray:
    """Harmonic mean of the library sizes of each perturbation's usable cells, float64; NaN without any."""
    # Added up in the order of size, so that the order of cells changes no bit.
    order = np.argsort(design.library, kind="stable")
    group, inverse = design.group[order], 1 / design.library[order]
    n = len(design.perturbations)
    mine = (group >= 0) & (group < n)
    with np.errstate(invalid="ignore"):
        size = design.perturbations["n_usable"].to_numpy(np.float64)
        return size / np.bincount(group[mine], inverse[mine], minlength=n)


def _reason(
    n_usable: int, target_remaining: float, *, min_cells: int, max_target_remaining: float | None
) -> str:
    """Why a perturbation is excluded, '' where it is not."""
    reasons = []
    if n_usable < min_cells:
        reasons.append(f"{n_usable} usable cells, fewer than {min_cells}")
    if max_target_remaining is not None and target_remaining > max_target_remaining:
        reasons.append(
            f"target keeps {target_remaining:.0%} of its expression, above {max_target_remaining:.0%}"
        )
    return "; ".join(reasons)


def _target_remaining(screen: Screen, design: _Design) -> tuple[np.ndarray, np.ndarray]:
    """Share of the target's expression left, of each perturbation and of each guide; NaN where not known."""
    names = design.perturbations["perturbation"].to_numpy()
    row_of = {name: row for row, name in enumerate(names)}
    guides_of = design.guides.groupby("perturbation").indices
    position = {gene: index for index, gene in enumerate(screen.genes) if gene in row_of}
    by_row, by_guide = np.full(len(names), np.nan), np.full(len(design.guides), np.nan)
    sizes = design.perturbations["n_usable"].to_numpy()
    guide_sizes = design.guides["n_cells"].to_numpy(np.int64)
    for first, last in screen.gene_blocks():
        here = [gene for gene, index in position.items() if first <= index < last]
        block = screen.read_genes(first, last) if here else None
        for gene in here:
            place = position[gene] - first
            values = slice(block.starts[place], block.starts[place + 1])
            cells = block.cells[values]
            value = block.counts[values] / design.library[cells]
            base = value[design.group[cells] == len(names)].sum() / design.n_controls
            row = row_of[gene]
            mine = design.group[cells] == row
            if base == 0 or sizes[row] == 0:
                continue
            by_row[row] = value[mine].sum() / sizes[row] / base
            if gene in guides_of:
                # The guides of one perturbation stand next to each other.
                rows = guides_of[gene]
                sums = np.bincount(design.guide[cells][mine] - rows[0], value[mine], minlength=len(rows))
                with np.errstate(invalid="ignore"):
                    by_guide[rows] = sums / guide_sizes[rows] / base
    return by_row, by_guide
