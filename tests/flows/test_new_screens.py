"""Which files of a watched folder are taken, and what their columns are called."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import new_screens as flows
from flows.new_screens import NewScreenOptions, settled_files
from flows.options import RunOptions, ScreenNames
from storage.errors import InputError, LedgerError
from storage.watched_files import Seen, WatchedFolder, read_seen, write_seen


@pytest.fixture
def inbox(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def settled(inbox, tmp_path, **options) -> list[str]:
    options = NewScreenOptions(settle_seconds=0, **options)
    found = settled_files.fn(WatchedFolder(str(inbox)), tmp_path / "seen.json", options)
    return [file.name for file in found]


def test_files_that_stand_still_are_taken_and_one_that_grows_is_left(inbox, tmp_path, monkeypatch):
    (inbox / "whole.h5ad").write_bytes(b"whole")
    (inbox / "growing.h5ad").write_bytes(b"h")

    def copy_on(_seconds):
        with (inbox / "growing.h5ad").open("ab") as copy:
            copy.write(b"more")

    monkeypatch.setattr(flows.time, "sleep", copy_on)
    assert settled(inbox, tmp_path) == ["whole"]
    # Next hour: what grew has stopped; what is only waiting still is taken with it.
    monkeypatch.setattr(flows.time, "sleep", lambda _seconds: None)
    assert settled(inbox, tmp_path) == ["growing", "whole"]


def test_what_was_done_is_not_taken_and_what_failed_only_on_request(inbox, tmp_path):
    for name in ("done", "failed"):
        (inbox / f"{name}.h5ad").write_bytes(b"x")
    assert settled(inbox, tmp_path) == ["done", "failed"]
    seen = read_seen(tmp_path / "seen.json")
    for path, entry in seen.items():
        seen[path] = Seen(entry.mark, 2, "labelled" if path.endswith("done.h5ad") else "failed")
    write_seen(tmp_path / "seen.json", seen)
    assert settled(inbox, tmp_path) == []
    assert settled(inbox, tmp_path, failed_again=True) == ["failed"]
    (inbox / "done.h5ad").write_bytes(b"something else")
    assert settled(inbox, tmp_path) == ["done"]


def test_a_file_beside_the_screen_names_its_columns(inbox):
    (inbox / "a.h5ad").write_bytes(b"x")
    (inbox / "b.h5ad").write_bytes(b"x")
    (inbox / "a.yaml").write_text("perturbation_key: gene\nbatch_key: gem_group\n")
    folder, form = WatchedFolder(str(inbox)), ScreenNames(control="NT", batch_key="batch")
    a, b = (flows._columns_of(folder, file, form) for file in folder.list())
    assert (a.perturbation_key, a.batch_key, a.control) == ("gene", "gem_group", "NT")
    assert b == form


@pytest.mark.parametrize(
    "content",
    [
        b"perturbation: gene",
        b"- a list",
        b"a: [",
        b"control: 5",
        b"control: a: b",
        "control: \xe9".encode("latin-1"),
    ],
)
def test_a_file_of_columns_that_cannot_be_used_is_said(inbox, content):
    (inbox / "a.h5ad").write_bytes(b"x")
    (inbox / "a.yaml").write_bytes(content)
    folder = WatchedFolder(str(inbox))
    with pytest.raises(InputError, match=r"a\.yaml.*keys: perturbation_key") as error:
        flows._columns_of(folder, folder.list()[0], ScreenNames())
    assert "None" not in str(error.value)


def test_a_file_that_comes_between_two_looks_waits_for_the_next(inbox, tmp_path, monkeypatch):
    (inbox / "old.h5ad").write_bytes(b"x")
    assert settled(inbox, tmp_path) == ["old"]
    known = read_seen(tmp_path / "seen.json")
    write_seen(
        tmp_path / "seen.json", {path: Seen(entry.mark, 2, "labelled") for path, entry in known.items()}
    )
    whole_list = WatchedFolder.list

    def list_and_let_one_come(folder):
        found = whole_list(folder)
        (inbox / "newcomer.h5ad").write_bytes(b"x")
        return found

    monkeypatch.setattr(WatchedFolder, "list", list_and_let_one_come)
    assert settled(inbox, tmp_path) == []


def test_whatever_is_wrong_with_one_file_the_next_ones_have_their_turn(
    inbox, tmp_path, monkeypatch, prefect_api
):
    class WorkerDied(Exception):
        """Nothing that a user can mend."""

    def label(screen, *_options):
        if "bad" in screen.screen:
            raise WorkerDied("four times")
        return SimpleNamespace(labels=SimpleNamespace(folder=tmp_path / "labels"))

    for name in ("bad", "good"):
        (inbox / f"{name}.h5ad").write_bytes(b"x")
    monkeypatch.setattr(flows, "label_and_track", label)
    with temporary_settings({PREFECT_API_URL: prefect_api}), pytest.raises(LedgerError, match="four times"):
        flows.new_screens(str(inbox), NewScreenOptions(settle_seconds=0), run=RunOptions(workspace=tmp_path))
    told = {Path(path).stem: seen.status for path, seen in read_seen(tmp_path / flows.RECORD).items()}
    assert told == {"bad": "failed", "good": "labelled"}
