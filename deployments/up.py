"""`pqa up`: Prefect, MLflow, a Dask cluster and all deployments, as one program that one Ctrl-C ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from deployments.services import LOOPBACK, drop_client_settings, make_services
from deployments.settings import ServiceSettings
from deployments.supervisor import Supervisor
from deployments.up_checks import check_up
from flows.up_options import UpOptions
from storage.atomic import disk_errors, remove, write_json
from storage.errors import InputError, PqaError
from storage.locks import only_one

NO_LOGIN = (
    "WARNING: listening on {host}. Neither Prefect nor MLflow nor Dask has a login: whoever reaches these "
    "ports can read everything and run code here. Put a reverse proxy before them (docs/deploying.md)."
)


def main(options: UpOptions) -> None:
    """Serve everything until Ctrl-C or a SIGTERM.

    Raises
    ------
    PqaError
        If the workspace is served already, an option cannot be used, or a service does not start.
    """
    settings = ServiceSettings.from_options(options)
    with _lock(settings.workspace):
        check_up(options, settings)
        _make_folders(settings)
        drop_client_settings(os.environ)
        if options.host not in LOOPBACK:
            _log(NO_LOGIN.format(host=options.host))
        supervisor = Supervisor(make_services(options, settings), _log)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: supervisor.stop_requested.set())
        try:
            _log(f"starting; logs are in {settings.workspace / 'logs'}")
            supervisor.start()
            if not supervisor.stop_requested.is_set():
                _print_addresses(settings)
                supervisor.watch()
        finally:
            remove(settings.workspace / "up.json")
            _log("stopping")
            supervisor.stop()
            _log("stopped; the same command goes on where this was")


@contextlib.contextmanager
def _lock(workspace: Path) -> Iterator[None]:
    """Lock the workspace; `pqa benchmark` takes the same lock for its own server."""
    with disk_errors(workspace):
        (workspace / "prefect").mkdir(parents=True, exist_ok=True)

    def refuse() -> NoReturn:
        message = "another `pqa up` or a job has this workspace; end it, or give another --workspace"
        raise InputError(str(workspace), [message])

    with only_one(workspace / "prefect" / "server.lock", refuse):
        yield


def _make_folders(settings: ServiceSettings) -> None:
    folders = [settings.workspace / "logs", settings.workspace / "mlflow-artifacts"]
    folders += [settings.data] if settings.has_own_data else []
    folders += [Path(settings.watch)] if settings.has_own_inbox else []
    for folder in folders:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)


def _print_addresses(settings: ServiceSettings) -> None:
    """Print where everything is, and write it to ``up.json`` for other programs."""
    addresses = {
        "prefect": settings.prefect,
        "mlflow": settings.mlflow,
        "dask": settings.dask,
        "dashboard": settings.dashboard,
    }
    write_json(settings.workspace / "up.json", {"pid": os.getpid(), **addresses})
    computing = f"{settings.dashboard}/status" if settings.dashboard else settings.dask
    lines = [
        "",
        f"  Prefect  {settings.prefect_pages}/deployments   press Run here",
        f"  MLflow   {settings.mlflow_pages}/#/experiments?workflowType=machine_learning   compare here",
        f"  Dask     {computing}   what is being computed",
        f"  Data     {settings.data}   screens, label tables and knowledge offered in the forms",
        f"  Inbox    {settings.watch}   new screens here are labelled every hour",
        "",
        "  Ctrl-C ends everything; results and histories stay.",
    ]
    print("\n".join(lines), flush=True)


def _log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(UpOptions.model_validate_json(sys.argv[1]))
    except PqaError as problem:
        print(f"pqa up: {problem}", file=sys.stderr)
        sys.exit(1)
