"""The services of `pqa up`: their programs, ports, environment and health checks."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import MutableMapping
from pathlib import Path

import requests

from deployments.settings import ServiceSettings
from deployments.supervisor import Service
from flows.environment import DEFAULTS
from flows.up_options import UpOptions

#: Variables of all services beside those of every command; heartbeats tell a dead run from a long one.
ENVIRONMENT = DEFAULTS | {
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # The pages that docs/pressing-run.md shows, and the tests fill in; the others are a click away.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_RUNNER_POLL_FREQUENCY": "3",
    # A run that waits for another of its kind looks again this often.
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "10",
    # Marking runs late writes to SQLite just when they start; each may wait a minute for the other.
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "120",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "30",
    "PYTHONUNBUFFERED": "1",
}
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def ports(options: UpOptions) -> dict[str, int]:
    """Every port that is listened on, by the option that names it."""
    named = {"--prefect-port": options.prefect_port, "--mlflow-port": options.mlflow_port}
    if options.dask is None:
        named |= {"--dask-port": options.dask_port, "--dashboard-port": options.dashboard_port}
    return named


def port_problems(options: UpOptions) -> list[str]:
    """Which ports are in use or given twice, and whether the host may not be listened on, in sentences."""
    problems, seen = [], {}
    for option, port in ports(options).items():
        if port in seen:
            problems.append(f"{option} and {seen[port]} are both {port}; give them different ports")
        seen[port] = option
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((options.host, port))
            except OSError as error:
                why = f"port {port} of {options.host} cannot be used ({error.strerror.lower()})"
                problems.append(f"{why}; end the program that has it, or give another {option}")
    if options.host not in LOOPBACK and not options.expose:
        problems.append(
            f"--host {options.host} opens Prefect and MLflow, which have no login, to whoever reaches this "
            "machine; add --expose if that is meant, or put a reverse proxy before them (docs/deploying.md)"
        )
    return problems


def make_services(options: UpOptions, settings: ServiceSettings) -> list[Service]:
    """All services, each after those that it depends on."""
    logs = settings.workspace / "logs"
    services = [_prefect(options, settings, logs), _mlflow(options, settings, logs)]
    needed = ["prefect", "mlflow"]
    if options.dask is None:
        services += [_scheduler(options, settings, logs), _workers(options, settings, logs)]
        needed.append("dask scheduler")
    return [*services, _deployments(options, settings, logs, tuple(needed))]


def _prefect(options: UpOptions, settings: ServiceSettings, logs: Path) -> Service:
    environment = {
        "PREFECT_HOME": str(settings.workspace / "prefect"),
        # The pages ask the address they are told here, not the one in the browser.
        "PREFECT_SERVER_UI_API_URL": f"{settings.prefect_pages}/api",
        # Leases in memory, the default, are gone after a restart while the slots stay taken: the runs that
        # hold them are ended at the next renewal, and no other run gets these slots.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }
    how = ["--host", options.host, "--port", str(options.prefect_port)]
    return Service(
        "prefect",
        [sys.executable, "-m", "deployments.prefect_server", *how],
        logs / "prefect.log",
        lambda _: _responds(f"{settings.prefect}/api/health"),
        ENVIRONMENT | environment,
        address=settings.prefect,
    )


def _mlflow(options: UpOptions, settings: ServiceSettings, logs: Path) -> Service:
    artifacts = (settings.workspace / "mlflow-artifacts").as_uri()
    # Clients write artifacts to the disk they share, as `pqa benchmark` does: both see each other's runs.
    # (storage.tracking.local_uri says the same, and takes five seconds to import.)
    database = f"sqlite:///{settings.workspace / 'mlflow.db'}"
    store = ["--backend-store-uri", database, "--default-artifact-root", artifacts]
    where = ["--no-serve-artifacts", "--host", options.host, "--port", str(options.mlflow_port)]
    if options.mlflow_url:
        # Other names and origins than its own it refuses (403); a search on its pages is a POST.
        hosts = [f"{name}:{options.mlflow_port}" for name in (options.host, "localhost")]
        hosts.append(options.mlflow_url.partition("://")[2])
        where += ["--allowed-hosts", ",".join(hosts), "--cors-allowed-origins", options.mlflow_url]
    return Service(
        "mlflow",
        [sys.executable, "-m", "mlflow", "server", *store, *where, "--workers", "1"],
        logs / "mlflow.log",
        lambda _: _responds(f"{settings.mlflow}/health"),
        ENVIRONMENT,
        address=settings.mlflow,
    )


def _scheduler(options: UpOptions, settings: ServiceSettings, logs: Path) -> Service:
    where = ["--host", options.host, "--port", str(options.dask_port)]
    pages = ["--dashboard-address", f"{options.host}:{options.dashboard_port}"]
    return Service(
        "dask scheduler",
        [sys.executable, "-m", "dask", "scheduler", *where, *pages],
        logs / "dask-scheduler.log",
        lambda _: _responds(f"{settings.dashboard}/health"),
        ENVIRONMENT,
        address=f"{settings.dashboard}/status",
    )


def _workers(options: UpOptions, settings: ServiceSettings, logs: Path) -> Service:
    spill = settings.workspace / "logs" / "dask"
    how = ["--nworkers", str(options.workers), "--nthreads", "1", "--no-dashboard", "--host", options.host]
    return Service(
        "dask workers",
        [sys.executable, "-m", "dask", "worker", settings.dask, *how, "--local-directory", str(spill)],
        logs / "dask-workers.log",
        lambda _: _n_workers(settings.dashboard) >= options.workers,
        # A thread a worker: what a block computes with must not take the other workers' cores.
        ENVIRONMENT | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        after=("dask scheduler",),
    )


def _deployments(
    options: UpOptions, settings: ServiceSettings, logs: Path, needed: tuple[str, ...]
) -> Service:
    ready = settings.workspace / "logs" / "serving.pid"
    environment = {
        "PREFECT_API_URL": f"{settings.prefect}/api",
        "PREFECT_HOME": str(settings.workspace / "prefect"),
    }
    environment |= settings.as_environment()
    environment |= {"PQA_UP": options.model_dump_json(), "PQA_READY": str(ready)}
    return Service(
        "deployments",
        [sys.executable, "-m", "deployments.serve"],
        logs / "deployments.log",
        lambda process: _read(ready) == str(process),
        ENVIRONMENT | environment,
        after=needed,
    )


def _responds(address: str) -> bool:
    try:
        return requests.get(address, timeout=10).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


def _n_workers(dashboard: str) -> int:
    try:
        return requests.get(f"{dashboard}/json/counts.json", timeout=10).json()["workers"]
    except (requests.ConnectionError, requests.Timeout, json.JSONDecodeError):
        return 0


def _read(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def drop_client_settings(environment: MutableMapping[str, str]) -> None:
    """Remove the addresses of another Prefect or MLflow: the services are to find each other."""
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_API_KEY", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
