"""Files appear whole or not at all: write beside the target, flush to disk, rename over it."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from storage.errors import StorageError

#: What a disk's error means, and what helps.
ADVICE = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EROFS: ("the disk is read-only", "choose another folder"),
    errno.EACCES: ("no permission", "choose another folder"),
    errno.EPERM: ("no permission", "choose another folder"),
    errno.ENOTDIR: ("a part of this path is a file", "choose another folder"),
    errno.EEXIST: ("a part of this path is a file", "choose another folder"),
    errno.EISDIR: ("a folder of this name is there", "choose another name"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
}


@contextlib.contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``target``; on success it becomes ``target``, on failure it goes.

    Works for a file and for a folder. A file replaces a file in one step. An existing folder is moved
    aside first, so that a crash just between the two moves leaves no ``target``, and never a mixed one.

    Raises
    ------
    StorageError
        If the disk is full or the place cannot be written; ``target`` is left as it was.
    """
    target = Path(target)
    # One leading part keeps the suffix, because some writers choose their format by it.
    temporary = target.with_name(f".partial-{uuid.uuid4().hex[:8]}-{target.name}")
    with disk_errors(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush(temporary)
            _replace(temporary, target)
        except BaseException:
            _discard(temporary)
            raise


def write_json(target: Path | str, content: object) -> None:
    """Write ``content`` as indented JSON with sorted keys, atomically."""
    with atomic_path(target) as temporary:
        text = json.dumps(plain(content), indent=2, sort_keys=True, allow_nan=False)
        temporary.write_text(text + "\n")


def plain(content: object) -> object:
    """The same content with null where a number is not one: JSON has no NaN and no infinity."""
    if isinstance(content, Mapping):
        return {key: plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def copy_or_remove(source: Path, target: Path | str) -> None:
    """Copy a file, atomically; where there is none to copy, remove an older ``target``."""
    if not source.is_file():
        remove(Path(target))
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _discard(temporary: Path) -> None:
    """Remove what was begun; where that fails, the error that led here is the one to tell."""
    with contextlib.suppress(OSError):
        remove(temporary)


@contextlib.contextmanager
def disk_errors(target: Path | str) -> Iterator[None]:
    """Turn the disk's own errors inside the block into one plain sentence; other errors pass unchanged.

    Raises
    ------
    StorageError
        Naming ``target``, or the file that could not be opened where that is elsewhere (an input).
    """
    try:
        yield
    except OSError as error:
        if error.errno not in ADVICE:
            raise
        reason, advice = ADVICE[error.errno]
        source = _elsewhere(error, Path(target))
        message = f"cannot write {target}: {reason}; {advice}" if source is None else f"{source}: {reason}"
        raise StorageError(message) from error


def _elsewhere(error: OSError, target: Path) -> Path | None:
    """The file an error names, where it is not ``target``, its temporary or lock file, below or above it.

    Only what is not permitted may be an input: a disk that is full or read-only is written to.
    """
    if error.errno not in {errno.EACCES, errno.EPERM} or not isinstance(error.filename, str | os.PathLike):
        return None
    named, target = Path(error.filename).absolute(), target.absolute()
    beside = named.parent == target.parent and named.name.startswith(".") and target.name in named.name
    return None if beside or named.is_relative_to(target) or target.is_relative_to(named) else named


def _replace(temporary: Path, target: Path) -> None:
    """Move what is finished to its place; a folder there is moved aside, then removed."""
    if not (temporary.is_dir() and target.is_dir()):
        os.replace(temporary, target)
        return
    old = temporary.with_name(f"{temporary.name}.old")
    os.replace(target, old)
    try:
        os.replace(temporary, target)
    except OSError:
        os.replace(old, target)
        raise
    remove(old)


def _flush(path: Path) -> None:
    """Bring what is finished to disk, so that a crash after the rename cannot empty it."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
