"""A file as it was given: plain or gzipped, by itself or a member of a zip archive."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from storage.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
#: Endings that say how a file is packed or written, not what it is.
SUFFIXES = (".gz", ".txt", ".tsv", ".csv", ".parquet", ".json", ".gaf", ".gmt")


@dataclass(frozen=True, order=True)
class SourceFile:
    """One readable file.

    Attributes
    ----------
    path
        The file itself, or the zip archive that holds it.
    member
        Its name in the archive; empty for a file of its own.
    named
        Whether the user named this very file; only then its first line may say what it is.
    """

    path: Path
    member: str = ""
    named: bool = False

    @property
    def name(self) -> str:
        """What messages and tables call it: the file's name, in an archive after the archive's."""
        return f"{self.path.name}/{self.member}" if self.member else self.path.name

    @property
    def own_name(self) -> str:
        """The name of the file itself, without folders and archive."""
        return PurePosixPath(self.member).name if self.member else self.path.name

    @property
    def stem(self) -> str:
        """``own_name`` without the endings of packing and format."""
        stem = self.own_name
        while stem.lower().endswith(SUFFIXES):
            stem = stem[: stem.rindex(".")]
        return stem

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The file's bytes, unpacked while they are read.

        Raises
        ------
        InputError
            If it cannot be opened or unpacked to its end.
        """
        try:
            with contextlib.ExitStack() as stack:
                yield self._opened(stack)
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise InputError(self.name, [f"cannot be read ({error})"]) from error

    @contextlib.contextmanager
    def open_text(self) -> Iterator[IO[str]]:
        """The file's text, lines ended by a newline alone whatever they ended with.

        What is not UTF-8 becomes a mark: it stands in comments, and a gene's name with one is reported.
        """
        with (
            self.open() as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline=None) as text,
        ):
            yield text

    def first_line(self) -> str:
        """The first line without its end; empty where the file is."""
        with self.open_text() as text:
            return text.readline(1_000_000).rstrip("\n")

    def _opened(self, stack: contextlib.ExitStack) -> IO[bytes]:
        if self.member:
            archive = stack.enter_context(zipfile.ZipFile(self.path))
            raw = stack.enter_context(archive.open(self.member))
        else:
            raw = stack.enter_context(self.path.open("rb"))
        # By its first bytes: a name says nothing of whether a browser has unpacked the file already.
        packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        raw.seek(0)
        return stack.enter_context(gzip.GzipFile(fileobj=raw)) if packed else raw


def files_in(path: Path) -> tuple[list[SourceFile], list[str]]:
    """The files a path stands for: itself, those of a folder (not of folders in it), those of an archive.

    With them what cannot be read, in sentences.
    """
    if path.is_dir():
        parts = [
            files_in(entry)
            for entry in sorted(path.iterdir())
            if entry.is_file() and not entry.name.startswith(".")
        ]
        found = [SourceFile(file.path, file.member) for files, _ in parts for file in files]
        return found, [problem for _, problems in parts for problem in problems]
    if not path.is_file():
        return [], [f"{path}: no such file or folder"]
    if path.suffix.lower() != ".zip":
        return [SourceFile(path, named=True)], []
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(entry.filename for entry in archive.infolist() if not entry.is_dir())
    except (OSError, zipfile.BadZipFile) as error:
        return [], [f"{path.name}: cannot be read as a zip archive ({error})"]
    # What macOS adds to archives has the names of the files it is about.
    shown = [name for name in members if not re.search(r"(^|/)(\.|__MACOSX/)", name)]
    return [SourceFile(path, name, named=len(shown) == 1) for name in shown], []
