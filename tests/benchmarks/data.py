"""Input of the benchmarks: simulated counts of the size of an essential-gene screen, kept between runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from storage.atomic import atomic_path

CONTROL = "non-targeting"
BLOCK = 2000
#: Values a chunk of the file, uncompressed: read as fast as in one piece, and can be written in blocks.
CHUNK = 1 << 20


@dataclass(frozen=True)
class Size:
    """A screen's size; ``controls`` of the cells are controls."""

    cells: int = 60_000
    genes: int = 8_500
    perturbations: int = 400
    controls: int = 3_000

    @property
    def name(self) -> str:
        """Name of the folder the screen is kept in."""
        return f"{self.cells}x{self.genes}x{self.perturbations}-{self.controls}"

    @property
    def title(self) -> str:
        """The size in words."""
        return (
            f"{self.cells:,} cells x {self.genes:,} genes x {self.perturbations:,} perturbations, "
            f"{self.controls:,} controls"
        )


def make_counts(folder: Path, size: Size, *, dense: bool = False) -> Path:
    """Write ``counts.h5ad`` or ``dense.h5ad`` (float32, raw counts, ~36 % non-zero) unless it is there.

    Only the sizes and the sparsity matter to a benchmark; effects are tested elsewhere.
    """
    target = folder / size.name / ("dense.h5ad" if dense else "counts.h5ad")
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        var = pd.DataFrame(index=[f"g{index}" for index in range(size.genes)])
        anndata.AnnData(obs=_cells(size), var=var).write_h5ad(temporary)
        with h5py.File(temporary, "a") as file:
            file.pop("X", None)
            (_write_dense if dense else _write_csr)(file, size)
    return target


def make_packed(screen: Path) -> Path:
    """The same counts compressed with gzip, as ``write_h5ad(compression="gzip")`` does."""
    target = screen.with_name("packed.h5ad")
    if not target.is_file():
        with atomic_path(target) as temporary:
            anndata.read_h5ad(screen).write_h5ad(temporary, compression="gzip")
    return target


def small_part(screen: Path) -> Path:
    """Five hundred cells of the screen, to compile on before anything is measured."""
    target = screen.with_name(f"warm-{screen.name}")
    if not target.is_file():
        whole = anndata.read_h5ad(screen, backed="r")
        names = whole.obs["perturbation"]
        rows = (names == CONTROL) | (names == names.cat.categories[0])
        whole[rows.to_numpy().nonzero()[0][:500]].to_memory().write_h5ad(target)
    return target


def _cells(size: Size) -> pd.DataFrame:
    rng = np.random.default_rng([0, 1])
    names = np.array([f"P{index:05d}" for index in range(size.perturbations)])
    group = np.concatenate([np.full(size.controls, CONTROL), rng.choice(names, size.cells - size.controls)])
    batches = [f"b{index}" for index in range(8)]
    return pd.DataFrame(
        {
            "perturbation": pd.Categorical(rng.permutation(group)),
            "batch": pd.Categorical(rng.choice(batches, size.cells)),
        },
        index=[f"c{index}" for index in range(size.cells)],
    )


def _blocks(size: Size) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(-1.1, 1.5, size.genes)).astype(np.float32)
    for first in range(0, size.cells, BLOCK):
        depth = np.exp(rng.normal(0, 0.35, min(BLOCK, size.cells - first))).astype(np.float32)
        yield rng.poisson(depth[:, None] * rate).astype(np.float32)


def _write_dense(file: h5py.File, size: Size) -> None:
    values = file.create_dataset("X", (size.cells, size.genes), np.float32)
    values.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    at = 0
    for block in _blocks(size):
        values[at : at + len(block)] = block
        at += len(block)


def _write_csr(file: h5py.File, size: Size) -> None:
    group = file.create_group("X")
    shape = (size.cells, size.genes)
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
    arrays = {
        name: group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(CHUNK,))
        for name, dtype in (("data", np.float32), ("indices", np.int32))
    }
    starts = [0]
    for block in _blocks(size):
        rows = sparse.csr_matrix(block)
        for name, array in arrays.items():
            array.resize((starts[-1] + rows.nnz,))
            array[starts[-1] :] = getattr(rows, name)
        starts.extend((starts[-1] + rows.indptr[1:].astype(np.int64)).tolist())
    # As SciPy would have it: peers refuse indices of two types.
    kind = np.int32 if starts[-1] <= np.iinfo(np.int32).max else np.int64
    group.create_dataset("indptr", data=np.array(starts, kind))
