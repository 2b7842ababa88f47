"""The graph attention network: its layer against PyG's own, its loss, its links, and that it learns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.metrics import roc_auc_score
from torch_geometric.nn import GATConv

from storage.errors import InputError
from tasks.knowledge import KnowledgeGraph, SymbolIndex
from tasks.predictors import Context, make_predictor
from tasks.predictors.gat_graph import NodeIndex, link_matrix, needed_layers
from tasks.predictors.gat_network import Encoder, SortedGATConv, pair_loss
from tasks.predictors.gat_rows import PairRows
from tasks.predictors.protocol import checked_tables
from tasks.predictors.threads import deterministic_torch


def clustered_graph(clusters=4, size=15, seed=0):
    """Genes in clusters: linked within, one term a cluster."""
    rng = np.random.default_rng(seed)
    n = clusters * size
    cluster = np.repeat(np.arange(clusters), size)
    upper = np.triu((rng.random((n, n)) < 0.4) & (cluster[:, None] == cluster), 1)
    return KnowledgeGraph(
        symbols=SymbolIndex.build([f"g{i:03d}" for i in range(n)], {}),
        adjacency=sparse.csr_array((upper | upper.T).astype(np.float32)),
        incidence=sparse.csr_array((cluster[:, None] == np.arange(clusters)).astype(np.float32)),
        terms=np.array([f"t{i}" for i in range(clusters)]),
        term_relations=np.array(["in"] * clusters),
    )


def planted_rows(graph, perts):
    """A pair responds if both clusters are odd or both even; upwards if the perturbation's is 0 or 1."""
    rows = []
    for p in perts:
        for g in range(0, graph.n_genes, 2):
            if p != g:
                a, b = p // 15, g // 15
                rows.append((graph.genes[p], graph.genes[g], int(a % 2 == b % 2), int(a < 2)))
    frame = pd.DataFrame(rows, columns=["pert", "gene", "de", "dir"])
    tables = {"de": frame.assign(label=frame["de"]), "dir": frame[frame["de"] == 1]}
    tables["dir"] = tables["dir"].assign(label=tables["dir"]["dir"])
    return {task: t[["pert", "gene", "label"]].assign(source="own") for task, t in tables.items()}


def test_layer_equals_pyg_values_and_gradients():
    rng = np.random.default_rng(0)
    dense = rng.random((12, 12)) < 0.3
    np.fill_diagonal(dense, True)
    inputs, layers = needed_layers(sparse.csr_array(dense.astype(np.int8)), np.arange(12), 1)
    assert inputs.tolist() == list(range(12))
    target, source = np.nonzero(dense)
    torch.manual_seed(1)
    ours, theirs = SortedGATConv(6), GATConv(6, 6, add_self_loops=False)
    theirs.load_state_dict(ours.state_dict())
    results = []
    for call in (
        lambda x: ours(x, layers[0]),
        lambda x: theirs(x, torch.from_numpy(np.stack([source, target]))),
    ):
        x = torch.from_numpy(
            np.random.default_rng(2).normal(size=(12, 6)).astype(np.float32)
        ).requires_grad_()
        out = call(x)
        (out * torch.arange(72.0).reshape(12, 6)).sum().backward()
        results.append((out.detach(), x.grad))
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, dict(theirs.named_parameters())[name].grad)
    torch.testing.assert_close(results[0], results[1])


def test_needed_links_give_the_same_vectors_as_all_links():
    graph = clustered_graph()
    nodes = NodeIndex(graph, np.array(["extra"]))
    links = link_matrix(nodes, 5)
    encoder = Encoder(torch.randn(nodes.n_nodes, 8), 2).eval()
    vectors = []
    for targets in (np.arange(nodes.n_nodes), np.array([3, 20, 60])):
        inputs, layers = needed_layers(links, targets, 2)
        vectors.append(encoder(torch.from_numpy(inputs), layers).detach())
    torch.testing.assert_close(vectors[0][[3, 20, 60]], vectors[1])
    assert nodes.find(np.array(["g003", "extra", "what"])).tolist() == [3, 60, 61]


def test_links_are_few_and_have_the_node_itself():
    graph = clustered_graph()
    nodes = NodeIndex(graph, np.empty(0, dtype="<U1"))
    links = link_matrix(nodes, 3).toarray()
    n = graph.n_genes
    assert links.diagonal().all()
    partners = links[:n, :n].sum(axis=1) - 1
    np.testing.assert_array_equal(partners, np.minimum(graph.degrees, 3))
    # A gene hears from its term and the term from it; the unknown node hears from itself only.
    np.testing.assert_array_equal(links[:n, nodes.n_named :], graph.incidence.toarray())
    np.testing.assert_array_equal(links[nodes.n_named :, :n], graph.incidence.toarray().T)
    assert links[n].sum() == 1


def test_loss_uses_the_classes_that_are_known():
    logits = torch.tensor([[0.3, -1.0, 2.0]])
    p = torch.softmax(logits, dim=1)[0]
    every, responds = torch.tensor([[True, True, True]]), torch.tensor([[False, True, True]])
    up = torch.tensor([[False, False, True]])
    assert pair_loss(logits, every, up).item() == pytest.approx(-torch.log(p[2]).item(), rel=1e-5)
    assert pair_loss(logits, every, responds).item() == pytest.approx(
        -torch.log(p[1] + p[2]).item(), rel=1e-5
    )
    conditional = p[2] / (p[1] + p[2])
    assert pair_loss(logits, responds, up).item() == pytest.approx(-torch.log(conditional).item(), rel=1e-5)


def test_rows_of_both_tasks_are_joined():
    de = pd.DataFrame({"pert": list("abc"), "gene": "x", "label": [0, 1, 1], "source": "own"})
    direction = pd.DataFrame({"pert": list("bd"), "gene": "x", "label": [0, 1], "source": "own"})
    rows = PairRows.build(checked_tables({"de": de, "dir": direction}))
    assert rows.pert.tolist() == list("abcd")
    assert rows.true.astype(int).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert rows.possible.all(axis=1).tolist() == [True, True, True, False]
    held = rows.validation(seed=0)
    assert held.sum() == 1


@pytest.mark.parametrize("tasks", [("de", "dir"), ("de",), ("dir",)])
def test_learns_a_planted_signal(tasks):
    graph = clustered_graph()
    perts = np.random.default_rng(0).permutation(graph.n_genes)
    tables = {task: table for task, table in planted_rows(graph, perts[:44]).items() if task in tasks}
    test = planted_rows(graph, perts[44:])
    options = {"hidden": 16, "learning_rate": 3e-3, "max_epochs": 40, "min_epochs": 20, "batch_size": 200}
    seen = []
    context = Context(graph, seed=1, threads=1, progress=lambda *report: seen.append(report))
    predictor = make_predictor("gat", **options).fit(tables, context)
    for task in tasks:
        scores = predictor.predict(task, test[task][["pert", "gene"]])
        assert roc_auc_score(test[task]["label"], scores) > 0.9
    assert [report[:2] for report in seen] == [("epochs", i + 1) for i in range(len(seen))]
    assert len(predictor.history) == len(seen) >= 20
    assert predictor.history[-1]["train_loss"] < predictor.history[0]["train_loss"]
    assert f"validation_{tasks[0]}_auprc" in predictor.history[0]


def test_training_stops_without_improvement_and_runs_without_validation():
    graph = clustered_graph()
    tables = planted_rows(graph, [3])
    options = {"hidden": 8, "min_epochs": 2, "max_epochs": 30}
    predictor = make_predictor("gat", **options).fit(tables, Context(graph))
    # One perturbation leaves none to hold out: the least number of epochs is run.
    assert len(predictor.history) == 2
    rng = np.random.default_rng(0)
    noise = planted_rows(graph, range(40))["de"]
    noise["label"] = rng.integers(2, size=len(noise))
    predictor = make_predictor("gat", **options, patience=3).fit({"de": noise}, Context(graph))
    assert 2 < len(predictor.history) <= 30


def test_torch_is_left_as_it_was():
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    state = torch.get_rng_state()
    with deterministic_torch(1, seed=4):
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        torch.rand(3)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, strict)
    assert torch.equal(torch.get_rng_state(), state)


def test_options_are_checked():
    with pytest.raises(InputError) as caught:
        make_predictor("gat", depth=2, hidden=0, start="zeros", device="tpu")
    assert len(caught.value.problems) == 4
    if not torch.cuda.is_available():
        predictor = make_predictor("gat", device="cuda", hidden=8)
        with pytest.raises(InputError, match="there is none here"):
            predictor.fit(planted_rows(clustered_graph(), [1, 2]), Context(clustered_graph()))
