"""Small made-up screens for tests, written as AnnData writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from storage.screens import Screen
from tasks.screens.ingest import ingest_screen

CONTROL = "non-targeting"
KEYS = {"perturbation_key": "perturbation", "control": CONTROL}


def random_counts(n_cells: int, n_genes: int, *, seed: int = 0, density: float = 0.3) -> np.ndarray:
    """Integer counts with ties, empty genes and cells of very different sizes, (n_cells, n_genes)."""
    rng = np.random.default_rng(seed)
    depth = rng.gamma(2.0, 1.0, (n_cells, 1))
    level = rng.gamma(0.7, 2 * density, n_genes)
    level[:: max(n_genes // 3, 1)] = 0
    return rng.poisson(depth * level)


def random_names(n_cells: int, n_perturbations: int, *, seed: int = 0, controls: float = 0.3) -> np.ndarray:
    """A perturbation for each cell: P0, P1, ... and controls."""
    rng = np.random.default_rng([seed, 1])
    names = np.array([f"P{i}" for i in range(n_perturbations)] + [CONTROL], dtype=object)
    share = np.append(np.full(n_perturbations, (1 - controls) / n_perturbations), controls)
    return names[rng.choice(len(names), n_cells, p=share)]


def gene_names(n_genes: int) -> list[str]:
    """P0, P1, ... too, so that perturbations have a measured target."""
    return [f"P{i}" if i < 3 else f"gene{i}" for i in range(n_genes)]


def write_screen(
    path: Path,
    counts,
    perturbation: Sequence[str | None],
    *,
    genes: Sequence[str] | None = None,
    layers: dict | None = None,
    **columns: Sequence[str | None],
) -> Path:
    """Write an h5ad file; more columns of obs by name."""
    index = [f"cell{i}" for i in range(counts.shape[0])]
    obs = pd.DataFrame({"perturbation": perturbation, **columns}, index=index)
    var = pd.DataFrame(index=list(genes if genes is not None else gene_names(counts.shape[1])))
    anndata.AnnData(X=counts, obs=obs, var=var, layers=layers).write_h5ad(path)
    return path


def ingest(path: Path, store: Path, **names) -> Screen:
    """Ingest with the names that `write_screen` gives."""
    ingest_screen(path, store, **(KEYS | names))
    return Screen(store)


def stored_counts(screen: Screen) -> sparse.csc_matrix:
    """All counts of a store, as SciPy's CSC."""
    block = screen.read_genes(0, screen.n_genes)
    return sparse.csc_matrix(
        (block.counts, block.cells, block.starts), shape=(screen.n_cells, screen.n_genes)
    )


def make_store(folder: Path, counts, perturbation, *, genes=None, keys=(), **columns) -> Path:
    """Counts straight to a store; ``keys`` are the columns to ingest beside the perturbation."""
    folder.mkdir(parents=True, exist_ok=True)
    path = write_screen(
        folder / "screen.h5ad", sparse.csr_matrix(counts), perturbation, genes=genes, **columns
    )
    names = {f"{key}_key": key for key in (keys or columns)}
    ingest_screen(path, folder / "screen.zarr", **(KEYS | names))
    return folder / "screen.zarr"
