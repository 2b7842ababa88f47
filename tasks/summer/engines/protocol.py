"""What every engine offers: an answer to a request, as often and as many at once as it is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from storage.answers import Answer, answer_key, prompt_digest
from storage.errors import PqaError
from tasks.summer.templates import Message


class EngineError(PqaError):
    """The engine cannot be used at all: no such model, no permission, not enough room, not installed."""


@dataclass(frozen=True)
class Generation:
    """How answers are sampled; the values of Wu et al. 2025.

    Attributes
    ----------
    max_tokens
        Most new tokens an answer may have.
    """

    temperature: float = 0.6
    top_p: float = 0.9
    max_tokens: int = 1024


@dataclass(frozen=True)
class ModelName:
    """Which model answers: its name or folder, and its revision."""

    name: str
    revision: str = "main"


@dataclass(frozen=True)
class Request:
    """One thing to ask of a model.

    Attributes
    ----------
    key
        Its key in the answer ledger.
    messages
        The turns so far.
    vote
        The how manyeth answer to the same prompt it is.
    seed
        Settles the sampling; another for each vote.
    """

    key: str
    messages: Sequence[Message]
    vote: int
    seed: int


@dataclass(frozen=True)
class Sampling:
    """How often and how a prompt is answered, and by which model."""

    model: ModelName
    generation: Generation = Generation()
    votes: int = 3
    seed: int = 0

    def requests(self, messages: Sequence[Message]) -> list[Request]:
        """The requests for all answers to one prompt, each with a seed and a key of its own.

        Seeds follow from the prompt, the vote and the run's seed, so a prompt met twice is the same requests.
        """
        prompt = prompt_digest(messages)
        made = []
        for vote in range(self.votes):
            word = hashlib.sha256(f"{prompt} {vote} {self.seed}".encode()).digest()
            seed = int.from_bytes(word[:8], "big") % (2**31 - 1)
            key = answer_key(
                prompt,
                vote=vote,
                seed=seed,
                generation=vars(self.generation),
                model=self.model.name,
                revision=self.model.revision,
            )
            made.append(Request(key, messages, vote, seed))
        return made


class Engine(Protocol):
    """Answers requests, many at once; used as an asynchronous context.

    Attributes
    ----------
    window
        Requests that have to be under way at once to keep the engine busy.
    generation
        How answers are sampled; another may be set between two uses, where it `fits`.
    """

    window: int
    generation: Generation

    async def __aenter__(self) -> Self:
        """Make ready: connect, or load the model."""

    async def __aexit__(self, *_: object) -> None:
        """Let go of connections."""

    def fits(self, longest_prompt: int, generation: Generation) -> bool:
        """Whether it can be used, as it is, for prompts of up to so many tokens and their answers."""

    def close(self) -> None:
        """Let go of the model and its memory; it is used no more."""

    async def answer(self, request: Request) -> Answer:
        """Answer one request; what goes wrong with this one alone is an answer of status ``error``.

        Raises
        ------
        EngineError
            If no request can be answered.
        """
