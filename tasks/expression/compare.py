"""DE tests of a whole screen: gene blocks on Dask, then one Parquet table with FDR and fold change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client
from statsmodels.stats.multitest import multipletests

from storage.atomic import atomic_path
from storage.screens import Screen
from storage.tables import recipe_metadata
from tasks.expression.blocks import (
    FIELDS,
    MEAN_SCALE,
    BlockLedger,
    block_id,
    compare_block,
    read_block,
    run_blocks,
)
from tasks.expression.groups import CellGroups

#: Perturbations handled at once when the table is put together.
ROWS_AT_ONCE = 64


def compare_expression(
    store: Path,
    groups: CellGroups,
    blocks_folder: Path,
    table: Path,
    *,
    client: Client,
    recipe: Mapping,
    normalise: str = "library",
    pseudocount: float = 0.1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, BlockLedger]:
    """Test every group against the controls for every gene; resumes at the first block not done.

    Parameters
    ----------
    store
        Screen store, readable by the workers.
    blocks_folder
        Where finished blocks lie, and are found again after an interruption.
    table
        Parquet to write: ``pert, gene, n_pert, n_control, mean_pert, mean_control, log2_fold_change,
        u_statistic, p_value, p_adj, log10_p_value``, sorted by perturbation, genes in the screen's order.
        Means are UMIs per 10,000 (``normalise="library"``) or plain UMIs, over all cells of the group;
        ``log2_fold_change = log2((mean_pert + c) / (mean_control + c))`` with ``c = pseudocount``;
        ``p_adj`` is Benjamini-Hochberg within a perturbation.

    Returns
    -------
    int, BlockLedger
        Number of tests, and the blocks requested, skipped and done.
    """
    screen = Screen(store)
    scale = MEAN_SCALE if normalise == "library" else 1.0
    spans = screen.gene_blocks()
    n_rows = len(groups.sizes)
    shared = client.scatter(groups, broadcast=True, hash=False)
    units = []
    for index, (first, last) in enumerate(spans):
        target = blocks_folder / f"{block_id(index)}.npy"
        shape = (len(FIELDS), n_rows, last - first)
        units.append((target, shape, (str(store), str(target), first, last, shared, scale)))
    ledger = run_blocks(client, compare_block, units, progress=progress)
    blocks = [read_block(target, shape) for target, shape, _ in units]
    _write_tests(table, groups, screen.genes, blocks, recipe, pseudocount)
    return (n_rows - 1) * screen.n_genes, ledger


def _write_tests(table: Path, groups: CellGroups, genes, blocks, recipe: Mapping, pseudocount: float) -> None:
    mean_control = np.concatenate([block[3, -1] for block in blocks])
    schema = _schema().with_metadata(recipe_metadata(recipe))
    order = np.argsort(np.array(groups.names, dtype=object), kind="stable")
    with atomic_path(table) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for start in range(0, len(order), ROWS_AT_ONCE):
            rows = order[start : start + ROWS_AT_ONCE]
            u, p_value, log10_p, mean = (
                np.concatenate([block[field][rows] for block in blocks], axis=1)
                for field in range(len(FIELDS))
            )
            fold = np.log2((mean + pseudocount) / (mean_control + pseudocount))
            adjusted = np.stack([multipletests(row, method="fdr_bh")[1] for row in p_value])
            shape = p_value.shape
            columns = [
                _repeated([groups.names[row] for row in rows], np.repeat(np.arange(shape[0]), shape[1])),
                _repeated(genes, np.tile(np.arange(shape[1]), shape[0])),
                np.repeat(groups.sizes[rows], shape[1]),
                np.full(u.size, groups.sizes[-1]),
                mean.ravel(),
                np.tile(mean_control, shape[0]),
                fold.ravel(),
                u.ravel(),
                p_value.ravel(),
                adjusted.ravel(),
                log10_p.ravel(),
            ]
            arrays = [pa.array(c) if isinstance(c, np.ndarray) else c for c in columns]
            writer.write_table(pa.table(arrays, schema=schema))


def _repeated(names, codes: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(list(names), pa.string()))


def _schema() -> pa.Schema:
    name = pa.dictionary(pa.int32(), pa.string())
    counts = [(column, pa.int64()) for column in ("n_pert", "n_control")]
    numbers = (
        "mean_pert",
        "mean_control",
        "log2_fold_change",
        "u_statistic",
        "p_value",
        "p_adj",
        "log10_p_value",
    )
    return pa.schema(
        [("pert", name), ("gene", name), *counts, *((column, pa.float64()) for column in numbers)]
    )
