"""A web site on this machine that serves one file and misbehaves as it is told."""

from __future__ import annotations

import random
import re
import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from storage.errors import StorageError

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
