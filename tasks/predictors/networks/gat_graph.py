"""The knowledge graph as message passing wants it: sorted links, few a node, and only those needed."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy import sparse

from tasks.knowledge.graph import KnowledgeGraph
from tasks.predictors.networks.rows import NamedNodes


@dataclass(frozen=True, eq=False)
class NodeIndex:
    """Nodes of the graph: those a pair can name, then the terms.

    Attributes
    ----------
    knowledge
        The graph of genes and terms.
    named
        Its genes, names only the training rows have (linked to nothing), and one "unknown".
    """

    knowledge: KnowledgeGraph
    named: NamedNodes

    @property
    def n_named(self) -> int:
        """Nodes a pair can name, the unknown one (the last of them) included."""
        return self.named.count

    @property
    def n_nodes(self) -> int:
        """All nodes, terms included."""
        return self.n_named + len(self.knowledge.terms)


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
    kind
        int64 [n_links]: the links' values in the matrix they were taken from, such as ``LinkKinds.links``.
    by_source, turned_target, turned_start
        The links in order of source: their places among the links [n_links], their targets [n_links], and
        where each input's start [n_in].
    """

    rows: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor
    start: torch.Tensor
    kind: torch.Tensor
    by_source: torch.Tensor
    turned_target: torch.Tensor
    turned_start: torch.Tensor

    @classmethod
    def build(cls, inputs: np.ndarray, outputs: np.ndarray, into: sparse.csr_array) -> Layer:
        """Make the layer from its sorted input nodes, its output nodes, and the links into the latter."""
        rows, source = np.searchsorted(inputs, outputs), np.searchsorted(inputs, into.indices)
        start = into.indptr[:-1]
        target = np.repeat(np.arange(len(rows)), np.diff(np.append(start, len(source))))
        by_source = np.argsort(source, kind="stable")
        turned_start = np.searchsorted(source[by_source], np.arange(len(inputs)))
        arrays = (rows, source, target, start, into.data, by_source, target[by_source], turned_start)
        return cls(*(torch.from_numpy(array.astype(np.int64)) for array in arrays))

    def to(self, device: str) -> Layer:
        """Return the same links on ``device``."""
        return Layer(*(getattr(self, part.name).to(device) for part in fields(self)))


def link_matrix(nodes: NodeIndex, max_links: int) -> sparse.csr_array:
    """Links into each node (row) from others (columns), a link to itself included, all of value 1.

    A gene hears from at most ``max_links`` partners, the strongest links first (those that most sources
    list), then those that have fewest partners themselves; and from at most ``max_links`` terms, the
    strongest links first, then the smallest terms. Terms of one gene are left out, as nobody shares them. A
    term hears from the genes that hear from it. With ``max_links`` 0 everything is linked.
    """
    knowledge, n = nodes.knowledge, nodes.n_nodes
    partners = knowledge.adjacency.tocoo()
    ranks = (-partners.data, knowledge.degrees[partners.col])
    partner_to, partner_from = _first(partners.row, partners.col, ranks, max_links)
    member = knowledge.incidence.tocoo()
    size = np.bincount(member.col[member.data > 0], minlength=len(knowledge.terms))
    kept = (member.data > 0) & ((size[member.col] > 1) | (max_links == 0))
    gene, term = member.row[kept], member.col[kept]
    gene, term = _first(gene, term, (-member.data[kept], size[term]), max_links)
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
        layers.append(Layer.build(inputs, outputs, into))
        outputs = inputs
    return outputs, layers[::-1]


def _first(
    rows: np.ndarray, columns: np.ndarray, ranks: tuple[np.ndarray, np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of each row's links keep the ``count`` of lowest ranks, or all if that is 0; ties by column."""
    if count == 0:
        return rows, columns
    order = np.lexsort((columns, ranks[1], ranks[0], rows))
    rows, columns = rows[order], columns[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return rows[place < count], columns[place < count]
