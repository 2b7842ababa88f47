"""Services are started in order, restarted when they exit, and never outlive whoever started them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import psutil
import pytest

from deployments import supervisor as supervisor_module
from deployments.supervisor import Service, ServiceError, Supervisor
from tests.deployments.served import ROOT, wait_for

SLEEP = "import time; time.sleep(600)"
#: Says it is there by a file, and leaves a child of its own behind that has turned its back on it.
FAMILY = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""


def service(tmp_path, name, program=SLEEP, *words, healthy=lambda _: True, after=()):
    return Service(
        name, [sys.executable, "-c", program, *words], tmp_path / f"{name}.log", healthy, after=after
    )


@pytest.fixture(autouse=True)
def short_delays(monkeypatch):
    monkeypatch.setattr(supervisor_module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(supervisor_module, "FIRST_DELAY", 0.1)


@pytest.fixture
def watched():
    """Start a supervisor, watch in a thread, stop it at the end."""
    made = []

    def watch(*services):
        said: list[str] = []
        supervisor = Supervisor(services, said.append)
        supervisor.start()
        thread = threading.Thread(target=supervisor.watch)
        thread.start()
        made.append((supervisor, thread))
        return supervisor, said

    yield watch
    for supervisor, thread in made:
        supervisor.stop_requested.set()
        thread.join()
        supervisor.stop()


def child_of(supervisor, name):
    (child,) = wait_for(psutil.Process(supervisor._managed[name].process.pid).children, 60)
    return child


def test_a_service_that_exits_is_reported_and_restarted(tmp_path, watched):
    supervisor, said = watched(service(tmp_path, "first"), service(tmp_path, "second"))
    child_of(supervisor, "first").kill()
    wait_for(lambda: "first is running again" in said, 60)
    assert said[0].startswith("first has stopped (")
    assert str(tmp_path / "first.log") in said[0]
    assert not any("second" in line for line in said)


def _recording(record_exit, delays):
    def recorded(one):
        delays.append(record_exit(one))
        return delays[-1]

    return recorded


def test_delays_grow_with_every_exit_up_to_the_longest(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor_module, "LONGEST_DELAY", 0.5)
    monkeypatch.setattr(supervisor_module, "MAX_FAILED_STARTS", 6)
    delays = []
    monkeypatch.setattr(
        supervisor_module._ManagedService,
        "record_exit",
        _recording(supervisor_module._ManagedService.record_exit, delays),
    )
    dead = service(tmp_path, "dead", "raise SystemExit('no database')", healthy=lambda _: False)
    with pytest.raises(ServiceError, match="no database"):
        Supervisor([dead], print).start()
    assert delays == [0.1, 0.2, 0.4, 0.5, 0.5, 0.5]


def test_a_service_waits_for_those_it_needs(tmp_path):
    asked = []

    def late(_):
        asked.append("first")
        return len(asked) > 10

    def then(_):
        asked.append("second")
        return True

    first = service(tmp_path, "first", healthy=late)
    supervisor = Supervisor([first, service(tmp_path, "second", healthy=then, after=("first",))], print)
    supervisor.start()
    assert asked == ["first"] * 11 + ["second"]
    supervisor.stop()
    assert not supervisor._managed["first"].running


def test_the_end_takes_children_that_turned_their_back(tmp_path, watched):
    mark = tmp_path / "child"
    supervisor, _ = watched(service(tmp_path, "family", FAMILY, str(mark), healthy=lambda _: mark.exists()))
    wait_for(lambda: mark.read_text(), 60)
    child = psutil.Process(int(mark.read_text()))
    supervisor.stop_requested.set()
    supervisor.stop()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 60)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_nothing_outlives_a_parent_that_is_killed(tmp_path):
    mark = tmp_path / "child"
    program = f"""
import sys, threading, pathlib
from deployments.supervisor import Service, Supervisor
mark = pathlib.Path({str(mark)!r})
command = [sys.executable, "-c", {FAMILY!r}, str(mark)]
family = Service("family", command, mark.with_suffix(".log"), lambda _: mark.exists())
supervisor = Supervisor([family], print)
supervisor.start()
supervisor.watch()
"""
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    wait_for(lambda: mark.exists() and mark.read_text(), 60)
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) >= 3
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not [one for one in family if one.is_running()], 60)
