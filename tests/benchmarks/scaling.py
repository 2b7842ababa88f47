"""Cold start, and one Dask worker against two: ``python -m tests.benchmarks.scaling NAME SCREEN``."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.measure import Figures
from tests.benchmarks.on_disk import groups_of, test_store

#: What a fresh worker does until its first genes are tested; kernels come from the cache on disk.
FIRST_BLOCK = """
import pickle, sys
from pathlib import Path
from tasks.expression.blocks import GeneSpan, compare_block
groups = pickle.loads(Path(sys.argv[2]).read_bytes())
compare_block(GeneSpan(Path(sys.argv[1]), Path(sys.argv[3]), 0, 2), groups, scale=1.0)
"""


def cold_start(path: Path) -> Figures:
    """Wall seconds from the start of a process that is given its groups to the end of its first two genes."""
    store, groups = path.with_suffix(".zarr"), path.with_name("groups.pickle")
    target = path.with_name("first-block.npy")
    groups.write_bytes(pickle.dumps(groups_of(store)))
    command = [sys.executable, "-c", FIRST_BLOCK, str(store), str(groups), str(target)]
    subprocess.run(command, check=True)
    begun = time.perf_counter()
    subprocess.run(command, check=True)
    return {"wall_s": time.perf_counter() - begun}


def with_workers(path: Path, number: int) -> Figures:
    """Tests of a store on so many worker processes of one thread each, warmed up."""
    from distributed import Client, LocalCluster

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
