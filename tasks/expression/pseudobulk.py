"""Pseudobulk profiles: UMI counts summed over the cells of one perturbation in one batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from distributed import Client
from numba import njit
from scipy import sparse

from storage.atomic import atomic_path
from storage.screens import Screen
from tasks.expression.blocks import (
    BlockFile,
    BlockLedger,
    GeneSpan,
    Unit,
    gene_spans,
    run_blocks,
    shared,
    write_block,
)


def pseudobulk(
    store: Path,
    usable: np.ndarray,
    *,
    blocks_folder: Path,
    target: Path,
    client: Client,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, BlockLedger]:
    """Sum counts by perturbation and, where the screen has batches, by batch.

    Writes an h5ad with one row a profile (``perturbation``, ``batch``, ``n_cells``, ``library_size``), one
    column a gene, X = summed UMIs (CSR; int32, or int64 where a sum needs it). Profiles without cells are
    left out.

    Returns
    -------
    int, BlockLedger
        Number of profiles, and the blocks requested, skipped and done.
    """
    # Slow to import, and only needed here.
    import anndata

    screen = Screen(store)
    profiles, profile = _profiles(screen, usable)
    arguments = {"profile": shared(client, profile), "n_profiles": len(profiles)}
    units = [Unit(span, (3, None), arguments) for span in gene_spans(screen, blocks_folder)]
    ledger = run_blocks(client, sum_block, units, progress=progress)
    sums = _sums_of_blocks([unit.file for unit in units], (len(profiles), screen.n_genes))
    result = anndata.AnnData(X=sums, obs=profiles, var=pd.DataFrame(index=screen.genes.astype(str)))
    with atomic_path(target) as temporary:
        # Not compressed: even lzf, for a quarter less, took as long as the sums themselves.
        result.write_h5ad(temporary)
    return len(profiles), ledger


def sum_block(span: GeneSpan, profile: np.ndarray, *, n_profiles: int) -> Path:
    """Sum one block of genes over the cells of each profile.

    Writes integers (3, n_sums): gene, profile and sum of every pair that has any UMIs; with many batches most
    have none.
    """
    block = span.read()
    sums = _sums(block.starts, block.cells, counts=block.counts, profile=profile, n_profiles=n_profiles)
    sums[0] += span.first
    fits = sums.max(initial=0) <= np.iinfo(np.int32).max
    write_block(span.target, sums.astype(np.int32) if fits else sums)
    return span.target


@njit(cache=True, nogil=True)
def _sums(starts, cells, counts, profile, n_profiles):
    """Gene, profile and sum of every pair with any UMIs, int64 (3, n_sums), by gene and then profile."""
    n_genes = len(starts) - 1
    # A cell adds to one profile, so there are no more sums than values.
    most = min(starts[-1], n_genes * n_profiles)
    sums = np.empty((3, most), np.int64)
    total = np.zeros(n_profiles, np.int64)
    size = 0
    for gene in range(n_genes):
        for position in range(np.uint64(starts[gene]), np.uint64(starts[gene + 1])):
            owner = profile[np.uint64(cells[position])]
            if owner >= 0:
                total[np.uint64(owner)] += counts[position]
        for owner in range(n_profiles):
            if total[owner] > 0:
                sums[0, size], sums[1, size], sums[2, size] = gene, owner, total[owner]
                total[owner] = 0
                size += 1
    return sums[:, :size]


def _sums_of_blocks(files: list[BlockFile], shape: tuple[int, int]) -> sparse.csr_matrix:
    """Put the blocks' sums together, a block in memory at a time; they come gene by gene."""
    lengths, size, dtypes = np.zeros(shape[1], np.int64), 0, set()
    for file in files:
        block = file.read()
        lengths += np.bincount(block[0], minlength=shape[1])
        size += block.shape[1]
        dtypes.add(block.dtype)
    rows, sums = np.empty(size, np.int32), np.empty(size, max(dtypes))
    filled = 0
    for file in files:
        block = file.read()
        here = slice(filled, filled + block.shape[1])
        rows[here], sums[here] = block[1], block[2]
        filled = here.stop
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return sparse.csc_matrix((sums, rows, starts), shape=shape).tocsr()


def _profiles(screen: Screen, usable: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """One row a profile in name order, and the profile of each cell (int32, -1 for cells left out)."""
    columns = ["perturbation", *(["batch"] if screen.has_column("batch") else [])]
    cells = screen.cells(*columns, "control", "library_size")
    kept = cells[usable].astype(dict.fromkeys(columns, str))
    grouped = kept.groupby(columns, sort=True)
    profiles = grouped.agg(
        n_cells=("library_size", "size"), library_size=("library_size", "sum"), control=("control", "first")
    ).reset_index()
    profiles.index = profiles[columns].agg("|".join, axis=1)
    profile = np.full(len(cells), -1, np.int32)
    profile[usable] = grouped.ngroup().to_numpy()
    return profiles, profile
