"""LMDeploy in this process: TurboMind or its PyTorch engine, on a CUDA GPU.

Written to LMDeploy 0.18. It is an optional package with an environment of its own (deployments/lmdeploy),
imported when the engine starts.
"""

from __future__ import annotations

import asyncio
import importlib
import math
import time
from types import ModuleType
from typing import TYPE_CHECKING, Self

from storage.answers import Answer
from tasks.summer.engines.protocol import EngineError, Generation, ModelName, Request

if TYPE_CHECKING:
    from tasks.summer.engines.choose import LocalOptions

#: Session lengths are rounded up to this, so that a prompt a little longer needs no new start.
SESSION_STEP = 512
#: Tokens by which LMDeploy's own chat template may exceed the tokenizer's.
TEMPLATE_TOKENS = 32
#: Requests waiting at the engine beyond its batch, so that a place that falls free is taken at once.
AHEAD = 1.25
HOW_TO = "make its environment as deployments/lmdeploy/README.md says, or ask a server with --engine openai"


def tokens_needed(longest_prompt: int, generation: Generation) -> int:
    """Tokens that a session has to hold at least."""
    return longest_prompt + TEMPLATE_TOKENS + generation.max_tokens


def session_length(longest_prompt: int, generation: Generation, given: int | None) -> int:
    """Tokens a session must hold.

    Raises
    ------
    EngineError
        If the length that is given does not hold the longest prompt and its answer.
    """
    needed = tokens_needed(longest_prompt, generation)
    if given is None:
        return math.ceil(needed / SESSION_STEP) * SESSION_STEP
    if given < needed:
        raise EngineError(
            f"--session-len {given} is too short: the longest prompt has {longest_prompt} tokens and an "
            f"answer up to {generation.max_tokens}; give {needed} or more, or fewer --observations"
        )
    return given


class LMDeployEngine:
    """Feeds LMDeploy's asynchronous engine without a pause between batches.

    Parameters
    ----------
    longest_prompt
        Tokens of the longest prompt, counted by the model's tokenizer: the session length is checked, or
        chosen, before the model is loaded.

    Raises
    ------
    EngineError
        If the session length does not hold the longest prompt.
    """

    def __init__(
        self, model: ModelName, generation: Generation, options: LocalOptions, *, longest_prompt: int
    ):
        self.model, self.generation, self.options = model, generation, options
        self.session_len = session_length(longest_prompt, generation, options.session_len)
        self.window = math.ceil(options.batch_size * AHEAD)
        self._library: ModuleType | None = None
        self._pipeline = None

    async def __aenter__(self) -> Self:
        if self._pipeline is None:
            self._library = _import()
            self._pipeline = await asyncio.to_thread(self._load)
        return self

    async def __aexit__(self, *_: object) -> None:
        """The model stays loaded for the next questions; `close` lets go of it."""

    def fits(self, longest_prompt: int, generation: Generation) -> bool:
        """Whether its sessions hold such a prompt and its answer."""
        return tokens_needed(longest_prompt, generation) <= self.session_len

    def close(self) -> None:
        """Free the GPU."""
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None

    async def answer(self, request: Request) -> Answer:
        """Answer one request; see `tasks.summer.engines.protocol.Engine`."""
        # LMDeploy is bound to the event loop of its own thread.
        loop = self._pipeline.internal_thread.loop
        running = asyncio.run_coroutine_threadsafe(self._generate(request), loop)
        return await asyncio.wrap_future(running)

    def _load(self) -> object:
        options, library = self.options, self._library
        settings = {
            "tp": options.tensor_parallel,
            "session_len": self.session_len,
            "max_batch_size": options.batch_size,
            "cache_max_entry_count": options.cache_share,
            "enable_prefix_caching": options.prefix_caching,
            "quant_policy": options.quant_policy,
            "revision": None if self.model.revision == "main" else self.model.revision,
        }
        config = {
            "turbomind": library.TurbomindEngineConfig,
            "pytorch": library.PytorchEngineConfig,
        }[options.backend]
        try:
            return library.pipeline(self.model.name, backend_config=config(**settings))
        except (RuntimeError, OSError, ValueError, AssertionError, ImportError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise EngineError(
                f"LMDeploy could not load {self.model.name} with {settings}: {reason}; check the model's "
                "name, --tensor-parallel and --cache-share"
            ) from error

    def _sampling(self, seed: int):
        """Sampling as asked for: without ``do_sample`` LMDeploy ignores temperature and top_p."""
        return self._library.GenerationConfig(
            do_sample=True,
            temperature=self.generation.temperature,
            top_p=self.generation.top_p,
            max_new_tokens=self.generation.max_tokens,
            random_seed=seed,
        )

    async def _generate(self, request: Request) -> Answer:
        """Run one request through LMDeploy; on its own event loop."""
        engine, started = self._pipeline.async_engine, time.monotonic()
        parts, last = [], None
        try:
            session = self._pipeline.session_mgr.get()
            ready = await engine.preprocess(
                messages=list(request.messages), session_id=session, gen_config=self._sampling(request.seed)
            )
            async for out in engine.generate(ready, stream_response=False):
                parts.append(out.response)
                last = out
        except RuntimeError as error:
            # LMDeploy's RequestError, and CUDA's out-of-memory, are RuntimeErrors.
            return self._answer(request, "error", started, error=f"{type(error).__name__}: {error}")
        text = "".join(parts)
        reason = (last.finish_reason if last is not None else None) or ""
        if reason not in {"stop", "length"}:
            return self._answer(request, "error", started, error=f"LMDeploy ended it with '{reason}'")
        status = "empty" if not text.strip() else ("length" if reason == "length" else "ok")
        return self._answer(
            request,
            status,
            started,
            text=text,
            finish_reason=reason,
            prompt_tokens=last.input_token_len,
            output_tokens=last.generate_token_len,
            cached_tokens=last.cached_tokens,
        )

    def _answer(self, request: Request, status: str, started: float, **words: object) -> Answer:
        seconds = time.monotonic() - started
        return Answer(
            request.key, request.vote, request.seed, self.model.name, status, seconds=seconds, **words
        )


def _import() -> ModuleType:
    try:
        return importlib.import_module("lmdeploy")
    except ImportError as error:
        raise EngineError(f"--engine lmdeploy: LMDeploy cannot be imported ({error}); {HOW_TO}") from error
