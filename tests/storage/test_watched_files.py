"""Files that come: listed without half copies, ready when they have stopped changing, done once."""

from __future__ import annotations

import os

import fsspec
import pytest

from storage.errors import InputError
from storage.watched_files import Seen, WatchedFolder, look, read_seen, write_seen


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    """A watched folder on disk, or under a prefix in memory as a bucket would be; how to put a file there."""
    if request.param == "folder":
        address = str(tmp_path / "in")
        os.mkdir(address)
    else:
        address = f"memory://{tmp_path.name}/in"
    files, root = fsspec.core.url_to_fs(address)

    def put(name: str, content: bytes) -> None:
        files.pipe_file(f"{root}/{name}", content)

    put("notes.txt", b"not a screen")
    yield WatchedFolder(address), put
    files.rm(root, recursive=True)


def test_a_file_is_ready_when_two_looks_saw_the_same(place):
    folder, put = place
    put("a.h5ad", b"half")
    put(".hidden.h5ad", b"x")
    first = look(folder.list(), {})
    assert [(file.name, file.size) for file in folder.list()] == [("a", 4)]
    assert [entry.looks for entry in first.values()] == [1]
    put("a.h5ad", b"half and more")
    second = look(folder.list(), first)
    assert [entry.looks for entry in second.values()] == [1], "it grew: it waits"
    third = look(folder.list(), second)
    assert [(entry.looks, entry.status) for entry in third.values()] == [(2, "waiting")]


def test_what_is_labelled_stays_so_until_it_changes(place):
    folder, put = place
    put("a.h5ad", b"one")
    (file,) = folder.list()
    seen = {file.path: Seen(file.mark, 2, "labelled", "there")}
    assert look(folder.list(), seen)[file.path].status == "labelled"
    put("a.h5ad", b"another")
    assert look(folder.list(), seen)[file.path] == Seen(folder.list()[0].mark)
    assert look([], seen) == {}


def test_a_corrected_file_beside_it_counts_as_a_change(place):
    folder, put = place
    put("a.h5ad", b"one")
    put("ab.h5ad", b"two")
    seen = {file.path: Seen(file.mark, 2, "failed", "no column") for file in folder.list()}
    for content in (b"control: NT", b"control: safe"):
        put("a.yaml", content)
        after = look(folder.list(), seen)
        assert [entry.status for entry in after.values()] == ["waiting", "failed"]
        seen = {file.path: Seen(file.mark, 2, "failed", "no column") for file in folder.list()}
    assert look(folder.list(), seen).keys() == seen.keys()
    assert {entry.status for entry in look(folder.list(), seen).values()} == {"failed"}


def test_a_file_of_a_bucket_is_copied_whole_and_one_on_disk_is_not(place, tmp_path):
    folder, put = place
    put("a.h5ad", b"content")
    put("a.yaml", b"control: NT")
    (file,) = folder.list()
    with folder.fetched(file, tmp_path / "fetched") as path:
        assert path.read_bytes() == b"content"
        assert (path.parent == tmp_path / "fetched") != folder.is_local
    # A copy is there for as long as it is needed.
    assert path.exists() == folder.is_local
    assert folder.sidecar(file) == b"control: NT"
    put("b.h5ad", b"content")
    assert folder.sidecar(folder.list()[1]) is None


def test_the_record_is_read_back(tmp_path):
    seen = {"/in/a.h5ad": Seen("mark", 2, "failed", "why"), "/in/b.h5ad": Seen("other")}
    write_seen(tmp_path / "seen.json", seen)
    assert read_seen(tmp_path / "seen.json") == seen
    assert read_seen(tmp_path / "none.json") == {}


def test_what_cannot_be_watched_is_said(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        WatchedFolder(str(tmp_path / "none")).list()
    with pytest.raises(InputError, match="cannot be watched"):
        WatchedFolder("nosuchkind://bucket/prefix")
