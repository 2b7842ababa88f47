"""Where a command puts its result: looked at before anything is computed, and held by one process."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from storage.atomic import disk_errors
from storage.errors import InputError
from storage.locks import only_one

#: Names by which tables are told apart when they are read.
PARQUET = (".parquet", ".pq")


def table_problems(out: Path) -> list[str]:
    """Why a Parquet table cannot be written at ``out``, in sentences."""
    if out.is_dir():
        return [f"--out {out}: a folder of this name is there; choose another name"]
    if out.suffix.lower() not in PARQUET:
        return [f"--out {out}: a Parquet table is written; choose a name that ends in .parquet"]
    return []


def refuse(problems: list[str]) -> None:
    """Raise with all that is wrong with a command's arguments, if anything is."""
    if problems:
        raise InputError("arguments", problems)


@contextlib.contextmanager
def held(out: Path, lock_file: Path) -> Iterator[None]:
    """Keep other processes from writing ``out`` meanwhile; who comes second waits and says so."""
    with disk_errors(out), only_one(lock_file, lambda: say(f"another process writes {out}; waiting for it")):
        yield


def lock_elsewhere(out: Path) -> Path:
    """A lock file for ``out`` among this machine's temporary files: beside ``out`` it would stay behind."""
    name = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"pqa-{os.getuid()}-{name}.lock"


def say(words: str) -> None:
    """A line on standard error: standard output is for the result."""
    print(words, file=sys.stderr, flush=True)
