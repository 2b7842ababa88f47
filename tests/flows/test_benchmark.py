"""The main job as its users see it: standard output, Prefect's pages, MLflow's runs, the report."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from mlflow.tracking import MlflowClient

from tests.flows.jobs import mlflow_runs, run_pqa, start_pqa
from tests.waiting import LONG

PREDICTORS = {"prior", "physical", "retrieval", "gat"}


@pytest.fixture(scope="module")
def result(undisturbed) -> dict:
    return json.loads(undisturbed[1])[0]


@pytest.fixture(scope="module")
def label_stem(undisturbed, tmp_path_factory) -> Path:
    """The labels made by the main job, in the layout of published tables."""
    folder = next((undisturbed[0] / "labels").glob("small-*"))
    stem = tmp_path_factory.mktemp("tables") / "line"
    for task in ("de", "dir"):
        shutil.copy(folder / f"{task}.parquet", f"{stem}-{task}.parquet")
    return stem


def artifacts(api: str, kind: str) -> dict[str, dict]:
    query = {"artifacts": {"type": {"any_": [kind]}}}
    found = requests.post(f"{api}/artifacts/filter", json=query, timeout=LONG)
    return {artifact["key"] or artifact["description"]: artifact for artifact in found.json()}


def test_standard_output_is_json_with_both_leaderboards(result):
    assert set(result["leaderboards"]) == {"de", "dir"}
    for board in result["leaderboards"].values():
        assert {row["predictor"] for row in board} == PREDICTORS
        assert all(row["auroc_low"] <= row["auroc"] <= row["auroc_high"] for row in board)


def test_the_planted_network_lets_retrieval_beat_the_gene_prior(result):
    board = {row["predictor"]: row["auroc"] for row in result["leaderboards"]["de"]}
    assert board["prior"] == pytest.approx(0.5)
    assert board["retrieval"] > 0.65


def test_prefect_shows_the_runs_and_what_came_of_them(result, prefect_api):
    runs = requests.post(f"{prefect_api}/flow_runs/filter", json={}, timeout=LONG).json()
    states = {run["name"]: run["state_type"] for run in runs}
    assert {states["label small"], states["train on small"], states["benchmark small"]} == {"COMPLETED"}
    tables = artifacts(prefect_api, "table")
    ledger = json.loads(tables["ledger-small-labels"]["data"])
    stages = {"screens", "quality", "pseudobulk", "tests", "agreement", "labels"}
    assert {row["stage"] for row in ledger} == stages
    assert all(row["status"] in {"done", "skipped"} and row["why"] for row in ledger)
    assert {"leaderboard-small-de", "leaderboard-small-dir", "quality-small"} <= set(tables)
    progress = artifacts(prefect_api, "progress")
    assert any("gene blocks" in words for words in progress)
    assert any("epochs" in words for words in progress)


def test_mlflow_has_one_parent_and_a_child_for_each_predictor_and_task(undisturbed, result):
    runs = mlflow_runs(undisturbed[0])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {result["mlflow_run"]}
    expected = {f"{predictor} {task}" for predictor in PREDICTORS for task in ("de", "dir")}
    assert sorted(run.info.run_name for run in children) == sorted(expected)
    for run in children:
        assert {"auroc", "auroc_low", "pooled_auprc", "fit_seconds"} <= set(run.data.metrics)
        assert {"predictor", "task", "data_set"} <= set(run.data.params)
        assert {table.dataset.digest for table in run.inputs.dataset_inputs}
    parent = next(run for run in runs if run.info.run_id == result["mlflow_run"])
    assert "| retrieval |" in parent.data.tags["mlflow.note.content"]
    assert "null_share_p_below_05" in parent.data.metrics


@pytest.mark.parametrize("predictor", sorted(PREDICTORS))
def test_a_logged_model_loads_and_scores_pairs_as_the_run_did(undisturbed, predictor):
    workspace = undisturbed[0]
    run = next(r for r in mlflow_runs(workspace) if r.info.run_name == f"{predictor} de")
    mlflow.set_tracking_uri(f"sqlite:///{workspace / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    expected = pd.read_parquet(next(workspace.glob(f"predictions/small-{predictor}-*/de.parquet"))).head(40)
    scores = model.predict(expected[["pert", "gene"]].assign(task="de"))["score"]
    # Matrix products of another size differ in their last float32 bits.
    np.testing.assert_allclose(scores.to_numpy(), expected["score"].to_numpy(), rtol=1e-5)


@pytest.fixture
def mlflow_server(tmp_path):
    """A real tracking server with artifacts of its own; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        f"{tmp_path}/kept",
    ]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *store]
    settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=os.environ | settings, **quiet)
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"http://127.0.0.1:{port}/health", timeout=2).ok:
                break
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


def test_given_label_tables_and_an_mlflow_server_give_the_same_scores_as_the_job_that_made_them(
    tmp_path, label_stem, small_screen, result, prefect_api, mlflow_server
):
    out = run_pqa(
        *("benchmark", "--labels", label_stem, "--knowledge", small_screen.with_suffix(".knowledge")),
        *("--predictors", "physical", "retrieval", "--draws", "50", "--workspace", tmp_path / "w", "--json"),
        *("--mlflow", mlflow_server),
        environment={"PREFECT_API_URL": prefect_api},
    )
    given = {row["predictor"]: row["auroc"] for row in json.loads(out)[0]["leaderboards"]["de"]}
    made = {row["predictor"]: row["auroc"] for row in result["leaderboards"]["de"]}
    assert given == {name: made[name] for name in given}
    assert not (tmp_path / "w" / "mlflow.db").exists()
    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name("perturbqa-line")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 5
    assert {run.info.status for run in runs} == {"FINISHED"}
    parent = json.loads(out)[0]["mlflow_run"]
    assert "report.html" in {file.path for file in client.list_artifacts(parent)}


def test_a_predictor_that_fails_fails_alone_and_unknown_test_labels_are_not_scored(
    tmp_path, label_stem, small_screen, prefect_api
):
    stem = tmp_path / "blind"
    for task in ("de", "dir"):
        table = pd.read_parquet(f"{label_stem}-{task}.parquet")
        table["label"] = table["label"].mask(table["split"] == "test") if task == "dir" else table["label"]
        table.to_parquet(f"{stem}-{task}.parquet")
    process = start_pqa(
        *("benchmark", "--labels", stem, "--knowledge", small_screen.with_suffix(".knowledge")),
        *("--predictors", "prior", "gat", "--device", "cuda", "--draws", "50", "--workspace", tmp_path / "w"),
        environment={"PREFECT_API_URL": prefect_api, "CUDA_VISIBLE_DEVICES": ""},
    )
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == 1
    assert "1 of 2 predictors failed" in err.splitlines()[-2]
    assert "gat on blind" in err.splitlines()[-1]
    comparison = next((tmp_path / "w" / "comparisons").glob("blind-*"))
    assert (comparison / "leaderboard-de.parquet").is_file()
    assert not (comparison / "leaderboard-dir.parquet").exists()
    page = (comparison / "report.html").read_text()
    assert "Task dir not scored" in page
    assert "gat failed" in page
    assert len(list((tmp_path / "w" / "predictions").glob("blind-prior-*/dir.parquet"))) == 1


def test_a_job_none_of_whose_predictors_works_fails_in_mlflow_too(
    tmp_path, label_stem, small_screen, prefect_api
):
    process = start_pqa(
        *("benchmark", "--labels", label_stem, "--knowledge", small_screen.with_suffix(".knowledge")),
        *("--predictors", "gat", "--device", "cuda", "--workspace", tmp_path),
        environment={"PREFECT_API_URL": prefect_api, "CUDA_VISIBLE_DEVICES": ""},
    )
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == 1
    assert "gat failed" in err
    assert [run.info.status for run in mlflow_runs(tmp_path)] == ["FAILED"]


def test_servers_that_do_not_answer_are_said_before_anything_is_computed(tmp_path, label_stem, small_screen):
    process = start_pqa(
        *("benchmark", "--labels", label_stem, "--knowledge", small_screen.with_suffix(".knowledge")),
        *("--mlflow", "http://127.0.0.1:9", "--workspace", tmp_path / "w"),
        environment={"PREFECT_API_URL": "http://127.0.0.1:10/api"},
    )
    out, err = process.communicate(timeout=LONG)
    assert (process.returncode, out) == (1, "")
    first, *problems = err.splitlines()
    assert first == "pqa benchmark: servers: 2 problems"
    assert "--mlflow: nothing answers at http://127.0.0.1:9" in problems[0]
    assert "PREFECT_API_URL: nothing answers at http://127.0.0.1:10/api" in problems[1]
    assert not (tmp_path / "w" / "mlflow.db").exists()


def test_everything_wrong_with_the_inputs_is_in_one_message(tmp_path, capsys):
    from flows.__main__ import main

    bad = tmp_path / "bad-de.parquet"
    pd.DataFrame({"pert": ["A"], "gene": ["B"], "label": [7], "split": ["training"]}).to_parquet(bad)
    arguments = ["benchmark", "--labels", str(tmp_path / "bad"), str(tmp_path / "nowhere")]
    process = start_pqa(*arguments, "--workspace", tmp_path / "w")
    out, err = process.communicate(timeout=LONG)
    assert process.returncode == 1
    assert out == ""
    for words in (
        "labels must be 0, 1 or missing",
        "split must be",
        "nowhere-de.parquet",
        "--knowledge is needed",
    ):
        assert words in err
    assert "Traceback" not in err
    assert not (tmp_path / "w" / "mlflow.db").exists()
    assert main(["benchmark", "--workers", "0", "--fdr", "2", "--workspace", str(tmp_path / "w")]) == 1
    err = capsys.readouterr().err
    assert "--workers" in err
    assert "--fdr" in err


def test_the_report_reads_in_a_browser_without_a_network(result):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium on this machine; Debian's package is enough")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    command = [browser, *flags, "--dump-dom", Path(result["report"]).as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=True).stdout
    for words in ("DE or not: scores", "Up or down: scores", "Knock-down", "retrieval", "SUMMER skipped"):
        assert words in page
