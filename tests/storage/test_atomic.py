from __future__ import annotations

import errno
import json
import os

import numpy as np
import pandas as pd
import pytest

from storage.atomic import atomic_path, copy_or_remove, disk_errors, write_json
from storage.errors import InputError, StorageError
from storage.tables import write_table
from tasks.expression.blocks import read_block, write_block


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_under_its_name_only_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "table.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.suffix == ".txt"
    assert target.read_text() == "half"
    assert names_in(target.parent) == ["table.txt"]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_stops_the_writing_the_old_file_stays_and_nothing_is_left_beside_it(tmp_path, stop):
    target = tmp_path / "table.txt"
    target.write_text("old")

    def write():
        with atomic_path(target) as temporary:
            temporary.write_text("new")
            raise stop

    with pytest.raises(stop):
        write()
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["table.txt"]


def test_a_folder_replaces_a_folder_whole(tmp_path):
    target = tmp_path / "store"
    for name in ("first", "second"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert names_in(target) == ["second"]


def test_a_folder_that_is_not_finished_leaves_the_old_one(tmp_path):
    target = tmp_path / "store"
    target.mkdir()
    (target / "first").write_text("first")

    def write():
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / "second").write_text("second")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write()
    assert names_in(target) == ["first"]
    assert names_in(tmp_path) == ["store"]


def test_json_does_not_depend_on_the_order_of_keys(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [1, 2]})
    write_json(tmp_path / "b.json", {"a": [1, 2], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, 2], "b": 1}


def test_a_copy_replaces_an_older_file_and_goes_with_its_source(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"bytes")
    target.write_bytes(b"old")
    for _ in range(2):
        copy_or_remove(source, target)
        assert target.read_bytes() == b"bytes"
        assert names_in(tmp_path) == ["source", "target"]
    target.write_bytes(b"edited")
    assert source.read_bytes() == b"bytes"
    source.unlink()
    copy_or_remove(source, target)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "advice"),
    [
        ("a file/x.json", "a part of this path is a file"),
        ("a file/b/x.json", "a part of this path is a file"),
        ("a folder", "a folder of this name"),
        ("x" * 250 + ".json", "too long"),
    ],
)
def test_a_place_that_cannot_be_is_one_plain_error(tmp_path, place, advice):
    (tmp_path / "a file").write_text("untouched")
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "inside").write_text("untouched")
    with pytest.raises(StorageError, match=advice):
        write_json(tmp_path / place, {})
    assert names_in(tmp_path) == ["a file", "a folder"]
    assert names_in(tmp_path / "a folder") == ["inside"]


@pytest.mark.parametrize("place", ["new.json", "there before.txt", "new folder/new.json"])
def test_a_read_only_disk_is_one_plain_error(read_only_folder, place):
    with pytest.raises(StorageError, match="read-only; choose another folder"):
        write_json(read_only_folder / place, {})
    assert names_in(read_only_folder) == ["there before.txt"]
    assert (read_only_folder / "there before.txt").read_text() == "untouched"


@pytest.mark.parametrize(
    "write",
    [
        lambda path, values: write_json(path, values.tolist()),
        lambda path, values: write_table(path, pd.DataFrame({"value": values})),
        lambda path, values: write_block(path, values),
    ],
    ids=["JSON", "Parquet", "block"],
)
def test_a_full_disk_is_one_plain_error_and_the_old_file_stays(tiny_disk, write):
    folder = tiny_disk(128)
    target = folder / "file"
    target.write_text("old")
    values = np.random.default_rng(0).random(100_000)
    with pytest.raises(StorageError, match="the disk is full"):
        write(target, values)
    assert names_in(folder) == ["file"]
    assert target.read_text() == "old"


def test_errors_that_are_not_of_the_disk_are_handed_on(tmp_path):
    with pytest.raises(ValueError, match="not the disk"), atomic_path(tmp_path / "x"):
        raise ValueError("not the disk")
    with pytest.raises(OSError, match="who knows"), disk_errors("x"):
        raise OSError(123456, "who knows")


def test_a_file_elsewhere_that_cannot_be_opened_is_named_in_place_of_the_target(tmp_path):
    source, target = tmp_path / "screen.h5ad", tmp_path / "out" / "x"
    with pytest.raises(StorageError, match=f"^{source}: no permission$"), disk_errors(target):
        raise PermissionError(errno.EACCES, "Permission denied", str(source))
    with pytest.raises(StorageError, match=r"cannot write .* the disk is full; free"), disk_errors(target):
        raise OSError(errno.ENOSPC, "No space left on device", str(source))
    with (
        pytest.raises(StorageError, match=r"cannot write .*out/x: no permission"),
        disk_errors(tmp_path / "out" / "x"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "out"))


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    target, moves = tmp_path / "store", []
    target.mkdir()
    (target / "first").write_text("first")
    replace = os.replace

    def refuse_the_second(source, place):
        moves.append(place)
        if len(moves) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, place)

    def write():
        with atomic_path(target) as temporary:
            temporary.mkdir()

    monkeypatch.setattr(os, "replace", refuse_the_second)
    with pytest.raises(StorageError, match="the disk is full"):
        write()
    assert (names_in(target), names_in(tmp_path)) == (["first"], ["store"])


@pytest.mark.parametrize("shape", [(3,), (4, 5, 6), (2, 0)])
def test_a_block_is_read_back_as_it_was_and_not_when_cut_off_or_of_another_shape(tmp_path, shape):
    values = np.asfortranarray(np.random.default_rng(1).random(shape))
    path = tmp_path / "genes-0000.npy"
    write_block(path, values)
    np.testing.assert_array_equal(np.load(path), values)
    np.testing.assert_array_equal(read_block(path, shape), values)
    assert read_block(path, (*shape, 1)) is None
    assert read_block(tmp_path / "missing.npy", shape) is None
    if values.size:
        path.write_bytes(path.read_bytes()[:-1])
        assert read_block(path, shape) is None
        path.write_bytes(b"")
        assert read_block(path, shape) is None


def test_an_input_error_lists_every_problem_and_survives_the_way_back_from_a_worker():
    import pickle

    one, two = InputError("x.h5ad", ["first"]), InputError("x.h5ad", ["first", "second"])
    assert str(one) == "x.h5ad: first"
    assert str(two) == "x.h5ad: 2 problems\n  - first\n  - second"
    back = pickle.loads(pickle.dumps(two))
    assert (back.subject, back.problems, str(back)) == (two.subject, two.problems, str(two))
