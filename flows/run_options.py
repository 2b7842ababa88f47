"""Options of a run: where results go, what computes them, what is done again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from flows.base_options import Options

#: Kinds of stages, in the order they come in a job, for those who want some done again.
Redo = Literal[
    "all",
    "simulated",
    "screens",
    "quality",
    "pseudobulk",
    "tests",
    "agreement",
    "labels",
    "set-tests",
    "set-labels",
    "side-by-side",
    "predictions",
    "observations",
    "summaries",
    "questions",
    "scores",
    "comparisons",
]


class ComputeOptions(Options):
    """What computes, and whether finished stages are done again."""

    workers: int = Field(
        2, ge=1, le=256, title="Workers", description="Threads of the in-process Dask cluster."
    )
    dask: str | None = Field(
        None,
        title="Dask cluster",
        description="Address such as tcp://host:8786, a preset or a YAML file; empty: in this process.",
    )
    force: tuple[Redo, ...] = Field(
        (),
        title="Do again",
        description="Stages to be done again although they are done, and then whatever comes out otherwise "
        "after them; all: everything.",
        json_schema_extra={"alone": "all"},
    )


class RunOptions(ComputeOptions):
    """Where results go and what computes them."""

    workspace: Path = Field(
        Path("workspace"), title="Workspace", description="Folder that holds all results."
    )
    mlflow: str | None = Field(
        None, title="MLflow", description="Tracking server's address; empty: SQLite in the workspace."
    )
    mlflow_pages: str | None = Field(
        None,
        title="MLflow's pages",
        description="Address that links lead to, where a proxy shows the server's pages under another.",
    )

    @property
    def pages(self) -> str | None:
        """Address that links into MLflow begin with; None without a server."""
        return self.mlflow_pages or self.mlflow
