"""The network on embeddings alone: its layers against NumPy, what it can learn, and what it cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.special import erf
from sklearn.metrics import roc_auc_score

from storage.errors import InputError
from tasks.knowledge import KnowledgeGraph, SymbolIndex
from tasks.predictors import Context, make_predictor
from tasks.predictors.networks.mlp_encoding import FeedForwardEncoder

OPTIONS = {"hidden": 16, "learning_rate": 3e-3, "batch_size": 100, "max_epochs": 40, "min_epochs": 15}
NAMES = [f"g{i:02d}" for i in range(30)]


def empty_graph():
    """Genes without links, and another name of g00."""
    n = len(NAMES)
    return KnowledgeGraph(
        symbols=SymbolIndex.build(NAMES, {"old00": "g00"}),
        adjacency=sparse.csr_array((n, n), dtype=np.float32),
        incidence=sparse.csr_array((n, 0), dtype=np.float32),
        terms=np.empty(0, dtype="<U1"),
        term_relations=np.empty(0, dtype="<U1"),
    )


def planted(perts, source="own"):
    """A pair responds if both genes are of the same half, whichever that is drawn to be."""
    half = dict(zip(NAMES, np.random.default_rng(4).permutation(30) < 15, strict=True))
    rows = [(p, g, int(half[p] == half[g]), source) for p in perts for g in NAMES if p != g]
    return pd.DataFrame(rows, columns=["pert", "gene", "label", "source"])


def test_encoder_equals_numpy():
    torch.manual_seed(0)
    encoder = FeedForwardEncoder(torch.randn(6, 5), 2).eval()
    weights = {name: value.numpy().astype(float) for name, value in encoder.state_dict().items()}
    x = weights["embedding"][[4, 0, 2]]
    for layer in (0, 1):
        y = x @ weights[f"linears.{layer}.weight"].T + weights[f"linears.{layer}.bias"]
        y = (y - y.mean(axis=1, keepdims=True)) / np.sqrt(y.var(axis=1, keepdims=True) + 1e-5)
        y = y * weights[f"norms.{layer}.weight"] + weights[f"norms.{layer}.bias"]
        x = x + y * (1 + erf(y / np.sqrt(2))) / 2
    np.testing.assert_allclose(encoder(torch.tensor([4, 0, 2])).detach().numpy(), x, rtol=1e-5, atol=1e-6)


def test_a_perturbation_seen_in_another_line_is_known():
    """Its embedding is learnt there, and the line it is asked about has only a shift of its own."""
    own, asked = NAMES[:20], NAMES[20:]
    rows = pd.concat([planted(own), planted(NAMES, source="other line")])
    predictor = make_predictor("mlp", **OPTIONS).fit({"de": rows}, Context(empty_graph(), seed=1))
    test = planted(asked)
    assert roc_auc_score(test["label"], predictor.predict("de", test)) > 0.9
    assert predictor.history[-1]["train_loss"] < predictor.history[0]["train_loss"]


def test_names_never_seen_share_one_vector_that_says_what_the_gene_does():
    """Only a gene's own rate is left to go by, and two unseen perturbations cannot be told apart."""
    rng = np.random.default_rng(0)
    rows = planted(NAMES[:25])
    often = dict(zip(NAMES, rng.random(30) < 0.5, strict=True))
    rows["label"] = (rng.random(len(rows)) < rows["gene"].map(often) * 0.6 + 0.2).astype(int)
    predictor = make_predictor("mlp", **OPTIONS).fit({"de": rows}, Context(empty_graph(), seed=1))
    scores = {}
    for pert in ("never seen", "nor this", "g00", "old00"):
        pairs = pd.DataFrame({"pert": pert, "gene": NAMES[:25]})
        scores[pert] = predictor.predict("de", pairs)
    np.testing.assert_array_equal(scores["never seen"], scores["nor this"])
    np.testing.assert_array_equal(scores["g00"], scores["old00"])
    assert not np.array_equal(scores["g00"], scores["never seen"])
    assert roc_auc_score([often[name] for name in NAMES[:25]], scores["never seen"]) > 0.8


def test_links_and_terms_are_not_used():
    graph = empty_graph()
    links = np.triu(np.random.default_rng(0).random((30, 30)) < 0.3, 1)
    linked = replace(graph, adjacency=sparse.csr_array((links | links.T).astype(np.float32)))
    rows, options = planted(NAMES[:10]), {**OPTIONS, "max_epochs": 3, "min_epochs": 1}
    states = [
        make_predictor("mlp", **options).fit({"de": rows}, Context(known, seed=1)).state()
        for known in (graph, linked)
    ]
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        assert states[0][name].tobytes() == states[1][name].tobytes(), name


def test_options_are_those_of_a_network_without_links():
    with pytest.raises(InputError) as caught:
        make_predictor("mlp", max_links=3, start="graph", layers=0)
    assert len(caught.value.problems) == 3
    assert str(caught.value).startswith("mlp")
