"""Options of `pqa up`: where everything listens, where everything lies, and what runs by itself."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from flows.base_options import Options

Port = {"ge": 1, "le": 65535}
#: An address without a path.
SITE = r"^https?://[^/]+$"


class UpOptions(Options):
    """One command that serves everything."""

    workspace: Path = Field(
        Path("workspace"), title="Workspace", description="Folder that holds all results and histories."
    )
    data: Path | None = Field(
        None,
        title="Data folder",
        description="Its screens, label tables, knowledge folders and gene sets are offered by name in the "
        "forms; empty: data in the workspace.",
    )
    watch: str | None = Field(
        None,
        title="Watched folder",
        description="Folder or bucket prefix (s3://...) whose new h5ad files are labelled every hour; empty: "
        "inbox in the workspace.",
    )
    host: str = Field("127.0.0.1", title="Host", description="Address that everything listens on.")
    expose: bool = Field(
        False,
        title="Expose",
        description="Needed for another --host than 127.0.0.1: Prefect, MLflow and Dask have no login.",
    )
    prefect_url: str | None = Field(
        None,
        pattern=SITE,
        title="Prefect's public address",
        description="Where a reverse proxy shows its pages, such as https://prefect.lab.example.org.",
    )
    mlflow_url: str | None = Field(
        None,
        pattern=SITE,
        title="MLflow's public address",
        description="The same for MLflow; links in Prefect then lead there.",
    )
    prefect_port: int = Field(4200, title="Prefect's port", description="Of server and pages.", **Port)
    mlflow_port: int = Field(5000, title="MLflow's port", description="Of server and pages.", **Port)
    dask_port: int = Field(8786, title="Dask's port", description="Of the scheduler.", **Port)
    dashboard_port: int = Field(8787, title="Dashboard's port", description="Of Dask's pages.", **Port)
    workers: int = Field(
        2, ge=1, le=256, title="Workers", description="Worker processes of the Dask cluster, one thread each."
    )
    dask: str | None = Field(
        None,
        title="Dask cluster",
        description="Address of a running cluster that all runs share, or a preset or YAML file of one that "
        "each run starts for itself; empty: one is started here.",
    )
    at_once: int = Field(
        4, ge=1, le=64, title="Runs at once", description="Over all deployments; further runs wait."
    )
    nightly: str | None = Field(
        None,
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        title="Nightly benchmark",
        description="HH:MM; empty: as it was before, at first 02:00 and switched off. It runs with the "
        "values that are set for the deployment in Prefect, at first on the simulated screen.",
    )
    timezone: str | None = Field(
        None,
        title="Time zone",
        description="Of schedules, such as Europe/Berlin; empty: as it was before, at first UTC.",
    )
    notify: str | None = Field(
        None,
        title="Notify",
        description="Where failed runs are reported: the address of a Slack webhook or of anything that "
        "takes a JSON post, or a Prefect notification block such as teams-webhook/NAME.",
    )
