"""The store's files: whole or not there, the same bytes for the same content, and only what was asked for."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from storage.errors import InputError, StorageError
from storage.knowledge_store import (
    EDGE_SCHEMA,
    NODE_COLUMNS,
    UNRESOLVED_COLUMNS,
    check_place,
    is_store,
    read_aliases,
    read_edges,
    read_head,
    store_files,
    write_store,
)

HEAD = {"sources": [{"file": "a.txt"}, {"file": "b.txt"}], "options": {}}


def edges(file, pairs):
    frame = pd.DataFrame(pairs, columns=["source", "target"])
    frame = frame.assign(relation="r", kind="gene-gene", evidence="", database="d", file=file, licence="CC0")
    frame = frame.astype("category")
    return frame.assign(score=np.arange(len(frame), dtype=np.float32))


def write(folder, **changes):
    content = {
        "nodes": pd.DataFrame([("A", "gene", "", "", "")], columns=list(NODE_COLUMNS)),
        "aliases": {"b": "B", "a": "A"},
        "unresolved": pd.DataFrame(columns=list(UNRESOLVED_COLUMNS)),
        "copied": [],
        "term_names": pd.DataFrame(columns=["term_id", "name"]),
        "head": HEAD,
    }
    parts = [edges("a.txt", [("A", "B"), ("A", "C")]), edges("b.txt", [("B", "C")])]
    return write_store(folder, parts, **(content | changes))


def test_edges_come_back_by_the_file_they_are_from(tmp_path):
    head = write(tmp_path / "store")
    assert pq.read_schema(tmp_path / "store" / "edges.parquet").names == EDGE_SCHEMA.names
    assert head["files"]["edges.parquet"]["rows"] == 3
    found = read_edges(tmp_path / "store", ["b.txt"])
    assert found[["source", "target", "file"]].astype(str).to_numpy().tolist() == [["B", "C", "b.txt"]]
    assert isinstance(found["source"].dtype, pd.CategoricalDtype)
    assert len(read_edges(tmp_path / "store", [])) == 0
    assert read_aliases(tmp_path / "store") == {"a": "A", "b": "B"}
    assert read_head(tmp_path / "store") == head


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name)
    for path in store_files(tmp_path / "one"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_an_older_store_is_replaced_whole(tmp_path):
    beside = tmp_path / "gene_text.parquet"
    beside.write_bytes(b"texts")
    write(tmp_path / "store", copied=[beside])
    assert (tmp_path / "store" / "gene_text.parquet").read_bytes() == b"texts"
    write(tmp_path / "store")
    assert not (tmp_path / "store" / "gene_text.parquet").exists()


def test_what_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "store", copied=[tmp_path / "missing.parquet"])
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_disk_is_one_plain_sentence(read_only_folder):
    with pytest.raises(StorageError, match="read-only"):
        write(read_only_folder / "store")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "not the head of a knowledge store"),
        (json.dumps({"format": 99, "sources": [], "files": {}}), "has format 99"),
    ],
)
def test_heads_that_are_none_are_refused(tmp_path, head, message):
    (tmp_path / "knowledge.json").write_text(head)
    assert is_store(tmp_path)
    with pytest.raises(InputError, match=message):
        read_head(tmp_path)


def test_places_that_are_taken(tmp_path):
    write(tmp_path / "store")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    assert check_place(tmp_path / "store", []) == []
    assert check_place(tmp_path / "empty", []) == []
    assert check_place(tmp_path / "new", []) == []
    assert "is a file" in check_place(tmp_path / "file", [])[0]
    assert "other things" in check_place(tmp_path, [])[0]
    assert "that are read" in check_place(tmp_path / "store", [tmp_path / "store"])[0]
