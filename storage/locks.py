"""One process at a time: who comes second waits for the first and says so, or does not wait."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

#: Seconds between two looks at a lock that another process holds.
POLL = 0.2


@contextlib.contextmanager
def only_one(lock_file: Path, taken: Callable[[], object]) -> Iterator[None]:
    """Hold a lock while the block runs.

    ``taken`` is called once if another process holds it. If it returns, the lock is waited for; if it raises,
    that is all.

    The file stays behind: to remove it would let two processes in. A process that dies frees its lock.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file, poll_interval=POLL)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        taken()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
