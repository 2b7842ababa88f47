"""The screen store: raw counts in zarr v3, laid out so that one gene's values lie together.

Cells are cut into tiles of at most 65,536; inside a tile the non-zero counts are sorted by gene, then by
cell. ``codes`` holds them one tile after the other, written as in `storage.gene_codes`;
``starts[tile, gene]`` says where a gene's codes begin and ``lengths[tile, gene]`` how many values they are. A
tile is written once and never touched again, so ingest needs one tile in memory; a block of genes is read as
one slice a tile.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from storage.errors import InputError
from storage.gene_codes import decode_genes, encode_genes
from storage.one_ahead import one_ahead

if TYPE_CHECKING:
    import pandas as pd

TILE_CELLS = 65_536
#: Bytes a compressed chunk: a block of genes is one slice a tile, of which whole chunks are unpacked. For
#: larger ones memory is taken from the system each time.
CHUNK = 1 << 16
#: Chunks a file, so that a genome-wide screen stays at some dozens of files.
CHUNKS_PER_SHARD = 192
COMPRESSORS = (BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec())
#: zarrs encodes and decodes a shard's chunks in one compiled call; zarr alone spends a millisecond a chunk.
#: With several threads it lays chunks out as they come, and the same counts give other bytes.
PIPELINE = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1}
_SETTINGS = threading.Lock()
LAYOUT = "gene-major tiles, version 3"
#: Genes encoded at once, while the ones before are compressed and written.
ENCODED_GENES = 256
#: What a code is where a file of codes is missing: one that announces more, which never comes.
NO_CODE = 0xFF


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
    """Writes a screen store tile by tile, in cell order; counts of ``dtype``, uint16 or uint32."""

    def __init__(self, path: Path | str, *, genes: np.ndarray, dtype: np.dtype):
        self._genes = genes
        self._root = zarr.open_group(str(path), mode="w", zarr_format=3)
        self._root.attrs["counts"] = np.dtype(dtype).name
        self._itemsize = 2 * np.dtype(dtype).itemsize
        self._codes = _Codes(self._root)
        self._starts: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        self._tile_cells: list[int] = []

    def append(self, values: np.ndarray, starts: np.ndarray, *, n_cells: int) -> None:
        """Append one tile, its values and where they begin as for `storage.gene_codes.encode_genes`.

        They are copied; the caller may use the arrays again.
        """
        if n_cells > TILE_CELLS:
            raise ValueError(f"a tile holds at most {TILE_CELLS} cells, got {n_cells}")
        if values.itemsize != self._itemsize:
            raise ValueError(f"values of {self._itemsize} bytes are needed, got {values.itemsize}")
        n_genes = len(self._genes)
        spans = [(gene, min(gene + ENCODED_GENES, n_genes)) for gene in range(0, n_genes, ENCODED_GENES)]
        coded = (encode_genes(values, starts, first=first, last=last) for first, last in spans)
        tile_starts = [np.array([self._codes.length], np.int64)]
        with contextlib.closing(one_ahead(coded)) as coded:
            for codes, ends in coded:
                tile_starts.append(ends + self._codes.length)
                self._codes.append(codes)
        self._starts.append(np.concatenate(tile_starts))
        self._lengths.append(np.diff(starts, axis=1).sum(axis=0, dtype=np.int64))
        self._tile_cells.append(n_cells)

    def close(self, cells: pd.DataFrame) -> None:
        """Finish the store with the table of cells (one row a cell, plain and categorical columns)."""
        import pandas as pd

        self._codes.close()
        n_genes = len(self._genes)
        starts = np.array(self._starts, np.int64).reshape(-1, n_genes + 1)
        lengths = np.array(self._lengths, np.int64).reshape(-1, n_genes)
        _put(self._root, "starts", starts, fill_value=-1)
        _put(self._root, "lengths", lengths, fill_value=-1)
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
            n_genes=n_genes,
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
    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """``starts`` and ``lengths``, sound: the compiled loop reads and writes by them."""
        starts, lengths = self._root["starts"][:], self._root["lengths"][:]
        shape = (len(self._root.attrs["tile_cells"]), self.n_genes)
        sound = starts.shape == (shape[0], shape[1] + 1) and lengths.shape == shape
        # A value takes a byte or more.
        if not (
            sound and (starts >= 0).all() and (lengths >= 0).all() and (lengths <= np.diff(starts)).all()
        ):
            raise self._damaged()
        return starts, lengths

    def _damaged(self) -> InputError:
        return InputError(str(self.path), ["the store is damaged; delete it and make it again"])

    @cached_property
    def _codes(self) -> zarr.Array:
        with _pipeline():
            return self._root["codes"]

    @cached_property
    def _tile_offsets(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self._root.attrs["tile_cells"])]).astype(np.int64)

    @cached_property
    def values_per_gene(self) -> np.ndarray:
        """Number of non-zero counts of each gene, int64 (n_genes,)."""
        return self._index[1].sum(axis=0)

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
        """Read the counts of genes ``first`` to ``last`` (exclusive) over all cells.

        Raises
        ------
        InputError
            If the store's codes are not what was written.
        """
        total = np.concatenate([[0], np.cumsum(self.values_per_gene[first:last])]).astype(np.int64)
        cells = np.empty(total[-1], np.int32)
        counts = np.empty(total[-1], self._root.attrs["counts"])
        cursor = total[:-1].copy()
        for tile, span in enumerate(itertools.pairwise(self._tile_offsets)):
            starts, lengths = self._index[0][tile, first : last + 1], self._index[1][tile, first:last]
            codes = self._read_codes(int(starts[0]), int(starts[-1]))
            if not decode_genes(codes, starts - starts[0], lengths, *span, cursor, cells, counts):
                raise self._damaged()
        return GeneBlock(first, total, cells, counts)

    def _read_codes(self, first: int, last: int) -> np.ndarray:
        try:
            with _system_errors():
                codes = self._codes[first:last]
        except RuntimeError as error:
            raise self._damaged() from error
        # Fewer come back than asked for where the array is cut off.
        if len(codes) < last - first:
            raise self._damaged()
        return codes

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


class _Codes:
    """A one-dimensional zarr array of bytes that grows; whole shards only, so that none is written twice."""

    def __init__(self, root: zarr.Group):
        self._shard = CHUNK * CHUNKS_PER_SHARD
        layout = {"chunks": (CHUNK,), "shards": (self._shard,), "compressors": COMPRESSORS}
        with _pipeline():
            self._array = root.create_array("codes", shape=(0,), dtype=np.uint8, fill_value=NO_CODE, **layout)
        self._waiting = np.empty(self._shard, np.uint8)
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


def _put(group: zarr.Group, name: str, values: np.ndarray, **options: object) -> None:
    """Store a small array as one chunk."""
    with _pipeline():
        group.create_array(name, data=values, chunks=tuple(max(n, 1) for n in values.shape), **options)
