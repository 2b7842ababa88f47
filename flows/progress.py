"""Progress in the field's units, on a terminal or in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

#: To be told what is done and of how much, in a unit such as cells.
Progress = Callable[[int, int], None]

#: Seconds between two updates; nobody need hear of every block.
EVERY = 2.0


def progress_of(title: str, unit: str) -> Progress:
    """A function to be told ``(done, total)`` in ``unit``, such as cells; it writes to standard error."""

    def show(words: str, percent: float) -> None:
        end = "\r" if sys.stderr.isatty() and percent < 100 else "\n"
        print(f"{words:<78}", end=end, file=sys.stderr, flush=True)

    return throttled(title, unit, show)


def throttled(title: str, unit: str, show: Callable[[str, float], None]) -> Progress:
    """Call ``show(words, percent)`` at most every two seconds, and at the end, with the time left."""
    started, last = time.monotonic(), 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < EVERY and done < total:
            return
        last = now
        left = _left(now - started, done, total)
        show(f"{title}: {done:,} of {total:,} {unit}{left}", 100.0 * done / max(total, 1))

    return report


def _left(seconds: float, done: int, total: int) -> str:
    if not 0 < done < total or seconds < EVERY:
        return ""
    return f", about {seconds / done * (total - done):,.0f} s left"
