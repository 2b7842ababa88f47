"""Files for machines that are not here: each is loaded, checked, and used as far as it goes."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys

import pytest
import requests
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.events.schemas.automations import AutomationCore
from prefect.flows import load_flow_from_entrypoint

from deployments.factory import DEPLOYMENTS, schedules_of
from deployments.settings import ServiceSettings
from flows.up_options import UpOptions
from tests.deployments.served import ROOT
from tests.flows.conftest import prefect_api  # noqa: F401

FOLDER = ROOT / "deployments"
POOL = yaml.safe_load((FOLDER / "prefect.yaml").read_text())
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())


@pytest.mark.parametrize("entry", POOL["deployments"], ids=lambda entry: entry["name"])
@pytest.mark.parametrize("where", ["the repository", "elsewhere"])
def test_entrypoints_load_from_wherever_a_worker_is(entry, where, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT if where == "the repository" else tmp_path)
    served = {one.name: one.flow for one in DEPLOYMENTS}
    assert load_flow_from_entrypoint(entry["entrypoint"]).name == served[entry["name"]].name


def test_a_work_pool_gets_the_same_jobs_as_pqa_up():
    PrefectYamlModel.model_validate(POOL)
    assert {entry["name"] for entry in POOL["deployments"]} == {served.name for served in DEPLOYMENTS}
    for served in DEPLOYMENTS:
        entry = next(one for one in POOL["deployments"] if one["name"] == served.name)
        limit = entry["concurrency_limit"]
        assert (limit["limit"], limit["collision_strategy"]) == (
            served.concurrency_limit,
            served.collision_strategy.value,
        )
        planned = [(one["cron"], one["active"]) for one in entry.get("schedules", ())]
        assert planned == [(s.schedule.cron, s.active) for s in schedules_of(served.name, UpOptions())]
        environment = entry["work_pool"]["job_variables"]["env"]
        here = ServiceSettings.from_environment(environment)
        assert here.mlflow == environment["PQA_MLFLOW"]
        assert str(here.workspace) == environment["PQA_WORKSPACE"]


def test_prefect_deploys_them_all_to_a_pool(prefect_api, tmp_path):  # noqa: F811
    environment = {"PREFECT_API_URL": prefect_api, "PATH": "/usr/bin:/bin", "DO_NOT_TRACK": "1"}
    environment["PREFECT_HOME"] = str(tmp_path)
    prefect = [sys.executable, "-m", "prefect"]
    how = {"env": environment, "cwd": ROOT, "capture_output": True, "text": True, "timeout": 500}
    subprocess.run([*prefect, "work-pool", "create", "pqa-process", "--type", "process"], **how, check=True)
    deploy = [*prefect, "--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml"]
    done = subprocess.run(deploy, **how)
    assert done.returncode == 0, done.stdout + done.stderr
    silent = [*prefect, "automation", "create", "--from-file", "deployments/automations.yaml"]
    done = subprocess.run(silent, **how)
    assert done.returncode == 0, done.stdout + done.stderr
    pool = {"work_pools": {"name": {"any_": ["pqa-process"]}}}
    found = requests.post(f"{prefect_api}/deployments/filter", json=pool, timeout=60).json()
    assert {entry["name"] for entry in found} == {one.name for one in DEPLOYMENTS}
    made = requests.post(f"{prefect_api}/automations/filter", json={}, timeout=60).json()
    assert [entry["name"] for entry in made] == ["silent runs are marked crashed"]


def test_automations_are_such():
    (automation,) = yaml.safe_load((FOLDER / "automations.yaml").read_text())["automations"]
    made = AutomationCore.model_validate(automation)
    assert made.trigger.posture.value == "Proactive"
    assert made.trigger.within.total_seconds() == 120
    assert made.actions[0].state.value == "CRASHED"


def test_compose_asks_for_every_secret_and_opens_only_the_proxy():
    services = COMPOSE["services"]
    assert {name for name, service in services.items() if "ports" in service} == {"proxy"}
    assert "postgresql+asyncpg://" in str(services["prefect"]["environment"])
    command = " ".join(services["mlflow"]["command"])
    assert "--backend-store-uri=postgresql://" in command
    assert "--artifacts-destination=${S3_ARTIFACTS" in command
    for service in services.values():
        assert set(service.get("depends_on", ())) <= services.keys()
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (FOLDER / source).is_file()
    # Whatever is filled in is named in the example, and nothing secret has a value.
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", (FOLDER / "compose.yaml").read_text()))
    example = dict(line.split("=", 1) for line in _lines(FOLDER / "compose.env.example"))
    assert asked == example.keys()
    assert not any(example[name] for name in ("POSTGRES_PASSWORD", "S3_KEY", "S3_SECRET", "LOGIN_HASH"))
    for name in ("prefect", "mlflow"):
        assert services[name]["environment"]["DO_NOT_TRACK"] == "1"
        database = f"CREATE DATABASE {name};"
        assert database in (FOLDER / "compose-databases.sql").read_text()
    told = services["proxy"]["environment"]
    named = set(re.findall(r"\{\$([A-Z_]+)", (FOLDER / "Caddyfile").read_text()))
    assert named == told.keys()
    assert (told["PREFECT_SERVER"], told["MLFLOW_SERVER"]) == ("prefect:4200", "mlflow:5000")


def test_the_versions_of_images_are_those_that_are_pinned():
    pinned = dict(line.split("==") for line in _lines(ROOT / "constraints.txt") if "==" in line)
    assert f":{pinned['prefect']}-" in COMPOSE["services"]["prefect"]["image"]
    assert f":v{pinned['mlflow']}" in COMPOSE["services"]["mlflow"]["image"]


def test_the_model_server_listens_where_the_form_looks_for_it():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read_string("\n".join(_lines(FOLDER / "lmdeploy" / "lmdeploy.service")))
    command = unit["Service"]["ExecStart"]
    assert "--server-name 127.0.0.1 --server-port 23333" in command
    assert {"Unit", "Service", "Install"} == set(unit.sections())


def _lines(path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
