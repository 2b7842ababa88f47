"""A running `pqa up` as tests see it: its process, what it says, its servers' APIs."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import requests

from tests.waiting import LONG

ROOT = Path(__file__).parents[2]
#: The small screen with its columns, knowledge of its genes, and a quick way with predictors.
SMALL = {"screen": "small", "columns": {"guide_key": "guide_id", "batch_key": "batch"}}
KNOWN = {"knowledge": "known"}
QUICK = {"predictors": ["prior", "retrieval", "gat"], "settings": ["gat.max_epochs=2"], "draws": 20}


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


def start_up(*words: str | Path) -> subprocess.Popen:
    """Start `pqa up`, what it says on one pipe."""
    command = [sys.executable, "-m", "flows", "up", *map(str, words)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


@contextlib.contextmanager
def listening(told: list[dict]) -> Iterator[str]:
    """The address of a server that keeps the JSON posted to it in ``told``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/told"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Up:
    """A running `pqa up`: its process, what it has said, its addresses, and what its webhook was told."""

    process: subprocess.Popen
    workspace: Path
    ports: list[int]
    said: list[str] = field(default_factory=list)
    told: list[dict] = field(default_factory=list)
    #: The webhook's address.
    notify: str = ""
    #: Requests that were answered with 503.
    refused: list[str] = field(default_factory=list)

    @property
    def prefect(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    def call(self, method: str, path: str, **how) -> requests.Response:
        """Ask Prefect's API; a server that says that it is too busy is asked again, as its clients do."""
        address, deadline = f"{self.prefect}/api/{path}", time.monotonic() + LONG
        while True:
            answer = requests.request(method, address, timeout=200, **how)
            if answer.status_code != 503 or time.monotonic() > deadline:
                return answer
            self.refused.append(path)
            time.sleep(1)

    def ask(self, path: str, **content) -> list | dict:
        """Post to Prefect's API."""
        answer = self.call("POST", path, json=content)
        assert answer.ok, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def deployment(self, name: str) -> dict:
        """A deployment by name."""
        (found,) = self.ask("deployments/filter", deployments={"name": {"any_": [name]}})
        return found

    def press_run(self, name: str, **parameters) -> requests.Response:
        """What the form's button does; asked again, it starts no second run."""
        content = {"parameters": parameters, "idempotency_key": uuid.uuid4().hex}
        return self.call("POST", f"deployments/{self.deployment(name)['id']}/create_flow_run", json=content)

    def start(self, name: str, **parameters) -> str:
        """Press Run; the run's id."""
        answer = self.press_run(name, **parameters)
        assert answer.ok, f"{name}: {answer.status_code} {answer.text}"
        return answer.json()["id"]

    def run(self, run: str) -> dict:
        """A run as it is now."""
        answer = self.call("GET", f"flow_runs/{run}")
        assert answer.ok, answer.text
        return answer.json()

    def state(self, run: str) -> str:
        """What a run is doing now."""
        return self.run(run)["state"]["type"]

    def end_of(self, run: str) -> dict:
        """A run when it has ended."""
        ends = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        return wait_for(lambda: found if (found := self.run(run))["state"]["type"] in ends else None)

    def artifacts(self, run: str) -> dict[str, dict]:
        """A run's artifacts by key."""
        found = self.ask("artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}})
        return {entry["key"]: entry for entry in found if entry["key"]}

    def service(self, words: str) -> psutil.Process:
        """The process of a service itself, not its wrapper."""
        everyone = psutil.Process(self.process.pid).children(recursive=True)
        lines = {one: _line(one) for one in everyone}
        return next(one for one, line in lines.items() if words in line and "process_wrapper.py" not in line)

    def ask_mlflow(self, path: str, **content) -> dict:
        """Post to MLflow's API."""
        answer = requests.post(f"{self.mlflow}/api/2.0/mlflow/{path}", json=content, timeout=200)
        assert answer.ok, answer.text
        return answer.json()

    def get_mlflow(self, place: str, **query) -> requests.Response:
        """Get from MLflow's server."""
        answer = requests.get(f"{self.mlflow}/{place}", params=query, timeout=200)
        assert answer.ok, answer.text
        return answer

    def on_experiments(self) -> dict[str, str]:
        """Ids of MLflow's experiments by name."""
        found = self.ask_mlflow("experiments/search", max_results=100)["experiments"]
        return {entry["name"]: entry["experiment_id"] for entry in found}

    def runs_of(self, experiment: str) -> list[dict]:
        """MLflow's runs of an experiment."""
        wanted = [self.on_experiments()[experiment]]
        return self.ask_mlflow("runs/search", experiment_ids=wanted).get("runs", [])


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
