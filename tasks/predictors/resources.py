"""Time and memory that a fit takes."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
import time
from collections.abc import Iterator

import psutil

#: Seconds between two looks at the memory.
INTERVAL = 0.2


@contextlib.contextmanager
def resources() -> Iterator[dict[str, float]]:
    """Measure the block; the mapping has ``fit_seconds`` and ``peak_memory_mb`` after it.

    The memory is that of the whole process, looked at five times a second: what else runs in it counts, and
    so do libraries and earlier results that are still held. What earlier work has freed does not.
    """
    measured: dict[str, float] = {}
    _give_back_memory()
    process, ended = psutil.Process(), threading.Event()
    peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not ended.wait(INTERVAL):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, name="memory", daemon=True)
    begun = time.monotonic()
    watcher.start()
    try:
        yield measured
    finally:
        ended.set()
        watcher.join()
        measured["fit_seconds"] = time.monotonic() - begun
        measured["peak_memory_mb"] = max(peak, process.memory_info().rss) / 1e6


def _give_back_memory() -> None:
    """Hand freed memory back to the system: glibc keeps hundreds of megabytes of a fit for the next one."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
