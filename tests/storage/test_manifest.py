from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from storage.errors import StorageError
from storage.manifest import (
    Stage,
    finished_stage,
    read_manifest,
    run_stage,
)
from tests.waiting import LONG

ROOT = Path(__file__).parents[2]
STAGE = Stage("numbers", "ones", {"input": "abc"}, {"size": 3, "name": None})


class Work:
    """Writes two files and counts how often it was asked to."""

    def __init__(self, text="111"):
        self.times, self.text = 0, text

    def __call__(self, folder):
        self.times += 1
        (folder / "inner").mkdir(exist_ok=True)
        (folder / "inner" / "b.txt").write_text(self.text * 2)
        (folder / "a.txt").write_text(self.text)
        (folder / ".scratch").mkdir(exist_ok=True)
        (folder / ".scratch" / "block").write_text("x")
        return {"a.txt": len(self.text)}


def test_a_stage_done_is_not_done_again(tmp_path):
    work = Work()
    first = run_stage(tmp_path, STAGE, work)
    second = run_stage(tmp_path, STAGE, work)
    assert work.times == 1
    assert (first.status, second.status) == ("done", "skipped")
    assert replace(first, status="", reason="") == replace(second, status="", reason="")
    assert first.rows == {"a.txt": 3}
    assert first.folder.parent == tmp_path / "numbers"
    assert first.folder.name.startswith("ones-")


def test_the_manifest_names_every_file_with_its_size_and_sha256(tmp_path):
    record = run_stage(tmp_path, STAGE, Work())
    files = read_manifest(record.folder)["files"]
    assert sorted(files) == ["a.txt", "inner/b.txt"]
    for name, entry in files.items():
        data = (record.folder / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_scratch_under_a_hidden_name_is_gone_when_the_stage_is_done(tmp_path):
    record = run_stage(tmp_path, STAGE, Work())
    assert sorted(path.name for path in record.folder.iterdir()) == ["a.txt", "inner", "manifest.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": {"input": "abd"}},
        {"inputs": {"other": "abc"}},
        {"options": {"size": 4, "name": None}},
        {"options": {"size": 3, "name": "x"}},
        {"name": "twos"},
        {"kind": "letters"},
        {"code": (hashlib,)},
    ],
    ids=str,
)
def test_another_input_option_name_or_code_is_another_stage(tmp_path, change):
    work = Work()
    run_stage(tmp_path, STAGE, work)
    other = run_stage(tmp_path, replace(STAGE, **change), work)
    assert (work.times, other.status) == (2, "done")
    assert run_stage(tmp_path, STAGE, work).status == "skipped"


def test_the_order_of_options_does_not_matter():
    turned = replace(STAGE, options=dict(reversed(STAGE.options.items())))
    assert turned.digest == STAGE.digest


@pytest.mark.parametrize("harm", ["cut off", "removed", "manifest cut off", "manifest removed"])
def test_a_stage_with_a_missing_or_cut_off_file_is_done_again(tmp_path, harm):
    work = Work()
    first = run_stage(tmp_path, STAGE, work)
    path = first.folder / ("manifest.json" if harm.startswith("manifest") else "inner/b.txt")
    if harm.endswith("removed"):
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    assert finished_stage(STAGE, tmp_path) is None
    second = run_stage(tmp_path, STAGE, work)
    assert (work.times, second.status, second.content) == (2, "done", first.content)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"digest": 1}'])
def test_a_manifest_of_something_else_is_no_manifest(tmp_path, content):
    work = Work()
    folder = run_stage(tmp_path, STAGE, work).folder
    (folder / "manifest.json").write_text(content)
    assert run_stage(tmp_path, STAGE, work).status == "done"


def test_force_does_a_stage_again_from_nothing(tmp_path):
    run_stage(tmp_path, STAGE, Work()).folder.joinpath("stray.txt").write_text("from before")
    work = Work()
    record = run_stage(tmp_path, STAGE, work, force=True)
    assert (work.times, record.status) == (1, "done")
    assert not (record.folder / "stray.txt").exists()


def test_the_content_digest_follows_the_bytes_not_the_time(tmp_path):
    same = [run_stage(tmp_path / place, STAGE, Work()).content for place in ("a", "b")]
    other = run_stage(tmp_path / "c", STAGE, Work("222")).content
    assert same[0] == same[1] != other


def test_finished_blocks_are_there_again_after_an_interruption(tmp_path):
    computed = []

    def work(folder, stop_at=None):
        blocks = folder / ".blocks"
        blocks.mkdir(exist_ok=True)
        for number in range(5):
            if number == stop_at:
                raise RuntimeError("killed")
            if not (blocks / str(number)).exists():
                computed.append(number)
                (blocks / str(number)).write_text(str(number))
        (folder / "all.txt").write_text("".join(path.read_text() for path in sorted(blocks.iterdir())))

    for stop_at in (2, 4):
        with pytest.raises(RuntimeError, match="killed"):
            run_stage(tmp_path, STAGE, lambda folder, stop_at=stop_at: work(folder, stop_at))
        assert finished_stage(STAGE, tmp_path) is None
    record = run_stage(tmp_path, STAGE, work)
    assert computed == [0, 1, 2, 3, 4]
    assert (record.folder / "all.txt").read_text() == "01234"


SCRIPT = """
import sys, time
from pathlib import Path
from storage.manifest import Stage, run_stage

workspace, log, hold = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
def work(folder):
    with log.open("a") as handle:
        handle.write("computed\\n")
    time.sleep(hold)
    (folder / "a.txt").write_text("111")
print(run_stage(workspace, Stage("numbers", "ones", {}, {}), work).status)
"""


def started(workspace, log, hold):
    command = [sys.executable, "-c", SCRIPT, str(workspace), str(log), str(hold)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def until_computing(log, lines):
    end = time.monotonic() + 30
    while not log.exists() or len(log.read_text().splitlines()) < lines:
        assert time.monotonic() < end, "the process never came to its work"
        time.sleep(0.02)


def test_two_processes_at_once_compute_a_stage_once(tmp_path):
    log = tmp_path / "log"
    processes = [started(tmp_path / "workspace", log, 1.0) for _ in range(2)]
    said = sorted(process.communicate(timeout=LONG)[0].strip() for process in processes)
    assert said == ["done", "skipped"]
    assert log.read_text() == "computed\n"


def test_a_process_killed_at_work_leaves_no_lock_and_no_finished_stage(tmp_path):
    log = tmp_path / "log"
    process = started(tmp_path / "workspace", log, 60)
    until_computing(log, 1)
    process.kill()
    process.wait()
    process.stdout.close()
    said = started(tmp_path / "workspace", log, 0).communicate(timeout=LONG)[0]
    assert said.strip() == "done"


def test_a_workspace_that_cannot_be_written_is_one_plain_error(tmp_path, read_only_folder):
    (tmp_path / "file").write_text("untouched")
    for workspace, advice in ((tmp_path / "file", "is a file"), (read_only_folder, "read-only")):
        with pytest.raises(StorageError, match=advice):
            run_stage(workspace, STAGE, Work())
    assert os.listdir(read_only_folder) == ["there before.txt"]


def test_a_full_disk_ends_a_stage_without_a_manifest_and_room_lets_it_finish(tiny_disk):
    folder = tiny_disk(64)
    filler = folder / "filler"
    filler.write_bytes(b"x" * 40_000)

    def work(inside):
        (inside / "a.bin").write_bytes(b"y" * 40_000)

    with pytest.raises(StorageError, match="the disk is full"):
        run_stage(folder / "w", STAGE, work)
    assert finished_stage(STAGE, folder / "w") is None
    filler.unlink()
    record = run_stage(folder / "w", STAGE, work)
    assert json.loads((record.folder / "manifest.json").read_text())["files"]["a.bin"]["bytes"] == 40_000


def test_some_kinds_of_stages_are_done_again_by_name(tmp_path):
    run_stage(tmp_path, STAGE, Work())
    assert run_stage(tmp_path, STAGE, Work(), force=("another-kind",)).status == "skipped"
    for force in ((STAGE.kind,), ("all",)):
        record = run_stage(tmp_path, STAGE, Work(), force=force)
        assert (record.status, record.reason) == ("done", "asked for again")


def test_a_stage_says_what_has_changed_since_the_last_of_its_name(tmp_path):
    first = Stage("labels", "k562", {"tests": "a"}, {"fdr": 0.05, "seed": 0})
    assert run_stage(tmp_path, first, Work()).reason == "not done before"
    assert "an earlier run finished it on 20" in run_stage(tmp_path, first, Work()).reason
    option = replace(first, options={"fdr": 0.1, "seed": 0})
    assert run_stage(tmp_path, option, Work()).reason == "since the last time: fdr 0.05 -> 0.1"
    read = replace(option, inputs={"tests": "b"})
    assert run_stage(tmp_path, read, Work()).reason == "since the last time: other tests"
    assert run_stage(tmp_path, replace(read, name="k562-2"), Work()).reason == "not done before"
