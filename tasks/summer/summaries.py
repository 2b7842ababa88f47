"""Summaries of genes written by the model: from their entries, then again with their one-hop relations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.answers import AnswerLedger, read_rows
from storage.atomic import write_json
from tasks.summer.engines.protocol import Request, Sampling
from tasks.summer.entries import EntryIndex, first_sentences
from tasks.summer.gene_texts import ROLES, Role
from tasks.summer.plain_text import without_reasoning
from tasks.summer.templates import Message, Prompts

#: Linked genes whose notes stand in a one-hop prompt, and words of each.
RELATED = 10
RELATED_WORDS = 40


@dataclass(frozen=True)
class SummaryWriter:
    """Makes the prompts for summaries of some genes.

    Attributes
    ----------
    genes
        Role to the genes that are to be summarised in it.
    """

    genes: Mapping[Role, Sequence[str]]
    entries: EntryIndex
    prompts: Prompts
    max_words: int

    def own(self) -> Iterator[tuple[Role, str, tuple[Message, ...]]]:
        """Role, gene and prompt of the summaries from a gene's own entries."""
        for role in ROLES:
            for gene in self.genes[role]:
                text = self.prompts.fill("summary_entries", gene=gene, entries=self.entries.entries(gene))
                yield role, gene, self._conversation(role, text)

    def one_hop(
        self, own: Mapping[Role, Mapping[str, str]]
    ) -> Iterator[tuple[Role, str, tuple[Message, ...]]]:
        """Role, gene and prompt of the summaries with relations; needs those from own entries."""
        for role in ROLES:
            for gene in self.genes[role]:
                text = self.prompts.fill(
                    "summary_one_hop",
                    role=role,
                    gene=gene,
                    own=own[role].get(gene, ""),
                    related=self._related(gene, own[role]),
                )
                yield role, gene, self._conversation(role, text)

    def _related(self, gene: str, own: Mapping[str, str]) -> list[tuple[str, str]]:
        """The genes linked most reliably, with the beginning of their summary or of their entries."""
        at = int(self.entries.graph.resolve([gene])[0])
        names = self.entries.partners(at, RELATED) if at >= 0 else []
        texts = [own.get(name) or self.entries.condensed(name) for name in names]
        return [
            (name, first_sentences(text, RELATED_WORDS))
            for name, text in zip(names, texts, strict=True)
            if text
        ]

    def _conversation(self, role: Role, text: str) -> tuple[Message, ...]:
        return self.prompts.conversation(
            self.prompts.fill("summary_system", role=role, max_words=self.max_words), text
        )


def summary_requests(
    asked: Iterator[tuple[Role, str, tuple[Message, ...]]], sampling: Sampling
) -> Iterator[tuple[Role, str, Request]]:
    """One request a summary."""
    for role, gene, messages in asked:
        yield role, gene, sampling.requests(messages)[0]


def read_summaries(keys: Mapping[str, tuple[Role, str]], ledger: AnswerLedger) -> dict[Role, dict[str, str]]:
    """Texts of the answers to summary requests; ``keys`` says which role and gene each key is for.

    A summary that was cut off keeps its whole sentences; one that failed, or that says nothing beside hidden
    reasoning, is missing.
    """
    ledger.write_part()
    summaries: dict[Role, dict[str, str]] = {role: {} for role in ROLES}
    for key, status, text in read_rows(ledger.folder, ("key", "status", "text")):
        if key in keys and status in {"ok", "length"}:
            role, gene = keys[key]
            text = " ".join(without_reasoning(text).split())
            ended = text if status == "ok" else text[: text.rfind(".") + 1] or text
            if ended:
                summaries[role][gene] = ended
    return summaries


def write_summaries(
    folder: Path, own: Mapping[Role, Mapping[str, str]], one_hop: Mapping[Role, Mapping[str, str]]
) -> dict[str, int]:
    """Write the four files of the published layout; gives rows by file."""
    rows = {}
    for role in ROLES:
        for name, texts in ((f"desc_{role}.json", own[role]), (f"desc_1hop_{role}.json", one_hop[role])):
            write_json(folder / name, dict(texts))
            rows[name] = len(texts)
    return rows
