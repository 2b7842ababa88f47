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


@contextlib.contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``target``; on success it becomes ``target``, on failure it goes.

    Works for a file and for a folder; an existing folder at ``target`` is replaced.

    Raises
    ------
    StorageError
        If the disk is full or the place cannot be written; ``target`` is left as it was.
    """
    target = Path(target)
    # One leading part keeps the suffix, because some writers choose their format by it.
    temporary = target.with_name(f".partial-{uuid.uuid4().hex[:8]}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        if temporary.is_dir() and target.is_dir():
            remove(target)
        os.replace(temporary, target)
    except OSError as error:
        _discard(temporary)
        raise as_storage_error(error, target) from error
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


def as_storage_error(error: OSError, target: Path | str) -> Exception:
    """Turn the disk's own errors into one plain sentence; other errors are handed back unchanged."""
    advice = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
        errno.EROFS: "the disk is read-only; choose another folder",
        errno.EACCES: "no permission to write there; choose another folder",
        errno.EPERM: "no permission to write there; choose another folder",
        errno.ENOTDIR: "a part of this path is a file; choose another folder",
        errno.EEXIST: "a part of this path is a file; choose another folder",
        errno.EISDIR: "a folder of this name is there; choose another name",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    }.get(error.errno)
    return error if advice is None else StorageError(f"cannot write {target}: {advice}")


def _flush(path: Path) -> None:
    """Bring a finished file's bytes to disk, so that a crash after the rename cannot empty it."""
    if path.is_file():
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
