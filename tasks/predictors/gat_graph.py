"""The knowledge graph as message passing wants it: sorted links, few a node, and only those needed."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy import sparse

from tasks.knowledge.graph import KnowledgeGraph
from tasks.predictors.gat_rows import named_nodes


@dataclass(frozen=True, eq=False)
class NodeIndex:
    """Nodes of the graph: its genes, names only the training rows know, one "unknown", then the terms.

    Attributes
    ----------
    knowledge
        The graph of genes and terms.
    extra
        Sorted names of the training rows that the graph does not know; linked to nothing.
    """

    knowledge: KnowledgeGraph
    extra: np.ndarray

    @property
    def n_named(self) -> int:
        """Nodes a pair can name, the unknown one (the last of them) included."""
        return self.knowledge.n_genes + len(self.extra) + 1

    @property
    def n_nodes(self) -> int:
        """All nodes, terms included."""
        return self.n_named + len(self.knowledge.terms)

    def find(self, names: np.ndarray) -> np.ndarray:
        """Node of each name, int64 [n]; of the unknown node where neither graph nor training has it."""
        return named_nodes(self.knowledge.resolve(names), names, self.knowledge.n_genes, self.extra)


@dataclass(frozen=True, eq=False)
class Layer:
    """Links one layer needs, sorted by the node they lead to.

    Attributes
    ----------
    rows
        int64 [n_out]: positions, among the layer's inputs, of the nodes that get an output.
    source
        int64 [n_links]: positions among the inputs; the links of one output lie together.
    target
        int64 [n_links], ascending: positions among the outputs.
    start
        int64 [n_out]: where each output's links start.
    by_source, turned_target, turned_start
        The links in order of source: their places among the links [n_links], their targets [n_links], and
        where each input's start [n_in].
    """

    rows: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor
    start: torch.Tensor
    by_source: torch.Tensor
    turned_target: torch.Tensor
    turned_start: torch.Tensor

    @classmethod
    def build(cls, rows: np.ndarray, source: np.ndarray, start: np.ndarray, n_inputs: int) -> Layer:
        """Make the layer from its outputs' positions, its links' sources, and where each output's start."""
        target = np.repeat(np.arange(len(rows)), np.diff(np.append(start, len(source))))
        by_source = np.argsort(source, kind="stable")
        turned_start = np.searchsorted(source[by_source], np.arange(n_inputs))
        arrays = (rows, source, target, start, by_source, target[by_source], turned_start)
        return cls(*(torch.from_numpy(array.astype(np.int64)) for array in arrays))

    def to(self, device: str) -> Layer:
        """Return the same links on ``device``."""
        return Layer(*(getattr(self, part.name).to(device) for part in fields(self)))


def link_matrix(nodes: NodeIndex, max_links: int) -> sparse.csr_array:
    """Links into each node (row) from others (columns), a link to itself included.

    A gene hears from at most ``max_links`` partners, those that most sources list and that have fewest
    partners themselves first, and from at most ``max_links`` terms, the smallest first; a term hears from
    the genes that hear from it.
    """
    knowledge, n = nodes.knowledge, nodes.n_nodes
    partners = knowledge.adjacency.tocoo()
    rank = partners.data.astype(np.float64) - knowledge.degrees[partners.col] / (knowledge.n_genes + 1)
    partner_to, partner_from = _strongest(partners.row, partners.col, rank, max_links)
    member = knowledge.incidence.tocoo()
    size = np.bincount(member.col, minlength=len(knowledge.terms))
    shared = size[member.col] > 1
    gene, term = member.row[shared], member.col[shared]
    gene, term = _strongest(gene, term, -size[term].astype(np.float64), max_links)
    term = term + nodes.n_named
    itself = np.arange(n)
    rows = np.concatenate([partner_to, gene, term, itself])
    columns = np.concatenate([partner_from, term, gene, itself])
    links = sparse.csr_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(n, n))
    links.sort_indices()
    return links


def needed_layers(links: sparse.csr_array, targets: np.ndarray, count: int) -> tuple[np.ndarray, list[Layer]]:
    """Links that ``count`` layers need to give outputs for ``targets``.

    Returns
    -------
    inputs
        int64: nodes whose embeddings the first layer takes, sorted.
    layers
        First layer first; the last one's outputs are ``targets``, in their order.
    """
    layers: list[Layer] = []
    outputs = np.asarray(targets, dtype=np.int64)
    for _ in range(count):
        into = links[outputs]
        inputs = np.union1d(outputs, into.indices).astype(np.int64)
        rows, source = np.searchsorted(inputs, outputs), np.searchsorted(inputs, into.indices)
        layers.append(Layer.build(rows, source, into.indptr[:-1], len(inputs)))
        outputs = inputs
    return outputs, layers[::-1]


def _strongest(
    rows: np.ndarray, columns: np.ndarray, rank: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of each row's links keep the ``count`` of highest rank; ties by column."""
    order = np.lexsort((columns, -rank, rows))
    rows, columns = rows[order], columns[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return rows[place < count], columns[place < count]
