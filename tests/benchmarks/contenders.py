"""One measured piece of work a process: ``python -m tests.benchmarks.contenders NAME SCREEN FOLDER``.

Each is compiled on a small piece first, then measured: CPU seconds of the process (all threads), wall
seconds, and its peak memory. The result is one line of JSON.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
from scipy import sparse

from flows.dask_cluster import dask_client
from storage.screens import Screen
from tasks.expression.compare import compare_expression
from tasks.expression.groups import CellGroups, perturbation_groups
from tasks.expression.in_memory import rank_sums
from tasks.expression.pseudobulk import pseudobulk
from tasks.screens.ingest import ingest_screen
from tests.benchmarks.data import CONTROL

THREADS = 2
NAMES = {"perturbation_key": "perturbation", "control": CONTROL, "batch_key": "batch"}


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Run ``work`` once; CPU and wall seconds, and the process's peak memory in MB so far."""
    before, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": cpu, "wall_s": time.perf_counter() - wall, "peak_mb": after.ru_maxrss / 1024}


def normalised(path: Path, *, every: int = 1) -> anndata.AnnData:
    """The screen with counts divided by library size, as the peers take it; every n-th gene."""
    screen = anndata.read_h5ad(path)
    library = np.asarray(screen.X.sum(axis=1)).ravel()
    screen.X = sparse.csr_matrix(sparse.diags(1e4 / library) @ screen.X, dtype=np.float32)
    screen.X.sort_indices()
    return screen[:, ::every].copy() if every > 1 else screen


def small_part(screen: anndata.AnnData) -> anndata.AnnData:
    """A piece to compile on: few genes, controls and three perturbations."""
    names = [CONTROL, *screen.obs["perturbation"].cat.categories[:3]]
    rows = screen.obs["perturbation"].isin(names).to_numpy()
    part = screen[rows, :50].copy()
    part.obs["perturbation"] = part.obs["perturbation"].cat.remove_unused_categories()
    return part


def in_memory(path: Path, _: Path) -> dict[str, float]:
    """Ours from CSR in memory: transpose, test all perturbations, p-values."""
    screen = anndata.read_h5ad(path)
    library = np.asarray(screen.X.sum(axis=1)).ravel().astype(np.float64)
    names = [name for name in screen.obs["perturbation"].cat.categories if name != CONTROL]
    codes = screen.obs["perturbation"].cat.set_categories([*names, CONTROL]).cat.codes.to_numpy()
    groups = CellGroups.make(names, codes, library)
    rank_sums(screen.X[:, :50], groups)
    return measured(lambda: rank_sums(screen.X, groups, threads=THREADS))


def illico(path: Path, _: Path, *, use_rust: bool = True, layout: str = "csr") -> dict[str, float]:
    """The peer illico, from normalised values in memory."""
    from illico import asymptotic_wilcoxon

    screen = normalised(path)
    if layout == "csc":
        screen.X = sparse.csc_matrix(screen.X)
    options = {"is_log1p": False, "group_keys": "perturbation", "reference": CONTROL, "use_rust": use_rust}
    asymptotic_wilcoxon(small_part(screen), n_threads=THREADS, **options)
    return measured(lambda: asymptotic_wilcoxon(screen, n_threads=THREADS, **options))


def pdex(path: Path, _: Path) -> dict[str, float]:
    """The peer pdex, from normalised values in memory, on every tenth gene."""
    from pdex import pdex as run

    screen = normalised(path, every=10)
    options = {"groupby": "perturbation", "threads": THREADS, "is_log1p": False, "reference": CONTROL}
    run(small_part(screen), **options)
    return measured(lambda: run(screen, **options))


def scanpy(path: Path, _: Path) -> dict[str, float]:
    """The peer scanpy, from log-normalised values in memory, on every tenth gene and perturbation."""
    import scanpy as sc

    screen = normalised(path, every=10)
    sc.pp.log1p(screen)
    names = [name for name in screen.obs["perturbation"].cat.categories if name != CONTROL][::10]
    options = {"groupby": "perturbation", "reference": CONTROL, "method": "wilcoxon", "tie_correct": True}
    return measured(lambda: sc.tl.rank_genes_groups(screen, groups=names, **options))


def ingest(path: Path, folder: Path) -> dict[str, float]:
    """Ours: h5ad to the screen store."""
    ingest_screen(path.with_name("warm.h5ad"), folder / "warm.zarr", **NAMES)
    shutil.rmtree(folder / "screen.zarr", ignore_errors=True)
    result = measured(lambda: ingest_screen(path, folder / "screen.zarr", **NAMES))
    files = [file for file in (folder / "screen.zarr").rglob("*") if file.is_file()]
    return result | {"files": len(files), "store_mb": sum(file.stat().st_size for file in files) / 1e6}


def read_once(path: Path, _: Path) -> dict[str, float]:
    """h5py reads the counts once, block by block."""

    def read() -> None:
        with h5py.File(path) as file:
            for name in ("data", "indices"):
                values = file["X"][name]
                for first in range(0, len(values), 1 << 23):
                    values[first : first + (1 << 23)]

    return measured(read)


def anndata_zarr(path: Path, folder: Path) -> dict[str, float]:
    """anndata's own zarr of the same counts."""
    screen = anndata.read_h5ad(path)
    shutil.rmtree(folder / "anndata.zarr", ignore_errors=True)
    result = measured(lambda: screen.write_zarr(folder / "anndata.zarr"))
    files = [file for file in (folder / "anndata.zarr").rglob("*") if file.is_file()]
    return result | {"files": len(files), "store_mb": sum(file.stat().st_size for file in files) / 1e6}


def from_store(_: Path, folder: Path) -> dict[str, float]:
    """Ours from the store on disk to ``tests.parquet``: read, test, fold change, FDR, write."""
    store = folder / "screen.zarr"
    cells = Screen(store).cells()
    names = [name for name in cells["perturbation"].cat.categories if name != CONTROL]
    groups = perturbation_groups(cells, names, usable=np.ones(len(cells), bool))
    shutil.rmtree(folder / "blocks", ignore_errors=True)
    with dask_client(None, workers=THREADS) as client:
        options = {"client": client, "recipe": {}}
        return measured(
            lambda: compare_expression(store, groups, folder / "blocks", folder / "tests.parquet", **options)
        )


def sum_profiles(_: Path, folder: Path) -> dict[str, float]:
    """Ours: pseudobulk by perturbation and batch from the store to an h5ad."""
    shutil.rmtree(folder / "sums", ignore_errors=True)
    store = folder / "screen.zarr"
    usable = np.ones(Screen(store).n_cells, bool)
    with dask_client(None, workers=THREADS) as client:
        return measured(
            lambda: pseudobulk(store, usable, folder / "sums", folder / "sums.h5ad", client=client)
        )


def aggregate(path: Path, folder: Path) -> dict[str, float]:
    """The peer ``scanpy.get.aggregate``, read and written likewise."""
    import scanpy as sc

    def work() -> None:
        screen = anndata.read_h5ad(path)
        sc.get.aggregate(screen, ["perturbation", "batch"], "sum").write_h5ad(folder / "aggregate.h5ad")

    return measured(work)


CONTENDERS = {
    "ours, in memory": in_memory,
    "illico rust, csr": illico,
    "illico rust, csc": lambda path, folder: illico(path, folder, layout="csc"),
    "illico numba, csr": lambda path, folder: illico(path, folder, use_rust=False),
    "pdex, 1/10 of genes": pdex,
    "scanpy, 1/10 of genes and perturbations": scanpy,
    "h5py, read once": read_once,
    "ours, ingest": ingest,
    "anndata zarr": anndata_zarr,
    "ours, store to Parquet": from_store,
    "ours, pseudobulk": sum_profiles,
    "scanpy.get.aggregate": aggregate,
}

if __name__ == "__main__":
    print(json.dumps(CONTENDERS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))))
