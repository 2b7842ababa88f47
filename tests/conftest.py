"""Fixtures shared by all tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with labels/, knowledge/ and screens/: PQA_SHARED, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("PQA_SHARED") or ROOT.parent / "shared" / "data")
    if not (folder / "labels").is_dir():
        pytest.skip(
            f"no real data at {folder}; set PQA_SHARED to the folder that holds labels/ and knowledge/"
        )
    return folder


@pytest.fixture(scope="session")
def client():
    """A Dask cluster of two threads in this process."""
    from flows.dask_cluster import dask_client

    with dask_client(None, workers=2) as made:
        yield made


@pytest.fixture
def read_only_folder(tmp_path) -> Iterator[Path]:
    """A folder on a disk that is mounted read-only; needs root, to whom permissions mean nothing."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    (folder / "there before.txt").write_text("untouched")
    with _mounted(folder, ["--bind", str(folder)], then=["-o", "remount,ro,bind"]):
        yield folder


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Callable[[int], Path]]:
    """Make a disk of so many kilobytes and give its folder; needs root."""
    with contextlib.ExitStack() as stack:

        def make(kilobytes: int) -> Path:
            folder = tmp_path / "tiny"
            folder.mkdir()
            stack.enter_context(_mounted(folder, ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs"]))
            return folder

        yield make


@contextlib.contextmanager
def _mounted(folder: Path, how: list[str], *, then: list[str] | None = None) -> Iterator[None]:
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a disk to try this on")
    made = subprocess.run(["mount", *how, str(folder)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here to try this on ({made.stderr.strip()})")
    try:
        if then is not None:
            subprocess.run(["mount", *then, str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
