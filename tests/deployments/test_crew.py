"""Parts are started in order, started again when they die, and never outlive whoever started them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import psutil
import pytest

from deployments import crew as crews
from deployments.crew import Crew, Part, PartError
from tests.deployments.served import ROOT, wait_for

SLEEP = "import time; time.sleep(600)"
#: Says it is there by a file, and leaves a child of its own behind that has turned its back on it.
FAMILY = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""


def part(tmp_path, name, program=SLEEP, *words, healthy=lambda _: True, after=()):
    return Part(name, [sys.executable, "-c", program, *words], tmp_path / f"{name}.log", healthy, after=after)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(crews, "EVERY", 0.02)
    monkeypatch.setattr(crews, "FIRST_WAIT", 0.1)


@pytest.fixture
def watched():
    """Start a crew, watch it in a thread, end it at the end."""
    made = []

    def watch(*parts):
        said: list[str] = []
        crew = Crew(parts, said.append)
        crew.start()
        thread = threading.Thread(target=crew.watch)
        thread.start()
        made.append((crew, thread))
        return crew, said

    yield watch
    for crew, thread in made:
        crew.ending.set()
        thread.join()
        crew.end()


def child_of(crew, name):
    (child,) = wait_for(psutil.Process(crew._kept[name].process.pid).children, 60)
    return child


def test_a_part_that_dies_is_said_and_is_back(tmp_path, watched):
    crew, said = watched(part(tmp_path, "first"), part(tmp_path, "second"))
    child_of(crew, "first").kill()
    wait_for(lambda: "first is back" in said, 60)
    assert said[0].startswith("first has died (")
    assert str(tmp_path / "first.log") in said[0]
    assert not any("second" in line for line in said)


def _noting(buried, waits):
    def noted(kept):
        waits.append(buried(kept))
        return waits[-1]

    return noted


def test_waits_grow_with_every_death_and_have_a_longest(tmp_path, monkeypatch):
    monkeypatch.setattr(crews, "LONGEST_WAIT", 0.5)
    monkeypatch.setattr(crews, "FALSE_STARTS", 6)
    waits = []
    monkeypatch.setattr(crews._Kept, "buried", _noting(crews._Kept.buried, waits))
    dead = part(tmp_path, "dead", "raise SystemExit('no database')", healthy=lambda _: False)
    with pytest.raises(PartError, match="no database"):
        Crew([dead], print).start()
    assert waits == [0.1, 0.2, 0.4, 0.5, 0.5, 0.5]


def test_a_part_waits_for_those_it_needs(tmp_path):
    asked = []

    def late(_):
        asked.append("first")
        return len(asked) > 10

    def then(_):
        asked.append("second")
        return True

    first = part(tmp_path, "first", healthy=late)
    crew = Crew([first, part(tmp_path, "second", healthy=then, after=("first",))], print)
    crew.start()
    assert asked == ["first"] * 11 + ["second"]
    crew.end()
    assert not crew._kept["first"].alive


def test_the_end_takes_children_that_turned_their_back(tmp_path, watched):
    mark = tmp_path / "child"
    crew, _ = watched(part(tmp_path, "family", FAMILY, str(mark), healthy=lambda _: mark.exists()))
    wait_for(lambda: mark.read_text(), 60)
    child = psutil.Process(int(mark.read_text()))
    crew.ending.set()
    crew.end()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 60)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_nothing_outlives_a_parent_that_is_killed(tmp_path):
    mark = tmp_path / "child"
    program = f"""
import sys, threading, pathlib
from deployments.crew import Crew, Part
mark = pathlib.Path({str(mark)!r})
command = [sys.executable, "-c", {FAMILY!r}, str(mark)]
crew = Crew([Part("family", command, mark.with_suffix(".log"), lambda _: mark.exists())], print)
crew.start()
crew.watch()
"""
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    wait_for(lambda: mark.exists() and mark.read_text(), 60)
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) >= 3
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not [one for one in family if one.is_running()], 60)
