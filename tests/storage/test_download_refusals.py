"""Downloads that cannot be: refusals, servers that are busy or gone, full disks, names and addresses."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import socket
import subprocess

import pytest

from storage import datasets, http_download
from storage.datasets import DATASETS, Dataset, find_dataset
from storage.downloads import get_dataset
from storage.errors import InputError, StorageError
from storage.http_download import Transfer
from tests.download_site import CONTENT, NAME, left, some_part


def test_busy_servers_are_waited_for_as_they_ask(get, site, waits):
    site.script, site.headers = ["503", "429"], {"Retry-After": "7"}
    assert get().read_bytes() == CONTENT
    assert waits == [7.0, 7.0]


def test_a_server_that_stays_busy_is_given_up(get, site, waits, tmp_path):
    site.always = "503"
    with pytest.raises(StorageError, match="answered 503, 6 times in a row"):
        get()
    assert waits == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("fault", "message"),
    [("404", "404 Not Found"), ("403", "403 Forbidden"), ("202", "web page, perhaps a robot check")],
)
def test_final_refusals_are_not_repeated(get, site, tmp_path, fault, message):
    site.always = fault
    with pytest.raises(StorageError, match=message) as caught:
        get()
    assert "\n" not in str(caught.value)
    assert len(site.asked) == 1
    assert left(tmp_path) == set()


def test_a_web_page_is_not_saved_as_the_file(get, site, tmp_path):
    site.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(StorageError, match=f"save the file by hand as {tmp_path / NAME}"):
        get(md5_of=None)
    assert left(tmp_path) == set()


def test_a_refused_connection_says_so_at_once(get, waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(StorageError, match="connection refused"):
        get(mirror=f"http://127.0.0.1:{port}")
    assert waits == []


def test_a_server_that_goes_down_midway_is_waited_for(get, site, tmp_path):
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        site.stop()

    site.script = ["drop"]
    with pytest.raises(StorageError, match="the connection broke, 6 times in a row"):
        get(transfer=Transfer(timeout=(5, 5), chunk=4096, sleep=sleep))
    assert waits == [1, 2, 4, 8, 16]
    assert (tmp_path / f"{NAME}.part").stat().st_size > 100_000


@pytest.mark.parametrize("mirror", ["", "host/folder", "ftp://host", "http://", "http://[", "https://h/?a=1"])
def test_a_mirror_that_is_no_address(get, mirror, tmp_path):
    with pytest.raises(InputError, match="base address such as"):
        get(mirror=mirror)
    assert left(tmp_path) == set()


def test_no_space_is_said_before_the_first_byte(get, site, tmp_path, monkeypatch):
    have = some_part(get, site, folder=tmp_path)
    sent = site.sent
    missing = len(CONTENT) - have
    full = shutil._ntuple_diskusage(10**6, 10**6, missing - 1)
    with monkeypatch.context() as patch:
        patch.setattr(http_download.shutil, "disk_usage", lambda _: full)
        with pytest.raises(StorageError, match=f"{missing:,} bytes are still to come and the disk has"):
            get()
    assert (tmp_path / f"{NAME}.part").stat().st_size == have
    assert get().read_bytes() == CONTENT
    assert site.asked[-1]["Range"] == f"bytes={have}-"
    assert site.sent - sent <= len(CONTENT)


class FullDisk(io.FileIO):
    """A file on a disk that has room for 50,000 bytes."""

    def write(self, data):
        if self.tell() + len(data) > 50_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_a_disk_that_fills_up_keeps_the_part(get, site, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(http_download, "open", lambda path, mode: FullDisk(path, mode), raising=False)
        with pytest.raises(StorageError, match="the disk is full; free some space"):
            get()
    have = (tmp_path / f"{NAME}.part").stat().st_size
    assert 40_000 < have <= 50_000
    assert get().read_bytes() == CONTENT
    assert site.asked[-1]["Range"] == f"bytes={have}-"


def test_a_really_full_disk(get, site, tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(small)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        with pytest.raises(StorageError, match="bytes are still to come"):
            get(folder=small)
        with monkeypatch.context() as patch:  # as if another program took the space meanwhile
            patch.setattr(http_download.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 10**9))
            with pytest.raises(StorageError, match="the disk is full; free some space"):
                get(folder=small)
        have = (small / f"{NAME}.part").stat().st_size
        assert have > 60_000
        subprocess.run(["mount", "-o", "remount,size=2m", str(small)], check=True)
        assert get(folder=small).read_bytes() == CONTENT
        assert site.asked[-1]["Range"] == f"bytes={have}-"
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_file_or_folder_in_the_way(get, tmp_path):
    (tmp_path / "plain").write_text("")
    for folder in (tmp_path / "plain", tmp_path / "plain" / "below"):
        with pytest.raises(StorageError, match="a part of this path is a file"):
            get(folder=folder)
    (tmp_path / NAME).mkdir()
    with pytest.raises(StorageError, match="is in the way: it is a folder"):
        get()


def test_a_known_name_from_a_mirror(site, tmp_path, monkeypatch):
    md5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    monkeypatch.setattr(datasets, "DATASETS", {"kg": Dataset("kg", "", "kg.zip", "", checksum=md5)})
    assert get_dataset("kg", tmp_path, mirror=site.base, progress=False).read_bytes() == CONTENT
    assert site.asked[0]["path"] == "/kg.zip"


def test_an_unknown_name_lists_the_known_and_the_nearest():
    with pytest.raises(InputError, match="did you mean hepg2") as caught:
        find_dataset("HepG-2")
    assert all(name in str(caught.value) for name in DATASETS)


def test_the_catalogue_is_well_formed():
    assert set(DATASETS) == {"k562_essential", "rpe1", "k562_gwps", "hepg2", "jurkat", "kg", "gene_summary"}
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert dataset.url.startswith("https://")
        assert dataset.title
        assert dataset.licence
        assert dataset.checksum is None or re.fullmatch(r"md5:[0-9a-f]{32}", dataset.checksum)
        assert dataset.checksum or dataset.size_bytes
        if dataset.cells:  # dense float32: cells x genes x 4 bytes and a few per cent of annotation
            assert 1.0 < dataset.size_bytes / (dataset.cells * dataset.genes * 4) < 1.03
    with pytest.raises(TypeError):
        DATASETS["more"] = None
