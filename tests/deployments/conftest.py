"""One `pqa up` for all tests that need servers: used over HTTP and in a browser, ended by a SIGINT."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import requests

from tasks.screens.simulate import simulate_screen

ROOT = Path(__file__).parents[2]
#: The machine may be busy with other things: nothing here takes so long by itself.
LONG = 900


def wait_for(what: Callable[[], object], seconds: float = LONG) -> object:
    """The first true value of ``what()``."""
    deadline = time.monotonic() + seconds
    while not (got := what()):
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.2)
    return got


def free_ports(n: int) -> list[int]:
    """Ports that nothing listens on."""
    probes = [socket.socket() for _ in range(n)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def port_words(ports: list[int]) -> list[str]:
    """The four ports as arguments."""
    names = ("--prefect-port", "--mlflow-port", "--dask-port", "--dashboard-port")
    return [word for name, port in zip(names, ports, strict=True) for word in (name, str(port))]


@dataclass
class Up:
    """A running `pqa up`: its process, what it has said, its addresses, and what its webhook was told."""

    process: subprocess.Popen
    workspace: Path
    ports: list[int]
    said: list[str] = field(default_factory=list)
    told: list[dict] = field(default_factory=list)

    @property
    def prefect(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    def ask(self, path: str, **content) -> list | dict:
        """Post to Prefect's API."""
        answer = requests.post(f"{self.prefect}/api/{path}", json=content, timeout=200)
        assert answer.ok, answer.text
        return answer.json()

    def deployment(self, name: str) -> dict:
        """A deployment by name."""
        (found,) = self.ask("deployments/filter", deployments={"name": {"any_": [name]}})
        return found

    def press_run(self, name: str, **parameters) -> requests.Response:
        """What the form's button does."""
        address = f"{self.prefect}/api/deployments/{self.deployment(name)['id']}/create_flow_run"
        return requests.post(address, json={"parameters": parameters}, timeout=200)

    def state(self, run: str) -> str:
        """What a run is doing now."""
        return requests.get(f"{self.prefect}/api/flow_runs/{run}", timeout=200).json()["state"]["type"]

    def end_of(self, run: str) -> dict:
        """A run when it has ended."""

        def ended() -> dict | None:
            found = requests.get(f"{self.prefect}/api/flow_runs/{run}", timeout=200).json()
            return (
                found if found["state"]["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else None
            )

        return wait_for(ended)

    def artifacts(self, run: str) -> dict[str, dict]:
        """A run's artifacts by key."""
        found = self.ask("artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}})
        return {entry["key"]: entry for entry in found if entry["key"]}

    def part(self, words: str) -> psutil.Process:
        """The process of a part: the one that was asked for, not the leash that it is on."""
        everyone = psutil.Process(self.process.pid).children(recursive=True)
        lines = {one: _line(one) for one in everyone}
        return next(one for one, line in lines.items() if words in line and "leash.py" not in line)

    def on_experiments(self) -> dict[str, str]:
        """Ids of MLflow's experiments by name."""
        address = f"{self.mlflow}/api/2.0/mlflow/experiments/search"
        found = requests.post(address, json={"max_results": 100}, timeout=200).json()["experiments"]
        return {entry["name"]: entry["experiment_id"] for entry in found}

    def runs_of(self, experiment: str) -> list[dict]:
        """MLflow's runs of an experiment."""
        address = f"{self.mlflow}/api/2.0/mlflow/runs/search"
        wanted = {"experiment_ids": [self.on_experiments()[experiment]]}
        return requests.post(address, json=wanted, timeout=200).json().get("runs", [])


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """A data folder: a small simulated screen with its knowledge, and the real screens if there are any."""
    folder = tmp_path_factory.mktemp("data")
    simulate_screen(folder / "small.h5ad", cells=1500, genes=100, perturbations=24, controls=300, seed=5)
    (folder / "sets.json").write_text(json.dumps({"some": ["GENE1", "GENE2"]}))
    shared = Path(os.environ.get("PQA_SHARED") or ROOT.parent / "shared" / "data") / "screens"
    if shared.is_dir():
        (folder / "screens").symlink_to(shared)
    return folder


@pytest.fixture(scope="session")
def up(tmp_path_factory, data_folder) -> Iterator[Up]:
    """`pqa up`, with the addresses printed; ended like by Ctrl-C, and then nothing may be left of it."""
    workspace, ports = tmp_path_factory.mktemp("up") / "workspace", free_ports(4)
    told: list[dict] = []
    hook = _webhook(told)
    words = ["--workspace", workspace, "--data", data_folder, "--workers", "1", *port_words(ports)]
    words += ["--notify", f"http://127.0.0.1:{hook.server_port}/told"]
    process = start_up(*words)
    served = Up(process, workspace, ports, told=told)
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
        hook.shutdown()


def start_up(*words: str | Path) -> subprocess.Popen:
    """Start `pqa up`, what it says on one pipe."""
    command = [sys.executable, "-m", "flows", "up", *map(str, words)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


def _listen(process: subprocess.Popen, said: list[str]) -> None:
    for line in process.stdout:
        said.append(line)


def _webhook(told: list[dict]) -> ThreadingHTTPServer:
    """A server that keeps what is posted to it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
