"""One process at a time: who comes second waits for the first, and says so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

#: Seconds between two looks at a lock that another process holds.
POLL = 0.2


@contextlib.contextmanager
def only_one(lock_file: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold a lock while the block runs; ``waiting`` is called once if another process holds it.

    The file stays behind: to remove it would let two processes in. A process that dies frees its lock.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file, poll_interval=POLL)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
