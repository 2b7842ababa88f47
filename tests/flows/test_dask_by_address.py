"""A Dask cluster of separate processes by address: the same bytes, also when a worker is killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
from distributed import Client

from tests.waiting import LONG

TABLES = ("tests.parquet", "null.parquet", "de.parquet", "dir.parquet", "pseudobulk.h5ad")


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers, started in another folder than the job; address and workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address, elsewhere = f"tcp://127.0.0.1:{port}", tmp_path / "elsewhere"
    elsewhere.mkdir()
    quiet = {"cwd": elsewhere, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def start(*words: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-m", "dask", *words, "--no-dashboard"], **quiet)

    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", str(port))
    workers = [start("worker", address, "--nthreads", "1", "--no-nanny") for _ in range(2)]
    with Client(address, timeout=LONG, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=LONG)
    yield address, workers
    for process in [*workers, scheduler]:
        process.kill()
        process.wait()


def label(screen, out, *words: str) -> subprocess.Popen:
    """Start `pqa label` with a relative folder for its tables."""
    keys = ["--guide-key", "guide_id", "--batch-key", "batch"]
    command = [sys.executable, "-m", "flows", "label", str(screen), "--out", out.name, *keys, *words]
    return subprocess.Popen(
        command, cwd=out.parent, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def has_blocks(folder) -> bool:
    """Whether a job has begun to write blocks; folders vanish meanwhile, which `Path.rglob` cannot bear."""
    return any(".blocks" in folders for _, folders, _ in os.walk(folder))


def test_separate_workers_give_the_same_bytes_and_one_may_die(small_screen, tmp_path, cluster):
    address, workers = cluster
    here, there = tmp_path / "here", tmp_path / "there"
    remote = label(small_screen, there, "--dask", address)
    deadline = time.monotonic() + LONG
    while not has_blocks(there) and remote.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    workers[0].kill()
    _, err = remote.communicate(timeout=LONG)
    assert remote.returncode == 0, err
    local = label(small_screen, here)
    _, err = local.communicate(timeout=LONG)
    assert local.returncode == 0, err
    for name in TABLES:
        assert (there / name).read_bytes() == (here / name).read_bytes(), name
