"""The stage in which the model summarises genes: from their entries, then with their one-hop relations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

import tasks.summer
from flows.label_sets import LabelSet
from flows.language_model import LanguageModel, Say
from flows.progress import Progress
from flows.records import Place
from storage.answers import AnswerLedger
from storage.errors import LedgerError
from storage.manifest import Stage, StageRecord, folder_digest, run_stage
from tasks.predictors.fitting import test_pairs
from tasks.summer.gene_texts import ROLES, Role
from tasks.summer.material import Material
from tasks.summer.summaries import SummaryWriter, read_summaries, summary_requests, write_summaries
from tasks.summer.tokens import TokenCounter, four_characters

#: Output tokens a word of a summary may take.
TOKENS_A_WORD = 3
#: Makes the progress of a round, told its title.
RoundProgress = Callable[[str], Progress]


def summarise_stage(
    place: Place,
    labels: LabelSet,
    material: Material,
    model: LanguageModel,
    *,
    say: Say,
    progress: RoundProgress,
) -> StageRecord:
    """Let the model summarise every gene of the test questions in the role it has there.

    A finished stage in which requests ended in one of the ways to be asked again is done again.
    """
    pairs = pd.concat([test_pairs(str(path)) for path in labels.tables.values()])
    genes = genes_by_role(pairs, material)
    inputs = {role: folder_digest(dict.fromkeys(names, "")) for role, names in genes.items()}
    inputs |= {name: material.digests[name] for name in ("knowledge", "prompts")}
    settings = {
        "model": vars(model.model),
        "generation": vars(model.sampling.generation),
        "seed": model.sampling.seed,
        "words": model.options.summary_words,
    }
    stage = Stage("summaries", labels.name, inputs, settings, (tasks.summer,))

    def work(folder: Path) -> dict[str, int]:
        with model.ledger(say) as ledger:
            return summarise(folder, genes, material, model, ledger, say=say, progress=progress)

    record = run_stage(place.workspace, stage, work, force=place.force)
    again = any(record.rows.get(_ended(how)) for how in model.options.ask_again)
    if record.status == "skipped" and again:
        # What the ledger answers is not asked for again.
        return run_stage(place.workspace, stage, work, force=True)
    return record


def genes_by_role(pairs: pd.DataFrame, material: Material) -> dict[Role, list[str]]:
    """Perturbations and measured genes of some pairs; sets are told by their members."""
    return {role: sorted(set(pairs[role]) - set(material.sets)) for role in ROLES}


def summarise(
    folder: Path,
    genes: dict[Role, list[str]],
    material: Material,
    model: LanguageModel,
    ledger: AnswerLedger,
    *,
    say: Say,
    progress: RoundProgress,
) -> dict[str, int]:
    """Ask for both rounds of summaries and write them in the published layout.

    Gives rows by file, and how many requests ended in which way.
    """
    writer = SummaryWriter(genes, material.entries, material.prompts, model.options.summary_words)
    own, first = _round("from own entries", writer.own, model, ledger, say, progress)
    one_hop, second = _round("with relations", lambda: writer.one_hop(own), model, ledger, say, progress)
    return write_summaries(folder, own, one_hop) | dict(first + second)


def _ended(status: str) -> str:
    return f"requests that ended in {status}"


def _round(
    title: str,
    asked: Callable[[], Iterable],
    model: LanguageModel,
    ledger: AnswerLedger,
    say: Say,
    progress: RoundProgress,
) -> tuple[dict[Role, dict[str, str]], Counter[str]]:
    """Ask for one round of summaries and read them back; counts the ways in which requests ended."""
    words = model.options.summary_words
    most = min(model.sampling.generation.max_tokens, TOKENS_A_WORD * words)
    generation = replace(model.sampling.generation, max_tokens=most)
    sampling = replace(model.sampling, generation=generation, votes=1)
    keys: dict[str, tuple[Role, str]] = {}
    missing, counter = 0, TokenCounter(model.tokenize or four_characters, votes=1)
    for role, gene, request in summary_requests(asked(), sampling):
        keys[request.key] = (role, gene)
        counter.add(request.messages)
        missing += not ledger.is_done(request.key, ask_again=model.options.ask_again)
    if missing:
        report = counter.report()
        tokens = f"some {report.prompt_tokens:,} prompt tokens in all"
        say(f"summaries {title}: {len(keys):,} requests, {missing:,} not answered yet, {tokens}")
        model.ask(
            (request for _, _, request in summary_requests(asked(), sampling)),
            ledger,
            total=missing,
            listed=len(keys),
            longest_prompt=report.longest_prompt,
            sampling=sampling,
            say=say,
            progress=progress(title),
        )
    unasked = sum(ledger.status(key) is None for key in keys)
    if unasked:
        raise LedgerError(f"summaries {title}: {unasked:,} of {len(keys):,} were never asked for")
    return read_summaries(keys, ledger), Counter(_ended(str(ledger.status(key))) for key in keys)
