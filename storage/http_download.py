"""One file over HTTP into a ``.part`` file that survives any interruption and is taken up again."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import requests
from requests import exceptions as failures
from tqdm import tqdm
from urllib3.exceptions import NewConnectionError

from storage.atomic import disk_errors, write_json
from storage.errors import InputError, StorageError

log = logging.getLogger(__name__)

WORTH_ANOTHER_TRY = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Transfer:
    """How patiently a file is fetched; all times in seconds."""

    # Further tries after a failure, counted anew whenever a try has brought new bytes.
    retries: int = 5
    # The wait before a further try doubles from the first to the longest.
    first_wait: float = 1.0
    longest_wait: float = 60.0
    # For a connection, and for the next bytes of an open one.
    timeout: tuple[float, float] = (15.0, 60.0)
    # Bytes read at once; at most this many are lost when a connection breaks.
    chunk: int = 1 << 18
    sleep: Callable[[float], None] = time.sleep


def download(
    url: str,
    part: Path,
    *,
    verified_later: bool = False,
    expected_size: int | None = None,
    progress: bool = True,
    transfer: Transfer | None = None,
) -> None:
    """Fetch ``url`` into ``part``, going on from the bytes that are already there.

    Parameters
    ----------
    verified_later
        The caller checks the whole file's checksum. Only then are bytes of another address, or of a
        server that names no version of its file, worth continuing.
    expected_size
        Refuse a file of any other size.
    progress
        Show a bar on standard error, if that is a terminal.

    Raises
    ------
    StorageError, InputError
        The server, the disk or the address is no good, or the tries are used up; ``part`` is kept.
    """
    fetch = _Fetch(url, part, verified_later, expected_size, transfer or Transfer())
    look = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "disable": None if progress else True}
    best, failed = _size(part), 0
    with requests.Session() as session, tqdm(desc=part.stem, **look) as bar:
        while True:
            try:
                return fetch.attempt(session, bar)
            except _TryAgain as problem:
                # Only bytes never had before count as progress, or a server that always starts
                # over and always breaks would keep us here for ever.
                failed = 1 if _size(part) > best else failed + 1
                best = max(best, _size(part))
                bar.clear()  # the message gets a line of its own
                fetch.wait_or_give_up(problem, failed)


def discard(part: Path) -> None:
    """Remove a part and the note of where it came from."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


class _TryAgain(Exception):
    """This try failed, the next one may not; ``wait`` is what the server asked for."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class _Source:
    """Where a part's bytes came from; kept beside it, so that a later run can prove they still fit."""

    url: str = ""
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None

    def validator(self, url: str) -> str | None:
        # A weak ETag promises the same meaning, not the same bytes: If-Range must not carry it.
        strong = self.etag and not self.etag.startswith("W/")
        return (self.etag if strong else self.last_modified) if url == self.url else None


@dataclass
class _Fetch:
    """One file on its way; each attempt is one request."""

    url: str
    part: Path
    verified_later: bool
    expected_size: int | None
    transfer: Transfer
    answered: bool = False

    def attempt(self, session: requests.Session, bar: tqdm) -> None:
        """Bring ``part`` to its full size with one request, or say why not."""
        source, have = _read_note(self.part), _size(self.part)
        if have and source.url == self.url and source.total == have:
            return  # An earlier run had it all and was stopped before the check.
        headers = {"Accept-Encoding": "identity", "User-Agent": "perturbqa-flows"}
        validator = source.validator(self.url)
        if have and (validator or self.verified_later):
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": validator} if validator else {})
        settings = {"headers": headers, "stream": True, "timeout": self.transfer.timeout}
        with self._plain_errors(), session.get(self.url, **settings) as response:
            self.answered = True
            offset, total = self._accept(response, source, have)
            if have and not offset:
                log.warning("%s: the server does not continue the part, starting over", self.url)
            if offset != total:
                self._check_room(total, offset, have)
                bar.total, bar.n = total, offset
                bar.refresh()
                self._receive(response, offset, total, bar)

    def wait_or_give_up(self, problem: _TryAgain, failed: int) -> None:
        """Wait before the next try, or raise if there is none left."""
        tries = self.transfer.retries
        if failed > tries:
            raise StorageError(
                f"{self.url}: {problem}, {failed} times in a row. What has come so far is kept in "
                f"{self.part}: run the same command again later, or try another mirror"
            ) from problem
        wait = self.transfer.first_wait * 2 ** (failed - 1) if problem.wait is None else problem.wait
        wait = min(wait, self.transfer.longest_wait)
        log.warning("%s: %s; next try in %.3g s (%d of %d)", self.url, problem, wait, failed, tries)
        self.transfer.sleep(wait)

    def _accept(self, response: requests.Response, source: _Source, have: int) -> tuple[int, int | None]:
        """Judge an answer by its head: where the body starts, and the file's size if it is told."""
        status, headers = response.status_code, response.headers
        if status in WORTH_ANOTHER_TRY:
            asked = headers.get("Retry-After", "")
            raise _TryAgain(f"the server answered {status}", float(asked) if asked.isdigit() else None)
        content_range = re.search(r"(\d*)-?\d*/(\d+|\*)$", headers.get("Content-Range", ""))
        start, total = content_range.groups() if content_range else ("", headers.get("Content-Length", ""))
        total = int(total) if total.isdigit() else None
        if status == 416 and have:
            if have == (source.total if total is None or not content_range else total):
                return have, have
            self._start_over()
        self._refuse_what_is_no_file(response)
        if status == 206:
            same = source.url != self.url or headers.get("ETag", source.etag) == source.etag
            if start != str(have) or not same or (total and source.total not in (None, total)):
                self._start_over()
            total = total or source.total
        if None not in (total, self.expected_size) and total != self.expected_size:
            raise StorageError(
                f"{self.url}: the server offers {total:,} bytes where the published file has "
                f"{self.expected_size:,}; try another mirror"
            )
        return have if status == 206 else 0, self.expected_size if total is None else total

    def _start_over(self) -> None:
        discard(self.part)
        raise _TryAgain("the file on the server is not the one begun, starting over", wait=0)

    def _refuse_what_is_no_file(self, response: requests.Response) -> None:
        """Raise for every answer that is final and not the file."""
        status, headers = response.status_code, response.headers
        if status == 202 or (status == 200 and headers.get("Content-Type", "").startswith("text/html")):
            # Seen on Figshare: a robot check with an empty 202 that naive clients save as the file.
            problem = (
                f"the server sent a web page, perhaps a robot check, instead of the file (HTTP {status}); "
                f"try another mirror, or save the file by hand as {self.part.with_suffix('')}"
            )
        elif status not in (200, 206):
            problem = (
                f"the server answered {status} {response.reason}; check the address or try another mirror"
            )
        elif headers.get("Content-Encoding", "identity") != "identity":
            problem = "the server insists on compressing the file on its way; try another mirror"
        else:
            return
        raise StorageError(f"{self.url}: {problem}")

    def _check_room(self, total: int | None, offset: int, have: int) -> None:
        """Refuse before the first byte what the disk cannot hold."""
        # A part that is started over gives its space back first.
        missing = (total or 0) - offset - (0 if offset else have)
        free = shutil.disk_usage(self.part.parent).free
        if missing > free:
            raise StorageError(
                f"cannot write {self.part}: {missing:,} bytes are still to come and the disk has {free:,} "
                "free; free some space and run the same command again, or choose another folder"
            )

    def _receive(self, response: requests.Response, offset: int, total: int | None, bar: tqdm) -> None:
        """Write the body behind ``offset`` and bring it to disk."""
        with open(self.part, "ab" if offset else "wb") as handle:
            if not offset:
                # After the truncation: an old part must never stand beside the new version's note.
                told = response.headers
                note = _Source(self.url, told.get("ETag"), told.get("Last-Modified"), total)
                write_json(_note(self.part), asdict(note))
            for chunk in response.iter_content(self.transfer.chunk):
                handle.write(chunk)
                bar.update(len(chunk))
            handle.flush()
            os.fsync(handle.fileno())
        if total is not None and _size(self.part) < total:
            raise _TryAgain("the connection ended early")
        if total is not None and _size(self.part) > total:
            self._start_over()

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Sort what requests and the disk raise into: try again, and one plain sentence."""
        try:
            with disk_errors(self.part):
                yield
        except (failures.InvalidURL, failures.InvalidSchema, failures.MissingSchema) as error:
            raise InputError(self.url, ["no web address; one begins with http:// or https://"]) from error
        except failures.SSLError as error:
            raise StorageError(f"{self.url}: the server's certificate is not accepted: {error}") from error
        except (failures.ConnectionError, failures.Timeout, failures.ChunkedEncodingError) as error:
            cause = getattr(error.args[0] if error.args else None, "reason", None)
            if isinstance(cause, NewConnectionError) and not self.answered:
                # An unknown host is the subclass NameResolutionError.
                found = "refused" if type(cause) is NewConnectionError else "impossible, unknown host"
                advice = "check the address and the network, or try another mirror"
                raise StorageError(f"{self.url}: connection {found}; {advice}") from error
            slow = isinstance(error, failures.Timeout)
            raise _TryAgain("no answer in time" if slow else "the connection broke") from error
        except failures.RequestException as error:
            raise StorageError(f"{self.url}: {error}; try another mirror") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> _Source:
    """Read the note beside a part; a missing or damaged one proves nothing."""
    try:
        return _Source(**json.loads(_note(part).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return _Source()
