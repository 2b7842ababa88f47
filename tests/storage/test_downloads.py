"""Downloads against a real local HTTP server that can misbehave in every way a server does."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from storage import downloads
from storage.errors import StorageError
from tests.download_site import CONTENT, NAME, OTHER, left, some_part


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
