"""The steps of SUMMER on one task and variant, wherever its files lie: list requests, ask, count votes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from flows.language_model import LanguageModel, Say, cost_sentence
from flows.options import AnswerOptions, KnowledgeOptions
from flows.progress import Progress
from storage.answers import AnswerLedger
from storage.atomic import write_json
from storage.errors import LedgerError
from storage.gene_sets import read_gene_sets
from storage.tables import write_table
from tasks.scoring.metrics import join_predictions, score_summary
from tasks.summer.answering import (
    account,
    missing_requests,
    read_outcomes,
    sampled_questions,
    usage,
    write_requests,
)
from tasks.summer.material import Material
from tasks.summer.questions import Questions, Variant, cell_line_sentence
from tasks.summer.retrieval import Retrieved, retrieve
from tasks.summer.templates import Prompts
from tasks.summer.tokens import TokenCounter, TokenReport, four_characters
from tasks.summer.votes import count_votes, vote_rates

#: Questions in the table that is there to be read.
SAMPLED = 50


def material_of(name: str, folder: Path, options: AnswerOptions, knowledge: KnowledgeOptions) -> Material:
    """What the prompts of a data set are made of, before any summary is written."""
    given = options.summaries not in {"entries", "engine"}
    return Material(
        knowledge=folder,
        noncommercial=knowledge.noncommercial,
        max_links=knowledge.max_links,
        prompts=Prompts.load(options.prompts),
        cell_line=cell_line_sentence(name, options.cell_line),
        sets={} if knowledge.set_members is None else read_gene_sets(Path(knowledge.set_members)),
        summaries=(Path(options.summaries), "published") if given else None,
    )


def predictor_name(variant: Variant) -> str:
    """What a variant is called in the leaderboard."""
    return "summer" if variant == "full" else f"summer-{variant}"


def retrieve_for(
    pairs: pd.DataFrame, training: pd.DataFrame, material: Material, options: AnswerOptions
) -> Retrieved:
    """Draw the observations of some pairs as the options say."""
    return retrieve(
        pairs,
        training,
        material.graph,
        neighbours=options.near_genes,
        budget=options.observations,
        seed=options.question_seed,
        nearness=options.nearness,
        draw_for=options.draw_for,
    )


@dataclass(frozen=True)
class Listed:
    """The questions of one task and variant, and the list of their requests."""

    questions: Questions
    requests: Path
    tokens: TokenReport
    counted_by: str


def list_requests(folder: Path, questions: Questions, model: LanguageModel) -> Listed:
    """Write ``requests.parquet`` and ``tokens.json``: what will be asked, and how large it is."""
    path = folder / "requests.parquet"
    tokenize = model.tokenize
    counted_by = "counted by the model's tokenizer" if tokenize else "estimated, four characters a token"
    counter = TokenCounter(tokenize or four_characters, votes=model.sampling.votes)
    write_requests(path, questions, sampling=model.sampling, counter=counter)
    tokens = counter.report()
    write_json(folder / "tokens.json", {"counted_by": counted_by, "report": vars(tokens)})
    return Listed(questions, path, tokens, counted_by)


def ask_listed(
    listed: Listed, ledger: AnswerLedger, model: LanguageModel, *, title: str, say: Say, progress: Progress
) -> dict[str, int]:
    """Ask what the ledger does not answer of a list, and account for all of it.

    Raises
    ------
    LedgerError
        If requests are neither answered nor failed, or too many failed.
    """
    options, sampling = model.options, model.sampling
    missing = missing_requests(
        listed.requests,
        listed.questions,
        sampling=sampling,
        ledger=ledger,
        ask_again=options.ask_again,
    )
    if missing.count:
        output = sampling.generation.max_tokens
        say(
            cost_sentence(
                title, listed.tokens, missing=missing.count, most_output=output, counted_by=listed.counted_by
            )
        )
        longest = listed.tokens.longest_prompt
        model.ask(
            missing.requests(),
            ledger,
            total=missing.count,
            listed=listed.tokens.requests,
            longest_prompt=longest,
            sampling=sampling,
            say=say,
            progress=progress,
        )
    ledger.write_part()
    counted = account(listed.requests, ledger)
    if counted.missing or counted.failed > options.max_failed * counted.requested:
        raise LedgerError(
            f"{title}: of {counted.requested:,} requests {counted.done:,} are answered, {counted.failed:,} "
            f"failed and {counted.missing:,} were never asked; run the same command again"
        )
    return counted.as_dict()


def write_votes(
    folder: Path, task: str, listed: Listed, ledger: Path, *, seed: int, truth: pd.DataFrame | None
) -> dict[str, float]:
    """Write one task's predictions, votes and sampled questions; gives rates and usage.

    Files: ``<task>.parquet`` (pert, gene, score), ``votes-<task>.parquet``, ``sample-<task>.parquet``.
    """
    questions = listed.questions
    outcomes = read_outcomes(listed.requests, ledger, pairs=questions.pairs, task=task)
    votes = count_votes(outcomes)
    recipe = {"predictor": predictor_name(questions.variant), "task": task}
    write_table(folder / f"{task}.parquet", votes[["pert", "gene", "score"]], recipe)
    write_table(folder / f"votes-{task}.parquet", votes, recipe)
    known = {} if truth is None else _truth(truth)
    table = sampled_questions(questions, outcomes, ledger, count=SAMPLED, seed=seed, truth=known)
    write_table(folder / f"sample-{task}.parquet", table, recipe)
    return vote_rates(votes) | usage(outcomes) | listed.tokens.as_dict()


def scores_by_counting(labels: pd.DataFrame, votes: pd.DataFrame) -> dict[str, float]:
    """AUROC with and without the votes that do not count.

    ``auroc_votes_that_count`` gives every question without such a vote 0.5; ``auroc_all_votes`` takes every
    other vote for 0.5; ``auroc_answered_only`` leaves questions without such a vote out.
    """
    known = labels[(labels["split"] == "test") & labels["label"].notna()]
    if known.empty:
        return {}
    answered = votes[votes["answered"]]
    pairs = pd.MultiIndex.from_frame(known[["pert", "gene"]])
    kept = known[pairs.isin(pd.MultiIndex.from_frame(answered[["pert", "gene"]]))]
    figures = {
        "auroc_votes_that_count": _auroc(known, votes),
        "auroc_all_votes": _auroc(known, votes.assign(score=votes["score_all"])),
    }
    if len(kept):
        figures["auroc_answered_only"] = _auroc(kept, answered)
    figures["pairs_answered"] = float(len(kept))
    return {name: value for name, value in figures.items() if pd.notna(value)}


def with_summaries(material: Material, folder: Path) -> Material:
    """The same material with the model's own summaries in place of condensed entries."""
    return replace(material, summaries=(folder, "engine"))


def _auroc(labels: pd.DataFrame, votes: pd.DataFrame) -> float:
    return score_summary(join_predictions(labels, votes)).auroc


def _truth(labels: pd.DataFrame) -> dict[tuple[str, str], int]:
    known = labels[labels["label"].notna()]
    return dict(zip(zip(known["pert"], known["gene"], strict=True), known["label"].astype(int), strict=True))
