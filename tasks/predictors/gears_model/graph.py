"""The perturbation graph of GEARS: genes that share GO terms, from the knowledge graph's own annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.lookup import sorted_positions

if TYPE_CHECKING:
    import torch

#: Nearest genes that a gene hears from beside itself, and the Jaccard index above which they are near: as in
#: the package.
NEIGHBOURS = 20
NEAR = 0.1
#: Genes compared with all others at once.
BLOCK_GENES = 512


@dataclass(frozen=True, eq=False)
class GOGraph:
    """Genes with GO terms, and the weighted links between them.

    Attributes
    ----------
    genes
        int64 (n_nodes,): position in the knowledge graph of each node, ascending.
    carried
        CSR (n_nodes, n_terms): the GO terms of each node.
    terms
        Unicode (n_terms,).
    source, target, importance
        (n_links,): each node hears from itself (importance 1) and from its nearest nodes.
    """

    genes: np.ndarray
    carried: sparse.csr_array
    terms: np.ndarray
    source: np.ndarray
    target: np.ndarray
    importance: np.ndarray

    @classmethod
    def build(cls, knowledge: KnowledgeGraph) -> GOGraph:
        """Link each gene that has GO terms to those with the highest Jaccard index of terms."""
        go = np.flatnonzero(np.char.startswith(knowledge.term_relations.astype(str), "go_"))
        carried = sparse.csr_array(knowledge.incidence[:, go])
        # A gene set's terms are those of all its members: it is near to every one of them.
        genes = np.flatnonzero((np.diff(carried.indptr) > 0) & ~knowledge.is_set)
        carried = carried[genes]
        parts = [
            _nearest(carried, first, min(first + BLOCK_GENES, len(genes)))
            for first in range(0, len(genes), BLOCK_GENES)
        ]
        empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        links = [np.concatenate(column) for column in zip(empty, *parts, strict=True)]
        return cls(genes, carried, knowledge.terms[go], *links)

    def node_of(self, genes: np.ndarray) -> np.ndarray:
        """Node of each position in the knowledge graph, int64; -1 for genes without GO terms and for -1."""
        return sorted_positions(self.genes, genes)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The links as the package's network takes them: ``G_go`` (2, n_links) and ``G_go_weight``."""
        import torch

        links = np.stack([self.source, self.target])
        return {"G_go": torch.tensor(links), "G_go_weight": torch.tensor(self.importance)}

    def terms_of(self, node: int) -> set[str]:
        """The GO terms of a node."""
        row = slice(self.carried.indptr[node], self.carried.indptr[node + 1])
        return set(self.terms[self.carried.indices[row]].tolist())


def _nearest(carried: sparse.csr_array, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Links to the nodes from ``first`` to ``last``: source, target and Jaccard index."""
    sizes = np.diff(carried.indptr)
    binary = sparse.csr_array((np.ones(carried.nnz), carried.indices, carried.indptr), shape=carried.shape)
    shared = sparse.coo_array(binary[first:last] @ binary.T)
    target, source = shared.coords[0] + first, shared.coords[1]
    jaccard = shared.data / (sizes[source] + sizes[target] - shared.data)
    near = jaccard > NEAR
    source, target, jaccard = source[near], target[near], jaccard[near]
    # Nearest first within each target, by position where equally near.
    order = np.lexsort((source, -jaccard, target))
    source, target, jaccard = source[order], target[order], jaccard[order]
    rank = np.arange(len(target)) - np.searchsorted(target, target)
    kept = rank <= NEIGHBOURS
    return source[kept].astype(np.int64), target[kept].astype(np.int64), jaccard[kept].astype(np.float32)
