from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tests.screens import CONTROL, write_screen

ROOT = Path(__file__).parents[2]

MEMORY = """
import sys
from tasks.screens.ingest import ingest_screen
def peak_mb():
    # Not ru_maxrss: that of a child starts at its parent's.
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024

before = peak_mb()
seen = ingest_screen(sys.argv[1], sys.argv[2], perturbation_key="perturbation", control="non-targeting")
print(seen.n_cells, seen.n_values, peak_mb(), before)
"""


@pytest.mark.parametrize(
    ("kind", "n_cells", "n_genes", "block"),
    [("dense", 100_000, 4_000, 500), ("dense", 40_000, 40_000, 100), ("csr", 100_000, 4_000, 500)],
)
def test_memory_stays_far_below_the_size_of_the_matrix(tmp_path, kind, n_cells, n_genes, block):
    rng = np.random.default_rng(0)
    rows = sparse.random(block, n_genes, 0.02, "csr", np.float32, rng)
    rows.data[:] = rng.integers(1, 9, rows.nnz)
    path = tmp_path / "large.h5ad"
    names = pd.Categorical.from_codes(rng.integers(0, 5, n_cells), [CONTROL, *"ABCD"])
    write_screen(path, sparse.csr_matrix((n_cells, n_genes), dtype=np.float32), names)
    with h5py.File(path, "a") as file:
        attributes = dict(file["X"].attrs)
        if kind == "dense":
            del file["X"]
            options = {"chunks": (block, n_genes), "compression": "gzip", "compression_opts": 1}
            stored = file.create_dataset("X", (n_cells, n_genes), np.float32, **options)
            stored[:block] = rows.toarray()
            stored.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            _, chunk = stored.id.read_direct_chunk((0, 0))
            for first in range(block, n_cells, block):
                stored.id.write_direct_chunk((first, 0), chunk)
        else:
            times = n_cells // block
            for name, values in (
                ("data", np.tile(rows.data, times)),
                ("indices", np.tile(rows.indices, times)),
                ("indptr", np.append(0, np.cumsum(np.tile(np.diff(rows.indptr), times)))),
            ):
                del file["X"][name]
                file["X"][name] = values
            file["X"].attrs.update(attributes)
    command = [sys.executable, "-c", MEMORY, str(path), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    cells, values, peak, before = map(int, done.stdout.split())
    assert (cells, values) == (n_cells, rows.nnz * n_cells // block)
    matrix = n_cells * n_genes * 4 // 2**20
    assert matrix > 1_500
    assert peak < 800, f"{peak} MB at the peak, {before} MB of it before reading"
