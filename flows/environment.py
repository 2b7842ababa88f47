"""Settings that other libraries read when they are imported; called first by whatever starts a process."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from storage.atomic import disk_errors
from storage.errors import PqaError

#: No part reports usage anywhere; quiet logs where the libraries' own say nothing to a user.
DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


def prepare_environment(workspace: Path | None = None) -> None:
    """Turn telemetry off and keep Prefect's state in the workspace, unless the user has set otherwise."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Our own servers are on this machine; on clusters everything else often goes through a proxy.
    for name in ("no_proxy", "NO_PROXY"):
        there = [part for part in os.environ.get(name, "").split(",") if part]
        os.environ[name] = ",".join(dict.fromkeys([*there, "127.0.0.1", "localhost"]))
    if workspace is not None and not os.environ.get("PREFECT_API_URL"):
        home = Path(workspace).resolve() / "prefect"
        os.environ.setdefault("PREFECT_HOME", str(home))
        with disk_errors(home):
            home.mkdir(parents=True, exist_ok=True)


def shorten_user_errors() -> None:
    """Let Prefect log an error that the user can mend as its one message, without the way it came."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, PqaError):
        record.msg, record.args, record.exc_info = str(error), (), None
    return True
