"""From an h5ad file to the gene-major screen store, one tile of cells in memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from storage.atomic import atomic_path
from storage.errors import InputError
from storage.h5ad import H5adFile
from storage.screens import TILE_CELLS, ScreenWriter
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
    **names,
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
        cells, genes = _checked(file, names, layer)
        try:
            with atomic_path(store) as temporary:
                return _write(file, temporary, cells, genes, np.uint16, layer, progress)
        except CountTooLargeError:
            with atomic_path(store) as temporary:
                return _write(file, temporary, cells, genes, np.uint32, layer, progress)


def _checked(file: H5adFile, names: dict, layer: str | None) -> tuple[CellTable, np.ndarray]:
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
        problems += _block_problems(file, block, 0, layer, keep)
    if problems:
        raise InputError(str(file.path), problems)
    return cells, genes


def _block_problems(
    file: H5adFile, block, first: int, layer: str | None, keep: np.ndarray | None
) -> list[str]:
    """What is wrong with the values of a block's cells, of those kept where that is known."""
    kept = block if keep is None else block[keep[first : first + block.shape[0]]]
    values = kept.data if sparse.issparse(kept) else kept.reshape(-1)
    others = [name for name in file.layers if name != layer]
    return count_problems(values, f"cells {first:,} to {first + block.shape[0] - 1:,}", others)


def _write(
    file: H5adFile, store: Path, cells: CellTable, genes: np.ndarray, dtype, layer: str | None, progress
) -> Ingested:
    tiles = _Tiles(ScreenWriter(store, genes=genes, dtype=dtype), len(genes), dtype)
    blocks = file.row_blocks(most_values=min(BLOCK_VALUES, TILE_VALUES), most_rows=TILE_CELLS)
    with tiles, contextlib.closing(_read_ahead(blocks)) as blocks:
        for first, block in blocks:
            verdict = tiles.add(block, cells.keep[first : first + block.shape[0]])
            if verdict != FINE:
                # Also a count too large for any store is said here, and not tried again.
                if problems := _block_problems(file, block, first, layer, cells.keep):
                    raise InputError(str(file.path), problems)
                raise CountTooLargeError
            progress(first + block.shape[0], file.n_cells)
        tiles.flush()
    frame = cells.frame.astype({c: "category" for c in cells.frame if c != "control"})
    library, detected = np.concatenate(tiles.library), np.concatenate(tiles.detected)
    tiles.writer.close(frame.assign(library_size=library, n_genes=detected.astype(np.int32)))
    return Ingested(len(frame), cells.n_unassigned, len(genes), int(detected.sum()))


def _read_ahead(blocks: Iterator) -> Iterator:
    """The same blocks, the next one read while this one is worked on."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block


class _Rows:
    """Packed rows of cells: what a tile is before it is turned to gene-major order."""

    def __init__(self, n_genes: int, dtype):
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

    def __init__(self, writer: ScreenWriter, n_genes: int, dtype):
        self.writer = writer
        self.library: list[np.ndarray] = []
        self.detected: list[np.ndarray] = []
        self._rows, self._spare = _Rows(n_genes, dtype), _Rows(n_genes, dtype)
        self._thread, self._helpers = ThreadPoolExecutor(1), ThreadPoolExecutor(THREADS)
        self._writing: Future | None = None

    def __enter__(self) -> _Tiles:
        return self

    def __exit__(self, *_exc) -> None:
        self._thread.shutdown()
        self._helpers.shutdown()

    def add(self, block: np.ndarray | sparse.csr_matrix, keep: np.ndarray) -> int:
        """Append a block of rows; gives what was found wrong with it, `FINE` in most cases."""
        dense = not sparse.issparse(block)
        n_cells, most_values = int(keep.sum()), block.size if dense else len(block.data)
        if self._rows.n_cells + n_cells > TILE_CELLS or self._rows.n_values + most_values > TILE_VALUES:
            self._start_writing()
        rows, ends, library = self._rows, np.empty(n_cells, np.int64), np.empty(n_cells, np.int64)
        given = (keep, rows.n_values, rows.genes, rows.counts, ends, library, rows.lengths)
        if dense:
            at, verdict = pack_dense(block, *given)
        else:
            before = rows.lengths.copy()
            at, verdict = pack_sparse(block.indptr, block.indices, block.data, *given)
            if verdict == UNORDERED:
                block.sum_duplicates()
                rows.lengths[:] = before
                at, verdict = pack_sparse(block.indptr, block.indices, block.data, *given)
        if verdict == FINE:
            self.library.append(library)
            self.detected.append(np.diff(ends, prepend=rows.n_values))
            rows.ends.append(ends)
            rows.n_cells, rows.n_values = rows.n_cells + n_cells, at
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
        panels = lay_out(np.concatenate(rows.ends), rows.genes, rows.counts, starts, pool=self._helpers)
        self.writer.append(starts, panels, n_cells=rows.n_cells)
        rows.clear()
