"""One `pqa up` for all tests that need servers: used over HTTP and in a browser, ended by a SIGINT."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.deployments.served import (
    KNOWN,
    LONG,
    QUICK,
    ROOT,
    SMALL,
    Up,
    free_ports,
    listening,
    port_words,
    start_up,
    wait_for,
)
from tests.deployments.small_data import make_small_data


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """A data folder: a small simulated screen, its knowledge, label tables, and any real screens."""
    folder = tmp_path_factory.mktemp("data")
    make_small_data(folder)
    shared = Path(os.environ.get("PQA_SHARED") or ROOT.parent / "shared" / "data") / "screens"
    if shared.is_dir():
        (folder / "screens").symlink_to(shared)
    return folder


@pytest.fixture(scope="session")
def pressed(up: Up, data_folder) -> dict[str, str]:
    """Runs started together, so that they share the waiting: their ids by what they are."""
    inbox = up.workspace / "inbox"
    shutil.copyfile(data_folder / "small.h5ad", inbox / "arrived.h5ad")
    (inbox / "broken.h5ad").write_bytes(b"not HDF5 at all")
    (inbox / ".half.h5ad").write_bytes(b"still being copied")
    return {
        "good": up.start("label a screen", **SMALL),
        "bad": up.start("label a screen", screen="small", columns={"control": "nobody"}),
        "inbox": up.start("new screens", files={"settle_seconds": 0.1}),
    }


@pytest.fixture(scope="session")
def up(tmp_path_factory, data_folder) -> Iterator[Up]:
    """`pqa up`, with the addresses printed; ended like by Ctrl-C, and then nothing may be left of it."""
    workspace, ports = tmp_path_factory.mktemp("up") / "workspace", free_ports(4)
    told: list[dict] = []
    words = ["--workspace", workspace, "--data", data_folder, "--workers", "1", *port_words(ports)]
    with listening(told) as notify:
        process = start_up(*words, "--notify", notify)
        yield from _until_the_end(Up(process, workspace, ports, told=told, notify=notify))


def _until_the_end(served: Up) -> Iterator[Up]:
    process = served.process
    threading.Thread(target=_listen, args=(process, served.said), daemon=True).start()
    try:
        wait_for(lambda: process.poll() is not None or any("Ctrl-C" in line for line in served.said))
        assert process.poll() is None, "".join(served.said)
        yield served
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG) == 0
        assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    finally:
        process.kill()


@pytest.fixture(scope="session")
def compared(up: Up) -> dict:
    """A small benchmark, from counts to leaderboard, when it has ended."""
    return up.end_of(up.start("benchmark", **SMALL, knowledge=KNOWN, predict=QUICK))


def _listen(process: subprocess.Popen, said: list[str]) -> None:
    for line in process.stdout:
        said.append(line)
