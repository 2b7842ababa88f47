"""Tokens before they are spent: how many prompts hold, how many an engine with a prefix cache computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from storage.errors import InputError
from tasks.summer.templates import Message

#: Tokens of one block of an engine's cache (LMDeploy's default); shorter beginnings are computed again.
CACHE_BLOCK = 64
#: Prompts tokenized at once.
BATCH = 256

Tokenize = Callable[[Sequence[Sequence[Message]]], list[list[int]]]


@dataclass(frozen=True)
class TokenReport:
    """Tokens of a run's prompts, repeated votes included.

    Attributes
    ----------
    questions, requests
        Different questions, and requests to answer them.
    prompt_tokens
        What an engine without a prefix cache computes.
    prefilled_tokens
        What an engine computes that finds the beginnings it has computed before, in blocks of
        `CACHE_BLOCK` tokens.
    longest_prompt
        Most tokens of one prompt.
    """

    questions: int
    requests: int
    prompt_tokens: int
    prefilled_tokens: int
    longest_prompt: int

    @property
    def saved(self) -> float:
        """Share of the prompt tokens that need not be computed."""
        return 1 - self.prefilled_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    def as_dict(self) -> dict[str, float]:
        """The figures, ready for JSON or MLflow."""
        return {f"listed_{name}": value for name, value in asdict(self).items()} | {
            "prefill_saved": self.saved
        }


def load_tokenizer(place: str | Path, revision: str = "main") -> Tokenize:
    """The model's own tokenizer with its chat template, from a folder or by name.

    Raises
    ------
    InputError
        If there is no such tokenizer, or it has no chat template.
    """
    # Its import takes seconds; only counting needs it.
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(place), revision=revision)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"tokenizer {place}", [f"cannot be loaded ({reason}); give the model's folder with --tokenizer"]
        ) from error
    if tokenizer.chat_template is None:
        raise InputError(f"tokenizer {place}", ["it has no chat template; give that of the chat model"])

    def tokenize(conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        texts = [
            tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True)
            for turns in conversations
        ]
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    return tokenize


class TokenCounter:
    """Counts the tokens of questions that are given in their order of asking.

    The cache is taken to hold the questions of one perturbation, in the order of
    `tasks.summer.questions.Questions`: a question shares its longest beginning with the one before it, and
    a later vote all but the last, incomplete block of its prompt with the first.

    Parameters
    ----------
    tokenize
        Gives the tokens of some conversations.
    votes
        Answers a question.
    block
        Tokens of a block of the cache.
    """

    def __init__(self, tokenize: Tokenize, *, votes: int, block: int = CACHE_BLOCK):
        self._tokenize, self._votes, self._block = tokenize, votes, block
        self._waiting: list[Sequence[Message]] = []
        self._before: list[int] = []
        self._questions = self._prompt = self._prefilled = self._longest = 0

    def add(self, conversation: Sequence[Message]) -> None:
        """Take one more question."""
        self._waiting.append(conversation)
        if len(self._waiting) == BATCH:
            self._count()

    def report(self) -> TokenReport:
        """What has been counted."""
        self._count()
        requests = self._questions * self._votes
        return TokenReport(self._questions, requests, self._prompt, self._prefilled, self._longest)

    def _count(self) -> None:
        if not self._waiting:
            return
        votes, block = self._votes, self._block
        for tokens in self._tokenize(self._waiting):
            size = len(tokens)
            self._questions += 1
            self._prompt += size * votes
            self._longest = max(self._longest, size)
            self._prefilled += size - _blocks(_shared(self._before, tokens), block)
            # The last token is always computed: its output is what the first new token is drawn from.
            self._prefilled += (votes - 1) * (size - _blocks(size - 1, block))
            self._before = tokens
        self._waiting = []


def report_tokens(
    conversations: Iterable[Sequence[Message]], tokenize: Tokenize, *, votes: int, block: int = CACHE_BLOCK
) -> TokenReport:
    """Count the tokens of questions in their order of asking; see `TokenCounter`."""
    counter = TokenCounter(tokenize, votes=votes, block=block)
    for conversation in conversations:
        counter.add(conversation)
    return counter.report()


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning of two prompts; never all of the second."""
    most = min(len(first), len(second) - 1)
    for at in range(most):
        if first[at] != second[at]:
            return at
    return max(most, 0)


def _blocks(tokens: int, block: int) -> int:
    """Tokens in whole blocks."""
    return tokens // block * block


def four_characters(conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Stand-in where no tokenizer is at hand: every four characters are a token.

    English prose comes to about that; names of genes are worse.
    """
    return [
        [hash(text[at : at + 4]) for at in range(0, len(text), 4)]
        for text in ("".join(turn["content"] for turn in turns) for turns in conversations)
    ]
