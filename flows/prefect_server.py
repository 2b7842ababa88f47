"""A Prefect server for the time of one job, with its state in the workspace.

Prefect's own temporary server outlives a job that is killed and has no pages to look at; this one has both
mended. A server named by ``PREFECT_API_URL`` is used as it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psutil
import requests
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from storage.errors import PqaError
from storage.locks import only_one

START_SECONDS = 300


class ServerError(PqaError):
    """The Prefect server did not come up, or another job has the workspace."""


@contextlib.contextmanager
def prefect_server(workspace: Path) -> Iterator[str]:
    """Serve Prefect on 127.0.0.1 while the block runs; gives the address of its pages.

    Raises
    ------
    ServerError
        If another process runs a job in this workspace, or the server does not answer.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        yield url.removesuffix("/api")
        return
    home, held = Path(os.environ["PREFECT_HOME"]), Path(workspace).resolve() / "prefect"
    for folder in (home, held):
        folder.mkdir(parents=True, exist_ok=True)

    def refuse() -> NoReturn:
        raise ServerError(f"another job is running in the workspace {workspace}; {_advice(held)}")

    # In the workspace wherever Prefect's state is: that is what `pqa up` holds too.
    lock = only_one(held / "server.lock", refuse)
    with lock, _running(home) as url, temporary_settings({PREFECT_API_URL: f"{url}/api"}):
        try:
            yield url
        finally:
            # Logs and events still on their way would wait a minute for a server that is gone.
            APILogWorker.drain_all(timeout=10)
            EventsWorker.drain_all(timeout=10)


def _advice(held: Path) -> str:
    """What to do when a workspace is taken: while `pqa up` serves it, a file there says so."""
    served = held.parent / "up.json"
    addresses = json.loads(served.read_text()) if served.is_file() else {}
    if not psutil.pid_exists(addresses.get("pid", -1)):
        return "wait for it or give another --workspace"
    return (
        f"`pqa up` serves it: press Run at {addresses['prefect']}, or give the command its servers: "
        f"PREFECT_API_URL={addresses['prefect']}/api pqa ... --mlflow {addresses['mlflow']}"
    )


@contextlib.contextmanager
def _running(home: Path) -> Iterator[str]:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    log_path = home / "server.log"
    # The pages ask the address they are told here, not the one in the browser.
    environment = os.environ | {"PREFECT_SERVER_API_PORT": str(port), "PREFECT_SERVER_API_HOST": "127.0.0.1"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with log_path.open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=environment,
            # A terminal's Ctrl-C goes to the whole group: the job still has to tell the server of its end.
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    try:
        _wait_until_up(process, url, log_path)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(process: subprocess.Popen, url: str, log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = log_path.read_text().strip().splitlines()[-1:]
            raise ServerError(f"the Prefect server ended at once ({''.join(last)}); its log: {log_path}")
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            if requests.get(f"{url}/api/health", timeout=2).ok:
                return
        time.sleep(0.2)
    raise ServerError(f"the Prefect server did not answer within {START_SECONDS} s; its log: {log_path}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _end_with_parent() -> None:
    """Ask Linux to end the server when this process is killed; elsewhere it has to be ended by hand."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
