"""Rank-sum tests of a matrix in memory, ours and the peers': ``python -m ... NAME VALUES SCREEN``.

VALUES is ``counts``, ranked as they are, or ``normalised`` (10,000 a cell, float32). Each is compiled on a
small piece first, then measured. "Ours, from counts" forms what the others are given normalised by itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anndata
import numpy as np
from scipy import sparse

from tasks.expression.groups import CellGroups
from tests.benchmarks.csr_rank_sums import rank_sums
from tests.benchmarks.data import CONTROL
from tests.benchmarks.measure import THREADS, Figures, measured


def read_screen(path: Path, values: str, *, every: int = 1) -> anndata.AnnData:
    """The screen with counts as they are or normalised; every n-th gene."""
    screen = anndata.read_h5ad(path)
    if values == "normalised":
        library = np.asarray(screen.X.sum(axis=1)).ravel()
        screen.X = sparse.csr_matrix(sparse.diags(1e4 / library) @ screen.X, dtype=np.float32)
        screen.X.sort_indices()
    return screen[:, ::every].copy() if every > 1 else screen


def few_cells(screen: anndata.AnnData) -> anndata.AnnData:
    """A piece to compile on: few genes, controls and three perturbations."""
    names = [CONTROL, *screen.obs["perturbation"].cat.categories[:3]]
    rows = screen.obs["perturbation"].isin(names).to_numpy()
    part = screen[rows, :50].copy()
    part.obs["perturbation"] = part.obs["perturbation"].cat.remove_unused_categories()
    return part


def ours(path: Path, values: str, *, from_counts: bool = False) -> Figures:
    """Ours from CSR: lay out by gene, test all perturbations, p-values."""
    screen = read_screen(path, "counts" if from_counts else values)
    library = np.asarray(screen.X.sum(axis=1)).ravel().astype(np.float64)
    if not from_counts:
        library = np.ones(screen.n_obs)
    names = [name for name in screen.obs["perturbation"].cat.categories if name != CONTROL]
    codes = screen.obs["perturbation"].cat.set_categories([*names, CONTROL]).cat.codes.to_numpy()
    groups = CellGroups.make(names, codes, library)
    rank_sums(screen.X[:, :50], groups)
    return measured(lambda: rank_sums(screen.X, groups, threads=THREADS))


def illico(path: Path, values: str, *, use_rust: bool = True, layout: str = "csr") -> Figures:
    """The peer illico."""
    from illico import asymptotic_wilcoxon

    screen = read_screen(path, values)
    if layout == "csc":
        screen.X = sparse.csc_matrix(screen.X)
    options = {"is_log1p": False, "group_keys": "perturbation", "reference": CONTROL, "use_rust": use_rust}
    asymptotic_wilcoxon(few_cells(screen), n_threads=THREADS, **options)
    return measured(lambda: asymptotic_wilcoxon(screen, n_threads=THREADS, **options))


def pdex(path: Path, values: str) -> Figures:
    """The peer pdex, on every tenth gene."""
    from pdex import pdex as run

    screen = read_screen(path, values, every=10)
    options = {"groupby": "perturbation", "threads": THREADS, "is_log1p": False, "reference": CONTROL}
    run(few_cells(screen), **options)
    return measured(lambda: run(screen, **options))


def scanpy(path: Path, values: str) -> Figures:
    """The peer scanpy, log-transformed as it asks for, on every tenth gene and perturbation."""
    import scanpy as sc

    screen = read_screen(path, values, every=10)
    sc.pp.log1p(screen)
    names = [name for name in screen.obs["perturbation"].cat.categories if name != CONTROL][::10]
    options = {"groupby": "perturbation", "reference": CONTROL, "method": "wilcoxon", "tie_correct": True}
    return measured(lambda: sc.tl.rank_genes_groups(screen, groups=names, **options))


#: The peers that are run once only: the slow ones, and illico's ways other than its fastest.
ONCE = (
    "illico, rust, csc",
    "illico, numba, csr",
    "pdex, 1/10 of genes",
    "scanpy, 1/10 of genes and perturbations",
)
#: Contenders, and what their time has to be multiplied by because they do a part of the work.
CONTENDERS = {
    "ours": (ours, 1),
    "ours, from counts": (lambda path, values: ours(path, values, from_counts=True), 1),
    "illico, rust, csr": (illico, 1),
    "illico, rust, csc": (lambda path, values: illico(path, values, layout="csc"), 1),
    "illico, numba, csr": (lambda path, values: illico(path, values, use_rust=False), 1),
    "pdex, 1/10 of genes": (pdex, 10),
    "scanpy, 1/10 of genes and perturbations": (scanpy, 100),
}

if __name__ == "__main__":
    contender, _ = CONTENDERS[sys.argv[1]]
    print(json.dumps(contender(Path(sys.argv[3]), sys.argv[2])))
