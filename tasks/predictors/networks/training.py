"""Training an encoder of nodes and the head on pairs: loop, early stopping, every node's vector."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from tasks.predictors.networks.head import Head, class_scores, make_optimiser, pair_loss
from tasks.predictors.networks.options import NetworkOptions
from tasks.predictors.networks.rows import NamedNodes, PairRows
from tasks.predictors.protocol import Context
from tasks.predictors.threads import deterministic_torch

CLIP = 1.0


class Encoding(Protocol):
    """What a network gives its training: nodes, and how they become vectors.

    Attributes
    ----------
    named
        The nodes a pair can name.
    """

    named: NamedNodes

    def encoder(self) -> torch.nn.Module:
        """Build the untrained encoder."""

    def inputs(self, targets: np.ndarray, device: str) -> tuple:
        """What the encoder is called with to give the vectors of ``targets``, in their order."""


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """What training leaves behind: vectors of the named nodes, the head's weights, metrics by epoch."""

    vectors: np.ndarray
    head: dict[str, np.ndarray]
    history: list[dict[str, float]]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows as tensors; ``pert`` and ``gene`` are positions among the encoder's outputs."""

    pert: torch.Tensor
    gene: torch.Tensor
    line: torch.Tensor
    possible: torch.Tensor
    true: torch.Tensor


@dataclass(frozen=True, eq=False)
class Network:
    """Encoder and head, the pairs they learn from, and what encodes those pairs' nodes."""

    encoder: torch.nn.Module
    head: Head
    pairs: Pairs
    inputs: tuple

    @classmethod
    def build(cls, rows: PairRows, encoding: Encoding, options: NetworkOptions) -> Network:
        """Build the untrained network on the device the options ask for."""
        device = options.training_device()
        encoder = encoding.encoder().to(device)
        head = Head(options.hidden, len(rows.lines)).to(device)
        used = np.unique(encoding.named.find(rows.names))
        pert, gene = (np.searchsorted(used, encoding.named.find(names)) for names in (rows.pert, rows.gene))
        arrays = (pert, gene, rows.line, rows.possible, rows.true)
        pairs = Pairs(*(torch.from_numpy(array).to(device) for array in arrays))
        return cls(encoder, head, pairs, encoding.inputs(used, device))

    def optimisers(self, options: NetworkOptions) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """Of the encoder and of the head."""
        return tuple(make_optimiser(module, options.learning_rate) for module in (self.encoder, self.head))

    def train(self, training: bool) -> None:
        """Switch dropout on or off."""
        self.encoder.train(training)
        self.head.train(training)


def train(rows: PairRows, encoding: Encoding, context: Context, options: NetworkOptions) -> TrainedNetwork:
    """Train encoder and head, and encode every named node with the best epoch's weights."""
    device = options.training_device()
    seed = int(np.random.default_rng([context.seed, 2]).integers(2**31))
    with deterministic_torch(context.threads, seed=seed, strict=device == "cpu"):
        network = Network.build(rows, encoding, options)
        history = _epochs(network, rows, context, options)
        network.train(False)
        with torch.inference_mode():
            vectors = network.encoder(*encoding.inputs(np.arange(encoding.named.count), device))
    weights = {name: value.detach().cpu().numpy() for name, value in network.head.state_dict().items()}
    return TrainedNetwork(vectors=vectors.cpu().numpy(), head=weights, history=history)


def one_epoch(
    network: Network,
    order: np.ndarray,
    optimisers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    options: NetworkOptions,
) -> float:
    """Take the training pairs once, in that order; return the mean loss.

    Nodes are encoded once for ``options.batches_per_encoding`` batches. The head learns at each batch from
    those vectors; what each batch asks of the vectors is summed, and goes through the encoder in one piece.
    """
    network.train(True)
    total, pairs = 0.0, network.pairs
    batches = torch.split(torch.from_numpy(order).to(pairs.pert.device), options.batch_size)
    for first in range(0, len(batches), options.batches_per_encoding):
        vectors = network.encoder(*network.inputs)
        leaf = vectors.detach().requires_grad_()
        for batch in batches[first : first + options.batches_per_encoding]:
            logits = network.head(leaf, pairs.pert[batch], pairs.gene[batch], pairs.line[batch])
            loss = pair_loss(logits, pairs.possible[batch], pairs.true[batch])
            loss.backward()
            _step(network.head, optimisers[1])
            total += loss.item() * len(batch)
        vectors.backward(leaf.grad)
        _step(network.encoder, optimisers[0])
    return total / len(order)


def validate(network: Network, rows: PairRows, held: np.ndarray) -> dict[str, float]:
    """Area under the precision-recall curve of each task, where the held-out rows have both classes."""
    if not len(held):
        return {}
    network.train(False)
    pairs = network.pairs
    rows_held = torch.from_numpy(held).to(pairs.pert.device)
    with torch.inference_mode():
        vectors = network.encoder(*network.inputs)
        logits = network.head(vectors, pairs.pert[rows_held], pairs.gene[rows_held], pairs.line[rows_held])
    scores = class_scores(logits)
    metrics = {}
    for task, label in (("de", rows.de[held]), ("dir", rows.direction[held])):
        known = label >= 0
        if known.any() and 0 < label[known].mean() < 1:
            metrics[f"validation_{task}_auprc"] = float(
                average_precision_score(label[known], scores[task][known])
            )
    return metrics


def _epochs(
    network: Network, rows: PairRows, context: Context, options: NetworkOptions
) -> list[dict[str, float]]:
    """Run the epochs; leave the best one's weights in the network."""
    held = rows.validation()
    training = np.flatnonzero(~held)
    optimisers = network.optimisers(options)
    history: list[dict[str, float]] = []
    best, best_epoch, kept = -np.inf, 0, None
    for epoch in range(1, options.max_epochs + 1):
        order = np.random.default_rng([context.seed, 4, epoch]).permutation(training)
        metrics = {"epoch": float(epoch), "train_loss": one_epoch(network, order, optimisers, options)}
        metrics |= validate(network, rows, np.flatnonzero(held))
        history.append(metrics)
        context.progress("epochs", epoch, options.max_epochs)
        score = metrics.get("validation_de_auprc", metrics.get("validation_dir_auprc"))
        if score is None and epoch >= options.min_epochs:
            # Nothing held out can tell a better epoch from a worse one.
            return history
        if score is not None and score > best:
            best, best_epoch = score, epoch
            kept = copy.deepcopy((network.encoder.state_dict(), network.head.state_dict()))
        if score is not None and epoch >= options.min_epochs and epoch - best_epoch >= options.patience:
            break
    if kept is not None:
        network.encoder.load_state_dict(kept[0])
        network.head.load_state_dict(kept[1])
    return history


def _step(module: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
