"""From an h5ad file to the gene-major screen store, one tile of cells in memory."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy import sparse

from storage.atomic import atomic_path
from storage.errors import InputError
from storage.h5ad import H5adFile
from storage.one_ahead import one_ahead
from storage.screens import TILE_CELLS, ScreenWriter
from tasks.screens.checks import CellTable, count_problems, read_cells
from tasks.screens.tiles import FINE, UNORDERED, Piece, lay_out, look_over

#: Values a tile may hold, 4 bytes each (8 where a count needs 32 bits): one tile fills while another is
#: written, 0.2 GB in all.
TILE_VALUES = 24_000_000
#: Places where genes begin that a tile may hold for each thread, 4 bytes each.
TILE_STARTS = 12_000_000
#: Values read from the file at once: few enough that a thread's share of them stays in the processor's
#: outer cache. Where blocks and tiles end depends on no number of threads, so a store's bytes do not either.
BLOCK_VALUES = 2_000_000
#: Threads that look a block over and lay it out, a piece each.
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
        cells, genes = first_look(file, names, layer=layer)

        def write(dtype: type) -> Ingested:
            with atomic_path(store) as temporary:
                tiles = _Tiles(temporary, genes, dtype=np.dtype(dtype))
                return _write(file, tiles, cells=cells, layer=layer, progress=progress)

        # Not inside `except`, where the error would hold the tiles of the first attempt.
        with contextlib.suppress(CountTooLargeError):
            return write(np.uint16)
        return write(np.uint32)


def first_look(
    file: H5adFile, names: Mapping[str, str | None], *, layer: str | None, counts: bool = True
) -> tuple[CellTable, np.ndarray]:
    """Read the names and, with ``counts``, the first cells' values, so that one message tells of both.

    Raises
    ------
    InputError
        Listing everything wrong with them.
    """
    problems: list[str] = []
    keep = None
    try:
        cells, genes = read_cells(file, **names)
        keep = cells.keep
    except InputError as error:
        problems += error.problems
    first = next(file.row_blocks(most_values=1_000_000), None) if counts else None
    if file.n_cells == 0 or file.n_genes == 0:
        problems.append(f"the matrix has {file.n_cells:,} cells and {file.n_genes:,} genes")
    elif first is not None:
        _, block = first
        kept = block if keep is None else block[keep[: block.shape[0]]]
        problems += _block_problems(file, kept, first=0, n_cells=block.shape[0], layer=layer)
    if problems:
        raise InputError(str(file.path), problems)
    return cells, genes


def _block_problems(
    file: H5adFile, kept: np.ndarray | sparse.csr_matrix, *, first: int, n_cells: int, layer: str | None
) -> list[str]:
    """What is wrong with the values of those kept of the ``n_cells`` cells from ``first`` on."""
    values = kept.data if sparse.issparse(kept) else kept.reshape(-1)
    others = [name for name in file.layers if name != layer]
    return count_problems(values, f"cells {first:,} to {first + n_cells - 1:,}", others)


def _write(
    file: H5adFile,
    tiles: _Tiles,
    *,
    cells: CellTable,
    layer: str | None,
    progress: Callable[[int, int], None],
) -> Ingested:
    """Stream the kept cells into tiles, and the table of cells behind them."""
    # One is laid out, one is looked over, one is read.
    blocks = file.row_blocks(most_values=min(BLOCK_VALUES, TILE_VALUES), most_rows=TILE_CELLS, in_use=3)
    with tiles, contextlib.closing(one_ahead(blocks)) as blocks:
        for first, block in blocks:
            n_cells = block.shape[0]
            keep = cells.keep[first : first + n_cells]
            kept = block if keep.all() else block[keep]
            if tiles.add(kept) != FINE:
                # Also a count too large for any store is said here, and not tried again.
                if problems := _block_problems(file, kept, first=first, n_cells=n_cells, layer=layer):
                    raise InputError(str(file.path), problems)
                raise CountTooLargeError
            progress(first + n_cells, file.n_cells)
        tiles.flush()
    frame = cells.frame.astype({c: "category" for c in cells.frame if c != "control"})
    library, detected = np.concatenate(tiles.library), np.concatenate(tiles.detected)
    tiles.writer.close(frame.assign(library_size=library, n_genes=detected.astype(np.int32)))
    return Ingested(len(frame), cells.n_unassigned, file.n_genes, int(detected.sum()))


class _Tile:
    """Counts of some cells gene by gene, as `storage.gene_codes.encode_genes` takes them: a part a piece."""

    def __init__(self, n_genes: int, *, dtype: np.dtype):
        self._most_values = max(TILE_VALUES, n_genes)
        self._most_blocks = min(max(TILE_STARTS // max(n_genes, 1), 1), TILE_CELLS)
        # A place more for each piece, which `lay_out` may write to while the next piece's is written. Memory
        # that is never written to is never taken, so that a small screen needs little of it.
        self.values = np.empty(self._most_values + self._most_blocks * THREADS, dtype)
        self.clear()

    def clear(self) -> None:
        self.starts: list[np.ndarray] = []
        self.n_cells = self.n_values = self.n_blocks = 0

    def has_room(self, pieces: list[Piece]) -> bool:
        """Whether another block's pieces fit."""
        n_cells = self.n_cells + sum(len(piece.library) for piece in pieces)
        n_values = self.n_values + sum(int(piece.lengths.sum()) for piece in pieces)
        return n_cells <= TILE_CELLS and n_values <= self._most_values and self.n_blocks < self._most_blocks

    def reserve(self, block: np.ndarray | sparse.csr_matrix, pieces: list[Piece]) -> list[Callable[[], None]]:
        """Make room for a block; gives what lays out its pieces.

        Raises
        ------
        ValueError
            If there is no room for it; the compiled loops write unchecked.
        """
        if not self.has_room(pieces):
            raise ValueError("a block of cells is larger than a tile")
        jobs = []
        for piece in pieces:
            at = self.n_values + len(self.starts)
            starts = (at + np.concatenate([[0], np.cumsum(piece.lengths)])).astype(np.uint32)
            place = {"first_row": self.n_cells, "starts": starts, "tile": self.values}
            jobs.append(partial(lay_out, block, piece.rows, **place))
            self.starts.append(starts)
            self.n_cells += len(piece.library)
            self.n_values += int(piece.lengths.sum())
        self.n_blocks += 1
        return jobs


class _Tiles:
    """Lays blocks of cells out in tiles; a full one is written in a thread while the next one fills.

    A block is used until the next one has been added, for it is laid out while that one is looked over.
    ``library`` and ``detected`` collect the UMIs and the genes of every cell.
    """

    def __init__(self, store: Path, genes: np.ndarray, *, dtype: np.dtype):
        self.writer = ScreenWriter(store, genes=genes, dtype=dtype)
        self.library: list[np.ndarray] = []
        self.detected: list[np.ndarray] = []
        # A value is a row of 16 bits and a count of 16, or of 32 each.
        held = np.dtype(np.uint32 if dtype.itemsize == 2 else np.uint64)
        self._limit = np.iinfo(dtype).max + 1
        self._tile, self._spare = (_Tile(len(genes), dtype=held) for _ in range(2))
        self._thread, self._helpers = ThreadPoolExecutor(1), ThreadPoolExecutor(THREADS)
        self._laid_out: list[Future] = []
        self._writing: Future | None = None

    def __enter__(self) -> _Tiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._helpers.shutdown()

    def add(self, block: np.ndarray | sparse.csr_matrix) -> int:
        """Append a block of cells; gives what was found wrong with it, `FINE` in most cases."""
        if sparse.issparse(block) and block.nnz > TILE_VALUES and block.shape[0] > 1:
            # A file laid out by gene is read by cells, whatever they hold.
            middle = block.shape[0] // 2
            return max(self.add(block[:middle]), self.add(block[middle:]))
        pieces = self._look_over(block)
        self._wait_for_layout()
        if any(piece.verdict == UNORDERED for piece in pieces):
            block.sum_duplicates()
            pieces = self._look_over(block)
        verdict = max(piece.verdict for piece in pieces)
        if verdict == FINE and block.shape[0]:
            if not self._tile.has_room(pieces):
                self._start_writing()
            self.library += [piece.library for piece in pieces]
            self.detected += [piece.detected for piece in pieces]
            self._laid_out = [self._helpers.submit(job) for job in self._tile.reserve(block, pieces)]
        return verdict

    def _look_over(self, block: np.ndarray | sparse.csr_matrix) -> list[Piece]:
        """Look a block over in as many pieces as there are threads."""
        cuts = np.linspace(0, block.shape[0], THREADS + 1).astype(int).tolist()
        rows = [slice(*pair) for pair in itertools.pairwise(cuts)]
        return list(self._helpers.map(lambda piece: look_over(block, piece, limit=self._limit), rows))

    def flush(self) -> None:
        """Write what is there as the last tile, and wait until all is written."""
        self._wait_for_layout()
        self._start_writing()
        self._wait_for_writing()

    def _wait_for_layout(self) -> None:
        for job in self._laid_out:
            job.result()
        self._laid_out = []

    def _start_writing(self) -> None:
        self._wait_for_writing()
        if self._tile.n_cells:
            self._tile, self._spare = self._spare, self._tile
            self._writing = self._thread.submit(self._write, self._spare)

    def _wait_for_writing(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(self, tile: _Tile) -> None:
        self.writer.append(tile.values, np.array(tile.starts), n_cells=tile.n_cells)
        tile.clear()
