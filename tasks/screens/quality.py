"""Quality control: how many cells, does the knock-down work, and what is left out for which reason."""

from __future__ import annotations

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
        ``perturbation, n_cells, n_usable, n_guides, target_measured, target_remaining,
        target_log2_fold_change, status`` (``kept`` or ``excluded``) ``, reason``; the target is the gene of
        the perturbation's name, its remaining expression the ratio of mean count / library size to the
        controls'.
    guides
        ``perturbation, guide, n_cells, target_remaining``; no rows where guides are not known.
    """
    screen = Screen(store)
    columns = [name for name in ("perturbation", "guide") if screen.has_column(name)]
    cells = screen.cells(*columns, "control", "library_size")
    usable = usable_cells(screen, min_cell_umis=min_cell_umis)
    if not (cells["control"] & usable).any():
        message = f"no control cell has {min_cell_umis:,} UMIs; lower --min-cell-umis"
        raise InputError("quality control", [message])
    cells["n_usable"] = usable
    perturbed = cells[~cells["control"]].astype(dict.fromkeys(columns, str))
    table = perturbed.groupby("perturbation").agg(n_cells=("n_usable", "size"), n_usable=("n_usable", "sum"))
    table["n_guides"] = perturbed.groupby("perturbation")["guide"].nunique() if "guide" in columns else 0
    by_perturbation, by_guide = _target_remaining(screen, cells, usable, list(table.index))
    table["target_measured"] = table.index.isin(screen.genes)
    table["target_remaining"] = pd.Series(by_perturbation, dtype=float).reindex(table.index)
    with np.errstate(divide="ignore"):
        table["target_log2_fold_change"] = np.log2(table["target_remaining"])
    table["reason"] = [_reason(row, min_cells, max_target_remaining) for row in table.itertuples()]
    table["status"] = np.where(table["reason"] == "", "kept", "excluded")
    guides = pd.DataFrame(columns=["perturbation", "guide", "n_cells", "target_remaining"])
    if "guide" in columns:
        guides = perturbed.groupby(["perturbation", "guide"]).agg(n_cells=("n_usable", "sum")).reset_index()
        keys = zip(guides["perturbation"], guides["guide"], strict=True)
        guides["target_remaining"] = [by_guide.get(key, np.nan) for key in keys]
    return table.reset_index(), guides


def _reason(row, min_cells: int, max_target_remaining: float | None) -> str:
    reasons = []
    if row.n_usable < min_cells:
        reasons.append(f"{row.n_usable} usable cells, fewer than {min_cells}")
    if max_target_remaining is not None and row.target_remaining > max_target_remaining:
        reasons.append(
            f"target keeps {row.target_remaining:.0%} of its expression, above {max_target_remaining:.0%}"
        )
    return "; ".join(reasons)


def _target_remaining(
    screen: Screen, cells: pd.DataFrame, usable: np.ndarray, perturbations: list[str]
) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
    """Share of the target's expression left, by perturbation and by (perturbation, guide)."""
    position = {gene: index for index, gene in enumerate(screen.genes)}
    library = np.maximum(cells["library_size"].to_numpy(np.float64), 1)
    control = cells["control"].to_numpy() & usable
    names = cells["perturbation"].astype(str).to_numpy()
    rows_of = pd.Series(np.flatnonzero(usable)).groupby(names[usable]).indices
    guide = cells["guide"].astype(str).to_numpy() if "guide" in cells else None
    kept = np.flatnonzero(usable)
    by_perturbation, by_guide = {}, {}
    value = np.zeros(len(cells))
    for first, last in screen.gene_blocks():
        here = [p for p in perturbations if first <= position.get(p, -1) < last and p in rows_of]
        if not here:
            continue
        block = screen.read_genes(first, last)
        for name in here:
            span = slice(*block.starts[position[name] - first :][:2])
            value[:] = 0
            value[block.cells[span]] = block.counts[span]
            value /= library
            base = value[control].mean() if control.any() else 0.0
            if base == 0:
                continue
            rows = kept[rows_of[name]]
            by_perturbation[name] = value[rows].mean() / base
            if guide is not None:
                means = pd.Series(value[rows]).groupby(guide[rows]).mean() / base
                by_guide.update({(name, key): mean for key, mean in means.items()})
    return by_perturbation, by_guide
