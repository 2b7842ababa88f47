"""The one language model of a job: its engine, its ledger, its budget, and what it says before it starts."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from flows.answer_options import AnswerOptions
from flows.options import KnowledgeOptions
from storage.answers import AnswerLedger, is_taken
from storage.errors import PqaError, problems_of
from storage.gene_sets import read_gene_sets
from tasks.knowledge.read import knowledge_files
from tasks.summer.asking import Asked, Limits, ask
from tasks.summer.engines.choose import LocalOptions, make_engine
from tasks.summer.engines.openai import ServerOptions, check_urls
from tasks.summer.engines.protocol import Engine, EngineError, Generation, ModelName, Request, Sampling
from tasks.summer.templates import Prompts
from tasks.summer.tokens import Tokenize, TokenReport, load_tokenizer

Say = Callable[[str], None]
#: Options that say how a model is reached and what may be spent, not what is asked of it.
HOW_ASKED = {
    *("api_key_secret", "api_key_variable", "base_url", "concurrency", "limit_field", "timeout", "tries"),
    *("token_budget", "minute_budget", "max_failed", "ask_again", "batch_size", "cache_share"),
}


class BudgetSpent(PqaError):
    """The run stopped at the budget it was given; the same command goes on."""


@dataclass
class Spent:
    """What a job has used of its budget, over all its data sets."""

    tokens: int = 0
    minutes: float = 0.0


class LanguageModel:
    """Asks one model, keeps every answer, and knows what is left of the budget.

    Parameters
    ----------
    ledger
        Folder of the answer ledger.
    api_key
        Gives the key when a server is first asked; nothing is kept of it but in the engine.
    spent
        Counted in; shared by all that a job asks.
    waits
        Whether to wait for another process that writes to the ledger, and not to fail.
    """

    def __init__(
        self,
        options: AnswerOptions,
        ledger: Path,
        api_key: Callable[[], str],
        *,
        spent: Spent | None = None,
        waits: bool = False,
    ):
        self.options, self.ledger_folder, self._api_key = options, ledger, api_key
        self._spent, self._waits = spent or Spent(), waits
        self.model = ModelName(options.model, options.revision)
        generation = Generation(options.temperature, options.top_p, options.max_new_tokens)
        self.sampling = Sampling(self.model, generation, options.votes, options.question_seed)
        self._tokenize: Tokenize | None = None
        self._engine: Engine | None = None

    def __enter__(self) -> LanguageModel:
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.close()

    def ledger(self, say: Say) -> AnswerLedger:
        """The ledger, to be opened with ``with``; says so where that will have to wait."""
        if not self._waits:
            return AnswerLedger(self.ledger_folder)
        if is_taken(self.ledger_folder):
            say("another run writes answers just now; this one goes on when that has ended")
        return AnswerLedger(self.ledger_folder, patience=math.inf)

    @property
    def tokenize(self) -> Tokenize | None:
        """The model's tokenizer; None where none is given and the model is not at hand."""
        place = self.options.tokenizer or (self.options.model if self.options.engine == "lmdeploy" else None)
        if self._tokenize is None and place is not None:
            self._tokenize = load_tokenizer(place, self.options.revision)
        return self._tokenize

    def ask(
        self,
        requests: Iterable[Request],
        ledger: AnswerLedger,
        *,
        total: int,
        listed: int,
        longest_prompt: int,
        sampling: Sampling,
        say: Say,
        progress: Callable[[int, int], None],
    ) -> Asked:
        """Ask what the ledger does not answer, within what is left of the budget.

        Parameters
        ----------
        total, listed
            Requests to be sent, and those of the whole list, of which a share may fail.

        Raises
        ------
        EngineError, LedgerError
            As `tasks.summer.asking.ask`.
        BudgetSpent
            If requests had to be left.
        """
        limits = self._limits(listed)
        engine = self._engine_for(longest_prompt, sampling.generation)
        first = _first_batch(engine.window, total, say)

        def told(done: int, of: int) -> None:
            first(done)
            progress(done, of)

        asked = Asked()
        how = {"total": total, "limits": limits, "asked": asked, "progress": told}
        try:
            asyncio.run(ask(requests, engine, ledger, **how))
        finally:
            self._spent.tokens += asked.prompt_tokens + asked.output_tokens
            self._spent.minutes += asked.seconds / 60
        say(
            f"{asked.done:,} answers in {asked.seconds:,.0f} s: {asked.prompt_tokens:,} prompt and "
            f"{asked.output_tokens:,} output tokens, {asked.failed:,} failed"
        )
        if asked.left and asked.stopped:
            raise BudgetSpent(
                f"stopped: {asked.stopped}; {asked.left:,} of {total:,} requests are left, and the same "
                "command goes on with them"
            )
        asked.check(limits)
        return asked

    def _limits(self, listed: int) -> Limits:
        options = self.options
        return Limits(
            max_tokens=options.token_budget,
            max_minutes=options.minute_budget,
            spent_tokens=self._spent.tokens,
            spent_minutes=self._spent.minutes,
            most_failed=int(options.max_failed * listed),
            ask_again=options.ask_again,
        )

    def _engine_for(self, longest_prompt: int, generation: Generation) -> Engine:
        """The engine; the one there is stays if it fits the prompts."""
        options = self.options
        if self._engine is not None:
            if self._engine.fits(longest_prompt, generation):
                self._engine.generation = generation
                return self._engine
            self._engine.close()
        self._engine = make_engine(
            options.engine,
            self.model,
            generation,
            server=ServerOptions(
                options.base_url,
                options.concurrency,
                options.limit_field,
                timeout=options.timeout,
                tries=options.tries,
            ),
            local=LocalOptions(
                options.backend,
                options.tensor_parallel,
                int(options.quant_policy),
                options.prefix_caching,
                options.session_len,
                options.batch_size,
                options.cache_share,
            ),
            api_key=self._api_key() if options.engine == "openai" else "",
            longest_prompt=longest_prompt,
        )
        return self._engine


def answer_problems(options: AnswerOptions) -> list[str]:
    """What is wrong with the options as a whole, in sentences."""
    if options.engine == "none":
        return ["--model without --engine: name openai or lmdeploy too"] if options.model else []
    problems = [] if options.model else [f"--engine {options.engine} needs --model, the model's name"]
    problems += check_urls(options.base_url) if options.engine == "openai" else []
    if options.summaries not in {"entries", "engine"} and not Path(options.summaries).exists():
        problems.append(
            f"--summaries {options.summaries}: neither entries nor engine, and no such folder or zip"
        )
    return problems + problems_of(Prompts.load, options.prompts)


def knowledge_problems(options: KnowledgeOptions) -> list[str]:
    """What is wrong with the knowledge folder, in sentences."""
    if options.knowledge is None:
        return ["--knowledge is needed: a store of pqa knowledge, or a folder with edges_*.parquet"]
    problems = problems_of(knowledge_files, options.knowledge, noncommercial=options.noncommercial)
    if options.set_members is not None:
        problems += problems_of(read_gene_sets, options.set_members)
    return problems


def engine_problems(options: AnswerOptions) -> list[str]:
    """What is wrong with the options where an engine is needed, in sentences."""
    if options.engine == "none":
        return ["--engine is needed: openai or lmdeploy"]
    return answer_problems(options)


def key_from_environment(options: AnswerOptions) -> Callable[[], str]:
    """The key from the environment variable that the options name; empty where it is not set."""
    return lambda: os.environ.get(options.api_key_variable, "")


def key_from_secret(options: AnswerOptions) -> Callable[[], str]:
    """The key from the Prefect Secret block that the options name, or else from the environment."""
    if options.api_key_secret is None:
        return key_from_environment(options)

    def load() -> str:
        from prefect.blocks.system import Secret

        try:
            return str(Secret.load(options.api_key_secret).get())
        except ValueError as error:
            raise EngineError(
                f"--api-key-secret: Prefect has no Secret block '{options.api_key_secret}'; make one on its "
                "page Blocks, or give the key in the environment (--api-key-variable)"
            ) from error

    return load


def cost_sentence(title: str, report: TokenReport, *, missing: int, most_output: int, counted_by: str) -> str:
    """What a run will cost, in a sentence, before it starts."""
    share = missing / report.requests if report.requests else 0.0
    return (
        f"{title}: {report.questions:,} questions, {report.requests:,} requests, {missing:,} of them not "
        f"answered yet; these hold about {report.prompt_tokens * share:,.0f} prompt tokens (about "
        f"{report.prefilled_tokens * share:,.0f} with a prefix cache) and at most {missing * most_output:,} "
        f"output tokens; {counted_by}"
    )


def _first_batch(window: int, total: int, say: Say) -> Callable[[int], None]:
    """Say once, after the first so many answers, how long the rest will take."""
    started, said = time.monotonic(), False

    def told(done: int) -> None:
        nonlocal said
        if not said and done >= min(window, total):
            said = True
            rate = done / max(time.monotonic() - started, 1e-9)
            minutes = (total - done) / rate / 60
            say(f"first {done:,} answers: {rate:,.1f} a second, about {minutes:,.1f} minutes for the rest")

    return told
