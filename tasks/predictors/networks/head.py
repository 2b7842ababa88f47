"""The head that reads a pair off two nodes' vectors, its loss and its scores (Wu et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tasks.predictors.threads import deterministic_torch

CLASSES = ("none", "down", "up")
HEAD_UNITS = 1024
# Share of units dropped in an encoder's layers while it learns.
DROPOUT = 0.1
# Pairs scored at once.
CHUNK = 20000


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
