"""Pseudobulk profiles: UMI counts summed over the cells of one perturbation in one batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from distributed import Client
from scipy import sparse

from storage.atomic import atomic_path
from storage.screens import Screen
from tasks.expression.blocks import BlockLedger, block_id, read_block, run_blocks, write_block


def pseudobulk(
    store: Path,
    usable: np.ndarray,
    blocks_folder: Path,
    target: Path,
    *,
    client: Client,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, BlockLedger]:
    """Sum counts by perturbation and, where the screen has batches, by batch.

    Writes an h5ad with one row a profile (``perturbation``, ``batch``, ``n_cells``, ``library_size``), one
    column a gene, X = summed UMIs (CSR, int64). Profiles without cells are left out.

    Returns
    -------
    int, BlockLedger
        Number of profiles, and the blocks requested, skipped and done.
    """
    screen = Screen(store)
    profiles, profile = _profiles(screen, usable)
    shared = client.scatter(profile, broadcast=True, hash=False)
    units = []
    for index, (first, last) in enumerate(screen.gene_blocks()):
        file = blocks_folder / f"{block_id(index)}.npy"
        units.append((file, (3, None), (str(store), str(file), first, last, shared, len(profiles))))
    ledger = run_blocks(client, sum_block, units, progress=progress)
    row, gene, total = np.concatenate([read_block(file, shape) for file, shape, _ in units], axis=1)
    sums = sparse.csr_matrix((total, (row, gene)), shape=(len(profiles), screen.n_genes))
    result = anndata.AnnData(X=sums, obs=profiles, var=pd.DataFrame(index=screen.genes.astype(str)))
    with atomic_path(target) as temporary:
        result.write_h5ad(temporary, compression="gzip")
    return len(profiles), ledger


def sum_block(store: str, target: str, first: int, last: int, profile: np.ndarray, n_profiles: int) -> str:
    """Sum one block of genes over the cells of each profile.

    Writes int64 (3, n_sums): profile, gene and sum of every pair that has any UMIs; with many batches most
    have none.
    """
    block = Screen(store).read_genes(first, last)
    gene = np.repeat(np.arange(block.n_genes), np.diff(block.starts))
    row = profile[block.cells]
    kept = row >= 0
    entries = (block.counts[kept].astype(np.int64), (row[kept], gene[kept]))
    sums = sparse.csr_matrix(entries, shape=(n_profiles, block.n_genes)).tocoo()
    write_block(target, np.stack([sums.row, sums.col.astype(np.int64) + first, sums.data]).astype(np.int64))
    return target


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
