"""From an h5ad file to the gene-major screen store, one tile of cells in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from storage.atomic import atomic_path
from storage.errors import InputError
from storage.h5ad import H5adFile
from storage.screens import TILE_CELLS, ScreenWriter
from tasks.screens.checks import CellTable, count_problems, read_cells
from tasks.screens.tiles import compress_rows, count_genes, scatter_rows

#: Values a tile may hold: with uint32 and int32 beside the sorted copy, about 0.6 GB.
TILE_VALUES = 32_000_000


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
    try:
        cells, genes = read_cells(file, **names)
    except InputError as error:
        problems += error.problems
    first = next(file.row_blocks(most_values=1_000_000), None)
    if first is None or file.n_genes == 0:
        problems.append(f"the matrix has {file.n_cells:,} cells and {file.n_genes:,} genes")
    else:
        _, block = first
        problems += _block_problems(file, block, 0, layer)
    if problems:
        raise InputError(str(file.path), problems)
    return cells, genes


def _block_problems(file: H5adFile, block, first: int, layer: str | None) -> list[str]:
    values = block.data if sparse.issparse(block) else block.reshape(-1)
    others = [name for name in file.layers if name != layer]
    return count_problems(values, f"cells {first:,} to {first + block.shape[0] - 1:,}", others)


def _write(
    file: H5adFile, store: Path, cells: CellTable, genes: np.ndarray, dtype, layer: str | None, progress
) -> Ingested:
    writer = ScreenWriter(store, genes=genes, dtype=dtype)
    library = np.zeros(len(cells.frame), np.int64)
    detected = np.zeros(len(cells.frame), np.int32)
    done, n_values = 0, 0
    for tile in _tiles(_kept_blocks(file, cells.keep, layer, progress), np.iinfo(dtype).max):
        starts, rows, counts, n_cells = _gene_major(tile, len(genes), dtype)
        writer.append(starts, rows, counts, n_cells=n_cells)
        totals = [np.add.reduceat(np.append(c, 0), s[:-1]) * (np.diff(s) > 0) for s, _, c in tile]
        library[done : done + n_cells] = np.concatenate(totals)
        detected[done : done + n_cells] = np.concatenate([np.diff(s) for s, _, _ in tile])
        done, n_values = done + n_cells, n_values + len(counts)
    frame = cells.frame.astype({c: "category" for c in cells.frame if c != "control"})
    writer.close(frame.assign(library_size=library, n_genes=detected))
    return Ingested(done, cells.n_unassigned, len(genes), n_values)


def _kept_blocks(file: H5adFile, keep: np.ndarray, layer: str | None, progress) -> Iterator[tuple]:
    """Checked CSR pieces ``(starts, genes, counts)`` of the kept cells, in cell order, zeros removed."""
    for first, block in file.row_blocks():
        if problems := _block_problems(file, block, first, layer):
            raise InputError(str(file.path), problems)
        last = first + block.shape[0]
        if not keep[first:last].all():
            block = block[keep[first:last]]
        if sparse.issparse(block):
            block.sum_duplicates()
            block.eliminate_zeros()
            yield block.indptr.astype(np.int64), block.indices, block.data.astype(np.uint32)
        else:
            yield compress_rows(block)
        progress(last, file.n_cells)


def _tiles(blocks: Iterator[tuple], largest: int) -> Iterator[list[tuple]]:
    """Collect row pieces into tiles within the limits of cells and values."""
    tile: list[tuple] = []
    n_cells = n_values = 0
    for piece in blocks:
        for part in _split(piece, TILE_CELLS):
            if len(part[2]) and part[2].max() > largest:
                raise CountTooLargeError
            size = len(part[0]) - 1
            if tile and (n_cells + size > TILE_CELLS or n_values + len(part[2]) > TILE_VALUES):
                yield tile
                tile, n_cells, n_values = [], 0, 0
            tile.append(part)
            n_cells, n_values = n_cells + size, n_values + len(part[2])
    if tile:
        yield tile


def _split(piece: tuple, most_cells: int) -> Iterator[tuple]:
    starts, genes, counts = piece
    for first in range(0, len(starts) - 1, most_cells):
        part = starts[first : first + most_cells + 1]
        values = slice(part[0], part[-1])
        yield part - part[0], genes[values], counts[values]


def _gene_major(tile: list[tuple], n_genes: int, dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    lengths = np.zeros(n_genes, np.int64)
    for _, genes, counts in tile:
        count_genes(genes, counts, lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.empty(starts[-1], np.uint16)
    values = np.empty(starts[-1], dtype)
    cursor, first_row = starts[:-1].copy(), 0
    for part_starts, genes, counts in tile:
        scatter_rows(part_starts, genes, counts, first_row, cursor, rows, values)
        first_row += len(part_starts) - 1
    return starts, rows, values, first_row
