"""What databases say of a gene, in order of trust, and a short text condensed from it by rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from storage.tables import read_frame
from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.read import TEXT_TABLE
from tasks.knowledge.texts import names_and_summaries, term_names

#: Relations by trust, with what they are called, as in Wu et al. 2025.
SOURCES = (
    ("go_bp", "takes part in"),
    ("go_cc", "is located in"),
    ("go_mf", "has the activity"),
    ("reactome", "belongs to the pathway"),
    ("corum", "is a member of the complex"),
    ("wikipathways", "belongs to the pathway"),
    ("uniprot", "has the keyword"),
)
MOST_ENTRIES = 50
#: Terms of one source; without this GO alone would fill the 50.
MOST_OF_A_SOURCE = 6
#: Words of a RefSeq text that a condensed text keeps, in whole sentences.
TEXT_WORDS = 60


@dataclass(frozen=True, eq=False)
class EntryIndex:
    """Entries of every gene of a graph.

    Attributes
    ----------
    graph
        Genes, terms and links; terms and hubs with too many links are left out when it is read.
    texts
        Gene to its summary.
    names
        Gene to its full name.
    term_names
        Term id to what the term is called.
    """

    graph: KnowledgeGraph
    texts: Mapping[str, str]
    names: Mapping[str, str]
    term_names: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path | str, graph: KnowledgeGraph) -> EntryIndex:
        """Read texts and names of terms beside the graph's own files; without them there are ids only."""
        texts, names = {}, {}
        if (path := Path(folder) / TEXT_TABLE).is_file():
            described, texts = names_and_summaries(read_frame(path))
            # The name alone says what the gene is.
            names = {gene: name.partition(" | ")[0] for gene, name in described.items()}
        return cls(graph, texts, names, term_names(Path(folder).glob("terms_*.parquet")))

    def entries(self, symbol: str) -> list[str]:
        """At most `MOST_ENTRIES` entries of a gene, most trusted first; the weakest are the ones cut."""
        at = int(self.graph.resolve([symbol])[0])
        gene = str(self.graph.genes[at]) if at >= 0 else symbol
        found = [f"{symbol} is {self.names[gene]}"] if gene in self.names else []
        found += [self.texts[gene]] if gene in self.texts else []
        if at >= 0:
            for prefix, verb in SOURCES:
                found += [f"{symbol} {verb} {name}" for name in self.terms(at, prefix)]
            found += [f"{symbol} is linked to {name}" for name in self.partners(at, MOST_ENTRIES)]
        return found[:MOST_ENTRIES]

    def terms(self, at: int, prefix: str) -> list[str]:
        """Names of a gene's terms of one source, those with fewest genes first."""
        links = self.graph.incidence
        carried = links.indices[links.indptr[at] : links.indptr[at + 1]]
        chosen = carried[self._source[carried] == prefix]
        order = np.lexsort((self.graph.terms[chosen], self._sizes[chosen]))[:MOST_OF_A_SOURCE]
        return [self.term_names.get(str(term), str(term)) for term in self.graph.terms[chosen[order]]]

    def partners(self, at: int, most: int) -> list[str]:
        """The genes a gene is linked to, those that most files list first."""
        links = self.graph.adjacency
        row = slice(links.indptr[at], links.indptr[at + 1])
        # Genes are sorted, so the position is the order of names.
        order = np.lexsort((links.indices[row], -links.data[row]))[:most]
        return [str(name) for name in self.graph.genes[links.indices[row][order]]]

    def condensed(self, symbol: str) -> str:
        """A text of some hundred words made of a gene's entries by rule, the same for both of its roles."""
        at = int(self.graph.resolve([symbol])[0])
        gene = str(self.graph.genes[at]) if at >= 0 else symbol
        parts = [self.names[gene]] if gene in self.names else []
        parts += [first_sentences(self.texts[gene], TEXT_WORDS)] if gene in self.texts else []
        if at >= 0:
            for title, prefix, most in (
                ("Processes", "go_bp", 5),
                ("Location", "go_cc", 3),
                ("Pathways", "reactome", 4),
                ("Complexes", "corum", 3),
            ):
                names = self.terms(at, prefix)[:most]
                parts += [f"{title}: {', '.join(names)}"] if names else []
            partners = self.partners(at, 8)
            parts += [f"Linked to: {', '.join(partners)}"] if partners else []
        return " ".join(f"{part.rstrip('.')}." for part in parts)

    @cached_property
    def _sizes(self) -> np.ndarray:
        return np.bincount(self.graph.incidence.indices, minlength=len(self.graph.terms))

    @cached_property
    def _source(self) -> np.ndarray:
        """Prefix among `SOURCES` of each term's relation."""
        found = np.full(len(self.graph.terms), "", dtype="<U16")
        for prefix, _ in SOURCES:
            found[np.char.startswith(self.graph.term_relations, prefix)] = prefix
        return found


def first_sentences(text: str, words: int) -> str:
    """Whole sentences from the beginning, at least one, as long as they have no more than ``words`` words."""
    text = re.sub(r"\s*\[(?:provided|supplied) by[^\]]*\]\.?", "", text).strip()
    kept, count = [], 0
    for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text):
        count += len(sentence.split())
        if kept and count > words:
            break
        kept.append(sentence)
    return " ".join(kept)
