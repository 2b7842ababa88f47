"""A site to download from, and the waits that a download asked for."""

from __future__ import annotations

import hashlib
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from storage.datasets import Dataset
from storage.downloads import fetch
from storage.http_download import Transfer
from tests.download_site import CONTENT, NAME, Handler, Site


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
