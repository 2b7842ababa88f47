"""What surrounds a served flow: workspace, data folder, MLflow, Dask; handed down in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from flows.options import RunOptions
from flows.up_options import UpOptions


@dataclass(frozen=True)
class Surroundings:
    """Places and addresses that a person who presses Run need not know.

    Attributes
    ----------
    workspace, data
        Folders of results and of screens, label tables and knowledge.
    watch
        Folder or bucket prefix that is watched for new screens.
    mlflow, dask, dashboard, prefect
        Addresses; empty where there is none: SQLite in the workspace, threads of the run's own process.
    prefect_pages, mlflow_pages
        Addresses that people see, where a reverse proxy stands before the servers.
    """

    workspace: Path
    data: Path
    watch: str
    mlflow: str = ""
    dask: str = ""
    dashboard: str = ""
    prefect: str = ""
    prefect_pages: str = ""
    mlflow_pages: str = ""

    @classmethod
    def of_options(cls, options: UpOptions) -> Surroundings:
        """What `pqa up` makes."""
        workspace = options.workspace.resolve()
        own = options.dask is None
        return cls(
            workspace,
            (options.data or workspace / "data").resolve(),
            options.watch or str(workspace / "inbox"),
            f"http://{options.host}:{options.mlflow_port}",
            f"tcp://{options.host}:{options.dask_port}" if own else options.dask,
            f"http://{options.host}:{options.dashboard_port}" if own else "",
            f"http://{options.host}:{options.prefect_port}",
            options.prefect_url or f"http://{options.host}:{options.prefect_port}",
            options.mlflow_url or f"http://{options.host}:{options.mlflow_port}",
        )

    @classmethod
    def here(cls, environment: Mapping[str, str] | None = None) -> Surroundings:
        """Read back what ``as_environment`` has set; for a work pool's own job, its defaults."""
        said = os.environ if environment is None else environment
        workspace = Path(said.get("PQA_WORKSPACE", "workspace")).resolve()
        return cls(
            workspace,
            Path(said.get("PQA_DATA", workspace / "data")),
            said.get("PQA_WATCH", str(workspace / "inbox")),
            said.get("PQA_MLFLOW", ""),
            said.get("PQA_DASK", ""),
            said.get("PQA_DASHBOARD", ""),
            said.get("PQA_PREFECT", ""),
            said.get("PQA_PREFECT_PAGES", said.get("PQA_PREFECT", "")),
            said.get("PQA_MLFLOW_PAGES", said.get("PQA_MLFLOW", "")),
        )

    def as_environment(self) -> dict[str, str]:
        """The same as environment variables."""
        return {f"PQA_{field.name.upper()}": str(getattr(self, field.name)) for field in fields(self)}

    def run_options(self, again: tuple[str, ...] = ()) -> RunOptions:
        """Where a flow's results go and what computes them."""
        places = {"workspace": self.workspace, "mlflow": self.mlflow or None, "dask": self.dask or None}
        places["mlflow_pages"] = self.mlflow_pages or None
        return RunOptions(**places, force=again)
