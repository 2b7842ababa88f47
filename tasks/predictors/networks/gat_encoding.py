"""Nodes of the knowledge graph, with its links and what their embeddings start from."""

from __future__ import annotations

import numpy as np
import torch

from tasks.knowledge.graph import KnowledgeGraph
from tasks.predictors.kernels.similarity import GeneSimilarity
from tasks.predictors.networks.gat_graph import Layer, NodeIndex, link_matrix, needed_layers
from tasks.predictors.networks.gat_kinds import LinkKinds
from tasks.predictors.networks.gat_network import Encoder
from tasks.predictors.networks.gat_options import GATOptions
from tasks.predictors.networks.rows import NamedNodes


class GraphEncoding:
    """The nodes of a graph and the links they hear from each other by."""

    def __init__(self, knowledge: KnowledgeGraph, named: NamedNodes, options: GATOptions, *, seed: int):
        self.named, self.options, self.seed = named, options, seed
        self._nodes = NodeIndex(knowledge, named)
        self._links = link_matrix(self._nodes, options.max_links)
        self._parts: torch.Tensor | None = None
        if options.edge_types:
            kinds = LinkKinds.build(self._nodes, self._links)
            self._links, self._parts = kinds.links, torch.from_numpy(kinds.parts)

    def encoder(self) -> Encoder:
        """Build the untrained encoder."""
        return Encoder(start_vectors(self._nodes, self.options, self.seed), self.options.layers, self._parts)

    def inputs(self, targets: np.ndarray, device: str) -> tuple[torch.Tensor, list[Layer]]:
        """Give the encoder the nodes and links it needs, and no others."""
        inputs, layers = needed_layers(self._links, targets, self.options.layers)
        return torch.from_numpy(inputs).to(device), [layer.to(device) for layer in layers]


def start_vectors(nodes: NodeIndex, options: GATOptions, seed: int) -> torch.Tensor:
    """What the embeddings start from, float32 [n_nodes, hidden]; the unknown node starts at 0."""
    rng = np.random.default_rng([seed, 5])
    start = rng.standard_normal((nodes.n_nodes, options.hidden), dtype=np.float32)
    if options.start == "graph":
        start *= 0.1
        known = nodes.knowledge
        factors = GeneSimilarity.build(known, n_factors=options.hidden).factors
        # Unit length times this makes an entry's size about 1, the scale of the random start.
        factors = factors * np.sqrt(options.hidden).astype(np.float32)
        start[: known.n_genes, : factors.shape[1]] += factors
        members = np.maximum(np.bincount(known.incidence.indices, minlength=len(known.terms)), 1)
        start[nodes.n_named :, : factors.shape[1]] += (known.incidence.T @ factors) / members[:, None]
    start[nodes.n_named - 1] = 0
    return torch.from_numpy(start)
