"""One piece of work a process: CPU seconds, wall seconds and peak memory, and their medians."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

THREADS = 2
Figures = dict[str, float]


def measured(work: Callable[[], object]) -> Figures:
    """Run ``work`` once; CPU (all threads) and wall seconds, and the process's peak memory in MB so far."""
    before, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": cpu, "wall_s": time.perf_counter() - wall, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """Most memory this process has had at once; ``ru_maxrss`` would start at what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def medians(module: str, *arguments: str, runs: int) -> Figures:
    """Run ``python -m tests.benchmarks.MODULE ARGUMENTS`` so often; the medians of the JSON it prints.

    Empty where it failed, with its last line of errors on standard error.
    """
    results = []
    for _ in range(runs):
        command = [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{arguments[0]}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return {}
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{' '.join(arguments[:2])}: {results[-1]}", file=sys.stderr, flush=True)
    return {key: statistics.median(result[key] for result in results) for key in results[0]}
