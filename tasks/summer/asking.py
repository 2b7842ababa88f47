"""Requests to an engine and answers to the ledger, the engine never idle for the slowest of a batch."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from storage.answers import Answer, AnswerLedger, short_key
from storage.errors import LedgerError
from tasks.summer.engines.protocol import Engine, Request

#: Requests made ready in one go, in a thread beside the engine.
AHEAD = 64


@dataclass(frozen=True)
class Limits:
    """When a run stops by itself.

    Attributes
    ----------
    max_tokens, max_minutes
        Prompt and output tokens together, as the engine counts them, and time: no further request is sent
        once so much is used; those under way are waited for. None: no limit.
    spent_tokens, spent_minutes
        What was used of these before this run.
    most_failed
        Requests that may fail; with more the run fails at once, and no more is spent.
    ask_again
        Ways an earlier request ended that do not count as done.
    """

    max_tokens: int | None = None
    max_minutes: float | None = None
    spent_tokens: int = 0
    spent_minutes: float = 0.0
    most_failed: int = 0
    ask_again: tuple[str, ...] = ("error",)


@dataclass
class Asked:
    """What came of a run's requests, by key; identical prompts are one request.

    Attributes
    ----------
    requested
        Different requests there were; of these ``found`` in the ledger, ``done`` and ``failed`` now, and
        ``left`` where a budget was used up.
    stopped
        Why requests were left, empty where none were.
    error
        Why the first request failed that did.
    """

    requested: int = 0
    found: int = 0
    done: int = 0
    failed: int = 0
    repeated: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0
    stopped: str = ""
    error: str = ""

    @property
    def left(self) -> int:
        """Requests that were not sent."""
        return self.requested - self.found - self.done - self.failed

    def check_failures(self, limits: Limits) -> None:
        """Fail if too many requests did; LedgerError with an example."""
        if self.failed > limits.most_failed:
            raise LedgerError(
                f"{self.failed:,} requests failed, more than the {limits.most_failed:,} allowed "
                "(--max-failed); what was answered is kept, and the same command goes on. "
                f"For example: {self.error}"
            )

    def check(self, limits: Limits) -> None:
        """Fail if too many requests failed, or some are not accounted for.

        Raises
        ------
        LedgerError
            With the figures and an example.
        """
        self.check_failures(limits)
        if self.left and not self.stopped:
            raise LedgerError(
                f"{self.left:,} of {self.requested:,} requests were neither answered nor failed"
            )


async def ask(
    requests: Iterable[Request],
    engine: Engine,
    ledger: AnswerLedger,
    *,
    total: int,
    limits: Limits = Limits(),
    asked: Asked | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Asked:
    """Send every request that the ledger does not answer, ``engine.window`` at a time.

    Each place takes the next request when its answer is in, so there is no batch to wait for. Requests are
    drawn and rendered in a thread, at most a few hundred ahead of the engine.

    Parameters
    ----------
    total
        Requests that are not in the ledger, for the progress.
    asked
        Counted in, so that it tells what was spent also where an error ends the run; else a new one.
    progress
        Told how many of these are answered or failed.

    Raises
    ------
    EngineError
        If the engine cannot be used at all; answers that came before are kept.
    LedgerError
        If more requests failed than may.
    """
    run = _Run(
        iter(requests),
        engine,
        ledger=ledger,
        total=total,
        limits=limits,
        asked=asked or Asked(),
        progress=progress,
    )
    async with engine:
        await run.feed()
    return run.asked


class _Run:
    """The state that the places of one run share; parameters as of `ask`."""

    def __init__(
        self,
        requests: Iterator[Request],
        engine: Engine,
        *,
        ledger: AnswerLedger,
        total: int,
        limits: Limits,
        asked: Asked,
        progress: Callable[[int, int], None],
    ):
        self.engine, self.ledger, self.limits = engine, ledger, limits
        self.total, self.progress = total, progress
        self.asked = asked
        self.queue: asyncio.Queue[Request | None] = asyncio.Queue(maxsize=engine.window + 2 * AHEAD)
        self.missing = self._missing(requests)
        self.started = time.monotonic()
        self.writing = asyncio.Lock()
        # The thread that draws requests is told so, not interrupted.
        self.halt = threading.Event()

    async def feed(self) -> None:
        """Run the places and what feeds them until all is asked; the first error ends them all."""
        places = [asyncio.create_task(self._place()) for _ in range(self.engine.window)]
        clock = asyncio.create_task(self._write_parts())
        feeder = asyncio.create_task(self._fill())
        try:
            await asyncio.gather(feeder, *places)
        finally:
            self.halt.set()
            for task in (feeder, clock, *places):
                task.cancel()
            await asyncio.gather(feeder, clock, *places, return_exceptions=True)
            self.asked.seconds = time.monotonic() - self.started
            await asyncio.to_thread(self.ledger.write_part)

    def _missing(self, requests: Iterator[Request]) -> Iterator[Request]:
        """The requests to be sent: not answered before, and each once."""
        seen: set[bytes] = set()
        for request in requests:
            short = short_key(request.key)
            if short in seen:
                self.asked.repeated += 1
                continue
            seen.add(short)
            self.asked.requested += 1
            if self.ledger.is_done(request.key, ask_again=self.limits.ask_again):
                self.asked.found += 1
            else:
                yield request

    def _draw(self) -> list[Request]:
        return [] if self.halt.is_set() else list(itertools.islice(self.missing, AHEAD))

    async def _fill(self) -> None:
        while chunk := await asyncio.to_thread(self._draw):
            for request in chunk:
                await self.queue.put(request)
        for _ in range(self.engine.window):
            await self.queue.put(None)

    async def _place(self) -> None:
        while (request := await self.queue.get()) is not None:
            self.asked.stopped = self.asked.stopped or self._budget_used()
            if self.asked.stopped:
                continue  # Drawn to the end all the same: every request is counted.
            answer = await self.engine.answer(request)
            self.ledger.add(answer)
            self._count(request, answer)
            if self.ledger.part_is_due and not self.writing.locked():
                async with self.writing:
                    await asyncio.to_thread(self.ledger.write_part)

    def _count(self, request: Request, answer: Answer) -> None:
        asked = self.asked
        asked.done += answer.status != "error"
        asked.failed += answer.status == "error"
        if answer.status != "error":
            # A server that does not count must not make a budget endless: four characters are a token.
            sent = sum(len(turn["content"]) for turn in request.messages)
            asked.prompt_tokens += answer.prompt_tokens if answer.prompt_tokens >= 0 else sent // 4
            asked.output_tokens += (
                answer.output_tokens if answer.output_tokens >= 0 else len(answer.text) // 4
            )
        asked.cached_tokens += max(answer.cached_tokens, 0)
        if answer.status == "error":
            asked.error = asked.error or answer.error
            asked.check_failures(self.limits)
        self.progress(asked.done + asked.failed, self.total)

    def _budget_used(self) -> str:
        limits = self.limits
        tokens = limits.spent_tokens + self.asked.prompt_tokens + self.asked.output_tokens
        minutes = limits.spent_minutes + (time.monotonic() - self.started) / 60
        if limits.max_tokens is not None and tokens >= limits.max_tokens:
            return f"the budget of {limits.max_tokens:,} tokens is used up ({tokens:,} spent)"
        if limits.max_minutes is not None and minutes >= limits.max_minutes:
            return f"the budget of {limits.max_minutes:g} minutes is used up ({minutes:,.1f} spent)"
        return ""

    async def _write_parts(self) -> None:
        """A part a minute even where answers are slow."""
        while True:
            await asyncio.sleep(1.0)
            if self.ledger.part_is_due and not self.writing.locked():
                async with self.writing:
                    await asyncio.to_thread(self.ledger.write_part)
