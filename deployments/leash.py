"""Run one program so that nothing of it outlives whoever started it.

Started as a plain script (``python -I -S leash.py PARENT_PID PROGRAM ...``), so that it costs a few
megabytes.
On Linux it also hears of a parent that was killed, and finds children that their own parent left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

#: Seconds a program has to end by itself once it is asked to.
GRACE = 15.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class Ended(BaseException):
    """This process was asked to end."""


def main(parent: int, command: list[str]) -> int:
    """Run ``command`` to its end, or to this process's; gives its exit code."""
    _listen(_end)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:
        return 1
    process = None
    try:
        process = subprocess.Popen(command, start_new_session=True)
        return process.wait()
    except Ended:
        _listen(signal.SIG_IGN)
        # None where the signal came while it was being started: what there is of it ends below.
        return 1 if process is None else _stop(process)
    finally:
        _listen(signal.SIG_IGN)
        _end_group(None if process is None else process.pid)


def _listen(handler: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handler)


def _end(_number: int, _frame: object) -> None:
    raise Ended


def _stop(process: subprocess.Popen) -> int:
    process.terminate()
    try:
        return process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _end_group(group: int | None) -> None:
    """Kill what the program has left: its group, and on Linux whatever was handed to this process."""
    if group is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for _ in range(50):
        left = _children() if sys.platform == "linux" else []
        if not left:
            return
        for child in left:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        time.sleep(0.02)


def _children() -> list[int]:
    """Ids of this process's children: each ended one leaves its own to us."""
    return [int(child) for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
