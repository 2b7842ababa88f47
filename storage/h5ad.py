"""Reading AnnData files in pieces: X stays on disk, a block of rows is in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from storage.errors import InputError

ENCODINGS = {"array": "dense", "csr_matrix": "csr", "csc_matrix": "csc"}


class H5adFile:
    """An h5ad file opened for reading, with X (or a layer) dense, CSR or CSC.

    Raises
    ------
    InputError
        If the file is missing, not HDF5, cut off, or has no matrix where asked for.
    """

    def __init__(self, path: Path | str, *, layer: str | None = None):
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(str(path), ["no such file"])
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise InputError(str(path), [_why_not_opened(path, error)]) from error
        try:
            self._open_matrix(layer)
        except BaseException:
            self._file.close()
            raise

    def _open_matrix(self, layer: str | None) -> None:
        needed = ("X", "obs", "var") if layer is None else ("obs", "var")
        missing = [part for part in needed if part not in self._file]
        if missing == ["X"] and self.layers:
            found = ", ".join(self.layers)
            message = f"there is no X in it; name the layer with the counts (--layer), one of: {found}"
            raise InputError(str(self.path), [message])
        if missing:
            raise InputError(str(self.path), [f"not an h5ad file: {', '.join(missing)} missing in it"])
        for part in ("obs", "var"):
            if not isinstance(self._file[part], h5py.Group):
                message = f"{part} is stored as before anndata 0.7; read and write it with a newer one"
                raise InputError(str(self.path), [message])
        if layer is not None and layer not in self.layers:
            found = ", ".join(self.layers) or "none"
            raise InputError(str(self.path), [f"no layer '{layer}'; the file's layers: {found}"])
        self._matrix = self._file["X"] if layer is None else self._file["layers"][layer]
        encoding = self._matrix.attrs.get("encoding-type", "array")
        if encoding not in ENCODINGS or (encoding == "array" and not hasattr(self._matrix, "shape")):
            raise InputError(str(self.path), [f"X is stored as '{encoding}'; dense, CSR or CSC is needed"])
        self.kind: str = ENCODINGS[encoding]
        shape = self._matrix.shape if self.kind == "dense" else self._matrix.attrs["shape"]
        self.n_cells, self.n_genes = (int(size) for size in shape)
        stored = self._matrix if self.kind == "dense" else self._matrix["data"]
        if stored.dtype.kind not in "biuf":
            raise InputError(str(self.path), [f"X holds values of type '{stored.dtype}'; numbers are needed"])

    @property
    def layers(self) -> list[str]:
        """Names of the file's layers."""
        return sorted(self._file["layers"]) if "layers" in self._file else []

    def __enter__(self) -> H5adFile:
        return self

    def __exit__(self, *_exc) -> None:
        self._file.close()

    def columns(self, part: str) -> list[str]:
        """Names of the columns of ``obs`` or ``var``, the index left out."""
        group = self._file[part]
        index = group.attrs.get("_index", "_index")
        return [str(name) for name in group.attrs.get("column-order", sorted(group)) if name != index]

    def column(self, part: str, name: str | None) -> pd.Series:
        """One column of ``obs`` or ``var``; the index where ``name`` is None."""
        # Imported where it is used: testing a store needs none of it, and it takes a second and a half.
        from anndata import OldFormatWarning
        from anndata.io import read_elem

        group = self._file[part]
        stored = group[name if name is not None else group.attrs.get("_index", "_index")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OldFormatWarning)
            values = read_elem(stored)
            if isinstance(stored, h5py.Dataset) and "categories" in stored.attrs:
                # anndata before 0.8 keeps a categorical column as codes that point at its categories.
                categories = read_elem(self._file[stored.attrs["categories"]])
                values = pd.Categorical.from_codes(values, categories)
        return pd.Series(values)

    def row_blocks(
        self, *, most_values: int = 8_000_000, most_rows: int = 65_536, in_use: int | None = None
    ) -> Iterator[tuple[int, np.ndarray | sparse.csr_matrix]]:
        """Yield ``(first_row, block)`` in row order; blocks are dense arrays or CSR matrices.

        A block has at most ``most_rows`` rows. Dense and CSR, it has at most ``most_values`` values, unless a
        single row has more; of CSC some four times as many on average, and at least 1,024 rows.

        Where ``in_use`` is given, blocks take the memory of blocks before, which halves the time of reading:
        a block may be used until ``in_use`` more have been asked for.

        CSC is not laid out for this: it is read whole once for every four times ``most_values``.
        """
        reader = {"dense": self._dense_blocks, "csr": self._csr_blocks, "csc": self._csc_blocks}[self.kind]
        try:
            yield from reader(most_values, most_rows, None if in_use is None else _Memory(in_use))
        except OSError as error:
            raise InputError(str(self.path), [f"the file cannot be read to its end ({error})"]) from error

    def _dense_blocks(
        self, most_values: int, most_rows: int, memory: _Memory | None
    ) -> Iterator[tuple[int, np.ndarray]]:
        rows = min(max(1, most_values // max(self.n_genes, 1)), most_rows)
        if self._matrix.chunks and rows > self._matrix.chunks[0]:
            # Whole HDF5 chunks, so that none is decompressed twice.
            rows = rows // self._matrix.chunks[0] * self._matrix.chunks[0]
        for first in range(0, self.n_cells, rows):
            yield first, _plain_numbers(_read(self._matrix, first, first + rows, memory))

    def _csr_blocks(
        self, most_values: int, most_rows: int, memory: _Memory | None
    ) -> Iterator[tuple[int, sparse.csr_matrix]]:
        starts = self._starts(self.n_cells)
        first = 0
        while first < self.n_cells:
            last = int(np.searchsorted(starts, starts[first] + most_values, side="right")) - 1
            last = min(max(last, first + 1), first + most_rows, self.n_cells)
            data, columns = self._values(starts[first], starts[last], self.n_genes, memory)
            pieces = (data, columns, starts[first : last + 1] - starts[first])
            yield first, sparse.csr_matrix(pieces, shape=(last - first, self.n_genes))
            first = last

    def _csc_blocks(
        self, most_values: int, most_rows: int, memory: _Memory | None
    ) -> Iterator[tuple[int, sparse.csr_matrix]]:
        starts = self._starts(self.n_genes)
        # As many cells at once as hold about four blocks' worth of values, for each pass reads all.
        share = 4 * most_values / max(int(starts[-1]), 1)
        tile = int(min(max(share * self.n_cells, 1024), most_rows))
        for first in range(0, self.n_cells, tile):
            last = min(first + tile, self.n_cells)
            columns, gene = [], 0
            while gene < self.n_genes:
                stop = int(np.searchsorted(starts, starts[gene] + most_values, side="right")) - 1
                stop = min(max(stop, gene + 1), self.n_genes)
                data, rows = self._values(starts[gene], starts[stop], self.n_cells, memory)
                shape = (self.n_cells, stop - gene)
                block = sparse.csc_matrix((data, rows, starts[gene : stop + 1] - starts[gene]), shape=shape)
                columns.append(block[first:last])
                gene = stop
            yield first, sparse.hstack(columns, format="csr")

    def _starts(self, n_lines: int) -> np.ndarray:
        """Where each line of the sparse matrix begins, int64 (n_lines + 1,), checked."""
        starts = self._matrix["indptr"][:].astype(np.int64)
        n_values = min(len(self._matrix["data"]), len(self._matrix["indices"]))
        whole = len(starts) == n_lines + 1 and starts[0] == 0 and starts[-1] <= n_values
        if not whole or (np.diff(starts) < 0).any():
            raise InputError(str(self.path), ["X is damaged: indptr does not fit its values; write it again"])
        return starts

    def _values(
        self, first: int, last: int, n_across: int, memory: _Memory | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values and indices of the sparse matrix from ``first`` to ``last``, the indices checked."""
        data = _plain_numbers(_read(self._matrix["data"], int(first), int(last), memory))
        indices = _read(self._matrix["indices"], int(first), int(last), memory)
        # The compiled loops behind this write where an index points.
        if len(indices) and (indices.min() < 0 or indices.max() >= n_across):
            raise InputError(str(self.path), ["X is damaged: indices lie outside the matrix; write it again"])
        return data, indices


def _why_not_opened(path: Path | str, error: OSError) -> str:
    """Why HDF5 does not open a file that is there."""
    if "truncated" in str(error):
        return "the file is cut off; copy or download it again"
    if isinstance(error, PermissionError):
        return "the file cannot be read: no permission"
    try:
        with open(path, "rb"):
            is_hdf5 = h5py.is_hdf5(path)
    except OSError as unreadable:
        return f"the file cannot be read ({unreadable.strerror or unreadable})"
    if not is_hdf5:
        return "not an h5ad file (it is not HDF5); give an AnnData file written with write_h5ad"
    if "lock" in str(error):
        return f"the file is open elsewhere for writing; wait until that is done, or close it ({error})"
    return f"the file cannot be opened ({error})"


class _Memory:
    """``n`` arrays for each data set that is read in pieces, taken in turn."""

    def __init__(self, n: int):
        self._n = n
        self._arrays: dict[str, list[np.ndarray]] = {}

    def take(self, dataset: h5py.Dataset, n_rows: int) -> np.ndarray:
        """An array for ``n_rows`` rows of the data set; it may be the one taken ``n`` times ago."""
        arrays = self._arrays.setdefault(dataset.name, [])
        array = arrays.pop(0) if len(arrays) == self._n else None
        if array is None or len(array) < n_rows:
            array = np.empty((n_rows, *dataset.shape[1:]), dataset.dtype)
        arrays.append(array)
        return array[:n_rows]


def _read(dataset: h5py.Dataset, first: int, last: int, memory: _Memory | None) -> np.ndarray:
    """Rows ``first`` to ``last`` (exclusive, or the end) of a data set."""
    last = min(last, len(dataset))
    if memory is None or first >= last:
        return dataset[first:last]
    rows = memory.take(dataset, last - first)
    dataset.read_direct(rows, np.s_[first:last])
    return rows


def _plain_numbers(values: np.ndarray) -> np.ndarray:
    """Numbers in this machine's byte order and at least 32 bits wide, so that entries given twice add up."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "f":
        return values.astype(np.float32 if size <= 4 else np.float64, copy=False)
    if size < 4:
        return values.astype(np.int32)
    return values.astype(values.dtype.newbyteorder("="), copy=False)
