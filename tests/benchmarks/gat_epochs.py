"""An epoch of the graph attention network: ours, and the whole graph for every batch of pairs.

The whole graph is computed as Wu et al. 2025 do: every node, PyG's own ``GATConv``, encoded anew for each
batch of 5,000 pairs, one optimiser step of everything a batch. `whole_graph` and ours with one encoding a
batch are the same mathematics (tests/tasks/test_networks.py), so that what the former would reach is what the
latter reaches.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from torch import nn

from tasks.knowledge import KnowledgeGraph, read_knowledge
from tasks.predictors.fitting import training_rows
from tasks.predictors.networks.gat_encoding import GraphEncoding
from tasks.predictors.networks.gat_options import GATOptions
from tasks.predictors.networks.head import make_optimiser
from tasks.predictors.networks.rows import NamedNodes, PairRows
from tasks.predictors.networks.training import Encoding, Network, one_epoch, train
from tasks.predictors.protocol import TASKS, Context, checked_tables
from tasks.predictors.threads import deterministic_torch
from tests.benchmarks.measure import THREADS, Figures, measured, medians
from tests.benchmarks.whole_graph import whole_graph, whole_graph_batches

#: What is timed: options of ours, or of the whole graph.
OURS: dict[str, dict[str, int]] = {
    "ours": {},
    "ours, one encoding a batch": {"batches_per_encoding": 1},
    "ours, one encoding a batch, all links": {"batches_per_encoding": 1, "max_links": 0},
}
WHOLE: dict[str, dict[str, int]] = {
    "whole graph each batch, our links": {},
    "whole graph each batch, all links": {"max_links": 0},
}
#: Batches of the whole graph that are timed; the epoch's time is theirs multiplied up.
BATCHES = 2
#: Whose validation is compared: ours, and what the whole graph for every batch computes.
COMPARED = ("ours", "ours, one encoding a batch, all links")
#: Epochs after which it is, and the seeds (each holds other perturbations out).
EPOCHS, SEEDS = 6, (0, 1, 2)
METRIC = "validation_de_auprc"


def ours(rows: PairRows, knowledge: KnowledgeGraph, options: GATOptions, *, seed: int) -> GraphEncoding:
    """Encode as the predictor does."""
    return GraphEncoding(knowledge, NamedNodes.build(rows.names, knowledge.symbols), options, seed=seed)


def time_epoch(name: str, rows: PairRows, knowledge: KnowledgeGraph) -> Figures:
    """Time of one epoch without validation, after a first batch that is not timed, and the epoch's size."""
    options = GATOptions(**OURS.get(name, WHOLE.get(name)))
    order = np.random.default_rng(0).permutation(np.flatnonzero(~rows.validation()))
    batches = -(-len(order) // options.batch_size)
    first = order[: options.batch_size]
    encoding: Encoding = (ours if name in OURS else whole_graph)(rows, knowledge, options, seed=0)
    # What ours computes comes out the same twice; nobody asks that of the whole graph.
    with deterministic_torch(THREADS, seed=0, strict=name in OURS):
        network = Network.build(rows, encoding, options)
        if name in OURS:
            optimisers, share = network.optimisers(options), 1.0
            one_epoch(network, first, optimisers, options)
            figures = measured(lambda: one_epoch(network, order, optimisers, options))
        else:
            optimiser = make_optimiser(nn.ModuleList([network.encoder, network.head]), options.learning_rate)
            whole_graph_batches(network, first, optimiser, options)
            some = order[: BATCHES * options.batch_size]
            share = len(order) / len(some)
            figures = measured(lambda: whole_graph_batches(network, some, optimiser, options))
    times = {key: figures[key] * share for key in ("cpu_s", "wall_s")}
    return figures | times | {"batches": batches, "pairs": len(order)}


def best_validation(
    rows: PairRows, knowledge: KnowledgeGraph, options: Mapping[str, int], *, epochs: int, seed: int
) -> float:
    """Best area under the precision-recall curve of DE within so many epochs of ours."""
    checked = GATOptions(**options, max_epochs=epochs, min_epochs=epochs)
    context = Context(knowledge, seed=seed, threads=THREADS)
    history = train(rows, ours(rows, knowledge, checked, seed=seed), context, checked).history
    return max(metrics[METRIC] for metrics in history)


def section(arguments: argparse.Namespace) -> list[str]:
    """Lines of the report: times of an epoch, then validation after the same number of epochs."""
    folder = shared_folder()
    if folder is None:
        return ["No k562 tables or knowledge at hand (PQA_SHARED): not measured."]
    rows = {
        name: medians("gat_epochs", "time", name, str(folder), runs=arguments.runs if name in OURS else 1)
        for name in (*OURS, *WHOLE)
    }
    scores = {
        name: [medians("gat_epochs", str(seed), name, str(folder), runs=1)[METRIC] for seed in SEEDS]
        for name in COMPARED
    }
    return [*time_lines(rows), "", *validation_lines(scores)]


def time_lines(rows: Mapping[str, Figures]) -> list[str]:
    """Times as a table."""
    own, options = rows["ours"], GATOptions()
    lines = [
        f"k562, {options.layers} layers x {options.hidden}, one training epoch of {own['pairs']:,.0f} pairs "
        f"in {own['batches']:.0f} batches of {options.batch_size:,}, validation not counted; PyTorch "
        f"{version('torch')}, PyTorch Geometric {version('torch_geometric')}. Ours encodes once for "
        f"{options.batches_per_encoding} batches, lets a gene hear from {options.max_links} partners and "
        f"{options.max_links} terms at most, and computes only the nodes that pairs need. Of the whole graph "
        f"{BATCHES} batches were timed, once, and multiplied up; all of them begin after a first batch that "
        "is not timed.",
        "",
        "| | CPU s | times ours | wall s | times ours | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if not row:
            lines.append(f"| {name} | failed | | | | |")
            continue
        cpu, wall = row["cpu_s"], row["wall_s"]
        lines.append(
            f"| {name} | {cpu:.1f} | {cpu / own['cpu_s']:.1f} | {wall:.1f} | {wall / own['wall_s']:.1f} "
            f"| {row['peak_mb']:,.0f} |"
        )
    return lines


def validation_lines(scores: Mapping[str, list[float]]) -> list[str]:
    """Validation as a table: each seed, and the mean difference from ours."""
    lines = [
        f"Best validation DE AUPRC within {EPOCHS} epochs, by seed. One encoding a batch is what the whole "
        "graph for every batch computes, in less time (tests hold values and gradients equal).",
        "",
        f"| | {' | '.join(f'seed {seed}' for seed in SEEDS)} | mean | minus ours, mean (SD of the seeds) |",
        "|---|" + "---|" * (len(SEEDS) + 2),
    ]
    for name, values in scores.items():
        apart = [value - own for value, own in zip(values, scores["ours"], strict=True)]
        difference = (
            "" if name == "ours" else f"{statistics.mean(apart):+.4f} ({statistics.stdev(apart):.4f})"
        )
        each = " | ".join(f"{value:.4f}" for value in values)
        lines.append(f"| {name} | {each} | {statistics.mean(values):.4f} | {difference} |")
    return lines


def shared_folder() -> Path | None:
    """Folder with the k562 label tables and the knowledge, where there is one."""
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("PQA_SHARED") or root.parent / "shared" / "data")
    needed = [folder / "knowledge", *(folder / "labels" / f"k562-{task}.parquet" for task in TASKS)]
    return folder if all(path.exists() for path in needed) else None


def main(what: str, name: str, folder: str) -> Figures:
    """Measure one thing: ``time``, or the validation with a seed."""
    labels = {task: training_rows(str(Path(folder) / "labels" / f"k562-{task}.parquet")) for task in TASKS}
    rows = PairRows.build(checked_tables(labels))
    knowledge = read_knowledge(Path(folder) / "knowledge")
    if what == "time":
        return time_epoch(name, rows, knowledge)
    return {METRIC: best_validation(rows, knowledge, OURS[name], epochs=EPOCHS, seed=int(what))}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
