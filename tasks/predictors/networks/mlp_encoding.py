"""Nodes as learnt embeddings and feed-forward layers, without links."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tasks.predictors.networks.head import DROPOUT
from tasks.predictors.networks.options import NetworkOptions
from tasks.predictors.networks.rows import NamedNodes


class FeedForwardEncoder(nn.Module):
    """Node embeddings, then per layer: linear map, layer norm, GELU and dropout on a residual path.

    Parameters
    ----------
    start
        float32 [n_nodes, units]: what the embeddings start from.
    layers
        Number of layers.
    """

    def __init__(self, start: torch.Tensor, layers: int):
        super().__init__()
        units = start.shape[1]
        self.embedding = nn.Parameter(start.clone())
        self.linears = nn.ModuleList(nn.Linear(units, units) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(units) for _ in range(layers))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Vectors [n_inputs, units] of the nodes ``inputs``."""
        x = self.embedding.index_select(0, inputs)
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = x + F.dropout(F.gelu(norm(linear(x))), DROPOUT, self.training)
        return x


@dataclass(frozen=True, eq=False)
class TableEncoding:
    """The nodes of a table's names, each with an embedding of its own."""

    named: NamedNodes
    options: NetworkOptions
    seed: int

    def encoder(self) -> FeedForwardEncoder:
        """Build the untrained encoder; the unknown node starts at 0."""
        shape = (self.named.count, self.options.hidden)
        start = np.random.default_rng([self.seed, 5]).standard_normal(shape, dtype=np.float32)
        start[-1] = 0
        return FeedForwardEncoder(torch.from_numpy(start), self.options.layers)

    def inputs(self, targets: np.ndarray, device: str) -> tuple[torch.Tensor]:
        """Give the encoder the nodes themselves."""
        return (torch.from_numpy(np.asarray(targets, dtype=np.int64)).to(device),)
