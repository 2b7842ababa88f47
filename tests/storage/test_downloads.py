"""Downloads against a real local HTTP server that can misbehave in every way a server does."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from storage import datasets, downloads, http_download
from storage.datasets import DATASETS, Dataset, find_dataset
from storage.downloads import fetch, get_dataset
from storage.errors import InputError, StorageError
from storage.http_download import Transfer

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
NAME = "screen.h5ad"


class Site:
    """What the server serves, how it misbehaves, and what it was asked."""

    def __init__(self):
        self.content, self.etag, self.headers = CONTENT, '"v1"', {}
        self.script: list[str] = []  # one fault a request, then `always`
        self.always = ""
        self.pause = 0.0
        self.asked: list[dict] = []
        self.sent = 0
        self.base = ""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        site, asked = self.server.site, dict(self.headers)
        fault = site.script.pop(0) if site.script else site.always
        site.asked.append(asked | {"path": self.path})
        if fault.isdigit():
            return self.head(int(fault), {"Content-Length": "0"} | site.headers)
        start = self.start(site, asked, fault)
        if start >= len(site.content):
            return self.head(416, {"Content-Range": f"bytes */{len(site.content)}"})
        body = site.content[start:]
        headers = {"Content-Length": str(len(body)), "Content-Type": "application/octet-stream"}
        if site.etag:
            headers["ETag"] = site.etag
        if "Range" in asked and fault != "ignore-range" and (start or asked["Range"] == "bytes=0-"):
            headers["Content-Range"] = f"bytes {start}-{len(site.content) - 1}/{len(site.content)}"
        if "no-length" in fault:
            del headers["Content-Length"]
        self.head(206 if "Content-Range" in headers else 200, headers | site.headers)
        self.body(body, cut=len(body) // 2 if "drop" in fault else len(body))

    def start(self, site: Site, asked: dict, fault: str) -> int:
        fits = asked.get("If-Range") in (None, site.etag) or fault == "ignore-if-range"
        if "Range" not in asked or "ignore-range" in fault or not fits:
            return 0
        return int(re.match(r"bytes=(\d+)-$", asked["Range"]).group(1))

    def head(self, status: int, headers: dict):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def body(self, body: bytes, cut: int):
        for begin in range(0, cut, 10_000):
            piece = body[begin : min(begin + 10_000, cut)]
            try:
                self.wfile.write(piece)
            except OSError:
                return
            self.server.site.sent += len(piece)
            time.sleep(self.server.site.pause)
        if cut < len(body):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site = Site()
    server.site.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def stop():
        server.shutdown()
        thread.join()
        server.server_close()

    server.site.stop = stop
    yield server.site
    stop()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def get(site, tmp_path, waits):
    """Fetch from the site; by default the right md5 is known."""
    transfer = Transfer(timeout=(5, 5), chunk=4096, sleep=waits.append)

    def run(*, folder: Path = tmp_path, md5_of: bytes | None = CONTENT, size: int | None = None, **options):
        md5 = f"md5:{hashlib.md5(md5_of).hexdigest()}" if md5_of else None
        data = Dataset("screen", "A screen", NAME, f"{site.base}/{NAME}", size_bytes=size, checksum=md5)
        return fetch(data, folder, **({"transfer": transfer} | options))

    return run


def left(folder: Path) -> set[str]:
    """Give the names in a folder, less the lock's."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def some_part(get, site, **options) -> int:
    """Fetch about half and fail; give the size of the part."""
    site.script = ["drop", *["404"] * 2]
    with pytest.raises(StorageError, match="404"):
        get(**options)
    site.script = []
    site.asked.clear()
    size = (options.get("folder", Path()) / f"{NAME}.part").stat().st_size
    assert 100_000 < size < 200_000
    return size


def test_a_file_arrives_whole_and_is_not_fetched_twice(get, site, tmp_path, capfd):
    assert get().read_bytes() == CONTENT
    assert get() == tmp_path / NAME
    assert len(site.asked) == 1
    assert left(tmp_path) == {NAME}
    assert capfd.readouterr() == ("", "")  # no bar without a terminal, no chatter


@pytest.mark.parametrize("progress", [True, False])
def test_a_terminal_sees_a_bar_if_it_wants_one(get, monkeypatch, progress):
    shown, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    with os.fdopen(terminal, "w") as stderr, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        get(progress=progress)
        os.set_blocking(shown, False)
        text = os.read(shown, 10_000) if progress else b""
        if not progress:
            with pytest.raises(BlockingIOError):
                os.read(shown, 1)
    os.close(shown)
    assert (b"screen.h5ad" in text and b"%|" in text) is progress


def test_a_dropped_connection_is_resumed_with_a_range_request(get, site, tmp_path, waits):
    site.script = ["drop", "drop"]
    assert get().read_bytes() == CONTENT
    first, second, third = site.asked
    assert "Range" not in first
    assert re.match(r"bytes=1\d{5}-$", second["Range"])
    assert second["If-Range"] == third["If-Range"] == '"v1"'
    assert site.sent < len(CONTENT) + 3 * 10_000
    assert waits == [1.0, 1.0]  # both tries brought new bytes, so the count began anew
    assert left(tmp_path) == {NAME}


def test_the_next_run_resumes_what_the_last_one_left(get, site, tmp_path):
    have = some_part(get, site, folder=tmp_path)
    assert left(tmp_path) == {f"{NAME}.part", f"{NAME}.part.json"}
    assert get().read_bytes() == CONTENT
    assert [asked["Range"] for asked in site.asked] == [f"bytes={have}-"]


def test_a_server_that_ignores_ranges_starts_over(get, site, tmp_path):
    some_part(get, site, folder=tmp_path)
    site.always = "ignore-range"
    assert get().read_bytes() == CONTENT


def test_a_server_that_always_starts_over_and_breaks_does_not_hold_us_for_ever(get, site, tmp_path, waits):
    site.always = "drop ignore-range"
    with pytest.raises(StorageError, match=r"6 times in a row.*\.part: run the same command again"):
        get()
    assert len(site.asked) < 10
    assert waits[-5:] == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("fault", ["", "ignore-if-range"])
@pytest.mark.parametrize("md5_of", [OTHER, None])
def test_a_file_changed_between_attempts_is_not_mixed(get, site, tmp_path, fault, md5_of):
    some_part(get, site, folder=tmp_path, md5_of=md5_of)
    site.content, site.etag, site.script = OTHER, '"v2"', [fault]
    assert get(md5_of=md5_of).read_bytes() == OTHER


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_version_only_a_checksum_allows_resuming(get, site, tmp_path, etag):
    site.etag = etag
    some_part(get, site, folder=tmp_path)
    get()
    assert "Range" in site.asked[0]
    assert "If-Range" not in site.asked[0]
    some_part(get, site, folder=tmp_path / "b", md5_of=None)
    assert get(folder=tmp_path / "b", md5_of=None).read_bytes() == CONTENT
    assert "Range" not in site.asked[0]


def test_another_mirror_goes_on_with_the_same_part(get, site, tmp_path):
    have = some_part(get, site, folder=tmp_path)
    site.etag = '"the mirror has its own"'
    assert get(mirror=f"{site.base}/copy/").read_bytes() == CONTENT
    assert site.asked[0]["Range"] == f"bytes={have}-"
    assert site.asked[0]["path"] == f"/copy/{NAME}"


def test_a_complete_part_is_accepted_by_416(get, site, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert get().read_bytes() == CONTENT
    assert site.sent == 0
    assert len(site.asked) == 1


def test_a_part_longer_than_the_file_is_thrown_away(get, site, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    assert get().read_bytes() == CONTENT


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


def start_process(site, folder: Path) -> subprocess.Popen:
    code = (
        "import sys; from storage.downloads import *; from storage.http_download import Transfer;"
        "url, folder, md5, name = sys.argv[1:];"
        "fetch(Dataset('s', 's', name, url, checksum=md5), folder, transfer=Transfer(chunk=4096))"
    )
    md5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    command = [sys.executable, "-c", code, f"{site.base}/{NAME}", str(folder), md5, NAME]
    return subprocess.Popen(command, cwd=Path(downloads.__file__).parents[1], stderr=subprocess.PIPE)


def test_a_killed_process_resumes(get, site, tmp_path):
    site.pause = 0.05
    part = tmp_path / f"{NAME}.part"
    process = start_process(site, tmp_path)
    try:
        end = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size > 50_000) and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    site.pause = 0.0
    have = part.stat().st_size
    assert 50_000 < have < len(CONTENT)
    assert get().read_bytes() == CONTENT  # the dead process's lock does not hold us
    assert site.asked[-1]["Range"] == f"bytes={have}-"
    assert left(tmp_path) == {NAME}  # nothing of the killed run's scratch is left


def test_two_processes_fetch_once(site, tmp_path):
    site.pause = 0.05
    processes = [start_process(site, tmp_path) for _ in range(2)]
    errors = [process.communicate(timeout=30)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert len(site.asked) == 1
    assert sum("another process is fetching" in error for error in errors) == 1


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
