"""From an h5ad file to the gene-major screen store, one tile of cells in memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from storage.atomic import atomic_path
from storage.errors import InputError
from storage.h5ad import H5adFile
from storage.screens import TILE_CELLS, ScreenWriter
from tasks.one_ahead import one_ahead
from tasks.screens.checks import CellTable, count_problems, read_cells
from tasks.screens.tiles import FINE, UNORDERED, lay_out, pack_dense, pack_sparse

#: Values a tile may hold, 4 bytes each: one fills while another is laid out, 0.4 GB in all.
TILE_VALUES = 48_000_000
#: Values read from the file at once; arrays of this size come from memory freed before, not from the system.
BLOCK_VALUES = 2_000_000
#: Threads that lay a tile out.
THREADS = min(4, os.cpu_count() or 1)


class CountTooLargeError(Exception):
    """A count does not fit the store's 16 bits; ingest starts again with 32."""


@dataclass(frozen=True)
class Ingested:
    """What ingest saw: cells kept, cells left out for want of a perturbation, genes, non-zero counts."""

    n_cells: int
    n_unassigned: int
    n_genes: int
    n_values: int


def ingest_screen(
    path: Path | str,
    store: Path | str,
    *,
    layer: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **names: str | None,
) -> Ingested:
    """Stream a screen's raw counts into a new store.

    Parameters
    ----------
    path
        h5ad with X (or ``layer``) dense, CSR or CSC.
    store
        Folder that will hold the zarr store; it appears whole or not at all.
    progress
        Told the number of cells read and the number there are.
    **names
        As for `tasks.screens.checks.read_cells`.

    Raises
    ------
    InputError
        Listing everything wrong with the names, or with the first block of cells that has other values
        than raw counts.
    """
    with H5adFile(path, layer=layer) as file:
        cells, genes = _checked(file, names, layer=layer)
        try:
            with atomic_path(store) as temporary:
                tiles = _Tiles(temporary, genes, dtype=np.dtype(np.uint16))
                return _write(file, tiles, cells=cells, layer=layer, progress=progress)
        except CountTooLargeError:
            with atomic_path(store) as temporary:
                tiles = _Tiles(temporary, genes, dtype=np.dtype(np.uint32))
                return _write(file, tiles, cells=cells, layer=layer, progress=progress)


def _checked(
    file: H5adFile, names: Mapping[str, str | None], *, layer: str | None
) -> tuple[CellTable, np.ndarray]:
    """Names and a first look at the values, so that one message tells of both."""
    problems: list[str] = []
    keep = None
    try:
        cells, genes = read_cells(file, **names)
        keep = cells.keep
    except InputError as error:
        problems += error.problems
    first = next(file.row_blocks(most_values=1_000_000), None)
    if first is None or file.n_genes == 0:
        problems.append(f"the matrix has {file.n_cells:,} cells and {file.n_genes:,} genes")
    else:
        _, block = first
        problems += _block_problems(file, block, first=0, layer=layer, keep=keep)
    if problems:
        raise InputError(str(file.path), problems)
    return cells, genes


def _block_problems(
    file: H5adFile,
    block: np.ndarray | sparse.csr_matrix,
    *,
    first: int,
    layer: str | None,
    keep: np.ndarray | None,
) -> list[str]:
    """What is wrong with the values of a block's cells, of those kept where that is known."""
    kept = block if keep is None else block[keep[first : first + block.shape[0]]]
    values = kept.data if sparse.issparse(kept) else kept.reshape(-1)
    others = [name for name in file.layers if name != layer]
    return count_problems(values, f"cells {first:,} to {first + block.shape[0] - 1:,}", others)


def _write(
    file: H5adFile,
    tiles: _Tiles,
    *,
    cells: CellTable,
    layer: str | None,
    progress: Callable[[int, int], None],
) -> Ingested:
    """Stream the kept cells into tiles, and the table of cells behind them."""
    blocks = file.row_blocks(most_values=min(BLOCK_VALUES, TILE_VALUES), most_rows=TILE_CELLS)
    with tiles, contextlib.closing(one_ahead(blocks)) as blocks:
        for first, block in blocks:
            verdict = tiles.add(block, cells.keep[first : first + block.shape[0]])
            if verdict != FINE:
                # Also a count too large for any store is said here, and not tried again.
                if problems := _block_problems(file, block, first=first, layer=layer, keep=cells.keep):
                    raise InputError(str(file.path), problems)
                raise CountTooLargeError
            progress(first + block.shape[0], file.n_cells)
        tiles.flush()
    frame = cells.frame.astype({c: "category" for c in cells.frame if c != "control"})
    library, detected = np.concatenate(tiles.library), np.concatenate(tiles.detected)
    tiles.writer.close(frame.assign(library_size=library, n_genes=detected.astype(np.int32)))
    return Ingested(len(frame), cells.n_unassigned, file.n_genes, int(detected.sum()))


class _Rows:
    """Packed rows of cells: what a tile is before it is turned to gene-major order."""

    def __init__(self, n_genes: int, *, dtype: np.dtype):
        # Memory that is never written to is never taken, so that a small screen needs little of it.
        self.genes = np.empty(TILE_VALUES, np.uint16 if n_genes <= 1 << 16 else np.uint32)
        self.counts = np.empty(TILE_VALUES, dtype)
        self.lengths = np.zeros(n_genes, np.int64)
        self.clear()

    def clear(self) -> None:
        self.lengths[:] = 0
        self.ends: list[np.ndarray] = [np.zeros(1, np.int64)]
        self.n_cells = self.n_values = 0


class _Tiles:
    """Packs rows into tiles; a full one is laid out and written in a thread while the next one fills.

    ``library`` and ``detected`` collect the UMIs and the genes of every cell.
    """

    def __init__(self, store: Path, genes: np.ndarray, *, dtype: np.dtype):
        self.writer = ScreenWriter(store, genes=genes, dtype=dtype)
        self.library: list[np.ndarray] = []
        self.detected: list[np.ndarray] = []
        self._rows, self._spare = _Rows(len(genes), dtype=dtype), _Rows(len(genes), dtype=dtype)
        self._thread, self._helpers = ThreadPoolExecutor(1), ThreadPoolExecutor(THREADS)
        self._writing: Future | None = None

    def __enter__(self) -> _Tiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._helpers.shutdown()

    def add(self, block: np.ndarray | sparse.csr_matrix, keep: np.ndarray) -> int:
        """Append a block of rows; gives what was found wrong with it, `FINE` in most cases."""
        dense = not sparse.issparse(block)
        n_cells, most_values = int(keep.sum()), block.size if dense else len(block.data)
        if self._rows.n_cells + n_cells > TILE_CELLS or self._rows.n_values + most_values > TILE_VALUES:
            self._start_writing()
        rows, ends, library = self._rows, np.empty(n_cells, np.int64), np.empty(n_cells, np.int64)
        tile = {"at": rows.n_values, "genes": rows.genes, "counts": rows.counts, "lengths": rows.lengths}
        tile |= {"keep": keep, "ends": ends, "library": library}
        if dense:
            n_values, verdict = pack_dense(block, **tile)
        else:
            before = rows.lengths.copy()
            n_values, verdict = pack_sparse(block.indptr, block.indices, values=block.data, **tile)
            if verdict == UNORDERED:
                block.sum_duplicates()
                rows.lengths[:] = before
                n_values, verdict = pack_sparse(block.indptr, block.indices, values=block.data, **tile)
        if verdict == FINE:
            self.library.append(library)
            self.detected.append(np.diff(ends, prepend=rows.n_values))
            rows.ends.append(ends)
            rows.n_cells, rows.n_values = rows.n_cells + n_cells, n_values
        return verdict

    def flush(self) -> None:
        """Write what is there as the last tile, and wait until all is written."""
        self._start_writing()
        self._wait()

    def _start_writing(self) -> None:
        self._wait()
        if self._rows.n_cells:
            self._rows, self._spare = self._spare, self._rows
            self._writing = self._thread.submit(self._write, self._spare)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(self, rows: _Rows) -> None:
        starts = np.concatenate([[0], np.cumsum(rows.lengths)]).astype(np.int64)
        panels = lay_out(
            np.concatenate(rows.ends),
            rows.genes,
            counts=rows.counts,
            gene_starts=starts,
            pool=self._helpers,
        )
        self.writer.append(starts, panels, n_cells=rows.n_cells)
        rows.clear()
