"""Graph attention over the knowledge graph, and the head that reads a pair off it (Wu et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import GATConv

from tasks.predictors.gat_graph import Layer
from tasks.predictors.threads import deterministic_torch

CLASSES = ("none", "down", "up")
HEAD_UNITS = 1024
DROPOUT = 0.1
# Pairs scored at once.
CHUNK = 20000


class _WeightedSum(torch.autograd.Function):
    """Sum of ``values[source] * weight`` over each output's links.

    The gradient of the values is the same sum along the links turned round, which are sorted beforehand;
    left to itself, ``embedding_bag`` would sort the links in every backward pass.
    """

    @staticmethod
    def forward(ctx, values: torch.Tensor, weight: torch.Tensor, layer: Layer) -> torch.Tensor:
        ctx.save_for_backward(values, weight)
        ctx.layer = layer
        return F.embedding_bag(layer.source, values, layer.start, mode="sum", per_sample_weights=weight)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        values, weight = ctx.saved_tensors
        layer, gradient = ctx.layer, gradient.contiguous()
        turned = weight.index_select(0, layer.by_source)
        of_values = F.embedding_bag(
            layer.turned_target, gradient, layer.turned_start, mode="sum", per_sample_weights=turned
        )
        with torch.enable_grad():
            asked = weight.detach().requires_grad_()
            summed = F.embedding_bag(
                layer.source, values.detach(), layer.start, mode="sum", per_sample_weights=asked
            )
            (of_weight,) = torch.autograd.grad(summed, asked, gradient)
        return of_values, of_weight, None


class SortedGATConv(GATConv):
    """``GATConv`` with one head, for links sorted by target.

    Same parameters and same result; the weighted sum over a node's links is one fused call, which does
    not hold a vector per link in memory (about 15 times faster on a CPU at 128 units). Rows are taken by
    ``index_select``: the gradient of plain indexing is several times slower when it has to be repeatable.
    """

    def __init__(self, units: int):
        super().__init__(units, units, heads=1, add_self_loops=False)

    def forward(self, x: torch.Tensor, layer: Layer) -> torch.Tensor:
        """Map inputs [n_in, units] to the layer's outputs [n_out, units]."""
        hidden = self.lin(x)
        of_source = hidden @ self.att_src[0, 0]
        of_target = (hidden @ self.att_dst[0, 0]).index_select(0, layer.rows)
        logit = of_source.index_select(0, layer.source) + of_target.index_select(0, layer.target)
        logit = F.leaky_relu(logit, self.negative_slope)
        # No link's logit exceeds this one's, and a softmax does not notice what is subtracted.
        most = F.leaky_relu(of_source.max() + of_target, self.negative_slope).detach()
        weight = torch.exp(logit - most.index_select(0, layer.target))
        total = torch.zeros_like(of_target).index_add(0, layer.target, weight)
        weight = weight / (total.index_select(0, layer.target) + 1e-16)
        summed = _WeightedSum.apply(hidden, weight, layer)
        return summed + self.bias


class Encoder(nn.Module):
    """Node embeddings, then per layer: attention, layer norm, GELU and dropout on a residual path.

    Parameters
    ----------
    start
        float32 [n_nodes, units]: what the embeddings start from; they are learnt from there.
    layers
        Number of attention layers.
    """

    def __init__(self, start: torch.Tensor, layers: int):
        super().__init__()
        units = start.shape[1]
        self.embedding = nn.Parameter(start.clone())
        self.convolutions = nn.ModuleList(SortedGATConv(units) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(units) for _ in range(layers))

    def forward(self, inputs: torch.Tensor, layers: list[Layer]) -> torch.Tensor:
        """Vectors [n_targets, units] of the nodes the last layer puts out."""
        x = self.embedding.index_select(0, inputs)
        for layer, convolution, norm in zip(layers, self.convolutions, self.norms, strict=True):
            change = F.gelu(norm(convolution(x, layer)))
            x = x.index_select(0, layer.rows) + F.dropout(change, DROPOUT, self.training)
        return x


class Head(nn.Module):
    """From the vectors of perturbation and gene to the logits of none, down and up.

    Each cell line the training rows are from shifts the hidden units by its own learnt vector, the
    predicted line's coming first.
    """

    def __init__(self, units: int, lines: int):
        super().__init__()
        self.hidden = nn.Linear(2 * units, HEAD_UNITS)
        self.line_bias = nn.Parameter(torch.zeros(lines, HEAD_UNITS))
        self.out = nn.Linear(HEAD_UNITS, len(CLASSES))

    def forward(
        self, vectors: torch.Tensor, pert: torch.Tensor, gene: torch.Tensor, line: torch.Tensor
    ) -> torch.Tensor:
        """Logits [n, 3] of pairs given as rows of ``vectors`` [n_nodes, units] and cell lines, [n] each."""
        pair = torch.cat([vectors.index_select(0, pert), vectors.index_select(0, gene)], dim=1)
        hidden = F.gelu(self.hidden(pair) + F.embedding(line, self.line_bias))
        return self.out(hidden)


def pair_loss(logits: torch.Tensor, possible: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Mean of -log p(one of the true classes | one of the possible classes).

    ``possible`` and ``true`` are masks [n, 3]. A pair known to respond in an unknown direction has two true
    classes; one of which only the direction is given has two possible ones.
    """
    outside = torch.finfo(logits.dtype).min
    among = torch.logsumexp(logits.masked_fill(~possible, outside), dim=1)
    return (among - torch.logsumexp(logits.masked_fill(~true, outside), dim=1)).mean()


def score_pairs(
    task: str,
    trained: tuple[np.ndarray, Mapping[str, np.ndarray]],
    pairs: tuple[np.ndarray, np.ndarray],
    *,
    threads: int,
) -> np.ndarray:
    """Score pairs with trained vectors and head: 1 - p(none), or p(up | down or up), float64 [n].

    Parameters
    ----------
    task
        ``de`` or ``dir``.
    trained
        Vectors [n_nodes, units] and the head's weights by name.
    pairs
        Nodes of perturbation and gene, int64 [n] each.
    """
    vectors, weights = torch.from_numpy(trained[0]), trained[1]
    with deterministic_torch(threads, seed=0), torch.inference_mode():
        head = Head(vectors.shape[1], len(weights["line_bias"])).eval()
        head.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        chunks = zip(*(torch.split(torch.from_numpy(nodes), CHUNK) for nodes in pairs), strict=True)
        logits = torch.cat([head(vectors, p, g, torch.zeros_like(p)) for p, g in chunks])
    return class_scores(logits)[task]


def class_scores(logits: torch.Tensor) -> dict[str, np.ndarray]:
    """Scores of both tasks from logits [n, 3], float64 [n] each."""
    none, down, up = logits.double().cpu().unbind(dim=1)
    return {
        "de": torch.sigmoid(torch.logaddexp(down, up) - none).numpy(),
        "dir": torch.sigmoid(up - down).numpy(),
    }


def make_optimiser(module: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW with weight decay 1e-6, none on biases and norms."""
    plain = [p for n, p in module.named_parameters() if "bias" in n or "norms" in n]
    decayed = [p for n, p in module.named_parameters() if not ("bias" in n or "norms" in n)]
    groups = [{"params": decayed, "weight_decay": 1e-6}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate)
