"""The screen store: raw counts in zarr v3, laid out so that one gene's values lie together.

Cells are cut into tiles of at most 65,536; inside a tile the non-zero counts are sorted by gene, then by
cell. ``counts`` and ``gaps`` hold them one tile after the other, and ``starts[tile, gene]`` says where a
gene's values begin. A gap is the difference to the gene's cell before (at first, to the tile's first cell):
small numbers, which compress to less than half of what the cells themselves take. A tile is written once and
never touched again, so ingest needs one tile in memory; a block of genes is read as one slice a tile.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr
from numba import njit
from zarr.codecs import BloscCodec

from storage.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

TILE_CELLS = 65_536
#: Values a compressed chunk: a block of genes is one slice a tile, of which whole chunks are unpacked.
CHUNK = 1 << 17
#: Chunks a file, so that a genome-wide screen stays at some dozens of files.
CHUNKS_PER_SHARD = 96
COMPRESSOR = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
#: zarrs encodes and decodes a shard's chunks in one compiled call; zarr alone spends a millisecond a chunk.
#: With several threads it lays chunks out as they come, and the same counts give other bytes.
PIPELINE = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1}
_SETTINGS = threading.Lock()
LAYOUT = "gene-major tiles, version 2"


@dataclass(frozen=True)
class GeneBlock:
    """The non-zero counts of some consecutive genes over all cells.

    Attributes
    ----------
    first
        Index of the block's first gene in the screen.
    starts
        int64, (n_genes + 1,): gene ``i``'s values are ``[starts[i], starts[i + 1])``.
    cells
        int32, (n_values,): cell of each value, ascending within a gene.
    counts
        uint16 or uint32, (n_values,): UMI counts, none of them zero.
    """

    first: int
    starts: np.ndarray
    cells: np.ndarray
    counts: np.ndarray

    @property
    def n_genes(self) -> int:
        """Number of genes in the block."""
        return len(self.starts) - 1


class ScreenWriter:
    """Writes a screen store tile by tile, in cell order."""

    def __init__(self, path: Path | str, *, genes: np.ndarray, dtype: np.dtype):
        self._genes = genes
        self._root = zarr.open_group(str(path), mode="w", zarr_format=3)
        self._counts = _Appender(self._root, "counts", np.dtype(dtype))
        self._gaps = _Appender(self._root, "gaps", np.dtype(np.uint16))
        self._starts: list[np.ndarray] = []
        self._tile_cells: list[int] = []

    def append(
        self, starts: np.ndarray, pieces: Iterable[tuple[np.ndarray, np.ndarray]], *, n_cells: int
    ) -> None:
        """Append one tile: values sorted by gene then cell, ``starts`` int64 of (n_genes + 1,).

        ``pieces`` are the values' gaps and counts, one piece after the other. They are copied; the caller may
        use the arrays again.
        """
        if n_cells > TILE_CELLS:
            raise ValueError(f"a tile holds at most {TILE_CELLS} cells, got {n_cells}")
        self._starts.append(starts + self._counts.length)
        self._tile_cells.append(n_cells)
        for gaps, counts in pieces:
            self._gaps.append(gaps)
            self._counts.append(counts)

    def close(self, cells: pd.DataFrame) -> None:
        """Finish the store with the table of cells (one row a cell, plain and categorical columns)."""
        import pandas as pd

        self._counts.close()
        self._gaps.close()
        starts = np.array(self._starts, np.int64).reshape(-1, len(self._genes) + 1)
        _put(self._root, "starts", starts)
        table = self._root.create_group("cells")
        for name in cells:
            column = cells[name]
            if isinstance(column.dtype, pd.CategoricalDtype):
                _put(table, name, column.cat.codes.to_numpy(np.int32))
                table[name].attrs["categories"] = [str(value) for value in column.cat.categories]
            else:
                _put(table, name, column.to_numpy())
        self._root.attrs.update(
            layout=LAYOUT,
            n_cells=len(cells),
            n_genes=len(self._genes),
            tile_cells=self._tile_cells,
            genes=[str(gene) for gene in self._genes],
        )


class Screen:
    """A screen store opened for reading; cheap to open, so workers open it by path.

    Raises
    ------
    InputError
        If the folder is not a screen store of this layout.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        try:
            self._root = zarr.open_group(str(path), mode="r", zarr_format=3)
        except (FileNotFoundError, ValueError) as error:
            raise InputError(str(path), ["not a screen store; make one with `pqa label`"]) from error
        if self._root.attrs.get("layout") != LAYOUT:
            raise InputError(str(path), [f"not a screen store of layout '{LAYOUT}'"])
        self.n_cells: int = self._root.attrs["n_cells"]
        self.n_genes: int = self._root.attrs["n_genes"]

    @cached_property
    def genes(self) -> np.ndarray:
        """Gene names, (n_genes,)."""
        return np.array(self._root.attrs["genes"], dtype=object)

    @cached_property
    def _starts(self) -> np.ndarray:
        return self._root["starts"][:]

    @cached_property
    def _gaps(self) -> zarr.Array:
        return self._values("gaps")

    @cached_property
    def _counts(self) -> zarr.Array:
        return self._values("counts")

    @cached_property
    def _tile_offsets(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self._root.attrs["tile_cells"])]).astype(np.int64)

    def _values(self, name: str) -> zarr.Array:
        with _pipeline():
            return self._root[name]

    @cached_property
    def values_per_gene(self) -> np.ndarray:
        """Number of non-zero counts of each gene, int64 (n_genes,)."""
        return np.diff(self._starts, axis=1).sum(axis=0)

    def cells(self, *columns: str) -> pd.DataFrame:
        """The table of cells, whole or some of its columns; categories come back as categoricals."""
        # Imported where it is used: a worker that tests genes does without it, and starts in two thirds of
        # the time.
        import pandas as pd

        group = self._root["cells"]
        table = {}
        for name in columns or sorted(group.array_keys()):
            values = group[name][:]
            categories = group[name].attrs.get("categories")
            table[name] = values if categories is None else pd.Categorical.from_codes(values, categories)
        return pd.DataFrame(table)

    def has_column(self, name: str) -> bool:
        """Whether the table of cells has a column of this name."""
        return name in self._root["cells"]

    def read_genes(self, first: int, last: int) -> GeneBlock:
        """Read the counts of genes ``first`` to ``last`` (exclusive) over all cells."""
        total = np.concatenate([[0], np.cumsum(self.values_per_gene[first:last])]).astype(np.int64)
        cells = np.empty(total[-1], np.int32)
        counts = np.empty(total[-1], self._counts.dtype)
        cursor = total[:-1].copy()
        for tile, offset in enumerate(self._tile_offsets[:-1]):
            starts = self._starts[tile, first : last + 1]
            values = slice(int(starts[0]), int(starts[-1]))
            with _system_errors():
                piece = self._gaps[values], self._counts[values]
            _join_tile(starts - starts[0], *piece, offset, cursor, cells, counts)
        return GeneBlock(first, total, cells, counts)

    def gene_blocks(self, *, most_values: int = 8_000_000, most_genes: int = 256) -> list[tuple[int, int]]:
        """Cut the genes into consecutive blocks of bounded size, as ``(first, last)`` pairs."""
        blocks, first, size = [], 0, 0
        for gene, values in enumerate(self.values_per_gene):
            if gene > first and (size + values > most_values or gene - first >= most_genes):
                blocks.append((first, gene))
                first, size = gene, 0
            size += int(values)
        blocks.append((first, self.n_genes))
        return blocks


class _Appender:
    """A one-dimensional zarr array that grows; whole shards only, so that none is written twice."""

    def __init__(self, root: zarr.Group, name: str, dtype: np.dtype):
        self._shard = CHUNK * CHUNKS_PER_SHARD
        layout = {"chunks": (CHUNK,), "shards": (self._shard,), "compressors": COMPRESSOR}
        with _pipeline():
            self._array = root.create_array(name, shape=(0,), dtype=dtype, **layout)
        self._waiting = np.empty(self._shard, dtype)
        self._written = 0
        self.length = 0

    def append(self, values: np.ndarray) -> None:
        at = 0
        while at < len(values):
            filled = self.length - self._written
            part = values[at : at + self._shard - filled]
            at, self.length = at + len(part), self.length + len(part)
            if len(part) == self._shard:
                self._write(part)
                continue
            self._waiting[filled : filled + len(part)] = part
            if filled + len(part) == self._shard:
                self._write(self._waiting)

    def close(self) -> None:
        self._write(self._waiting[: self.length - self._written])

    def _write(self, values: np.ndarray) -> None:
        self._array.resize((self._written + len(values),))
        with _system_errors():
            self._array[self._written :] = values
        self._written += len(values)


@contextlib.contextmanager
def _pipeline() -> Iterator[None]:
    """Make or open an array with `PIPELINE`, one thread at a time.

    zarr's settings belong to the process: of two threads that set and restore them across each other, one
    finds the other's, and they stay changed for good. Which library compresses shows in a store's bytes.
    """
    with _SETTINGS, zarr.config.set(PIPELINE):
        yield


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """Raise what zarrs calls a RuntimeError with "os error 28" in its text as the system's error it is."""
    try:
        yield
    except RuntimeError as error:
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            number = int(found.group(1))
            raise OSError(number, os.strerror(number)) from error
        raise


@njit(cache=True, nogil=True)
def _join_tile(starts, gaps, counts, offset, cursor, cells_out, counts_out):
    """Append a tile's values of some genes to theirs from earlier tiles, gaps turned into cells."""
    for gene in range(len(starts) - 1):
        cell, place = offset, np.uint64(cursor[gene])
        for position in range(np.uint64(starts[gene]), np.uint64(starts[gene + 1])):
            cell += gaps[position]
            cells_out[place] = cell
            counts_out[place] = counts[position]
            place += np.uint64(1)
        cursor[gene] = place


def _put(group: zarr.Group, name: str, values: np.ndarray) -> None:
    """Store a small array as one chunk."""
    with _pipeline():
        group.create_array(name, data=values, chunks=tuple(max(n, 1) for n in values.shape))
