"""Settings of served flows: workspace, data folder, addresses; handed down as environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from flows.options import RunOptions
from flows.up_options import UpOptions


@dataclass(frozen=True)
class ServiceSettings:
    """Folders and addresses that a person who presses Run need not know.

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
    def from_options(cls, options: UpOptions) -> ServiceSettings:
        """The settings that `pqa up` serves with."""
        workspace = options.workspace.resolve()
        own = options.dask is None
        return cls(
            workspace=workspace,
            data=(options.data or workspace / "data").resolve(),
            watch=options.watch or str(workspace / "inbox"),
            mlflow=f"http://{options.host}:{options.mlflow_port}",
            dask=f"tcp://{options.host}:{options.dask_port}" if own else options.dask,
            dashboard=f"http://{options.host}:{options.dashboard_port}" if own else "",
            prefect=f"http://{options.host}:{options.prefect_port}",
            prefect_pages=options.prefect_url or f"http://{options.host}:{options.prefect_port}",
            mlflow_pages=options.mlflow_url or f"http://{options.host}:{options.mlflow_port}",
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> ServiceSettings:
        """Read back what ``as_environment`` has set, with defaults for what is missing.

        Parameters
        ----------
        environment
            Variables ``PQA_*``; default: those of this process.
        """
        given = os.environ if environment is None else environment
        workspace = Path(given.get("PQA_WORKSPACE", "workspace")).resolve()
        return cls(
            workspace=workspace,
            data=Path(given.get("PQA_DATA", workspace / "data")),
            watch=given.get("PQA_WATCH", str(workspace / "inbox")),
            mlflow=given.get("PQA_MLFLOW", ""),
            dask=given.get("PQA_DASK", ""),
            dashboard=given.get("PQA_DASHBOARD", ""),
            prefect=given.get("PQA_PREFECT", ""),
            prefect_pages=given.get("PQA_PREFECT_PAGES", given.get("PQA_PREFECT", "")),
            mlflow_pages=given.get("PQA_MLFLOW_PAGES", given.get("PQA_MLFLOW", "")),
        )

    @property
    def has_own_data(self) -> bool:
        """Whether the data folder is the workspace's own, which is made where it is not there."""
        return self.data == self.workspace / "data"

    @property
    def has_own_inbox(self) -> bool:
        """The same for the watched folder."""
        return self.watch == str(self.workspace / "inbox")

    def as_environment(self) -> dict[str, str]:
        """The same as environment variables."""
        return {f"PQA_{field.name.upper()}": str(getattr(self, field.name)) for field in fields(self)}

    def run_options(self, again: tuple[str, ...] = ()) -> RunOptions:
        """Where a flow's results go and what computes them.

        Parameters
        ----------
        again
            Kinds of stages to be done again (`flows.run_options.Redo`).
        """
        places = {"workspace": self.workspace, "mlflow": self.mlflow or None, "dask": self.dask or None}
        places["mlflow_pages"] = self.mlflow_pages or None
        return RunOptions(**places, force=again)
