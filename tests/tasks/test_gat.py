"""The graph attention network: its layer against PyG's own, its loss, its links, and that it learns."""

from __future__ import annotations

from dataclasses import replace

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
from tasks.predictors.gat import GATPredictor
from tasks.predictors.networks.gat_encoding import GraphEncoding
from tasks.predictors.networks.gat_graph import NodeIndex, link_matrix, needed_layers
from tasks.predictors.networks.gat_kinds import LinkKinds
from tasks.predictors.networks.gat_network import Encoder, SortedGATConv
from tasks.predictors.networks.gat_options import GATOptions
from tasks.predictors.networks.head import pair_loss
from tasks.predictors.networks.rows import NamedNodes, PairRows
from tasks.predictors.networks.training import Network, one_epoch
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
    nodes = NodeIndex(graph, NamedNodes(graph.symbols, np.array(["extra"])))
    links = link_matrix(nodes, 5)
    encoder = Encoder(torch.randn(nodes.n_nodes, 8), 2).eval()
    vectors = []
    for targets in (np.arange(nodes.n_nodes), np.array([3, 20, 60])):
        inputs, layers = needed_layers(links, targets, 2)
        vectors.append(encoder(torch.from_numpy(inputs), layers).detach())
    torch.testing.assert_close(vectors[0][[3, 20, 60]], vectors[1])
    assert nodes.named.find(np.array(["g003", "extra", "what"])).tolist() == [3, 60, 61]


def test_links_are_few_and_have_the_node_itself():
    graph = clustered_graph()
    nodes = NodeIndex(graph, NamedNodes.build(graph.genes, graph.symbols))
    links = link_matrix(nodes, 3).toarray()
    n = graph.n_genes
    assert links.diagonal().all()
    partners = links[:n, :n].sum(axis=1) - 1
    np.testing.assert_array_equal(partners, np.minimum(graph.degrees, 3))
    # A gene hears from its term and the term from it; the unknown node hears from itself only.
    np.testing.assert_array_equal(links[:n, nodes.n_named :], graph.incidence.toarray())
    np.testing.assert_array_equal(links[nodes.n_named :, :n], graph.incidence.toarray().T)
    assert links[n].sum() == 1


def test_layer_with_kinds_equals_pyg_with_edge_features():
    """A kind's part in the logit is what GATConv makes of edge features: their row times its vector."""
    rng = np.random.default_rng(0)
    dense = rng.random((12, 12)) < 0.4
    np.fill_diagonal(dense, True)
    parts = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
    types = rng.integers(4, size=dense.sum())
    target, source = np.nonzero(dense)
    links = sparse.csr_array((types, source, np.append(0, np.cumsum(dense.sum(axis=1)))), shape=(12, 12))
    _, layers = needed_layers(links, np.arange(12), 1)
    torch.manual_seed(1)
    ours, theirs = SortedGATConv(6, parts), GATConv(6, 6, add_self_loops=False, edge_dim=4)
    with torch.no_grad():
        ours.kind_bias.copy_(torch.from_numpy(rng.normal(size=4)))
    own = {name: value for name, value in ours.state_dict().items() if "kind" not in name}
    theirs.load_state_dict(own, strict=False)
    attention = theirs.att_edge.detach().ravel()
    with torch.no_grad():
        # A weight whose product with the attention vector is each kind's bias.
        theirs.lin_edge.weight.copy_(torch.outer(attention, ours.kind_bias) / attention.square().sum())
    x = rng.normal(size=(12, 6)).astype(np.float32)
    pairs = torch.from_numpy(np.stack([source, target]))
    results = []
    for call in (lambda x: ours(x, layers[0]), lambda x: theirs(x, pairs, edge_attr=parts[types])):
        given = torch.from_numpy(x).requires_grad_()
        out = call(given)
        (out * torch.arange(72.0).reshape(12, 6)).sum().backward()
        results.append((out.detach(), given.grad))
    torch.testing.assert_close(results[0], results[1])
    for name in own:
        expected = dict(theirs.named_parameters())[name].grad
        torch.testing.assert_close(dict(ours.named_parameters())[name].grad, expected)
    weight = theirs.lin_edge.weight
    torch.testing.assert_close(torch.outer(attention, ours.kind_bias.grad), weight.grad, rtol=1e-4, atol=1e-4)


def test_kinds_say_what_each_link_is():
    graph = clustered_graph()
    n = graph.n_genes
    upper = np.triu(graph.adjacency.toarray() > 0)
    rng = np.random.default_rng(3)
    listed = {name: upper & (rng.random((n, n)) < 0.6) for name in ("a", "b")}
    graph = replace(
        graph,
        partners={name: sparse.csr_array((one | one.T).astype(np.float32)) for name, one in listed.items()},
        term_relations=np.array(["in", "part of", "in", "in"]),
    )
    nodes = NodeIndex(graph, NamedNodes.build(np.array(["other"]), graph.symbols))
    links = link_matrix(nodes, 4)
    kinds = LinkKinds.build(nodes, links)
    np.testing.assert_array_equal(kinds.links.indices, links.indices)
    to, source = kinds.links.tocoo().row, kinds.links.tocoo().col
    for i, j, kind in zip(to, source, kinds.links.data, strict=True):
        found = {name for name, part in zip(kinds.names, kinds.parts[kind], strict=True) if part}
        if i == j:
            expected = {"itself"}
        elif i < n and j < n:
            expected = {f"gene-gene {name}" for name, one in listed.items() if one[min(i, j), max(i, j)]}
            expected = expected or {"gene-gene"}
        elif i < n:
            expected = {str(graph.term_relations[j - nodes.n_named])}
        else:
            expected = {f"turned {graph.term_relations[i - nodes.n_named]}"}
        assert found == expected
    # Genes, the name that only the training rows have, "unknown", and the terms.
    assert kinds.links.shape == (n + 6, n + 6)


def two_sources(seed):
    """Links of one source lie within clusters, those of the other anywhere; no terms."""
    graph = clustered_graph()
    n = graph.n_genes
    noise = np.triu(np.random.default_rng(seed).random((n, n)) < 0.15, 1)
    noise = sparse.csr_array((noise | noise.T).astype(np.float32))
    none = np.empty(0, dtype="<U1")
    return replace(
        graph,
        adjacency=sparse.csr_array(graph.adjacency + noise),
        partners={"good": graph.adjacency, "noise": noise},
        incidence=sparse.csr_array((n, 0), dtype=np.float32),
        terms=none,
        term_relations=none,
    )


def test_attention_learns_which_source_to_hear():
    graph = two_sources(1)
    rows = PairRows.build(checked_tables(planted_rows(graph, np.arange(0, graph.n_genes, 2))))
    options = {"hidden": 16, "learning_rate": 1e-2, "batch_size": 400}
    named, vectors = NamedNodes.build(rows.names, graph.symbols), []
    for on in (False, True):
        checked = GATOptions(**options, edge_types=on)
        encoding = GraphEncoding(graph, named, checked, seed=2)
        torch.manual_seed(0)
        vectors.append(encoding.encoder().eval()(*encoding.inputs(np.arange(graph.n_genes), "cpu")).detach())
    # What the kinds add begins at nothing: the untrained network is that of the paper.
    torch.testing.assert_close(vectors[0], vectors[1])
    torch.manual_seed(0)
    network = Network.build(rows, encoding, checked)
    optimisers = network.optimisers(checked)
    for epoch in range(15):
        one_epoch(network, np.random.default_rng(epoch).permutation(len(rows.pert)), optimisers, checked)
    nodes = NodeIndex(graph, named)
    names = LinkKinds.build(nodes, link_matrix(nodes, checked.max_links)).names
    biases = dict(zip(names, network.encoder.convolutions[0].kind_bias.tolist(), strict=True))
    assert biases["gene-gene good"] > biases["gene-gene noise"] + 0.02


def test_edge_types_are_an_option_that_is_kept():
    graph = two_sources(1)
    tables, scores = planted_rows(graph, range(0, 40, 3)), []
    for on in (False, True):
        options = {"hidden": 8, "learning_rate": 1e-2, "max_epochs": 4, "min_epochs": 4, "edge_types": on}
        predictor = make_predictor("gat", **options).fit(tables, Context(graph, seed=2))
        again = GATPredictor.from_state(predictor.state())
        assert again.parameters()["edge_types"] is on
        scores.append(predictor.predict("de", tables["de"]))
        np.testing.assert_array_equal(again.predict("de", tables["de"]), scores[-1])
    assert not np.array_equal(*scores)


def test_all_links_are_the_whole_graph():
    graph = clustered_graph()
    # A term that one gene alone carries is no link between genes, but it is a link.
    members = np.c_[graph.incidence.toarray(), np.eye(graph.n_genes)[:, [7]]]
    graph = replace(
        graph,
        incidence=sparse.csr_array(members),
        terms=np.append(graph.terms, "lone"),
        term_relations=np.append(graph.term_relations, "in"),
    )
    nodes = NodeIndex(graph, NamedNodes.build(graph.genes, graph.symbols))
    everything = np.eye(nodes.n_nodes)
    n, first = graph.n_genes, nodes.n_named
    everything[:n, :n] += graph.adjacency.toarray() > 0
    everything[:n, first:] = members
    everything[first:, :n] = members.T
    np.testing.assert_array_equal(link_matrix(nodes, 0).toarray(), everything)
    everything[7, -1] = everything[-1, 7] = 0
    np.testing.assert_array_equal(link_matrix(nodes, 1000).toarray(), everything)


def test_fractional_links_are_taken_strongest_first():
    """Gene sets stand beside genes by the share of their members that have a link."""
    adjacency = np.zeros((6, 6))
    adjacency[0, 1:] = adjacency[1:, 0] = [0.2, 0.9, 0.0, 0.5, 0.9]
    adjacency[5, 3] = adjacency[3, 5] = 1
    incidence = np.zeros((6, 4))
    incidence[0] = [0.1, 0.7, 0.7, 0.0]
    incidence[1:4, 1], incidence[1:3, 2], incidence[1:3, 0], incidence[1:3, 3] = 1, 1, 1, 1
    explicit = sparse.csr_array(incidence)
    # A zero that is written down is no link either.
    rows, columns = [*explicit.tocoo().row, 0], [*explicit.tocoo().col, 3]
    graph = KnowledgeGraph(
        symbols=SymbolIndex.build(list("abcdef"), {}),
        adjacency=sparse.csr_array(adjacency),
        incidence=sparse.csr_array(([*explicit.data, 0.0], (rows, columns)), shape=(6, 4)),
        terms=np.array(list("wxyz")),
        term_relations=np.array(["in"] * 4),
    )
    nodes = NodeIndex(graph, NamedNodes.build(graph.genes, graph.symbols))
    first = nodes.n_named
    partners = {k: set(np.flatnonzero(link_matrix(nodes, k).toarray()[0, 1:6]) + 1) for k in (1, 2, 3, 4, 0)}
    # Of two that are equally strong, the one with fewer partners of its own.
    assert partners == {1: {2}, 2: {2, 5}, 3: {2, 4, 5}, 4: {1, 2, 4, 5}, 0: {1, 2, 4, 5}}
    terms = {k: set(np.flatnonzero(link_matrix(nodes, k).toarray()[0, first:])) for k in (1, 2, 3, 4, 0)}
    assert terms == {1: {2}, 2: {1, 2}, 3: {0, 1, 2}, 4: {0, 1, 2}, 0: {0, 1, 2}}


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
    held = rows.validation()
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
        make_predictor("gat", depth=2, hidden=0, start="zeros", device="tpu", edge_types=1, patience=1.5)
    assert len(caught.value.problems) == 6
    if not torch.cuda.is_available():
        predictor = make_predictor("gat", device="cuda", hidden=8)
        with pytest.raises(InputError, match="there is none here"):
            predictor.fit(planted_rows(clustered_graph(), [1, 2]), Context(clustered_graph()))
