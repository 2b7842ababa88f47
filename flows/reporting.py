"""Tables and links that a Prefect run shows: the ledger of stages, quality control, the leaderboard."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from storage.manifest import StageRecord
from storage.tables import read_frame

#: Rows a table artifact shows; the whole table is in the workspace.
MOST_ROWS = 200


def ledger_artifact(name: str, records: Sequence[StageRecord], failed: dict[str, str] | None = None) -> None:
    """Say of every stage whether it was done, skipped or failed, and why."""
    rows = [
        {
            "stage": record.kind,
            "name": record.name,
            "status": record.status,
            "why": record.reason,
            "rows": ", ".join(f"{what}: {n:,}" for what, n in record.rows.items()),
            "folder": str(record.folder),
        }
        for record in records
    ]
    rows += [
        {"stage": "predictions", "name": unit, "status": "failed", "why": why, "rows": "", "folder": ""}
        for unit, why in (failed or {}).items()
    ]
    description = "Every stage of this run: done now, skipped because an earlier run had done it, or failed."
    create_table_artifact(rows, key=artifact_key("ledger", name), description=description)


def quality_artifact(labels: StageRecord) -> None:
    """Show perturbations with their cells, knock-down, DE genes, and why any was excluded."""
    table = read_frame(labels.folder / "perturbations.parquet")
    columns = [
        "perturbation",
        "n_usable",
        "n_guides",
        "target_remaining",
        "n_up",
        "n_down",
        "status",
        "reason",
    ]
    shown = table.sort_values(["status", "perturbation"])[columns].head(MOST_ROWS)
    description = f"{len(table)} perturbations; the first {len(shown)} are shown, the excluded ones first."
    create_table_artifact(_plain(shown), key=artifact_key("quality", labels.name), description=description)


def leaderboard_artifact(data_set: str, task: str, board: pd.DataFrame) -> None:
    """Show a leaderboard with its intervals."""
    description = (
        f"{data_set}, task {task}: AUROC per gene, averaged over genes, on perturbations never seen."
    )
    create_table_artifact(
        _plain(board), key=artifact_key("leaderboard", data_set, task), description=description
    )


def report_artifact(data_set: str, report: Path | str, lines: Sequence[str]) -> None:
    """Link the report, by its page in MLflow or as a file, and say in a few lines where everything is."""
    address = report if isinstance(report, str) else report.resolve().as_uri()
    create_link_artifact(
        address,
        link_text="Open the report",
        key=artifact_key("report", data_set),
        description=f"[Open the report]({address})",
    )
    described = "Where tables and report are."
    create_markdown_artifact("\n\n".join(lines), key=artifact_key("summary", data_set), description=described)


def places_artifact(mlflow: str, dashboard: str) -> None:
    """Link what else can be looked at while a run lasts."""
    lines = [f"[What the workers compute now (Dask dashboard)]({dashboard}/status)"] if dashboard else []
    lines += (
        [f"[All runs of before (MLflow)]({mlflow}/#/experiments?workflowType=machine_learning)"]
        if mlflow
        else []
    )
    if lines:
        described = "Dask dashboard and MLflow"
        create_markdown_artifact("\n\n".join(lines), key="while-it-runs", description=described)


def artifact_key(*parts: str) -> str:
    """Prefect takes lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def _plain(frame: pd.DataFrame) -> list[dict]:
    rounded = frame.round(4).astype(object)
    return rounded.where(rounded.notna(), "").to_dict("records")
