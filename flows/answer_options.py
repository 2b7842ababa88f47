"""Options of SUMMER: which model answers, how it is asked, and what it may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from flows.base_options import Options


class AnswerOptions(Options):
    """SUMMER's language model, its questions and its limits."""

    engine: Literal["none", "openai", "lmdeploy"] = Field(
        "none",
        title="Engine",
        description="openai: any OpenAI-compatible server; lmdeploy: LMDeploy in this process (needs a GPU); "
        "none: no model is asked; a benchmark then goes without SUMMER and says so, clusters are named by "
        "over-representation alone, and a job that is to answer is refused.",
    )
    model: str = Field(
        "", title="Model", description="Name as the server knows it, or a folder or hub name for lmdeploy."
    )
    revision: str = Field(
        "main", title="Revision", description="Revision of the model; part of what an answer is filed under."
    )
    variants: tuple[Literal["full", "no-reasoning", "no-retrieval"], ...] = Field(
        ("full",),
        min_length=1,
        title="Variants",
        description="full SUMMER; no-reasoning: the choice alone; no-retrieval: without observations.",
    )
    votes: int = Field(3, ge=1, le=99, title="Votes", description="Sampled answers per question.")
    question_seed: int = Field(
        0, ge=0, title="Seed of questions", description="For retrieved observations and sampled answers."
    )
    temperature: float = Field(0.6, ge=0, le=2, title="Temperature", description="Of sampling.")
    top_p: float = Field(0.9, gt=0, le=1, title="Top-p", description="Of sampling.")
    max_new_tokens: int = Field(1024, ge=1, title="New tokens", description="At most, per answer.")
    summaries: str = Field(
        "entries",
        title="Summaries",
        description="entries: database entries condensed by rule; engine: written by the model first; or a "
        "folder or zip in the published layout (gene_summary.zip).",
    )
    summary_words: int = Field(120, ge=20, title="Words per summary", description="Asked of the model.")
    near_genes: int = Field(
        10, ge=1, title="Near genes", description="Neighbours of each of the two genes in retrieval."
    )
    observations: int = Field(
        5, ge=0, title="Observations", description="At most so many of each of four categories are shown."
    )
    nearness: Literal["shared", "kernel"] = Field(
        "shared",
        title="Nearness",
        description="shared: number of graph neighbours in common (the paper's); kernel: graph kernel.",
    )
    draw_for: Literal["question", "perturbation"] = Field(
        "question",
        title="Observations drawn for",
        description="question (the paper's); perturbation: those of near perturbations are drawn once "
        "for all its questions, so that their prompts share more.",
    )
    cell_line: str = Field(
        "", title="Cell line", description="A sentence about it; empty: as known of the published screens."
    )
    prompts: Path | None = Field(
        None, title="Prompts", description="Folder with *.jinja templates in place of the project's own."
    )
    pert_clusters: tuple[Path, ...] = Field(
        (),
        title="Clusters of perturbations",
        description="JSON files of clusters to be described and named: genes whose knock-downs act alike.",
    )
    gene_clusters: tuple[Path, ...] = Field(
        (), title="Clusters of genes", description="The same for genes that change together."
    )
    bert_model: str | None = Field(
        None,
        title="BERTScore model",
        description="Folder or hub name of a BERT-like model, to compare names of clusters by meaning too.",
    )
    tokenizer: str | None = Field(
        None,
        title="Tokenizer",
        description="Folder or hub name of the model's tokenizer, to count tokens before the start; empty: "
        "the model itself for lmdeploy, an estimate from characters otherwise.",
    )
    token_budget: int | None = Field(
        None, ge=1, title="Token budget", description="Stop when so many tokens are spent in this run."
    )
    minute_budget: float | None = Field(
        None, gt=0, title="Time budget", description="Stop after so many minutes of answering."
    )
    max_failed: float = Field(
        0.01, ge=0, le=1, title="Failed requests", description="Share that may fail; with more the run fails."
    )
    ask_again: tuple[Literal["error", "empty", "length"], ...] = Field(
        ("error",), title="Ask again", description="Ways an earlier request ended that do not count as done."
    )
    base_url: tuple[str, ...] = Field(
        ("http://127.0.0.1:23333/v1",),
        min_length=1,
        title="Servers",
        description="openai: base addresses ending in /v1, one or several with the same model.",
    )
    api_key_variable: str = Field(
        "OPENAI_API_KEY",
        title="Key variable",
        description="openai: environment variable that holds the key, where a server wants one.",
    )
    api_key_secret: str | None = Field(
        None, title="Key secret", description="openai: name of a Prefect Secret block that holds the key."
    )
    concurrency: int = Field(
        72,
        ge=1,
        le=4096,
        title="Requests at once",
        description="Sent to each server at once; a little more than it computes at once.",
    )
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", title="Limit field", description="openai: what the server calls --max-new-tokens."
    )
    timeout: float = Field(600, gt=0, title="Timeout", description="openai: seconds one try may take.")
    tries: int = Field(6, ge=1, le=100, title="Tries", description="openai: how often a request is sent.")
    backend: Literal["turbomind", "pytorch"] = Field(
        "turbomind", title="LMDeploy engine", description="lmdeploy: one of its two engines."
    )
    tensor_parallel: int = Field(
        1, ge=1, title="GPUs", description="lmdeploy: GPUs the model is spread over."
    )
    quant_policy: Literal["0", "4", "8"] = Field(
        "8", title="Cache bits", description="lmdeploy: bits of the KV cache; 0: not quantised."
    )
    prefix_caching: bool = Field(
        True, title="Prefix caching", description="lmdeploy: compute common beginnings of prompts once."
    )
    session_len: int | None = Field(
        None,
        ge=64,
        title="Session length",
        description="lmdeploy: tokens of prompt and answer; empty: what the longest prompt needs.",
    )
    batch_size: int = Field(128, ge=1, title="Batch", description="lmdeploy: most sequences at once.")
    cache_share: float = Field(
        0.8, gt=0, lt=1, title="Cache share", description="lmdeploy: share of free GPU memory for the cache."
    )
