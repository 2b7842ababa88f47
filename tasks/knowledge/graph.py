"""What is known of genes, as one graph: genes linked to genes, and genes to the terms they carry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import sparse

from tasks.knowledge.gene_sets import add_sets
from tasks.knowledge.symbols import SymbolIndex


@dataclass(frozen=True)
class Relation:
    """One kind of link in the graph, as its source names it.

    Attributes
    ----------
    name
        As in the file, for example ``go_bp``.
    kind
        ``gene-gene`` or ``gene-term``.
    source
        The file's name without its ending.
    links
        Rows of that relation in the file, before anything is merged or dropped.
    """

    name: str
    kind: str
    source: str
    links: int


@dataclass(frozen=True, eq=False)
class KnowledgeGraph:
    """Genes, the links between them, and their terms.

    Attributes
    ----------
    symbols
        The genes, sorted, and the other names that lead to them.
    adjacency
        CSR float32 [n_genes, n_genes], symmetric, empty diagonal. The value is the number of files
        that list the pair (at least 1), so a pair known to more sources weighs more where weight is used.
        Between a gene set and a gene: the share of the set's members that are linked to it, at most 1.
    incidence
        CSR float32 [n_genes, n_terms], 1 where the gene carries the term; for a gene set the share of its
        members that do.
    terms
        Unicode [n_terms], the terms' ids as in their files.
    term_relations
        Unicode [n_terms], the relation that ties genes to the term, for example ``reactome_member``.
    relations
        Every relation read.
    files
        The files read, sorted by name: what a digest of the graph's input has to cover.
    partners
        Source of gene-gene links (``string``, from ``edges_string_v12...``) to its own links, CSR float32
        like ``adjacency`` with all values 1: for methods that trust one source more than another. Gene sets
        have rows of shares here and empty columns.
    members
        Gene set to its members' symbols, where ``with_sets`` has added sets; a set is a gene to all else.
    """

    symbols: SymbolIndex
    adjacency: sparse.csr_array
    incidence: sparse.csr_array
    terms: np.ndarray
    term_relations: np.ndarray
    relations: tuple[Relation, ...] = field(default=())
    files: tuple[Path, ...] = field(default=())
    partners: Mapping[str, sparse.csr_array] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def genes(self) -> np.ndarray:
        """The genes' symbols, sorted, unicode [n_genes]."""
        return self.symbols.genes

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.symbols.genes)

    @cached_property
    def degrees(self) -> np.ndarray:
        """Number of genes each gene is linked to, int64 [n_genes]."""
        return np.diff(self.adjacency.indptr).astype(np.int64)

    @cached_property
    def is_set(self) -> np.ndarray:
        """Whether each of ``genes`` is a gene set, bool [n_genes]."""
        return np.isin(self.genes, list(self.members))

    def with_sets(self, sets: Mapping[str, Sequence[str]]) -> KnowledgeGraph:
        """The graph with gene sets as further genes.

        What is known of a set is the mean over its members ("the mean over member genes" of Wu et al. 2025):
        its links and terms are the shares of its members that have them. Members the graph does not know are
        left out, and each counts once.

        Raises
        ------
        InputError
            Listing the sets without a known member, and those that have the name of a gene.
        """
        return add_sets(self, sets)

    def resolve(self, symbols: Iterable[str]) -> np.ndarray:
        """Position of each symbol among ``genes``, int64 [n]; -1 where it is unknown."""
        return self.symbols.resolve(symbols)
