"""What the prompts of a data set are made of, read when it is first needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd

from storage.manifest import file_digest, folder_digest
from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.read import TEXT_TABLE, knowledge_files, read_knowledge
from tasks.summer.entries import EntryIndex
from tasks.summer.gene_texts import GeneTexts, texts_from_entries, texts_from_files
from tasks.summer.questions import Questions, Variant
from tasks.summer.retrieval import Retrieved
from tasks.summer.templates import Prompts


@dataclass(frozen=True)
class Material:
    """Knowledge, texts and templates.

    Attributes
    ----------
    knowledge
        The knowledge folder.
    noncommercial, max_links
        As in `tasks.knowledge.read.read_knowledge`.
    prompts
        The templates.
    cell_line
        A sentence about the cell line.
    sets
        Measured gene sets, name to members.
    summaries
        Summaries in the published layout and who wrote them; None: entries condensed by rule.
    """

    knowledge: Path
    noncommercial: bool
    max_links: int
    prompts: Prompts
    cell_line: str
    sets: Mapping[str, Sequence[str]]
    summaries: tuple[Path, Literal["published", "engine"]] | None = None

    @cached_property
    def graph(self) -> KnowledgeGraph:
        """The knowledge graph, with the gene sets as nodes."""
        graph = read_knowledge(
            self.knowledge,
            noncommercial=self.noncommercial,
            max_term_genes=self.max_links,
            max_degree=self.max_links,
        )
        return graph.with_sets(self.sets) if self.sets else graph

    @cached_property
    def entries(self) -> EntryIndex:
        """The genes' database entries."""
        return EntryIndex.read(self.knowledge, self.graph)

    @cached_property
    def texts(self) -> GeneTexts:
        """What prompts say of genes."""
        if self.summaries is None:
            return texts_from_entries(self.entries, self.sets)
        place, source = self.summaries
        return texts_from_files(place, source, self.sets)

    @cached_property
    def digests(self) -> dict[str, str]:
        """Digests of all it is made of, by role."""
        files = list(knowledge_files(self.knowledge, noncommercial=self.noncommercial))
        files += sorted(self.knowledge.glob("terms_*.parquet"))
        files += [path for path in [self.knowledge / TEXT_TABLE] if path.is_file()]
        # What is read of the files, and not the files alone.
        read = {"noncommercial": str(self.noncommercial), "max_links": str(self.max_links)}
        found = {
            "knowledge": folder_digest({path.name: file_digest(path) for path in files} | read),
            "prompts": self.prompts.digest,
            "cell line": self.cell_line,
            "gene sets": folder_digest({name: " ".join(members) for name, members in self.sets.items()}),
        }
        if self.summaries is not None:
            place = self.summaries[0]
            files = [place] if place.is_file() else sorted(place.rglob("*.json"))
            found["summaries"] = folder_digest({path.name: file_digest(path) for path in files})
        return found

    def questions(
        self, task: str, variant: Variant, *, pairs: pd.DataFrame, retrieved: Retrieved
    ) -> Questions:
        """The questions of one task and variant."""
        return Questions(task, variant, pairs, retrieved, self.texts, self.prompts, self.cell_line)


def ordered_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs in the order of asking: by perturbation, then gene."""
    return pairs[["pert", "gene"]].sort_values(["pert", "gene"], kind="stable").reset_index(drop=True)
