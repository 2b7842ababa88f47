"""SUMMER in the main job: one leaderboard, runs in MLflow, progress in Prefect, clusters named."""

from __future__ import annotations

import json
import random
import shutil

import pandas as pd
import pytest
import requests
from mlflow.tracking import MlflowClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import answer_questions as answering
from flows.label_sets import LabelSet
from flows.options import AnswerOptions, PredictorOptions, RunOptions
from storage.tracking import Tracker
from tests.flows.jobs import mlflow_runs, start_pqa
from tests.flows.test_answer_command import tables  # noqa: F401
from tests.language_models import Misdeed, ScriptedServer
from tests.waiting import LONG


@pytest.fixture(scope="module")
def job(tables, tmp_path_factory, prefect_api):  # noqa: F811
    """Workspace and error output of the main job with two variants, one of which fails."""
    folder = tmp_path_factory.mktemp("job")
    shutil.copy(tables / "line-de.parquet", folder / "line-de.parquet")
    clusters = folder / "clusters.json"
    clusters.write_text(json.dumps([{"genes": ["G00", "G01", "G02"], "label": "first genes"}]))

    def script(body, number):
        system = body["messages"][0]["content"]
        if "cluster" in system:
            return "Overview: a ring.\nUpstream: none.\nName: first genes of a ring"
        if "few sentences" not in system:
            return Misdeed("status", 400)
        return f"Final answer: {random.Random(body['seed']).choice(['yes', 'no', 'insufficient evidence'])}"

    with ScriptedServer(script) as server:
        process = start_pqa(
            *("benchmark", "--labels", folder / "line", "--knowledge", tables / "knowledge"),
            *("--predictors", "prior", "--draws", "50", "--engine", "openai", "--model", "tiny"),
            *("--base-url", server.url, "--variants", "full", "no-reasoning", "--pert-clusters", clusters),
            *("--workspace", folder / "w"),
            environment={"PREFECT_API_URL": prefect_api},
        )
        _, err = process.communicate(timeout=LONG)
    assert process.returncode == 1
    return folder / "w", err


def test_the_model_stands_in_the_leaderboard_beside_the_predictors(job):
    workspace, _ = job
    board = pd.read_parquet(next(workspace.glob("comparisons/line-*/leaderboard-de.parquet")))
    assert set(board["predictor"]) == {"prior", "summer"}
    assert set(board["n_pairs"]) == {50}
    page = next(workspace.glob("comparisons/line-*/report.html")).read_text()
    assert "SUMMER with tiny" in page
    assert "condensed by rule" in page


def test_a_variant_that_fails_fails_alone_and_is_said_to(job):
    _, err = job
    assert "1 of 3 predictors failed" in err
    assert "summer-no-reasoning on line" in err.splitlines()[-1]
    assert "requests failed, more than" in err.splitlines()[-1]


def test_a_variant_that_cannot_be_logged_fails_alone_and_is_tried_again(
    tables,  # noqa: F811
    tmp_path,
    prefect_api,
    monkeypatch,
):
    tried = []

    def log(tracker, labels, variant, *_, **__):
        tried.append(variant)
        if variant == "full" or tried.count(variant) == 1:
            raise ConnectionError(f"MLflow does not answer ({variant})")

    monkeypatch.setattr(answering, "track_answers", log)
    monkeypatch.setattr(answering, "log_variant", answering.log_variant.with_options(retry_delay_seconds=0))
    tracker = Tracker(None, workspace=tmp_path / "w", experiment="answers")
    with ScriptedServer(lambda body, number: "Final answer: yes") as server:
        variants = ("full", "no-reasoning")
        options = {"engine": "openai", "model": "tiny", "base_url": (server.url,), "variants": variants}
        with temporary_settings({PREFECT_API_URL: prefect_api}):
            answered = answering.answer_questions(
                LabelSet.of_stem(str(tables / "line")),
                tables / "knowledge",
                tracker,
                tracker.open_run("job", "job"),
                options=AnswerOptions(**options, votes=1),
                predict=PredictorOptions(draws=20),
                run=RunOptions(workspace=tmp_path / "w"),
            )
    assert tried == ["full"] * 3 + ["no-reasoning"] * 2
    assert answered.failed.keys() == {"summer"}
    assert "MLflow does not answer (full)" in answered.failed["summer"]
    assert answered.predictions.keys() == answered.scores.keys() == {"summer-no-reasoning"}


def test_summaries_that_fail_leave_the_other_predictors_their_leaderboard(tables, tmp_path, prefect_api):  # noqa: F811
    shutil.copy(tables / "line-de.parquet", tmp_path / "mute-de.parquet")
    with ScriptedServer(lambda body, number: Misdeed("status", 400)) as server:
        process = start_pqa(
            *("benchmark", "--labels", tmp_path / "mute", "--knowledge", tables / "knowledge"),
            *("--predictors", "prior", "--draws", "50", "--engine", "openai", "--model", "tiny"),
            *("--base-url", server.url, "--summaries", "engine", "--workspace", tmp_path / "w"),
            environment={"PREFECT_API_URL": prefect_api},
        )
        _, err = process.communicate(timeout=LONG)
    assert process.returncode == 1
    assert "1 of 2 predictors failed" in err
    assert "summer on mute: " in err
    (board,) = (tmp_path / "w" / "comparisons").glob("mute-*/leaderboard-de.parquet")
    assert pd.read_parquet(board)["predictor"].tolist() == ["prior"]


def test_the_budget_is_the_whole_job_s(tables, tmp_path, prefect_api):  # noqa: F811
    for name in ("one", "two"):
        shutil.copy(tables / "line-de.parquet", tmp_path / f"{name}-de.parquet")
    labels = pd.read_parquet(tmp_path / "two-de.parquet")
    labels.iloc[::-1].to_parquet(tmp_path / "two-de.parquet")
    with ScriptedServer(lambda body, number: "Final answer: yes") as server:
        process = start_pqa(
            *("benchmark", "--labels", tmp_path / "one", tmp_path / "two"),
            *("--knowledge", tables / "knowledge", "--predictors", "prior", "--draws", "50"),
            *("--engine", "openai", "--model", "tiny"),
            *("--base-url", server.url, "--concurrency", "1", "--token-budget", "2000"),
            *("--workspace", tmp_path / "w"),
            environment={"PREFECT_API_URL": prefect_api},
        )
        _, err = process.communicate(timeout=LONG)
        tokens = sum(len(turn["content"]) // 4 for body in server.bodies for turn in body["messages"])
    assert process.returncode == 1
    assert "2 of 4 predictors failed" in err
    assert err.count("is used up") >= 2
    # One question more than the budget may have been under way, not a second budget.
    assert 1000 < tokens < 6000, tokens


def test_mlflow_has_a_run_for_each_variant_with_rates_tokens_and_questions_to_read(job):
    workspace, _ = job
    runs = {run.info.run_name: run for run in mlflow_runs(workspace) if run.info.status == "FINISHED"}
    run = runs["summer de"]
    assert run.data.tags["mlflow.parentRunId"] == runs["benchmark line"].info.run_id
    assert {"auroc", "auroc_low", "auroc_answered_only", "rate_insufficient", "rate_unparsed"} <= set(
        run.data.metrics
    )
    assert run.data.metrics["requests_done"] == run.data.metrics["requests_requested"] == 150
    assert run.data.metrics["prompt_tokens"] > 0
    assert len(run.data.params["prompts_digest"]) == 64
    assert run.data.params["temperature"] == "0.6"
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    assert "sampled-de.json" in {file.path for file in client.list_artifacts(run.info.run_id)}
    table = json.loads(
        (workspace / client.download_artifacts(run.info.run_id, "sampled-de.json")).read_text()
    )
    assert {"prompt", "answer_1", "vote_3", "truth"} <= set(table["columns"])
    assert len(table["data"]) == 50
    assert {"clusters: summer", "clusters: over-representation"} <= set(runs)
    assert runs["clusters: summer"].data.metrics["rouge1_recall"] == 1


def test_prefect_shows_stages_and_progress_in_questions(job, prefect_api):
    runs = requests.post(f"{prefect_api}/flow_runs/filter", json={}, timeout=LONG).json()
    states = {run["name"]: run["state_type"] for run in runs}
    names = ("answer line", "retrieve for line", "name clusters of genes")
    assert {states[name] for name in names} == {"COMPLETED"}
    query = {"artifacts": {"type": {"any_": ["progress"]}}}
    found = requests.post(f"{prefect_api}/artifacts/filter", json=query, timeout=LONG).json()
    assert any("150 of 150 questions x votes" in artifact["description"] for artifact in found)
