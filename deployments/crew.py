"""Several programs as one: started in order, watched, started again when they die, ended together."""

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

from deployments import leash
from storage.errors import PqaError

#: Seconds between two looks at the parts.
EVERY = 0.25
#: Seconds a part may take until it answers.
PATIENCE = 300.0
#: Seconds before a part is started again: doubled with every death, the first when it had lasted so long.
FIRST_WAIT, LONGEST_WAIT, LASTED = 1.0, 60.0, 120.0
#: Deaths before it ever answered that end the start of everything.
FALSE_STARTS = 3
#: Bytes of log kept from before; an older log is set aside once.
LOG_BYTES = 20_000_000


class PartError(PqaError):
    """A part did not come up."""


@dataclass(frozen=True)
class Part:
    """One program.

    Attributes
    ----------
    healthy
        Whether it answers; called with its process id.
    after
        Names of parts that have to answer before this one is started for the first time.
    address
        Where a user finds it, if anywhere.
    """

    name: str
    command: Sequence[str]
    log: Path
    healthy: Callable[[int], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    address: str = ""


class _Kept:
    """A part with its process and its history."""

    def __init__(self, part: Part):
        self.part, self.process = part, None
        self.answers = self.ever_answered = False
        self.deaths, self.started, self.due = 0, 0.0, 0.0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        self.answers, self.started = False, time.monotonic()
        with self.part.log.open("ab") as log:
            # The parent's id tells the leash whether it came too late to hear of this process's end.
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *self.part.command],
                env=os.environ | dict(self.part.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def buried(self) -> float:
        """Note a death; gives the seconds until the next start."""
        code, lasted = self.process.returncode, time.monotonic() - self.started
        self.process = None
        self.deaths = 1 if lasted > LASTED else self.deaths + 1
        wait = min(FIRST_WAIT * 2 ** (self.deaths - 1), LONGEST_WAIT)
        self.due, self.last_code = time.monotonic() + wait, code
        return wait

    def ask_to_end(self) -> None:
        if self.alive:
            self.process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        if self.alive:
            try:
                self.process.wait(leash.GRACE + 5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Crew:
    """All parts of one `pqa up`.

    Parameters
    ----------
    parts
        In an order in which no part comes before one of its ``after``.
    say
        Told, in one line each, what happens to a part.
    """

    def __init__(self, parts: Sequence[Part], say: Callable[[str], None]):
        self._kept = {part.name: _Kept(part) for part in parts}
        self._say = say
        #: Set by whoever wants all to end.
        self.ending = threading.Event()
        for part in parts:
            _set_aside(part.log)

    def start(self) -> None:
        """Start all parts and wait until each answers.

        Raises
        ------
        PartError
            If one dies again and again, or does not answer in time.
        """
        deadline = time.monotonic() + PATIENCE
        while not self.ending.is_set() and not all(kept.answers for kept in self._kept.values()):
            if time.monotonic() > deadline:
                silent = [kept for kept in self._kept.values() if not kept.answers and kept.process]
                told = ", ".join(f"{kept.part.name} (log: {kept.part.log})" for kept in silent)
                raise PartError(f"no answer within {PATIENCE:.0f} s from {told}")
            self._look()
            self.ending.wait(EVERY)

    def watch(self) -> None:
        """Keep all parts alive until ``ending`` is set."""
        while not self.ending.wait(EVERY):
            self._look()

    def end(self) -> None:
        """End all parts, those first that need others."""
        needing = [kept for kept in self._kept.values() if kept.part.after]
        others = [kept for kept in self._kept.values() if not kept.part.after]
        for together in (needing, others):
            for kept in together:
                kept.ask_to_end()
            for kept in together:
                kept.end()

    def _look(self) -> None:
        for kept in self._kept.values():
            if kept.process is None:
                self._start_if_due(kept)
            elif not kept.alive:
                self._bury(kept)
            elif not kept.answers and kept.part.healthy(kept.process.pid):
                kept.answers = True
                if kept.ever_answered:
                    self._say(f"{kept.part.name} is back")
                kept.ever_answered = True

    def _start_if_due(self, kept: _Kept) -> None:
        ready = all(self._kept[name].ever_answered for name in kept.part.after)
        if ready and time.monotonic() >= kept.due:
            kept.start()

    def _bury(self, kept: _Kept) -> None:
        wait = kept.buried()
        how = f"exit code {kept.last_code}" if kept.last_code >= 0 else f"signal {-kept.last_code}"
        if not kept.ever_answered and kept.deaths >= FALSE_STARTS:
            raise PartError(f"{kept.part.name} does not start ({how}): {_last_words(kept.part.log)}")
        self._say(f"{kept.part.name} has died ({how}); started again in {wait:.0f} s; log: {kept.part.log}")


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'it said nothing'}; log: {log}"


def _set_aside(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.is_file() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
