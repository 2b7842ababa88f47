"""`pqa up` with real servers: what a person, a schedule and a killed service do to it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import psutil
import pytest
import requests
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Scheduled

from deployments.server_state import NOTIFY_BLOCK, cancel_missed, notify_of_failures
from tests.deployments.served import LONG, Up, free_ports, listening, port_words, start_up, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * LONG)]
NAMES = {
    "label a screen",
    "benchmark",
    "train predictors",
    "answer questions",
    "enrich gene sets",
    "new screens",
}


def test_everything_is_served_and_says_where(up: Up):
    found = {entry["name"]: entry for entry in up.ask("deployments/filter")}
    assert found.keys() == NAMES
    assert all("pqa" in entry["tags"] and "version-0.1.0" in entry["tags"] for entry in found.values())
    assert all(len(entry["description"]) > 100 for entry in found.values())
    printed = "".join(up.said)
    for address in (up.prefect, up.mlflow, f"127.0.0.1:{up.ports[3]}", str(up.workspace / "inbox")):
        assert address in printed
    assert (
        requests.get(f"http://127.0.0.1:{up.ports[3]}/json/counts.json", timeout=200).json()["workers"] == 1
    )
    for service in ("prefect", "mlflow", "dask-scheduler", "dask-workers", "deployments"):
        assert (up.workspace / "logs" / f"{service}.log").stat().st_size > 0


def test_only_one_at_a_time_of_what_must_not_pile_up(up: Up):
    limits = {
        entry["name"]: (entry["global_concurrency_limit"]["limit"], entry["concurrency_options"])
        for entry in up.ask("deployments/filter")
    }
    assert limits["new screens"] == (1, {"collision_strategy": "CANCEL_NEW", "grace_period_seconds": None})
    assert limits["benchmark"][0] == 1
    gpu = up.call("GET", "v2/concurrency_limits/pqa-gpu").json()
    assert (gpu["limit"], gpu["active"]) == (1, True)


def test_schedules_make_runs_and_the_nightly_one_waits_to_be_switched_on(up: Up):
    (hourly,) = up.deployment("new screens")["schedules"]
    (nightly,) = up.deployment("benchmark")["schedules"]
    assert (hourly["active"], nightly["active"]) == (True, False)

    def planned(name: str) -> list:
        wanted = {"state": {"type": {"any_": ["SCHEDULED"]}}}
        runs = up.ask("flow_runs/filter", flow_runs=wanted, deployments={"name": {"any_": [name]}})
        return [run for run in runs if run["auto_scheduled"]]

    assert wait_for(lambda: planned("new screens"))
    assert not planned("benchmark")


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        ("label a screen", {"screen": "nowhere"}, "'nowhere' is not one of ['embedded', 'small'"),
        ("label a screen", {"quality": {"min_cells": 0}}, "0 is less than the minimum of 2"),
        ("label a screen", {"expression": {"test": "anova"}}, "'anova' is not one of"),
        ("benchmark", {"knowledge": {"knowledge": "nowhere"}}, "'nowhere' is not one of"),
        ("train predictors", {}, "data_set"),
    ],
)
def test_a_wrong_value_is_refused_by_the_form(up: Up, name, wrong, told):
    answer = up.press_run(name, **wrong)
    assert answer.status_code == 409
    assert told in answer.json()["detail"]


def test_a_run_from_the_form_ends_completed_and_appears_in_mlflow(up: Up, pressed):
    run = up.end_of(pressed["good"])
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert run["name"] == "label small"
    artifacts = up.artifacts(pressed["good"])
    ledger = json.loads(artifacts["ledger-small-labels"]["data"])
    assert {"screens", "quality", "tests", "labels"} <= {row["stage"] for row in ledger}
    # Another run may have labelled this screen before, with the same options or with others.
    reasons = ("not done before", "since the last time: ", "an earlier run finished it on ")
    assert all(row["why"].startswith(reasons) for row in ledger)
    assert f"{up.ports[3]}/status" in artifacts["while-it-runs"]["data"]
    page = artifacts["report-small"]["data"]
    assert f"{up.mlflow}/#/experiments/" in page
    (tracked,) = [run for run in up.runs_of("perturbqa-screens") if run["info"]["run_id"] in page]
    assert tracked["info"]["run_name"] == "small wilcoxon"
    assert {metric["key"] for metric in tracked["data"]["metrics"]} >= {"cells", "labels_de"}
    address = f"{up.mlflow}/get-artifact?run_uuid={tracked['info']['run_id']}&path=report-name"
    name = page.rpartition("/")[2].partition("?")[0]
    report = requests.get(address.replace("report-name", name), timeout=200)
    assert report.ok
    assert "Knock-down" in report.text
    genes = requests.get(address.replace("report-name", "de-genes.csv"), timeout=200).text.splitlines()
    assert genes[0].startswith("perturbation,gene,")
    called = next(metric["value"] for metric in tracked["data"]["metrics"] if metric["key"] == "labels_dir")
    assert len(genes) > called > 0


def test_a_run_with_a_wrong_name_fails_at_once_with_its_reason_and_somebody_is_told(up: Up, pressed):
    run = up.end_of(pressed["bad"])
    assert run["state"]["type"] == "FAILED"
    assert "nobody" in run["state"]["message"]
    assert "non-targeting" in run["state"]["message"]
    assert run["total_run_time"] < 60
    told = wait_for(lambda: [one for one in up.told if pressed["bad"] in one["body"]], 240)[0]
    assert "Failed" in told["subject"]
    assert f"{up.prefect}/runs/flow-run/{pressed['bad']}" in told["body"]
    assert "nobody" in told["body"]


def test_a_slack_block_made_in_prefect_is_told(up: Up, pressed):
    told: list[dict] = []
    api = f"{up.prefect}/api"
    with listening(told) as address, _client(up) as client, temporary_settings({PREFECT_API_URL: api}):
        # Nothing but Slack is at Slack's address: the block is given one of the same family instead.
        SlackWebhook(url=address.replace("http://", "json://")).save("lab")
        try:
            notify_of_failures(client, "slack-webhook/lab", up.prefect)
            run = up.start("label a screen", screen="small", columns={"control": "nobody"})
            assert up.end_of(run)["state"]["type"] == "FAILED"
            # Other runs may fail meanwhile, and are told too.
            message = wait_for(lambda: [one for one in told if run in one["message"]], 240)[0]
        finally:
            notify_of_failures(client, up.notify, up.prefect)
    assert message["title"].endswith(": Failed")
    assert f"{up.prefect}/runs/flow-run/{run}" in message["message"]
    assert "nobody" in message["message"]


def test_a_slack_address_becomes_a_slack_block(up: Up):
    secret = "https://hooks.slack.com/services/T0123/B0123/c0ffee"
    with _client(up) as client, temporary_settings({PREFECT_API_URL: f"{up.prefect}/api"}):
        try:
            notify_of_failures(client, secret, up.prefect)
            block = SlackWebhook.load(NOTIFY_BLOCK)
        finally:
            notify_of_failures(client, up.notify, up.prefect)
    assert block.url.get_secret_value() == secret


def test_new_files_are_labelled_once_and_half_written_ones_left_alone(up: Up, pressed):
    run = up.end_of(pressed["inbox"])
    assert run["state"]["type"] == "FAILED"
    assert "broken.h5ad: " in run["state"]["message"]
    assert "not HDF5" in run["state"]["message"]
    table = up.artifacts(pressed["inbox"])["new-screens"]["data"]
    assert table.count('"labelled"') == 1
    assert "half" not in table
    names = [run["info"]["run_name"] for run in up.runs_of("perturbqa-screens")]
    assert names.count("arrived wilcoxon") == 1


def test_a_new_screen_is_offered_without_a_restart(up: Up, pressed):
    def offered() -> bool:
        schema = up.deployment("label a screen")["parameter_openapi_schema"]
        return "inbox/arrived" in schema["properties"]["screen"]["enum"]

    assert wait_for(offered)


def test_services_that_are_killed_are_reported_and_restarted_and_runs_are_not_left_running(up: Up, pressed):
    for run in pressed.values():
        up.end_of(run)
    # Somebody has switched the nightly benchmark on: it stays on.
    benchmark = up.deployment("benchmark")
    schedule = f"deployments/{benchmark['id']}/schedules/{benchmark['schedules'][0]['id']}"
    assert up.call("PATCH", schedule, json={"active": True}).ok
    run = up.start("benchmark")
    wait_for(lambda: up.state(run) == "RUNNING")
    up.service("deployments.serve").kill()
    up.service("mlflow server").kill()
    for service in ("mlflow", "deployments"):
        wait_for(lambda service=service: any(f"{service} is running again" in line for line in up.said))
        assert any(f"{service} has stopped" in line and f"{service}.log" in line for line in up.said)
    ended = up.end_of(run)
    assert ended["state"]["type"] == "CRASHED"
    assert "Retry" in ended["state"]["message"]
    # Nothing computes on behind its back: psutil gives None for what is gone by then.
    assert not [one for one in psutil.process_iter(["environ"]) if run in str(one.info["environ"])]
    assert "perturbqa-screens" in up.on_experiments()
    assert up.deployment("benchmark")["schedules"][0]["active"] is True


def test_a_late_run_that_was_asked_for_is_done_and_finds_nothing_new(up: Up, pressed):
    with _client(up) as client:
        deployment = up.deployment("new screens")["id"]
        late = client.create_flow_run_from_deployment(
            deployment, state=Scheduled(scheduled_time=datetime.now(UTC) - timedelta(hours=5)), tags=["late"]
        )
        # Only what a schedule has made is skipped: this one was asked for, and is done late.
        assert cancel_missed(client) == 0
        # In two hours and a half, two hourly looks will have been missed.
        wait_for(lambda: cancel_missed(client, datetime.now(UTC) + timedelta(hours=2.5)) >= 2)
    # Nothing has changed: the second look does nothing, and what failed is not tried again.
    assert up.end_of(str(late.id))["state"]["type"] == "COMPLETED"
    names = [run["info"]["run_name"] for run in up.runs_of("perturbqa-screens")]
    assert names.count("arrived wilcoxon") == 1


def test_a_second_one_on_the_workspace_is_refused(up: Up):
    process = start_up("--workspace", up.workspace, *port_words(free_ports(4)))
    said, _ = process.communicate(timeout=LONG)
    assert process.returncode == 1
    assert "another `pqa up` or a job has this workspace" in said


def test_ports_in_use_and_other_hosts_are_said_before_anything_starts(up: Up, tmp_path):
    ports = [up.ports[0], up.ports[1], *free_ports(2)]
    words = ["--workspace", tmp_path / "other", *port_words(ports)]
    said, _ = start_up(*words).communicate(timeout=LONG)
    assert f"port {ports[0]} of 127.0.0.1 cannot be used" in said
    assert "--mlflow-port" in said
    assert not (tmp_path / "other" / "logs").exists()
    said, _ = start_up("--workspace", tmp_path / "other", "--host", "0.0.0.0").communicate(timeout=LONG)
    assert "no login" in said
    assert "--expose" in said


def test_no_service_reports_usage(up: Up):
    environments = {
        name: up.service(name).environ() for name in ("deployments.prefect_server", "mlflow server")
    }
    for environment in environments.values():
        assert environment["DO_NOT_TRACK"] == "1"
        assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    told = requests.get(f"{up.mlflow}/ajax-api/3.0/mlflow/ui-telemetry", timeout=200).json()
    assert told["disable_ui_telemetry"] is True


def _client(up: Up) -> SyncPrefectClient:
    return SyncPrefectClient(f"{up.prefect}/api")
