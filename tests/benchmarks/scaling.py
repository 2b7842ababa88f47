"""Cold start, and one Dask worker against two: ``python -m tests.benchmarks.scaling NAME SCREEN``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.measure import Figures

#: What a fresh process does until its first block of genes is tested; kernels come from the cache on disk.
FIRST_BLOCK = """
import sys
from pathlib import Path
import numpy as np
from storage.screens import Screen
from tasks.expression.blocks import compare_block
from tasks.expression.groups import perturbation_groups
store = sys.argv[1]
screen = Screen(store)
cells = screen.cells()
names = [name for name in cells["perturbation"].cat.categories if name != "non-targeting"]
groups = perturbation_groups(cells, names, usable=np.ones(len(cells), bool))
compare_block(store, sys.argv[2], 0, 2, groups, 1.0)
"""


def cold_start(path: Path) -> Figures:
    """Wall seconds from the start of a process to the end of its first two genes of a large store."""
    target = path.with_name("first-block.npy")
    command = [sys.executable, "-c", FIRST_BLOCK, str(path.with_suffix(".zarr")), str(target)]
    subprocess.run(command, check=True)
    begun = time.perf_counter()
    subprocess.run(command, check=True)
    return {"wall_s": time.perf_counter() - begun}


def with_workers(path: Path, number: int) -> Figures:
    """Tests of a store on so many worker processes of one thread each, warmed up."""
    from distributed import Client, LocalCluster

    from tests.benchmarks.on_disk import test_store

    options = {"n_workers": number, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        client.run(_import_kernels)
        return test_store(path, client)


def _import_kernels() -> None:
    import tasks.expression.blocks  # noqa: F401


CONTENDERS = {
    "cold start": cold_start,
    "1 worker": lambda path: with_workers(path, 1),
    "2 workers": lambda path: with_workers(path, 2),
}

if __name__ == "__main__":
    print(json.dumps(CONTENDERS[sys.argv[1]](Path(sys.argv[2]))))
