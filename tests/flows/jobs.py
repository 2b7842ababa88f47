"""The command line as a user runs it: in a process of its own, against a real Prefect server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from mlflow.tracking import MlflowClient

from tests.waiting import LONG

#: What differs between equal runs: times, and the databases that hold them.
VARYING = {"prefect", "mlflow-artifacts", "mlflow.db"}


def start_pqa(
    *arguments: str | Path, environment: dict[str, str] | None = None, alone: bool = False
) -> subprocess.Popen:
    """Start ``pqa`` with captured output; ``alone``: as a terminal does, in a process group of its own."""
    command = [sys.executable, "-m", "flows", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
        cwd=Path(__file__).parents[2],
        start_new_session=alone,
        # What is started in the background of a script ignores Ctrl-C, and its children inherit that.
        preexec_fn=hear_ctrl_c if alone else None,
    )


def hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_pqa(*arguments: str | Path, environment: dict[str, str] | None = None) -> str:
    """Run ``pqa`` to its end; gives its standard output, fails with what it said if it fails."""
    process = start_pqa(*arguments, environment=environment)
    out, err = process.communicate(timeout=LONG)
    assert process.returncode == 0, err
    return out


def workspace_bytes(workspace: Path) -> dict[str, bytes]:
    """Every file of a workspace that two equal runs must have in common."""
    return {
        str(path.relative_to(workspace)): path.read_bytes()
        for path in sorted(workspace.rglob("*"))
        if path.is_file()
        and not VARYING & set(path.relative_to(workspace).parts)
        and not path.name.endswith((".lock", ".seconds.json"))
    }


def mlflow_runs(workspace: Path) -> list:
    """All active runs of all experiments in a workspace's SQLite."""
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
