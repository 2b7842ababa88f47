"""`pqa data` on the command line; the transfers themselves are tested in tests/storage."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading

import pytest

from flows.__main__ import main
from storage import datasets
from storage.datasets import Dataset

CONTENT = b"counts" * 1000


@pytest.fixture
def mirror(tmp_path):
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "tiny.h5ad").write_bytes(CONTENT)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_list_names_every_data_set(capsys):
    assert main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in datasets.DATASETS)
    assert main(["data", "list", "--json"]) == 0
    assert {entry["name"] for entry in json.loads(capsys.readouterr().out)} == set(datasets.DATASETS)


def test_get_fetches_by_name_from_a_mirror(mirror, tmp_path, monkeypatch, capsys):
    checksum = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    tiny = Dataset("tiny", "a tiny screen", "tiny.h5ad", "http://127.0.0.1:9/nowhere", checksum=checksum)
    monkeypatch.setattr(datasets, "DATASETS", {"tiny": tiny})
    assert main(["data", "get", "tiny", "--to", str(tmp_path / "data"), "--mirror", mirror, "--json"]) == 0
    path = json.loads(capsys.readouterr().out)["path"]
    assert path == str(tmp_path / "data" / "tiny.h5ad")
    assert (tmp_path / "data" / "tiny.h5ad").read_bytes() == CONTENT


def test_an_unknown_name_is_one_line_that_lists_the_known(capsys):
    assert main(["data", "get", "k562"]) == 1
    said = capsys.readouterr().err
    assert "k562_essential" in said
    assert "Traceback" not in said
