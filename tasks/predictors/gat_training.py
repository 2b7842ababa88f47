"""Training the graph attention network: loop, early stopping, every gene's vector."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from storage.errors import InputError
from tasks.predictors.gat_graph import Layer, NodeIndex, link_matrix, needed_layers
from tasks.predictors.gat_network import Encoder, Head, class_scores, make_optimiser, pair_loss
from tasks.predictors.gat_options import GATOptions
from tasks.predictors.gat_rows import PairRows
from tasks.predictors.protocol import Context
from tasks.predictors.similarity import GeneSimilarity
from tasks.predictors.threads import deterministic_torch

CLIP = 1.0


@dataclass(frozen=True, eq=False)
class TrainedGAT:
    """What training leaves behind: names without a place in the graph, vectors, head, metrics."""

    extra: np.ndarray
    vectors: np.ndarray
    head: dict[str, np.ndarray]
    history: list[dict[str, float]]


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Rows as tensors; ``pert`` and ``gene`` are positions among the encoder's outputs."""

    pert: torch.Tensor
    gene: torch.Tensor
    line: torch.Tensor
    possible: torch.Tensor
    true: torch.Tensor


def train(rows: PairRows, context: Context, options: GATOptions) -> TrainedGAT:
    """Train encoder and head, and encode every gene with the best epoch's weights."""
    device = _device(options)
    names = np.unique(np.concatenate([rows.pert, rows.gene]))
    extra = names[context.knowledge.resolve(names) < 0]
    nodes = NodeIndex(context.knowledge, extra)
    links = link_matrix(nodes, options.max_links)
    seed = int(np.random.default_rng([context.seed, 2]).integers(2**31))
    with deterministic_torch(context.threads, seed=seed, strict=device == "cpu"):
        encoder = Encoder(_start(nodes, options, context.seed), options.layers).to(device)
        head = Head(options.hidden, len(rows.lines)).to(device)
        used = np.unique(nodes.find(names))
        inputs, layers = _on(device, *needed_layers(links, used, options.layers))
        pairs = _Pairs(
            *(
                torch.from_numpy(np.searchsorted(used, nodes.find(n))).to(device)
                for n in (rows.pert, rows.gene)
            ),
            *(torch.from_numpy(value).to(device) for value in (rows.line, rows.possible, rows.true)),
        )
        history = _epochs(encoder, head, (inputs, layers), pairs, rows, context, options)
        inputs, layers = _on(device, *needed_layers(links, np.arange(nodes.n_named), options.layers))
        with torch.inference_mode():
            vectors = encoder.eval()(inputs, layers).cpu().numpy()
    weights = {name: value.detach().cpu().numpy() for name, value in head.state_dict().items()}
    return TrainedGAT(extra=extra, vectors=vectors, head=weights, history=history)


def _epochs(
    encoder: Encoder,
    head: Head,
    graph: tuple[torch.Tensor, list[Layer]],
    pairs: _Pairs,
    rows: PairRows,
    context: Context,
    options: GATOptions,
) -> list[dict[str, float]]:
    """Run the epochs; leave the best one's weights in ``encoder`` and ``head``."""
    held = rows.validation(context.seed)
    training = np.flatnonzero(~held)
    optimisers = [make_optimiser(module, options.learning_rate) for module in (encoder, head)]
    history: list[dict[str, float]] = []
    best, best_epoch, kept = -np.inf, 0, None
    for epoch in range(1, options.max_epochs + 1):
        order = np.random.default_rng([context.seed, 4, epoch]).permutation(training)
        metrics = {"epoch": float(epoch)}
        metrics["train_loss"] = _one_epoch(encoder, head, graph, pairs, order, optimisers, options)
        metrics |= _validate(encoder, head, graph, pairs, rows, np.flatnonzero(held))
        history.append(metrics)
        context.progress("epochs", epoch, options.max_epochs)
        score = metrics.get("validation_de_auprc", metrics.get("validation_dir_auprc"))
        if score is None and epoch >= options.min_epochs:
            # Nothing held out can tell a better epoch from a worse one.
            return history
        if score is not None and score > best:
            best, best_epoch = score, epoch
            kept = copy.deepcopy((encoder.state_dict(), head.state_dict()))
        if score is not None and epoch >= options.min_epochs and epoch - best_epoch >= options.patience:
            break
    if kept is not None:
        encoder.load_state_dict(kept[0])
        head.load_state_dict(kept[1])
    return history


def _one_epoch(
    encoder: Encoder,
    head: Head,
    graph: tuple[torch.Tensor, list[Layer]],
    pairs: _Pairs,
    order: np.ndarray,
    optimisers: list[torch.optim.Optimizer],
    options: GATOptions,
) -> float:
    """Take every training pair once; return the mean loss."""
    encoder.train()
    head.train()
    total = 0.0
    batches = torch.split(torch.from_numpy(order).to(pairs.pert.device), options.batch_size)
    for first in range(0, len(batches), options.batches_per_encoding):
        vectors = encoder(*graph)
        leaf = vectors.detach().requires_grad_()
        for batch in batches[first : first + options.batches_per_encoding]:
            logits = head(leaf, pairs.pert[batch], pairs.gene[batch], pairs.line[batch])
            loss = pair_loss(logits, pairs.possible[batch], pairs.true[batch])
            loss.backward()
            _step(head, optimisers[1])
            total += loss.item() * len(batch)
        vectors.backward(leaf.grad)
        _step(encoder, optimisers[0])
    return total / len(order)


def _step(module: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _validate(
    encoder: Encoder,
    head: Head,
    graph: tuple[torch.Tensor, list[Layer]],
    pairs: _Pairs,
    rows: PairRows,
    held: np.ndarray,
) -> dict[str, float]:
    """Area under the precision-recall curve of each task, where the held-out rows have both classes."""
    if not len(held):
        return {}
    encoder.eval()
    head.eval()
    at = torch.from_numpy(held).to(pairs.pert.device)
    with torch.inference_mode():
        vectors = encoder(*graph)
        logits = head(vectors, pairs.pert[at], pairs.gene[at], pairs.line[at])
    scores = class_scores(logits)
    metrics = {}
    for task, label in (("de", rows.de[held]), ("dir", rows.direction[held])):
        given = label >= 0
        if given.any() and 0 < label[given].mean() < 1:
            metrics[f"validation_{task}_auprc"] = float(
                average_precision_score(label[given], scores[task][given])
            )
    return metrics


def _device(options: GATOptions) -> str:
    """Settle where to train; the device asked for by name must be there."""
    there = torch.cuda.is_available()
    if options.device == "cuda" and not there:
        raise InputError("gat", ["device is cuda but there is none here; use cpu or auto"])
    return "cuda" if options.device != "cpu" and there else "cpu"


def _start(nodes: NodeIndex, options: GATOptions, seed: int) -> torch.Tensor:
    """What the embeddings start from, float32 [n_nodes, hidden]; the unknown node starts at 0."""
    rng = np.random.default_rng([seed, 5])
    start = rng.standard_normal((nodes.n_nodes, options.hidden), dtype=np.float32)
    if options.start == "graph":
        start *= 0.1
        known = nodes.knowledge
        factors = GeneSimilarity.build(known, n_factors=options.hidden, seed=seed).factors
        # Unit length times this makes an entry's size about 1, the scale of the random start.
        factors = factors * np.sqrt(options.hidden).astype(np.float32)
        start[: known.n_genes, : factors.shape[1]] += factors
        members = np.maximum(np.bincount(known.incidence.indices, minlength=len(known.terms)), 1)
        start[nodes.n_named :, : factors.shape[1]] += (known.incidence.T @ factors) / members[:, None]
    start[nodes.n_named - 1] = 0
    return torch.from_numpy(start)


def _on(device: str, inputs: np.ndarray, layers: list[Layer]) -> tuple[torch.Tensor, list[Layer]]:
    return torch.from_numpy(inputs).to(device), [layer.to(device) for layer in layers]
