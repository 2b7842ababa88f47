"""Files that come into a folder or under a bucket's prefix, through fsspec, and a record of those seen."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import fsspec

from storage.atomic import atomic_path, write_json
from storage.errors import InputError


@dataclass(frozen=True)
class Watched:
    """A file as the folder lists it.

    Attributes
    ----------
    mark
        Digest over size and time of change (or the bucket's own tag) of the file and of the one beside it
        that names its columns: another mark, another content.
    """

    path: str
    size: int
    mark: str

    @property
    def name(self) -> str:
        """The file's name without folder and suffix."""
        return PurePosixPath(self.path).stem


@dataclass(frozen=True)
class Seen:
    """What is known of a file: its mark when last looked at, and how often it was the same in a row.

    Attributes
    ----------
    status
        ``waiting`` until it has stopped growing, then ``labelled`` or ``failed``.
    """

    mark: str
    looks: int = 1
    status: str = "waiting"
    said: str = ""


class WatchedFolder:
    """All files with one suffix below an address such as ``/data/inbox`` or ``s3://bucket/screens``.

    Beside each there may be a file of the same name with the suffix ``sidecar``, which says how to read it.

    Raises
    ------
    InputError
        If there is no such folder, or the library for this kind of address is missing.
    """

    def __init__(self, address: str, *, suffix: str = ".h5ad", sidecar: str = ".yaml"):
        self.address, self._suffix, self._sidecar = address, suffix, sidecar
        try:
            self._files, self._root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise InputError(address, [f"cannot be watched: {error}"]) from error

    def list(self) -> list[Watched]:
        """Files there now, in order of name; hidden ones, as of half a copy, are left out."""
        try:
            # What an earlier look has listed may have changed since.
            self._files.invalidate_cache()
            found = self._files.find(self._root, detail=True)
        except OSError as error:
            raise InputError(self.address, [f"cannot be listed ({error})"]) from error
        if not found and self.is_local and not self.is_there:
            raise InputError(self.address, ["no such folder"])
        return [
            Watched(path, int(entry["size"]), _mark(entry, found.get(self._beside(path))))
            for path, entry in sorted(found.items())
            if path.endswith(self._suffix) and not PurePosixPath(path).name.startswith((".", "_"))
        ]

    @property
    def is_local(self) -> bool:
        """Whether the files are on this machine's disks."""
        return "file" in self._files.protocol

    @property
    def is_there(self) -> bool:
        """Whether there is a folder of this name."""
        return self._files.isdir(self._root)

    def sidecar(self, file: Watched) -> bytes | None:
        """Content of the file beside it, if there is one."""
        path = self._beside(file.path)
        return self._files.cat_file(path) if self._files.exists(path) else None

    def _beside(self, path: str) -> str:
        return str(PurePosixPath(path).with_suffix(self._sidecar))

    @contextlib.contextmanager
    def fetched(self, file: Watched, folder: Path) -> Iterator[Path]:
        """The file on this machine's disk: itself if it is there already, or for now a copy in ``folder``."""
        if self.is_local:
            yield Path(file.path)
            return
        target = folder / PurePosixPath(file.path).name
        with (
            atomic_path(target) as temporary,
            self._files.open(file.path, "rb") as source,
            temporary.open("wb") as copy,
        ):
            shutil.copyfileobj(source, copy, 1 << 24)
        try:
            yield target
        finally:
            target.unlink()


def read_seen(path: Path) -> dict[str, Seen]:
    """What was seen so far, by path; nothing where there is no record yet."""
    if not path.is_file():
        return {}
    return {name: Seen(**entry) for name, entry in json.loads(path.read_text()).items()}


def write_seen(path: Path, seen: Mapping[str, Seen]) -> None:
    """Keep the record, atomically."""
    write_json(path, {name: asdict(entry) for name, entry in seen.items()})


def look(files: list[Watched], seen: Mapping[str, Seen]) -> dict[str, Seen]:
    """The record after one more look: a changed file waits again, one that is gone is forgotten."""
    after = {}
    for file in files:
        known = seen.get(file.path)
        if known is None or known.mark != file.mark:
            after[file.path] = Seen(file.mark)
        else:
            after[file.path] = Seen(known.mark, known.looks + 1, known.status, known.said)
    return after


def _mark(*entries: Mapping | None) -> str:
    """Whatever the file system says of the contents of the files that are there."""
    told = "|".join(_told(entry) for entry in entries if entry is not None)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _told(entry: Mapping) -> str:
    """A file's tag if it has one, else its size and time."""
    tag = entry.get("ETag") or entry.get("etag") or entry.get("md5Hash")
    when = entry.get("mtime") or entry.get("LastModified") or entry.get("updated") or entry.get("created")
    return f"{tag}|{entry['size']}|{when}"
