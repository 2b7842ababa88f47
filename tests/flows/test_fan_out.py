"""Many configurations on two tracks: the whole grid, other lines' rows, one leaderboard a track."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from tests.flows.jobs import mlflow_runs, run_pqa

QUICK = [f"{network}.{option}=1" for network in ("mlp", "gat") for option in ("max_epochs", "min_epochs")]


@pytest.fixture(scope="module")
def two_lines(small_screen, tmp_path_factory) -> tuple[Path, Path]:
    """Label tables from a simulated screen's truth; the second line's answers are the other way round."""
    truth = pd.read_parquet(small_screen.with_suffix(".truth.parquet"))
    truth = truth[truth["pert"] != truth["gene"]]
    size = truth["true_log2_fold_change"]
    strong = truth[size.abs() > 0.5].assign(label=(size > 0).astype(int))
    moved = truth.assign(label=(size.abs() > 0.5).astype(int))
    folder = tmp_path_factory.mktemp("lines")
    for task, table in (("de", moved), ("dir", strong)):
        genes = table["gene"].value_counts().index[:60]
        rows = table.loc[table["gene"].isin(genes), ["pert", "gene", "label"]]
        perts = sorted(rows["pert"].unique())
        rows = rows.assign(split=np.where(rows["pert"].isin(perts[::4]), "test", "train"))
        rows.to_parquet(folder / f"one-{task}.parquet")
        rows.assign(label=1 - rows["label"]).to_parquet(folder / f"two-{task}.parquet")
    return folder / "one", folder / "two"


@pytest.fixture(scope="module")
def benchmark(small_screen, prefect_api, tmp_path_factory):
    """Run the main job on label tables; gives workspace and result."""

    def run(*what: str | Path, workspace: Path | None = None) -> tuple[Path, dict]:
        workspace = workspace or tmp_path_factory.mktemp("fan-out")
        knowledge = small_screen.with_suffix(".knowledge")
        common = ["--knowledge", knowledge, "--draws", "20", "--workspace", workspace, "--json"]
        out = run_pqa("benchmark", *what, *common, environment={"PREFECT_API_URL": prefect_api})
        return workspace, json.loads(out)[0]

    return run


@pytest.fixture(scope="module")
def grid(two_lines, benchmark) -> tuple[Path, dict]:
    networks = ["--predictors", "mlp", "gat", "--grid", "--settings", *QUICK]
    return benchmark("--labels", two_lines[0], *networks)


@pytest.fixture(scope="module")
def tracks(two_lines, benchmark) -> tuple[Path, dict]:
    what = ["--tracks", "within", "across", "--predictors", "prior", "kernel", "--seeds", "2"]
    return benchmark("--labels", two_lines[0], "--also", two_lines[1], *what)


def test_the_whole_grid_stands_in_the_leaderboard(grid):
    sizes = [f"layers={layers} hidden={hidden}" for layers in (1, 2, 4, 8) for hidden in (64, 128, 256)]
    expected = {f"{network} {size}" for network in ("mlp", "gat") for size in sizes}
    for task in ("de", "dir"):
        assert {row["predictor"] for row in grid[1]["leaderboards"][task]} == expected


def test_the_best_of_the_grid_by_validation_is_a_registered_model(grid):
    workspace = grid[0]
    uri = f"sqlite:///{workspace / 'mlflow.db'}"
    version = MlflowClient(uri).get_model_version_by_alias("perturbqa-one-de", "best")
    children = [run for run in mlflow_runs(workspace) if run.data.tags.get("task") == "de"]
    assert len(children) == 24
    best = max(children, key=lambda run: run.data.metrics["validation_auroc"])
    assert float(version.tags["validation_auroc"]) == pytest.approx(
        best.data.metrics["validation_auroc"], abs=1e-4
    )
    assert version.tags["configuration"] == best.data.tags["configuration"]
    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model("models:/perturbqa-one-de@best")
    pairs = pd.read_parquet(next(workspace.glob("predictions/one-*/de.parquet"))).head(10)
    scores = model.predict(pairs[["pert", "gene"]].assign(task="de"))["score"]
    assert len(scores) == 10
    assert scores.between(0, 1).all()


def test_tracks_have_leaderboards_of_their_own(tracks):
    boards = tracks[1]["leaderboards"]
    assert set(boards) == {"de", "dir", "de-across", "dir-across"}
    scores = {name: {row["predictor"]: row["auroc"] for row in board} for name, board in boards.items()}
    # The other line's table says the opposite of the truth, of these very perturbations.
    assert scores["de-across"]["kernel"] < scores["de"]["kernel"]
    runs = {(run.info.run_name, run.data.tags.get("track")) for run in mlflow_runs(tracks[0])}
    assert {("kernel de", "within"), ("kernel de across", "across")} <= runs


def test_other_lines_tables_are_inputs_of_the_runs_that_learnt_from_them(tracks):
    for run in mlflow_runs(tracks[0]):
        names = {table.dataset.name for table in run.inputs.dataset_inputs}
        if run.data.tags.get("track") == "across" and run.data.tags["task"] == "de":
            assert "two-de-train" in names
        elif run.data.tags.get("track") == "within":
            assert not any(name.startswith("two") for name in names)


def test_the_page_of_errors_is_there_and_in_mlflow(tracks):
    page = Path(tracks[1]["report"]).with_name("errors.html").read_text()
    assert "Across lines, DE or not" in page
    files = MlflowClient(f"sqlite:///{tracks[0] / 'mlflow.db'}").list_artifacts(tracks[1]["mlflow_run"])
    assert {"report.html", "errors.html"} <= {file.path for file in files}


def test_a_job_that_fits_the_prior_alone_leaves_the_registered_model(tracks, two_lines, benchmark):
    workspace = tracks[0]
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")

    def best() -> tuple[str, str]:
        version = client.get_model_version_by_alias("perturbqa-one-de", "best")
        return version.version, version.tags["configuration"]

    before = best()
    assert before[1] == "kernel"
    benchmark("--labels", two_lines[0], "--predictors", "prior", workspace=workspace)
    assert best() == before
    benchmark("--labels", two_lines[1], "--predictors", "prior", workspace=workspace)
    assert not client.search_registered_models("name LIKE 'perturbqa-two%'")
