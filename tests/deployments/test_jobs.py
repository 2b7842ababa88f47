"""Every form of `pqa up` run to its end on small data, and what Prefect and MLflow then show of it."""

from __future__ import annotations

import base64
import json
import random
import re
import struct
import subprocess
import sys

import pytest
import yaml

from tests.deployments.served import KNOWN, LONG, QUICK, ROOT, Up, wait_for
from tests.language_models import ScriptedServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * LONG)]


def says(body: dict, _number: int) -> str:
    """A language model that answers as its seed says, and calls every cluster the same."""
    if "cluster" in body["messages"][0]["content"]:
        return "Overview: a ring.\nUpstream: none.\nName: genes after a ring"
    return f"Final answer: {random.Random(body['seed']).choice(['yes', 'no', 'insufficient evidence'])}"


@pytest.fixture(scope="module")
def jobs(up: Up, pressed, compared) -> dict[str, dict]:
    """One run of every form beside *label a screen*, when all have ended."""
    assert up.end_of(pressed["good"])["state"]["type"] == "COMPLETED"

    def offered() -> list[str]:
        schema = up.deployment("train predictors")["parameter_openapi_schema"]
        return [name for name in schema["properties"]["data_set"]["enum"] if name.startswith("made/small-")]

    made = wait_for(offered)[0]
    with ScriptedServer(says) as server:
        model = {"engine": "openai", "model": "tiny", "base_url": [server.url], "votes": 1}
        started = {
            "train": up.start("train predictors", data_set=made, knowledge=KNOWN, predict=QUICK),
            "answer": up.start("answer questions", data_set="tables/line", knowledge=KNOWN, answer=model),
            "enrich": up.start(
                "enrich gene sets", knowledge=KNOWN, answer={"gene_clusters": ["clusters.json"]}
            ),
            "name": up.start(
                "enrich gene sets", knowledge=KNOWN, answer=model | {"pert_clusters": ["clusters.json"]}
            ),
        }
        ended = {what: up.end_of(run) for what, run in started.items()}
        assert server.bodies
    return ended | {"benchmark": compared}


@pytest.fixture(scope="module")
def redone(up: Up, jobs) -> dict:
    """The benchmark of before, from its predictions on."""
    given = jobs["benchmark"]["parameters"] | {"again": ["predictions"]}
    return up.end_of(up.start("benchmark", **given))


def finished(up: Up, experiment: str) -> list[dict]:
    """An experiment's runs, all at their end: id, name, metrics."""
    found = up.runs_of(experiment)
    assert {run["info"]["status"] for run in found} == {"FINISHED"}
    return [
        {"id": run["info"]["run_id"], "name": run["info"]["run_name"]}
        | {"metrics": {one["key"]: one["value"] for one in run["data"].get("metrics", ())}}
        for run in found
    ]


def metrics_of(up: Up, experiment: str, name: str) -> dict[str, float]:
    """Metrics of the newest run of a name."""
    return next(run["metrics"] for run in finished(up, experiment) if run["name"] == name)


def rows(artifact: dict) -> list[dict]:
    """A table artifact's rows."""
    return json.loads(artifact["data"])


@pytest.mark.parametrize("what", ["train", "answer", "enrich", "name", "benchmark"])
def test_every_form_ends_completed(jobs, what):
    assert jobs[what]["state"]["type"] == "COMPLETED", jobs[what]["state"]


def test_trained_predictors_are_in_mlflow_with_their_scores_and_on_the_runs_page(up: Up, jobs):
    for predictor in ("prior", "retrieval", "gat"):
        for task in ("de", "dir"):
            metrics = metrics_of(up, "perturbqa-small", f"{predictor} {task}")
            assert {"auroc", "auroc_low", "auroc_high", "pooled_auprc", "fit_seconds"} <= metrics.keys()
    artifacts = up.artifacts(jobs["train"]["id"])
    board = {row["predictor"]: row["auroc"] for row in rows(artifacts["leaderboard-small-de"])}
    assert board.keys() == {"prior", "retrieval", "gat"}
    assert board["prior"] == pytest.approx(0.5)


def test_answers_are_in_mlflow_with_their_rates_and_in_the_leaderboard(up: Up, jobs):
    for task in ("de", "dir"):
        metrics = metrics_of(up, "perturbqa-line", f"summer {task}")
        assert metrics["requests_done"] == metrics["requests_requested"] > 10
        assert {"auroc", "rate_insufficient", "prompt_tokens"} <= metrics.keys()
    board = rows(up.artifacts(jobs["answer"]["id"])["leaderboard-line-de"])
    assert {row["predictor"] for row in board} == {"prior", "summer"}


def test_clusters_are_named_by_their_terms_and_by_the_model(up: Up, jobs):
    recall = {
        method: metrics_of(up, "gene-set-enrichment", f"clusters: {method}")["rouge1_recall"]
        for method in ("over-representation", "summer")
    }
    assert recall["over-representation"] == 1
    assert 0 < recall["summer"] < 1
    methods = {
        what: {row["clusters and method"] for row in rows(up.artifacts(jobs[what]["id"])["enrichment"])}
        for what in ("enrich", "name")
    }
    assert methods["enrich"] == {"clusters: over-representation"}
    assert methods["name"] == {"clusters: over-representation", "clusters: summer"}
    names = rows(up.artifacts(jobs["enrich"]["id"])["cluster-names"])
    assert len(names) == 3
    assert all(row["name"] == row["label"] != "" for row in names)


def test_naming_nothing_is_refused_at_once(up: Up):
    run = up.end_of(up.start("enrich gene sets", knowledge=KNOWN))
    assert run["state"]["type"] == "FAILED"
    assert "no clusters are chosen" in run["state"]["message"]


def test_figures_are_on_the_runs_page_and_files_of_the_mlflow_run(up: Up, jobs, pressed):
    seen = r"!\[(.*?)\]\(data:image/png;base64,(.*?)\)"
    drawn = {
        name: base64.b64decode(content)
        for run in (jobs["benchmark"]["id"], pressed["good"])
        for name, content in re.findall(seen, up.artifacts(run)["figures-small"]["data"])
    }
    assert drawn.keys() == {"leaderboard-de", "leaderboard-dir", "knock-down", "calibration"}
    for content in drawn.values():
        assert content.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", content[16:24])
        assert width > 1000
        assert height > 200
    page = up.artifacts(jobs["benchmark"]["id"])["report-small"]["data"]
    (run,) = (one for one in finished(up, "perturbqa-small") if one["id"] in page)
    assert run["name"] == "benchmark small"
    listed = up.get_mlflow("api/2.0/mlflow/artifacts/list", run_id=run["id"], path="figures").json()
    assert {one["path"] for one in listed["files"]} == {f"figures/{name}.png" for name in drawn}


def test_the_best_by_validation_is_a_registered_model(up: Up, jobs):
    address = "api/2.0/mlflow/registered-models/alias"
    version = up.get_mlflow(address, name="perturbqa-small-de", alias="best").json()["model_version"]
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert tags["configuration"] in {"prior", "retrieval", "gat"}
    assert 0 <= float(tags["validation_auroc"]) <= 1
    runs = {one["id"]: one["name"] for one in finished(up, "perturbqa-small")}
    assert runs[version["run_id"]] == f"{tags['configuration']} de"
    where = {"name": "perturbqa-small-de", "version": version["version"], "path": "MLmodel"}
    signature = yaml.safe_load(up.get_mlflow("model-versions/get-artifact", **where).text)["signature"]
    assert {entry["name"] for entry in json.loads(signature["inputs"])} == {"pert", "gene", "task"}
    assert [entry["name"] for entry in json.loads(signature["outputs"])] == ["score"]


def test_a_registered_model_is_loaded_the_way_that_is_told(up: Up, jobs, data_folder):
    told = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "pressing-run.md").read_text(), re.S)[1]
    script = told.replace("http://127.0.0.1:5000", up.mlflow).replace("NAME", "small")
    perturbation, gene = "SIM0013", "SIM0001"
    script = script.replace("STAT1", perturbation).replace("IRF1", gene) + "\nprint(len(scores))\n"
    how = {"cwd": data_folder, "capture_output": True, "text": True, "timeout": LONG}
    done = subprocess.run([sys.executable, "-c", script], **how)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "1"


def test_a_stage_is_done_again_where_the_form_says_so_and_the_ledger_says_why(up: Up, jobs, redone):
    assert redone["state"]["type"] == "COMPLETED", redone["state"]
    first, second = (
        {(row["stage"], row["name"]): row for row in rows(up.artifacts(run["id"])["ledger-small"])}
        for run in (jobs["benchmark"], redone)
    )
    assert first.keys() == second.keys()
    for (stage, _), row in second.items():
        if stage == "predictions":
            assert (row["status"], row["why"]) == ("done", "asked for again")
        else:
            # The predictions came out as before: nothing after them has to be done again.
            assert row["status"] == "skipped"
            assert "with the same inputs, options and code" in row["why"]
    assert {row["status"] for row in first.values()} == {"done"}
