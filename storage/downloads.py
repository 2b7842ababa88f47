"""Public data sets by name: fetched once, checked, resumed, from the publisher or from a mirror."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import pooch

from storage.atomic import atomic_path, disk_errors, remove
from storage.datasets import Dataset, find_dataset
from storage.errors import InputError, StorageError
from storage.http_download import Transfer, discard, download
from storage.locks import only_one

log = logging.getLogger(__name__)


def get_dataset(
    name: str,
    folder: Path | str,
    *,
    mirror: str | None = None,
    progress: bool = True,
    transfer: Transfer | None = None,
) -> Path:
    """Bring a public data set into ``folder``, unless it is there already, and return its path.

    Parameters
    ----------
    mirror
        Base address of a copy: the file is taken from ``<mirror>/<file name>``.
    progress
        Show a bar on standard error, if that is a terminal.

    Raises
    ------
    InputError
        The name or the mirror's address is not usable.
    StorageError
        The server, the transfer, the checksum or the disk failed. What has come so far is kept in
        ``<file>.part`` and is taken up again by the next run, unless its checksum was wrong.
    """
    return fetch(find_dataset(name), folder, mirror=mirror, progress=progress, transfer=transfer)


def fetch(
    dataset: Dataset,
    folder: Path | str,
    *,
    mirror: str | None = None,
    progress: bool = True,
    transfer: Transfer | None = None,
) -> Path:
    """Bring one file into ``folder``; see :func:`get_dataset`."""
    url = _address(dataset, mirror)
    target = Path(folder).absolute() / dataset.file_name
    with disk_errors(target):
        before = _look(target)
        if _is_there(dataset, target):
            return target
        lock = target.with_name(f".{target.name}.lock")
        with only_one(lock, lambda: log.warning("another process is fetching %s; waiting for it", target)):
            # Hash again only if another process has changed the file while we waited.
            if _look(target) == before or not _is_there(dataset, target):
                _retrieve(dataset, url, target, progress=progress, transfer=transfer)
    return target


def _address(dataset: Dataset, mirror: str | None) -> str:
    if mirror is None:
        return dataset.url
    try:
        parts = urlsplit(mirror)
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.query
    except ValueError:
        usable = False
    if not usable:
        raise InputError(f"mirror {mirror!r}", ["give a base address such as https://host/folder"])
    return f"{mirror.rstrip('/')}/{quote(dataset.file_name)}"


def _is_there(dataset: Dataset, target: Path) -> bool:
    """Say whether the right file is in its place: by checksum, or by size where none is known."""
    if not target.exists():
        return False
    if not target.is_file():
        raise StorageError(f"{target} is in the way: it is a folder; remove it or choose another folder")
    expected = dataset.checksum or _recorded(target)
    if expected:
        good = _digest(target, expected) == expected
    else:
        good = dataset.size_bytes in (None, target.stat().st_size)
    if not good:
        log.warning("%s is there but is not the published file; fetching it again", target)
    elif not expected:
        _record(target, target)
    return good


def _retrieve(dataset: Dataset, url: str, target: Path, *, progress: bool, transfer: Transfer | None) -> None:
    """Let pooch fetch and check the file in a scratch folder, then put it in its place."""
    expected = dataset.checksum or _recorded(target)
    part = target.with_name(f"{target.name}.part")
    # Pooch's temporary files carry random names: in a folder of their own a killed run's are found.
    scratch = target.with_name(f".{target.name}.check")
    size = None if expected else dataset.size_bytes

    def stream(url: str, output_file: str, _store: pooch.Pooch) -> None:
        download(
            url, part, verified_later=bool(expected), expected_size=size, progress=progress, transfer=transfer
        )
        _lend(part, Path(output_file))

    remove(scratch)
    names = {"registry": {target.name: expected}, "urls": {target.name: url}}
    store = pooch.create(path=scratch, base_url="", **names)
    try:
        with _quiet_pooch():
            fetched = Path(store.fetch(target.name, downloader=stream))
        if not expected:
            _record(fetched, target)
        os.replace(fetched, target)
    except ValueError as error:
        found = str(error).partition("but got ")[2].split(".")[0]
        if not found:
            raise
        discard(part)
        raise StorageError(_wrong_checksum(dataset, url, target, expected, found)) from error
    finally:
        remove(scratch)
    discard(part)


def _wrong_checksum(dataset: Dataset, url: str, target: Path, expected: str, found: str) -> str:
    message = (
        f"{dataset.name}: the file from {url} has a wrong checksum: expected {expected}, found {found}. "
        "It was removed: run the same command again, or try another mirror"
    )
    if dataset.checksum is None:
        message += f"; if the publisher has a new version, delete {_sidecar(target)} first"
    return message


def _lend(part: Path, borrower: Path) -> None:
    """Give pooch the finished part under its own name, and keep ours in case the check is interrupted."""
    borrower.unlink(missing_ok=True)
    try:
        os.link(part, borrower)
    except OSError:
        # Some file systems have no hard links; there an interrupted check costs the download.
        os.replace(part, borrower)


def _digest(path: Path, like: str) -> str:
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"


def _sidecar(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _recorded(target: Path) -> str | None:
    """Read the checksum that an earlier download wrote beside its file."""
    sidecar = _sidecar(target)
    if not sidecar.exists():
        return None
    match = re.match(r"([0-9a-f]{64})\b", sidecar.read_text())
    if match is None:
        raise StorageError(f"{sidecar} holds no sha256 checksum; delete it and run the same command again")
    return f"sha256:{match.group(1)}"


def _record(path: Path, target: Path) -> None:
    """Write the checksum of ``path`` beside ``target``, in the form that ``sha256sum -c`` reads."""
    digest = pooch.file_hash(str(path), alg="sha256")
    with atomic_path(_sidecar(target)) as temporary:
        temporary.write_text(f"{digest}  {target.name}\n")
    log.warning(
        "%s: no published checksum is known, so only its transfer could be checked; its sha256 is now in %s "
        "and later runs are checked against it",
        target.name,
        _sidecar(target),
    )


def _look(target: Path) -> tuple[int, int, int] | None:
    if not target.exists():
        return None
    found = target.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """Keep pooch's notes to developers off the user's terminal."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
