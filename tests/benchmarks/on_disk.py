"""Work on files, ours and the peers': ``python -m tests.benchmarks.on_disk NAME SCREEN``."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np

from flows.dask_cluster import dask_client
from storage.screens import Screen
from tasks.expression.compare import compare_expression
from tasks.expression.groups import CellGroups, perturbation_groups
from tasks.expression.pseudobulk import pseudobulk
from tasks.screens.ingest import ingest_screen
from tests.benchmarks.data import CONTROL, small_part
from tests.benchmarks.measure import THREADS, Figures, measured

KEYS = {"perturbation_key": "perturbation", "control": CONTROL, "batch_key": "batch"}
#: Values h5py reads at once.
AT_ONCE = 1 << 23


def ingest(path: Path, *, first: Callable[[Path], None] = lambda path: None) -> Figures:
    """Ours: h5ad to the screen store; ``first`` is done after the warming up, right before the work."""
    warm = small_part(path)
    ingest_screen(warm, warm.with_suffix(".zarr"), **KEYS)
    shutil.rmtree(_store(path), ignore_errors=True)
    first(path)
    return _written(_store(path), lambda: ingest_screen(path, _store(path), **KEYS))


def read_once(path: Path, *, first: Callable[[Path], None] = lambda path: None) -> Figures:
    """h5py reads the counts once, block by block."""

    def read() -> None:
        with h5py.File(path) as file:
            matrix = file["X"]
            parts = [matrix["data"], matrix["indices"]] if isinstance(matrix, h5py.Group) else [matrix]
            for part in parts:
                step = AT_ONCE // (part.shape[1] if part.ndim == 2 else 1)
                for start in range(0, len(part), step):
                    part[start : start + step]

    first(path)
    return measured(read)


def cold(path: Path) -> None:
    """Take the file out of the page cache, as a file larger than memory always is."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def anndata_zarr(path: Path) -> Figures:
    """anndata's own zarr of the same counts."""
    import anndata

    screen, target = anndata.read_h5ad(path), path.with_name("anndata.zarr")
    return _written(target, lambda: screen.write_zarr(target))


def tests(path: Path) -> Figures:
    """Ours from the store to ``tests.parquet``: read, test, fold change, FDR, write."""
    with dask_client(None, workers=THREADS) as client:
        return test_store(path, client)


def test_store(path: Path, client) -> Figures:
    """Rank-sum tests of a store on a Dask client, from the first block on."""
    store, blocks, groups = _store(path), path.with_name("blocks"), groups_of(_store(path))
    shutil.rmtree(blocks, ignore_errors=True)
    table, tested, begun = path.with_name("tests.parquet"), [], time.perf_counter()

    def progress(done: int, total: int) -> None:
        if done == total:
            tested.append(time.perf_counter() - begun)

    options = {"client": client, "recipe": {}, "progress": progress}
    result = measured(lambda: compare_expression(store, groups, blocks_folder=blocks, table=table, **options))
    shutil.rmtree(blocks)
    return result | {"tested_s": tested[0], "values": float(Screen(store).values_per_gene.sum())}


def groups_of(store: Path) -> CellGroups:
    """All perturbations of a store, all cells usable."""
    cells = Screen(store).cells()
    names = [name for name in cells["perturbation"].cat.categories if name != CONTROL]
    return perturbation_groups(cells, names, usable=np.ones(len(cells), bool))


def sum_profiles(path: Path) -> Figures:
    """Ours: pseudobulk by perturbation and batch from the store to an h5ad; imports are not measured."""
    import_module("anndata")
    folder = path.with_name("sums")
    shutil.rmtree(folder, ignore_errors=True)
    usable = np.ones(Screen(_store(path)).n_cells, bool)
    target = path.with_name("sums.h5ad")
    with dask_client(None, workers=THREADS) as client:
        options = {"blocks_folder": folder, "target": target, "client": client}
        return measured(lambda: pseudobulk(_store(path), usable, **options))


def aggregate(path: Path) -> Figures:
    """The peer ``scanpy.get.aggregate``, read and written likewise."""
    import anndata
    import scanpy as sc

    def work() -> None:
        screen = anndata.read_h5ad(path)
        sums = sc.get.aggregate(screen, ["perturbation", "batch"], "sum")
        sums.write_h5ad(path.with_name("aggregate.h5ad"))

    return measured(work)


def _store(path: Path) -> Path:
    return path.with_suffix(".zarr")


def _written(target: Path, work: Callable[[], object]) -> Figures:
    """Figures of writing ``target`` anew, with the number and size of its files."""
    shutil.rmtree(target, ignore_errors=True)
    result = measured(work)
    files = [file for file in target.rglob("*") if file.is_file()]
    return result | {"files": len(files), "store_mb": sum(file.stat().st_size for file in files) / 1e6}


CONTENDERS = {
    "h5py, read once": read_once,
    "ours, ingest": ingest,
    "h5py, read once from disk": partial(read_once, first=cold),
    "ours, ingest from disk": partial(ingest, first=cold),
    "anndata, write zarr": anndata_zarr,
    "ours, store to Parquet": tests,
    "ours, pseudobulk": sum_profiles,
    "scanpy.get.aggregate": aggregate,
}

#: What is measured of other kinds of files too.
OF_EVERY_FILE = tuple(name for name in CONTENDERS if "read once" in name or "ingest" in name)

if __name__ == "__main__":
    print(json.dumps(CONTENDERS[sys.argv[1]](Path(sys.argv[2]))))
