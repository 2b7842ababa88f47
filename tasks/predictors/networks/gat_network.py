"""Graph attention over the knowledge graph (Wu et al. 2025)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import GATConv

from tasks.predictors.networks.gat_graph import Layer
from tasks.predictors.networks.head import DROPOUT


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

    Parameters
    ----------
    units
        Of inputs and outputs.
    kinds
        float32 [n_types, n_kinds], as ``LinkKinds.parts``: each kind then has a learnt part in the logit of
        its links, which is what ``GATConv`` makes of edge features that tell the kinds.
    """

    def __init__(self, units: int, kinds: torch.Tensor | None = None):
        super().__init__(units, units, heads=1, add_self_loops=False)
        self.register_buffer("kinds", kinds)
        self.kind_bias = None if kinds is None else nn.Parameter(torch.zeros(kinds.shape[1]))

    def forward(self, x: torch.Tensor, layer: Layer) -> torch.Tensor:
        """Map inputs [n_in, units] to the layer's outputs [n_out, units]."""
        hidden = self.lin(x)
        of_source = hidden @ self.att_src[0, 0]
        of_target = (hidden @ self.att_dst[0, 0]).index_select(0, layer.rows)
        logit = of_source.index_select(0, layer.source) + of_target.index_select(0, layer.target)
        most = of_source.max() + of_target
        if self.kind_bias is not None:
            of_type = self.kinds @ self.kind_bias
            logit, most = logit + of_type.index_select(0, layer.kind), most + of_type.max()
        logit = F.leaky_relu(logit, self.negative_slope)
        # No link's logit exceeds this one's, and a softmax does not notice what is subtracted.
        most = F.leaky_relu(most, self.negative_slope).detach()
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
    kinds
        As of ``SortedGATConv``.
    """

    def __init__(self, start: torch.Tensor, layers: int, kinds: torch.Tensor | None = None):
        super().__init__()
        units = start.shape[1]
        self.embedding = nn.Parameter(start.clone())
        self.convolutions = nn.ModuleList(SortedGATConv(units, kinds) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(units) for _ in range(layers))

    def forward(self, inputs: torch.Tensor, layers: list[Layer]) -> torch.Tensor:
        """Vectors [n_targets, units] of the nodes the last layer puts out."""
        x = self.embedding.index_select(0, inputs)
        for layer, convolution, norm in zip(layers, self.convolutions, self.norms, strict=True):
            change = F.gelu(norm(convolution(x, layer)))
            x = x.index_select(0, layer.rows) + F.dropout(change, DROPOUT, self.training)
        return x
