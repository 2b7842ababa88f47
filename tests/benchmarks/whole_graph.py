"""The graph attention network as Wu et al. 2025 compute it: every node and link, anew for each batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import nn
from torch_geometric.nn import GATConv

from tasks.knowledge import KnowledgeGraph
from tasks.predictors.networks.gat_encoding import start_vectors
from tasks.predictors.networks.gat_graph import NodeIndex, link_matrix
from tasks.predictors.networks.gat_options import GATOptions
from tasks.predictors.networks.head import DROPOUT, pair_loss
from tasks.predictors.networks.rows import NamedNodes, PairRows
from tasks.predictors.networks.training import CLIP, Network


class WholeGraph(nn.Module):
    """The encoder with PyG's layers, for all nodes and links at once; parameters named as in ``Encoder``."""

    def __init__(self, start: torch.Tensor, layers: int):
        super().__init__()
        units = start.shape[1]
        self.embedding = nn.Parameter(start.clone())
        self.convolutions = nn.ModuleList(GATConv(units, units, add_self_loops=False) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(units) for _ in range(layers))

    def forward(self, links: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Vectors of all nodes by ``links`` [2, n_links], of which ``targets`` are given back."""
        x = self.embedding
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = x + F.dropout(F.gelu(norm(convolution(x, links))), DROPOUT, self.training)
        return x.index_select(0, targets)


@dataclass(frozen=True, eq=False)
class WholeGraphEncoding:
    """The nodes of `GraphEncoding`, encoded by `WholeGraph`."""

    named: NamedNodes
    nodes: NodeIndex
    links: sparse.csr_array
    options: GATOptions
    seed: int

    def encoder(self) -> WholeGraph:
        """Build the untrained encoder."""
        return WholeGraph(start_vectors(self.nodes, self.options, self.seed), self.options.layers)

    def inputs(self, targets: np.ndarray, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the encoder every link."""
        links = self.links.tocoo()
        pair = np.stack([links.col, links.row]).astype(np.int64)
        return torch.from_numpy(pair).to(device), torch.from_numpy(targets).to(device)


def whole_graph(
    rows: PairRows, knowledge: KnowledgeGraph, options: GATOptions, *, seed: int
) -> WholeGraphEncoding:
    """Encode everything, every time."""
    named = NamedNodes.build(rows.names, knowledge.symbols)
    nodes = NodeIndex(knowledge, named)
    return WholeGraphEncoding(named, nodes, link_matrix(nodes, options.max_links), options, seed)


def whole_graph_batches(
    network: Network, order: np.ndarray, optimiser: torch.optim.Optimizer, options: GATOptions
) -> None:
    """Take the pairs once as the paper's code does: encode, predict and step at each batch."""
    network.train(True)
    pairs = network.pairs
    parameters = [*network.encoder.parameters(), *network.head.parameters()]
    for batch in torch.split(torch.from_numpy(order), options.batch_size):
        vectors = network.encoder(*network.inputs)
        logits = network.head(vectors, pairs.pert[batch], pairs.gene[batch], pairs.line[batch])
        pair_loss(logits, pairs.possible[batch], pairs.true[batch]).backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
