"""What arrived is checked: by the published checksum, our own, or the size."""

from __future__ import annotations

import hashlib

import pytest

from storage.errors import StorageError
from tests.download_site import CONTENT, NAME, OTHER, left


def test_a_run_stopped_during_the_check_keeps_its_download(get, site, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pooch.core.hash_matches", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            get()
    assert left(tmp_path) == {f"{NAME}.part", f"{NAME}.part.json"}
    assert get().read_bytes() == CONTENT
    assert len(site.asked) == 1


def test_what_a_killed_check_left_is_swept_and_not_taken_for_the_file(get, tmp_path):
    scratch = tmp_path / f".{NAME}.check"
    scratch.mkdir()
    (scratch / "tmpabcdef").write_bytes(CONTENT)
    (scratch / NAME).write_bytes(OTHER)
    assert get(md5_of=None).read_bytes() == CONTENT
    assert left(tmp_path) == {NAME, f"{NAME}.sha256"}


def test_a_wrong_checksum_leaves_nothing_and_says_what_was_found(get, site, tmp_path):
    site.content = OTHER
    expected, found = (hashlib.md5(content).hexdigest() for content in (CONTENT, OTHER))
    with pytest.raises(StorageError, match=f"expected md5:{expected}, found {found}.*another mirror"):
        get()
    assert left(tmp_path) == set()
    site.content = CONTENT
    assert get().read_bytes() == CONTENT


def test_a_damaged_file_in_place_is_fetched_again(get, site, tmp_path, caplog):
    (tmp_path / NAME).write_bytes(OTHER)
    assert get().read_bytes() == CONTENT
    assert "not the published file" in caplog.text


def test_without_a_published_checksum_our_own_is_recorded_once(get, site, tmp_path, caplog):
    get(md5_of=None)
    recorded = f"{hashlib.sha256(CONTENT).hexdigest()}  {NAME}\n"
    assert (tmp_path / f"{NAME}.sha256").read_text() == recorded
    assert caplog.text.count("no published checksum is known") == 1
    (tmp_path / NAME).write_bytes(OTHER)  # damaged on disk: same size, other bytes
    assert get(md5_of=None).read_bytes() == CONTENT
    assert caplog.text.count("no published checksum is known") == 1
    (tmp_path / NAME).unlink()
    site.content = OTHER
    with pytest.raises(StorageError, match=r"if the publisher has a new version, delete .*\.sha256 first"):
        get(md5_of=None)
    (tmp_path / f"{NAME}.sha256").write_text("nonsense")
    with pytest.raises(StorageError, match="holds no sha256 checksum"):
        get(md5_of=None)


def test_without_a_checksum_the_size_decides(get, site, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT)
    get(md5_of=None, size=len(CONTENT))
    assert site.asked == []
    (tmp_path / f"{NAME}.sha256").unlink()
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    assert get(md5_of=None, size=len(CONTENT)).read_bytes() == CONTENT
    with pytest.raises(StorageError, match=r"offers 300,000 bytes where the published file has 5\b"):
        get(md5_of=None, size=5, folder=tmp_path / "b")


def test_a_body_of_unknown_length(get, site, tmp_path):
    site.always = "no-length"
    assert get().read_bytes() == CONTENT
    site.script = ["no-length drop"]  # an early end that HTTP itself does not show
    assert get(folder=tmp_path / "b", md5_of=None, size=len(CONTENT)).read_bytes() == CONTENT
    assert "Range" in site.asked[-1]
