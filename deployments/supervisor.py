"""A supervisor of several programs: starts them in order, restarts those that exit, stops all together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deployments import process_wrapper
from storage.errors import PqaError

#: Seconds between two checks of the services.
POLL_SECONDS = 0.25
#: Seconds all services together may take until each answers.
START_TIMEOUT = 300.0
#: Seconds before a restart: the first delay, doubled with every exit up to the longest.
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
#: A service that ran for so many seconds is restarted after the first delay again.
STABLE_SECONDS = 120.0
#: Exits of a service that never answered after which the start of everything fails.
MAX_FAILED_STARTS = 3
#: A log larger than so many bytes at the start is renamed to ``NAME.log.1``.
LOG_BYTES = 20_000_000


class ServiceError(PqaError):
    """A service did not start."""


@dataclass(frozen=True)
class Service:
    """One program to be kept running.

    Attributes
    ----------
    name
        What it is called in messages and in ``after``.
    command
        Program and arguments.
    log
        File that its output is appended to.
    healthy
        Whether it answers; called with the id of the process that was started.
    environment
        Variables set beside this process's own.
    after
        Names of services that have to have answered before this one is started for the first time.
    address
        Where a user finds it; empty if nowhere.
    """

    name: str
    command: Sequence[str]
    log: Path
    healthy: Callable[[int], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    address: str = ""


class _ManagedService:
    """A service with its process and its history."""

    def __init__(self, service: Service):
        self.service, self.process = service, None
        self.is_healthy = self.was_healthy = False
        self.exits, self.exit_code = 0, 0
        self.started_at, self.restart_at = 0.0, 0.0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        self.is_healthy, self.started_at = False, time.monotonic()
        wrapper = [process_wrapper.__file__, str(os.getpid())]
        with self.service.log.open("ab") as log:
            # With the parent's id the wrapper sees whether this process has ended already.
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", *wrapper, *self.service.command],
                env=os.environ | dict(self.service.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def record_exit(self) -> float:
        """Note that the process has exited; gives the seconds until the restart."""
        now = time.monotonic()
        self.exit_code, self.process = self.process.returncode, None
        self.exits = 1 if now - self.started_at > STABLE_SECONDS else self.exits + 1
        delay = min(FIRST_DELAY * 2 ** (self.exits - 1), LONGEST_DELAY)
        self.restart_at = now + delay
        return delay

    def terminate(self) -> None:
        if self.running:
            self.process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        if self.running:
            try:
                self.process.wait(process_wrapper.GRACE_SECONDS + 5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Supervisor:
    """Keeps all services of one `pqa up` running.

    Parameters
    ----------
    services
        In an order in which no service comes before one of its ``after``.
    report
        Called with one line for each event: a service exited, or answers again.
    """

    def __init__(self, services: Sequence[Service], report: Callable[[str], None]):
        self._managed = {service.name: _ManagedService(service) for service in services}
        self._report = report
        #: Set by whoever wants all services to stop.
        self.stop_requested = threading.Event()
        for service in services:
            _rotate_log(service.log)

    def start(self) -> None:
        """Start all services and wait until each answers, or until ``stop_requested`` is set.

        Raises
        ------
        ServiceError
            If one exits again and again, or does not answer in time.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not self.stop_requested.is_set() and not all(one.is_healthy for one in self._managed.values()):
            if time.monotonic() > deadline:
                silent = [one for one in self._managed.values() if not one.is_healthy and one.process]
                listed = ", ".join(f"{one.service.name} (log: {one.service.log})" for one in silent)
                raise ServiceError(f"no answer within {START_TIMEOUT:.0f} s from {listed}")
            self._poll()
            self.stop_requested.wait(POLL_SECONDS)

    def watch(self) -> None:
        """Restart services that exit, until ``stop_requested`` is set; to be called after ``start``."""
        while not self.stop_requested.wait(POLL_SECONDS):
            self._poll()

    def stop(self) -> None:
        """Stop all services, those first that need others."""
        dependent = [one for one in self._managed.values() if one.service.after]
        others = [one for one in self._managed.values() if not one.service.after]
        for group in (dependent, others):
            for one in group:
                one.terminate()
            for one in group:
                one.wait()

    def _poll(self) -> None:
        for one in self._managed.values():
            if one.process is None:
                self._start_if_due(one)
            elif not one.running:
                self._handle_exit(one)
            elif not one.is_healthy and one.service.healthy(one.process.pid):
                one.is_healthy = True
                if one.was_healthy:
                    self._report(f"{one.service.name} is running again")
                one.was_healthy = True

    def _start_if_due(self, one: _ManagedService) -> None:
        ready = all(self._managed[name].was_healthy for name in one.service.after)
        if ready and time.monotonic() >= one.restart_at:
            one.start()

    def _handle_exit(self, one: _ManagedService) -> None:
        delay, name, log = one.record_exit(), one.service.name, one.service.log
        how = f"exit code {one.exit_code}" if one.exit_code >= 0 else f"signal {-one.exit_code}"
        if not one.was_healthy and one.exits >= MAX_FAILED_STARTS:
            raise ServiceError(f"{name} does not start ({how}): {_last_line(log)}")
        self._report(f"{name} has stopped ({how}); restart in {delay:.0f} s; log: {log}")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'it printed nothing'}; log: {log}"


def _rotate_log(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.is_file() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
