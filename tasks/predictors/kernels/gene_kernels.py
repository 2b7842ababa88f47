"""Several measures of how alike two genes are: by everything known of them, and by one source alone."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import sparse

from storage.errors import InputError
from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.symbols import SymbolIndex
from tasks.predictors.arrays import csr_from_state, csr_state, symbols_from_state
from tasks.predictors.kernels.similarity import GeneSimilarity, same_names, with_self

#: Everything known of a gene, whatever the source.
ALL = "all"


@dataclass(frozen=True, eq=False)
class GeneKernels:
    """Similarities of genes by name: ``all``, and one for each source of links or terms.

    Attributes
    ----------
    by_source
        Source to similarity; all of them share one symbol index.
    """

    by_source: Mapping[str, GeneSimilarity]

    @classmethod
    def build(
        cls,
        knowledge: KnowledgeGraph,
        *,
        sources: Sequence[str] | None = None,
        n_factors: int = 256,
        n_source_factors: int = 128,
    ) -> Self:
        """Make the similarities of a graph: ``all``, and those of ``sources`` that there are (None: each).

        Relations with fewer than 20 terms make none of their own.
        """
        by_source = {ALL: GeneSimilarity.build(knowledge, n_factors=n_factors)}
        for name, links in source_features(knowledge).items():
            if sources is not None and name not in sources:
                continue
            # A source in which no two genes have anything in common makes no similarity of its own.
            with contextlib.suppress(InputError):
                by_source[name] = GeneSimilarity.from_features(
                    knowledge.symbols,
                    links,
                    n_factors=n_source_factors,
                    sets=knowledge.is_set if knowledge.members else None,
                )
        return cls(by_source)

    @property
    def symbols(self) -> SymbolIndex:
        """The genes and their other names."""
        return self.by_source[ALL].symbols

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the similarities, ``all`` first."""
        return tuple(self.by_source)

    def vectors(self, names: np.ndarray, count: int) -> np.ndarray:
        """The first ``count`` factors of each name by ``all``, float32 [n_names, count]."""
        return self.by_source[ALL].vectors(names, count)

    def mixed(self, names: np.ndarray, others: np.ndarray, sources: Sequence[str]) -> np.ndarray:
        """Mean over those of ``sources`` that there are, float32 [n_names, n_others]; the same name is 1.

        Raises
        ------
        InputError
            If none of them is there.
        """
        used = [source for source in sources if source in self.by_source]
        if not used:
            wanted, there = ", ".join(sources), ", ".join(self.sources)
            raise InputError("knowledge", [f"none of the sources {wanted} is in it; there are {there}"])
        total = sum(self.by_source[source].between(names, others) for source in used) / len(used)
        same, column = same_names(names, others)
        total[same, column] = 1
        return total

    def state(self, prefix: str = "kernel") -> dict[str, np.ndarray]:
        """Return the arrays ``from_state`` needs, their names starting with ``prefix``."""
        state = self.symbols.state() | {f"{prefix}_sources": np.array(self.sources, dtype=str)}
        for name, similarity in self.by_source.items():
            state |= csr_state(f"{prefix}_{name}_links", similarity.links)
            state[f"{prefix}_{name}_factors"] = similarity.factors
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], prefix: str = "kernel") -> Self:
        """Build the similarities whose ``state`` lies in ``state``."""
        symbols, by_source = symbols_from_state(state), {}
        for name in np.asarray(state[f"{prefix}_sources"]).tolist():
            links = csr_from_state(f"{prefix}_{name}_links", state)
            by_source[name] = GeneSimilarity(symbols, links, np.asarray(state[f"{prefix}_{name}_factors"]))
        return cls(by_source)


def source_features(knowledge: KnowledgeGraph, *, min_terms: int = 20) -> dict[str, sparse.csr_array]:
    """What each source alone says of the genes: source or relation to CSR [n_genes, n_features] of ones."""
    features = {name: with_self(links) for name, links in sorted(knowledge.partners.items())}
    for relation in np.unique(knowledge.term_relations):
        columns = np.flatnonzero(knowledge.term_relations == relation)
        if len(columns) >= min_terms:
            features[str(relation)] = sparse.csr_array(knowledge.incidence[:, columns])
    return features
