"""The engine that options ask for; its libraries are imported only then."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.summer.engines.openai import OpenAIEngine, ServerOptions
from tasks.summer.engines.protocol import Engine, Generation, ModelName


@dataclass(frozen=True)
class LocalOptions:
    """How LMDeploy is run in this process; see `tasks.summer.engines.lmdeploy`.

    Attributes
    ----------
    session_len
        Tokens of prompt and answer together; None: as many as the longest prompt needs.
    cache_share
        Of the GPU memory that is free once the model is loaded.
    """

    backend: str = "turbomind"
    tensor_parallel: int = 1
    quant_policy: int = 8
    prefix_caching: bool = True
    session_len: int | None = None
    batch_size: int = 128
    cache_share: float = 0.8


def make_engine(
    kind: str,
    model: ModelName,
    generation: Generation,
    *,
    server: ServerOptions,
    local: LocalOptions,
    api_key: str,
    longest_prompt: int,
) -> Engine:
    """Make the engine, not yet started.

    Parameters
    ----------
    longest_prompt
        Tokens of the longest prompt it will be asked, as its own tokenizer counts them.
    """
    if kind == "openai":
        return OpenAIEngine(model, generation, server, api_key=api_key)
    from tasks.summer.engines.lmdeploy import LMDeployEngine

    return LMDeployEngine(model, generation, local, longest_prompt=longest_prompt)
