"""Run one program so that none of its processes outlives the one that started this script.

Started as a plain script (``python -I -S process_wrapper.py PARENT_PID PROGRAM ...``), so that it costs a few
megabytes.
On Linux it also notices when its parent is killed, and ends processes whose own parent has exited.
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

#: Seconds a program has to end by itself after a SIGTERM.
GRACE_SECONDS = 15.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class TerminationRequested(BaseException):
    """This process was sent a signal to end."""


def main(parent: int, command: list[str]) -> int:
    """Run ``command`` until it exits, or this process is sent a signal to end, or ``parent`` is gone.

    Returns
    -------
    int
        The command's exit code; 1 if it was never started.
    """
    _handle_signals(_request_termination)
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
    except TerminationRequested:
        _handle_signals(signal.SIG_IGN)
        # None where the signal came while it was being started: what there is of it is killed below.
        return 1 if process is None else _stop(process)
    finally:
        _handle_signals(signal.SIG_IGN)
        _kill_remaining(None if process is None else process.pid)


def _handle_signals(handler: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handler)


def _request_termination(_number: int, _frame: object) -> None:
    raise TerminationRequested


def _stop(process: subprocess.Popen) -> int:
    process.terminate()
    try:
        return process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _kill_remaining(group: int | None) -> None:
    """Kill what the program has left: its process group, and on Linux the orphans this process adopted."""
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
    """Ids of this process's children; those of a child that exits become ours."""
    return [int(child) for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
