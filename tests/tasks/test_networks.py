"""What mlp and gat share: steps equal to plain autograd over the whole graph, grid, validation, options."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from storage.errors import InputError
from tasks.predictors import Context, make_predictor
from tasks.predictors.networks.gat_options import GATOptions
from tasks.predictors.networks.head import pair_loss
from tasks.predictors.networks.rows import NamedNodes, PairRows
from tasks.predictors.networks.training import CLIP, Network, one_epoch
from tasks.predictors.protocol import checked_tables
from tests.benchmarks import gat_epochs
from tests.benchmarks.whole_graph import whole_graph, whole_graph_batches
from tests.tasks.test_gat import clustered_graph, planted_rows

NETWORKS = ("mlp", "gat")


class Recorder:
    """In place of an optimiser: keeps each step's gradients and changes nothing."""

    def __init__(self, module):
        self.module, self.steps = module, []

    def step(self):
        self.steps.append({name: p.grad.clone() for name, p in self.module.named_parameters()})

    def zero_grad(self, set_to_none):
        self.module.zero_grad(set_to_none=set_to_none)


@pytest.fixture
def without_dropout(monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, p=0.5, training=True: x)


def both_forms(options):
    """Our network and the whole graph's, with the same weights, on planted rows."""
    graph = clustered_graph()
    rows = PairRows.build(checked_tables(planted_rows(graph, [3, 20, 21, 50])))
    networks = []
    for make in (gat_epochs.ours, whole_graph):
        torch.manual_seed(1)
        networks.append(Network.build(rows, make(rows, graph, options, seed=0), options))
    networks[1].encoder.load_state_dict(networks[0].encoder.state_dict())
    networks[1].head.load_state_dict(networks[0].head.state_dict())
    return rows, *networks


@pytest.mark.parametrize("max_links", [0, 3])
@pytest.mark.parametrize("per_encoding", [1, 2])
def test_gradients_equal_those_of_the_whole_graph(max_links, per_encoding, without_dropout):
    """What one encoding's batches ask for, summed, is what autograd through PyG's layers gives for each."""
    options = GATOptions(
        hidden=8, layers=2, max_links=max_links, batch_size=25, batches_per_encoding=per_encoding
    )
    rows, ours, whole = both_forms(options)
    recorders = Recorder(ours.encoder), Recorder(ours.head)
    order = np.random.default_rng(0).permutation(len(rows.pert))
    loss = one_epoch(ours, order, recorders, options)

    batches = torch.split(torch.from_numpy(order), options.batch_size)
    total, expected, pairs = 0.0, ([], []), whole.pairs
    for first in range(0, len(batches), per_encoding):
        of_encoder = None
        for batch in batches[first : first + per_encoding]:
            whole.encoder.zero_grad()
            whole.head.zero_grad()
            vectors = whole.encoder(*whole.inputs)
            logits = whole.head(vectors, pairs.pert[batch], pairs.gene[batch], pairs.line[batch])
            asked = pair_loss(logits, pairs.possible[batch], pairs.true[batch])
            asked.backward()
            total += asked.item() * len(batch)
            grads = {name: p.grad.clone() for name, p in whole.encoder.named_parameters()}
            of_encoder = (
                grads if of_encoder is None else {name: of_encoder[name] + grads[name] for name in grads}
            )
            expected[1].append(clipped({name: p.grad for name, p in whole.head.named_parameters()}))
        expected[0].append(clipped(of_encoder))
    assert loss == pytest.approx(total / len(order), rel=1e-5)
    assert len(batches) > 2 * per_encoding
    for recorder, wanted in zip(recorders, expected, strict=True):
        assert len(recorder.steps) == len(wanted)
        for step, other in zip(recorder.steps, wanted, strict=True):
            torch.testing.assert_close(step, other, rtol=1e-3, atol=1e-6)


def clipped(gradients):
    norm = torch.sqrt(sum(g.square().sum() for g in gradients.values()))
    return {name: g * min(1.0, (CLIP / norm).item()) for name, g in gradients.items()}


def test_vectors_equal_those_of_the_whole_graph():
    options = GATOptions(hidden=8, layers=3, max_links=0)
    _, ours, whole = both_forms(options)
    ours.train(False)
    whole.train(False)
    torch.testing.assert_close(ours.encoder(*ours.inputs), whole.encoder(*whole.inputs))


def test_the_epoch_that_is_timed_learns():
    """The whole graph's loop, by which the benchmark times the paper's way, lowers the loss."""
    options = GATOptions(hidden=8, batch_size=50, learning_rate=3e-3)
    _, _, whole = both_forms(options)
    modules = torch.nn.ModuleList([whole.encoder, whole.head])
    optimiser = torch.optim.AdamW(modules.parameters(), lr=3e-3)
    pairs, losses = whole.pairs, []
    for epoch in range(6):
        order = np.random.default_rng(epoch).permutation(len(pairs.pert))
        whole_graph_batches(whole, order, optimiser, options)
        logits = whole.head(whole.encoder(*whole.inputs), pairs.pert, pairs.gene, pairs.line)
        losses.append(pair_loss(logits, pairs.possible, pairs.true).item())
    assert losses[-1] < losses[0]


def test_benchmark_measures_both_and_writes_both(monkeypatch):
    graph = clustered_graph()
    rows = PairRows.build(checked_tables(planted_rows(graph, range(0, 60, 10))))
    monkeypatch.setitem(gat_epochs.OURS, "ours", {"batch_size": 50, "hidden": 8})
    monkeypatch.setitem(
        gat_epochs.WHOLE, "whole graph each batch, all links", {"batch_size": 50, "hidden": 8, "max_links": 0}
    )
    own = gat_epochs.time_epoch("ours", rows, graph)
    whole = gat_epochs.time_epoch("whole graph each batch, all links", rows, graph)
    assert own["pairs"] == whole["pairs"] == (~rows.validation()).sum()
    assert own["batches"] == -(-own["pairs"] // 50)
    lines = gat_epochs.time_lines({"ours": own, "whole": whole, "broken": {}})
    assert "| 1.0 |" in lines[-3]
    assert lines[-1] == "| broken | failed | | | | |"
    best = gat_epochs.best_validation(rows, graph, {"hidden": 8}, epochs=1, seed=0)
    assert 0 < best <= 1
    line = gat_epochs.validation_lines({"ours": [0.2, 0.3, 0.4], "other": [0.3, 0.4, 0.5]})[-1]
    assert line == "| other | 0.3000 | 0.4000 | 0.5000 | 0.4000 | +0.1000 (0.0000) |"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("layers", [1, 2, 4, 8])
@pytest.mark.parametrize("hidden", [64, 128, 256])
def test_the_whole_grid_trains(name, layers, hidden):
    graph = clustered_graph(clusters=2, size=8)
    tables = planted_rows(clustered_graph(clusters=2, size=16), range(6))
    options = {"layers": layers, "hidden": hidden, "max_epochs": 2, "min_epochs": 2}
    predictor = make_predictor(name, **options).fit(tables, Context(graph))
    scores = predictor.predict("de", tables["de"])
    assert np.isfinite(scores).all()
    assert np.ptp(scores) > 0
    assert predictor.state()["vectors"].shape[1] == hidden
    assert predictor.parameters()["layers"] == layers
    assert len(predictor.history) == 2


@pytest.mark.parametrize("name", NETWORKS)
def test_form_of_the_paper(name):
    """Its options are those of Wu et al., any may be given instead, and they come back from the state."""
    paper = make_predictor(name, form="paper", layers=4).parameters()
    expected = {"layers": 4, "hidden": 128, "learning_rate": 1e-4, "min_epochs": 50, "patience": 10}
    expected |= {"batches_per_encoding": 1, "batch_size": 5000}
    if name == "gat":
        expected |= {"start": "random", "max_links": 0, "edge_types": False}
    assert expected.items() <= paper.items()
    assert make_predictor(name).parameters()["learning_rate"] != 1e-4
    assert make_predictor(name, form="paper", learning_rate=0.5).parameters()["learning_rate"] == 0.5
    graph = clustered_graph()
    tables = planted_rows(graph, range(0, 60, 7))
    small = {"hidden": 8, "max_epochs": 2, "min_epochs": 1}
    predictor = make_predictor(name, form="paper", **small).fit(tables, Context(graph))
    again = type(predictor).from_state(predictor.state())
    assert again.parameters() == predictor.parameters() == paper | {"layers": 2} | small
    np.testing.assert_array_equal(again.predict("de", tables["de"]), predictor.predict("de", tables["de"]))
    with pytest.raises(InputError, match="form must be one of default, paper"):
        make_predictor(name, form="original")


@pytest.mark.parametrize("name", NETWORKS)
def test_validation_scores_are_of_the_rows_held_out(name):
    graph = clustered_graph()
    tables = planted_rows(graph, range(0, 60, 2))
    other = planted_rows(graph, range(1, 60, 2))["de"].assign(source="other line")
    tables["de"] = pd.concat([tables["de"], other], ignore_index=True)
    options = {"hidden": 8, "max_epochs": 6, "min_epochs": 1, "learning_rate": 3e-3}
    predictor = make_predictor(name, **options).fit(tables, Context(graph, seed=6))
    rows = PairRows.build(checked_tables(tables))
    perts = set(rows.pert[rows.validation()])
    assert len(perts) == 3
    for task, auprc in (("de", "validation_de_auprc"), ("dir", "validation_dir_auprc")):
        scores = predictor.validation_scores[task]
        assert scores.columns.tolist() == ["pert", "gene", "label", "score"]
        table = tables[task]
        expected = table[(table["source"] == "own") & table["pert"].isin(perts)]
        keys = ["pert", "gene", "label"]
        merged = scores.merge(expected[keys].astype({"label": int}), on=keys)
        assert len(merged) == len(scores) == len(expected) > 0
        np.testing.assert_array_equal(scores["score"], predictor.predict(task, scores))
        # The weights kept are those of the best epoch, by the response.
        best = max(predictor.history, key=lambda metrics: metrics["validation_de_auprc"])
        assert average_precision_score(scores["label"], scores["score"]) == pytest.approx(
            best[auprc], abs=1e-3
        )
    assert not any("validation" in key for key in predictor.state())
    lone = make_predictor(name, **options).fit(planted_rows(graph, [3]), Context(graph))
    assert lone.validation_scores == {}
    only = make_predictor(name, **options).fit({"dir": tables["dir"]}, Context(graph))
    assert set(only.validation_scores) == {"dir"}


def test_nodes_of_names():
    graph = clustered_graph()
    symbols = type(graph.symbols).build(graph.genes, {"old": "g001", "elder": "g002"})
    names = np.array(["x", "g002", "old", "y", "x"])
    every, seen = NamedNodes.build(names, symbols), NamedNodes.build_seen(names, symbols)
    assert every.count == graph.n_genes + 3
    assert every.find(["g000", "old", "x", "y", "z"]).tolist() == [0, 1, 60, 61, 62]
    assert seen.symbols.genes.tolist() == ["g001", "g002"]
    assert seen.find(["g001", "old", "elder", "x", "y", "g000", "z"]).tolist() == [0, 0, 1, 2, 3, 4, 4]
