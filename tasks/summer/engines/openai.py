"""Any server that speaks OpenAI's chat completions, or several such servers with the same model.

Written on aiohttp: a run is hundreds of requests a second, of which only one kind of call is needed.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import aiohttp

from storage.answers import Answer
from tasks.summer.engines.protocol import EngineError, Generation, ModelName, Request

#: Worth another try: too busy, too slow, or broken on the way.
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 524, 529})
#: Wrong for every request alike: no key, no permission, no such model or address.
FATAL = frozenset({401, 403, 404, 405})
#: Characters of a server's own words that an error repeats.
SHOWN = 300


@dataclass(frozen=True)
class ServerOptions:
    """How servers are asked.

    Attributes
    ----------
    base_urls
        One or more, each up to and with ``/v1``; the model is the same behind all of them.
    concurrency
        Requests under way at once on each server: an eighth more than it computes at once, so that the next
        one is there when an answer leaves.
    limit_field
        What the server calls the most tokens an answer may have.
    timeout
        Seconds one try may take.
    tries
        How often a request is sent before it counts as failed.
    backoff, longest_backoff
        Seconds: the wait before try n + 1 is drawn from 0 to ``backoff * 2**n``, at most the longest; a
        server that names a time itself is left alone for so long, at most the longest too.
    """

    base_urls: tuple[str, ...] = ("http://127.0.0.1:23333/v1",)
    concurrency: int = 72
    limit_field: str = "max_tokens"
    timeout: float = 600.0
    tries: int = 6
    backoff: float = 1.0
    longest_backoff: float = 60.0


@dataclass
class _Server:
    """One base address: how many requests it has, and until when it is left in peace."""

    url: str
    under_way: int = 0
    rests_until: float = 0.0


class OpenAIEngine:
    """Asks OpenAI-compatible servers, so many requests at once, again where it may help.

    Parameters
    ----------
    api_key
        Sent as a bearer token; in no log, error or representation. Empty for servers that want none.
    """

    def __init__(
        self, model: ModelName, generation: Generation, options: ServerOptions, *, api_key: str = ""
    ):
        self.model, self.generation, self.options = model, generation, options
        self._api_key = api_key
        self._servers = [_Server(url.rstrip("/")) for url in options.base_urls]
        self._session: aiohttp.ClientSession | None = None
        self.window = options.concurrency * len(self._servers)

    def __repr__(self) -> str:
        return f"OpenAIEngine({self.model.name!r}, {list(self.options.base_urls)!r})"

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self.options.timeout),
            connector=aiohttp.TCPConnector(limit=self.window, keepalive_timeout=60),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def fits(self, longest_prompt: int, generation: Generation) -> bool:
        """Always: how much a session holds is the servers' own affair."""
        return True

    def close(self) -> None:
        """Nothing is held between two uses."""

    async def answer(self, request: Request) -> Answer:
        """Answer one request; see `tasks.summer.engines.protocol.Engine`."""
        payload = json.dumps(self._payload(request)).encode()
        problem = "never sent"
        for number in range(1, self.options.tries + 1):
            server = await self._server()
            server.under_way += 1
            started = time.monotonic()
            try:
                status, body, wait = await self._post(server, payload)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                status, body, wait = 0, f"{type(error).__name__}: {error}", None
            finally:
                server.under_way -= 1
            if status == 200:
                answer = self._read(request, body, seconds=time.monotonic() - started, tries=number)
                if answer is not None:
                    return answer
                problem = f"{server.url} sent no chat completion: {self._shown(body)}"
            else:
                problem = f"{server.url} said {status or 'nothing'}: {self._shown(body)}"
            if status in FATAL:
                raise EngineError(self._advice(status, problem))
            if status not in RETRIED and status not in (0, 200):
                return self._failed(request, problem, tries=number)
            if number < self.options.tries:
                await self._rest(server, number, wait=wait, status=status)
        return self._failed(request, f"{problem} ({self.options.tries} tries)", tries=self.options.tries)

    def _payload(self, request: Request) -> dict[str, object]:
        return {
            "model": self.model.name,
            "messages": list(request.messages),
            "temperature": self.generation.temperature,
            "top_p": self.generation.top_p,
            self.options.limit_field: self.generation.max_tokens,
            "seed": request.seed,
            "stream": False,
        }

    async def _post(self, server: _Server, payload: bytes) -> tuple[int, str, float | None]:
        """Status, body and the wait that the server asks for."""
        address = f"{server.url}/chat/completions"
        headers = {"Content-Type": "application/json"}
        async with self._session.post(address, data=payload, headers=headers) as response:
            body = await response.text(errors="replace")
            return response.status, body, _seconds(response.headers)

    async def _server(self) -> _Server:
        """The server with fewest requests under way among those not resting; waits where all rest."""
        while True:
            now = time.monotonic()
            awake = [server for server in self._servers if server.rests_until <= now]
            if awake:
                return min(awake, key=lambda server: server.under_way)
            await asyncio.sleep(min(server.rests_until for server in self._servers) - now)

    async def _rest(self, server: _Server, number: int, *, wait: float | None, status: int) -> None:
        """Wait before the next try, spread at random so that not all come back at once."""
        longest = min(self.options.longest_backoff, self.options.backoff * 2 ** (number - 1))
        drawn = random.uniform(0, longest)
        if wait is not None:
            server.rests_until = time.monotonic() + min(wait, self.options.longest_backoff)
        if len(self._servers) > 1 and status != 200:
            # Another server takes over at once; this one is tried again later.
            server.rests_until = max(server.rests_until, time.monotonic() + drawn)
            return
        await asyncio.sleep(drawn)

    def _read(self, request: Request, body: str, *, seconds: float, tries: int) -> Answer | None:
        """The answer in a reply; None where the reply is no chat completion."""
        try:
            reply = json.loads(body)
            choice = reply["choices"][0]
            text = choice["message"].get("content") or ""
            reason = str(choice.get("finish_reason") or "")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return None
        if not isinstance(text, str):
            return None
        cut_off = reason == "length"
        status = "empty" if not text.strip() else ("length" if cut_off else "ok")
        usage = _object(reply.get("usage"))
        details = _object(usage.get("prompt_tokens_details"))
        return Answer(
            request.key,
            request.vote,
            request.seed,
            self.model.name,
            status,
            text=text,
            finish_reason=reason,
            prompt_tokens=_count(usage.get("prompt_tokens")),
            output_tokens=_count(usage.get("completion_tokens")),
            cached_tokens=_count(details.get("cached_tokens")),
            seconds=seconds,
            tries=tries,
        )

    def _failed(self, request: Request, problem: str, *, tries: int) -> Answer:
        return Answer(
            request.key, request.vote, request.seed, self.model.name, "error", error=problem, tries=tries
        )

    def _shown(self, body: str) -> str:
        """What a server said, short, on one line, and without the key in case it repeats it."""
        body = " ".join(body.split())
        if self._api_key:
            body = body.replace(self._api_key, "***")
        return body[:SHOWN] or "nothing"

    def _advice(self, status: int, problem: str) -> str:
        if status in (401, 403):
            advice = "check the key: its environment variable or secret, and what it is allowed to do"
        else:
            advice = (
                f"check --base-url (it ends in /v1) and that the server has the model {self.model.name!r}"
            )
        return f"{problem}; {advice}"


def _seconds(headers: Mapping[str, str]) -> float | None:
    """The wait a reply asks for, in seconds; None where it asks for none, or names a date."""
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None


def _object(value: object) -> dict:
    """What a server says of usage, empty where it says it in another form."""
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    """A number of tokens; -1 where it is none that can be kept."""
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    return value if known else -1


def check_urls(urls: Sequence[str]) -> list[str]:
    """What is wrong with base addresses, in sentences."""
    return [
        f"--base-url {url!r}: an address such as http://127.0.0.1:23333/v1 is needed"
        for url in urls
        if not url.startswith(("http://", "https://"))
    ]
