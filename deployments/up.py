"""`pqa up`: Prefect, MLflow, a Dask cluster and all deployments, as one program that one Ctrl-C ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from deployments.crew import Crew
from deployments.parts import LOOPBACK, check_ports, free_of_others, make_parts
from deployments.surroundings import Surroundings
from flows.up_options import UpOptions
from storage.atomic import disk_errors, remove, write_json
from storage.errors import InputError, PqaError

NO_LOGIN = (
    "WARNING: listening on {host}. Neither Prefect nor MLflow nor Dask has a login: whoever reaches these "
    "ports can read everything and run code here. Put a reverse proxy before them (docs/deploying.md)."
)


def main(options: UpOptions) -> None:
    """Serve everything until Ctrl-C or a SIGTERM.

    Raises
    ------
    PqaError
        If the workspace is served already, a port is in use, or a part does not come up.
    """
    here = Surroundings.of_options(options)
    with _only_one(here.workspace):
        check_ports(options)
        _make_folders(here)
        free_of_others(os.environ)
        if options.host not in LOOPBACK:
            _say(NO_LOGIN.format(host=options.host))
        crew = Crew(make_parts(options, here), _say)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: crew.ending.set())
        try:
            _say(f"starting; logs are in {here.workspace / 'logs'}")
            crew.start()
            if not crew.ending.is_set():
                _tell(here)
                crew.watch()
        finally:
            remove(here.workspace / "up.json")
            _say("ending")
            crew.end()
            _say("ended; the same command goes on where this was")


@contextlib.contextmanager
def _only_one(workspace: Path) -> Iterator[None]:
    """Hold the workspace: the lock is the one that `pqa benchmark` takes for its own server."""
    with disk_errors(workspace):
        (workspace / "prefect").mkdir(parents=True, exist_ok=True)
    lock = FileLock(workspace / "prefect" / "server.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        message = "another `pqa up` or a job has this workspace; end it, or give another --workspace"
        raise InputError(str(workspace), [message]) from error
    with lock:
        yield


def _make_folders(here: Surroundings) -> None:
    folders = [here.workspace / "logs", here.workspace / "mlflow-artifacts"]
    folders += [here.data] if here.data == here.workspace / "data" else []
    folders += [Path(here.watch)] if "://" not in here.watch else []
    for folder in folders:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    if not here.data.is_dir():
        raise InputError(str(here.data), ["no such folder; --data names the one that holds screens"])


def _tell(here: Surroundings) -> None:
    """Print where everything is, and leave it in a file for other programs."""
    addresses = {
        "prefect": here.prefect,
        "mlflow": here.mlflow,
        "dask": here.dask,
        "dashboard": here.dashboard,
    }
    write_json(here.workspace / "up.json", {"pid": os.getpid(), **addresses})
    lines = [
        "",
        f"  Prefect  {here.prefect_pages}/deployments   press Run here",
        f"  MLflow   {here.mlflow_pages}/#/experiments?workflowType=machine_learning   compare here",
        f"  Dask     {here.dashboard + '/status' if here.dashboard else here.dask}   what is being computed",
        f"  Data     {here.data}   screens, label tables and knowledge offered in the forms",
        f"  Inbox    {here.watch}   new screens here are labelled every hour",
        "",
        "  Ctrl-C ends everything; results and histories stay.",
    ]
    print("\n".join(lines), flush=True)


def _say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(UpOptions.model_validate_json(sys.argv[1]))
    except PqaError as problem:
        print(f"pqa up: {problem}", file=sys.stderr)
        sys.exit(1)
