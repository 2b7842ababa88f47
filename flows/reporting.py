"""Tables, figures and links that a Prefect run shows: the ledger, quality control, the leaderboard."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.compare_stages import published_figures
from flows.label_sets import LabelSet
from flows.records import ScreenRecords
from storage.manifest import StageRecord
from storage.tables import read_frame
from tasks.report.calibration_figures import null_calibration
from tasks.report.drawing import write_png
from tasks.report.knock_down_figure import knock_down
from tasks.report.predictor_figures import leaderboard_figure
from tasks.scoring.task_names import TASK_TITLES

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


def names_artifacts(tables: Sequence[Path], means: Mapping[str, Mapping[str, float]]) -> None:
    """Show what clusters of genes were called, and how near that is to their names by hand."""
    rows = [{"clusters and method": name} | dict(figures) for name, figures in means.items()]
    create_table_artifact(rows, key="enrichment", description="Names of clusters against manual names.")
    names = pd.concat(read_frame(path).assign(clusters=path.stem.removesuffix("-names")) for path in tables)
    shown = names[["clusters", "cluster", "method", "name", "label"]].head(MOST_ROWS)
    described = f"{len(names)} names, the first {len(shown)} are shown; label: the name by hand."
    create_table_artifact(_plain(shown), key="cluster-names", description=described)


@dataclass(frozen=True)
class Picture:
    """A figure as a PNG file, and how to read it."""

    path: Path
    caption: str


def draw_comparison(
    workspace: Path,
    labels: LabelSet,
    comparison: StageRecord,
    boards: Mapping[str, pd.DataFrame],
    screen: ScreenRecords | None,
) -> list[Picture]:
    """Each leaderboard, beside published figures where there are any, and the screen's figures."""
    folder, pictures = workspace / "reports" / comparison.folder.name, []
    for name, board in boards.items():
        task = name.partition("-")[0]
        figure = leaderboard_figure(board, published_figures(labels, task))
        path = write_png(figure, folder / f"leaderboard-{name}.png")
        caption = (
            f"**Leaderboard, {name}** ({TASK_TITLES[task]}): AUROC per gene with its 95 % interval over "
            "test perturbations; the dashed line is guessing."
        )
        pictures.append(Picture(path, caption))
    return pictures + (draw_screen(folder, screen) if screen else [])


def draw_screen(folder: Path, screen: ScreenRecords) -> list[Picture]:
    """Figures of a labelled screen: knock-down and, where there are any, p-values of false perturbations."""
    perturbations = read_frame(screen.labels.folder / "perturbations.parquet")
    guides = read_frame(screen.quality.folder / "guides.parquet")
    path = write_png(knock_down(perturbations, guides), folder / "knock-down.png")
    pictures = [
        Picture(path, "**Knock-down**: remaining expression of the targets; 1 = as in control cells.")
    ]
    null = screen.tests.folder / "null.parquet"
    if null.is_file():
        path = write_png(null_calibration(read_frame(null)), folder / "calibration.png")
        caption = (
            "**Calibration**: p-values of false perturbations, which are made of control cells; points above "
            "the grey band are p-values that are too small."
        )
        pictures.append(Picture(path, caption))
    return pictures


def figures_artifact(name: str, pictures: Sequence[Picture]) -> None:
    """Show all figures of a run on one page, kept in Prefect's database, so that no other server is needed.

    Prefect has a kind of artifact for an image's address; it writes the address below, and these are long.
    """
    if not pictures:
        return
    parts = []
    for picture in pictures:
        data = base64.b64encode(picture.path.read_bytes()).decode()
        parts.append(f"{picture.caption}\n\n![{picture.path.stem}](data:image/png;base64,{data})")
    described = "The main figures of the report."
    create_markdown_artifact("\n\n".join(parts), key=artifact_key("figures", name), description=described)


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


def predictor_charts(charts: str, task: str) -> str:
    """Of an experiment's charts those of one task's predictors, the best first.

    In order of time MLflow shows only the jobs that they belong to.
    """
    wanted, order = quote(f"params.task = '{task}'", safe=""), quote("metrics.`auroc`", safe="")
    return f"{charts}&searchFilter={wanted}&orderByKey={order}&orderByAsc=false"


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
