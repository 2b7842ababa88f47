"""A job killed at any moment goes on where it was, and ends as if it had never been disturbed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from storage.manifest import MANIFEST
from tests.flows.jobs import hear_ctrl_c, mlflow_runs, run_pqa, start_pqa, workspace_bytes
from tests.waiting import LONG


def found(workspace: Path, pattern: str) -> bool:
    return any(True for _ in workspace.glob(pattern))


def children_begun(workspace: Path) -> bool:
    """Whether the first child run is being written to MLflow."""
    try:
        with sqlite3.connect(f"file:{workspace / 'mlflow.db'}?mode=ro", uri=True) as database:
            query = "select count(*) from tags where key = 'mlflow.parentRunId'"
            return database.execute(query).fetchone()[0] > 0
    except sqlite3.Error:
        return False


#: Where the job is killed, in the order in which it passes: what is seen in the workspace by then. The first
#: two last for less than a second; on a busy machine that misses them, it is killed at the stage's end.
MOMENTS = {
    "while counts are read": lambda w: found(w, "screens/*/.partial-*") or found(w, f"screens/*/{MANIFEST}"),
    "while genes are tested": lambda w: (
        found(w, "tests/*/.blocks/genes-*.npy") or found(w, f"tests/*/{MANIFEST}")
    ),
    "when labels are made": lambda w: found(w, f"labels/*/{MANIFEST}"),
    "while predictors are fitted": lambda w: found(w, f"predictions/*/{MANIFEST}"),
    "while MLflow is written": children_begun,
    "while the report is written": lambda w: found(w, "comparisons/*"),
}


def is_prefect(process: psutil.Process) -> bool:
    try:
        return "prefect" in " ".join(process.cmdline())
    except psutil.Error:
        # Other children come and go meanwhile.
        return False


def kill_when(moment, workspace: Path, arguments: list[str], api: str) -> None:
    process = start_pqa(*arguments, "--workspace", workspace, environment={"PREFECT_API_URL": api})
    deadline = time.monotonic() + LONG
    while not moment(workspace):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param(["while genes are tested", "while the report is written"], id="two"),
        pytest.param(list(MOMENTS), id="all", marks=pytest.mark.slow),
    ],
)
def test_a_job_killed_at_some_moments_ends_as_an_undisturbed_one(
    tmp_path, undisturbed, benchmark_arguments, prefect_api, moments
):
    workspace = tmp_path / "workspace"
    for moment in moments:
        kill_when(MOMENTS[moment], workspace, benchmark_arguments, prefect_api)
    assert not found(workspace, f"comparisons/*/{MANIFEST}"), "the last kill came too late to mean anything"
    done_before = {path: path.stat().st_mtime_ns for path in workspace.glob(f"*/*/{MANIFEST}")}
    run_pqa(*benchmark_arguments, "--workspace", workspace, environment={"PREFECT_API_URL": prefect_api})

    expected, got = workspace_bytes(undisturbed[0]), workspace_bytes(workspace)
    assert sorted(got) == sorted(expected)
    assert [name for name in expected if got[name] != expected[name]] == []
    assert {path: path.stat().st_mtime_ns for path in done_before} == done_before, (
        "a finished stage was done again"
    )

    runs, clean = mlflow_runs(workspace), mlflow_runs(undisturbed[0])
    assert sorted(run.info.run_name for run in runs) == sorted(run.info.run_name for run in clean)
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_second_run_of_the_same_job_does_nothing_and_doubles_no_run(
    undisturbed, benchmark_arguments, prefect_api
):
    workspace, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in workspace.glob("*/*/*") if "mlflow" not in str(path)}
    runs = sorted(run.info.run_id for run in mlflow_runs(workspace))
    run_pqa(*benchmark_arguments, "--workspace", workspace, environment={"PREFECT_API_URL": prefect_api})
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted(run.info.run_id for run in mlflow_runs(workspace)) == runs


def test_two_runs_of_the_same_job_at_once_end_with_one_result(
    tmp_path, undisturbed, benchmark_arguments, prefect_api
):
    workspace = tmp_path / "workspace"
    api = {"PREFECT_API_URL": prefect_api}
    both = [start_pqa(*benchmark_arguments, "--workspace", workspace, environment=api) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=LONG)
        assert process.returncode == 0, err
    assert workspace_bytes(workspace) == workspace_bytes(undisturbed[0])
    names = [run.info.run_name for run in mlflow_runs(workspace)]
    assert len(names) == len(set(names))


def test_ctrl_c_in_a_callback_of_the_garbage_collector_is_not_lost():
    program = """
import gc, os, signal, sys, time
from flows import __main__ as pqa

def interrupt(phase, info):
    gc.callbacks.remove(interrupt)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0)

def wait(_name):
    gc.callbacks.append(interrupt)
    gc.collect()
    print("the first one was dropped", flush=True)
    time.sleep(60)

pqa.import_module = wait
sys.exit(pqa.main(["score", "--labels", "x", "--predictions", "y"]))
"""
    how = {"capture_output": True, "text": True, "timeout": LONG, "preexec_fn": hear_ctrl_c}
    ended = subprocess.run([sys.executable, "-c", program], **how)
    assert "the first one was dropped" in ended.stdout
    assert ended.returncode == 130, ended.stderr


def test_ctrl_c_in_a_terminal_ends_the_job_at_once_and_the_server_hears_of_it(
    tmp_path, benchmark_arguments, monkeypatch
):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    workspace = tmp_path / "workspace"
    process = start_pqa(*benchmark_arguments, "--workspace", workspace, alone=True)
    deadline = time.monotonic() + LONG
    while not (workspace / "screens").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    # What a terminal does: everyone in the foreground hears it, not the job alone.
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    with sqlite3.connect(workspace / "prefect" / "prefect.db") as database:
        states = {state for (state,) in database.execute("select state_type from flow_run")}
    assert states
    assert not states & {"RUNNING", "PENDING"}


def test_a_killed_job_takes_its_prefect_server_with_it(tmp_path, benchmark_arguments, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    process = start_pqa(*benchmark_arguments, "--workspace", tmp_path / "workspace")
    servers: list[psutil.Process] = []
    deadline = time.monotonic() + LONG
    while not servers and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        servers = [child for child in psutil.Process(process.pid).children() if is_prefect(child)]
        time.sleep(0.1)
    refused = start_pqa(*benchmark_arguments, "--workspace", tmp_path / "workspace")
    _, err = refused.communicate(timeout=LONG)
    assert refused.returncode == 1
    assert "another job is running in the workspace" in err
    process.kill()
    process.communicate()
    gone, alive = psutil.wait_procs(servers, timeout=LONG)
    assert gone
    assert not alive, "the server outlived the job that started it"
