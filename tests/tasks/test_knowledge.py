"""The graph: what is read, merged, dropped and resolved, and how bad folders are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from storage.errors import InputError
from tasks.knowledge import SymbolIndex, read_knowledge
from tasks.knowledge.lookup import sorted_positions
from tests.knowledge_files import write, write_edges, write_terms


@pytest.fixture
def folder(tmp_path):
    write_edges(tmp_path, "first", [("A", "B"), ("B", "A"), ("A", "A"), ("C", "D")])
    write_edges(tmp_path, "second", [("B", "A"), ("A", "C")])
    write_terms(tmp_path, "words", [("A", "t1"), ("A", "t1"), ("B", "t1"), ("E", "t2")])
    write_terms(tmp_path, "corum_9", [("F", "t1")])
    (tmp_path / "gene_text.parquet").write_bytes(b"not links, so never opened")
    return tmp_path


def test_links_are_merged_undirected_without_self_loops(folder):
    graph = read_knowledge(folder)
    assert graph.genes.tolist() == ["A", "B", "C", "D", "E"]
    expected = np.zeros((5, 5))
    for a, b, lists in [(0, 1, 2), (0, 2, 1), (2, 3, 1)]:
        expected[a, b] = expected[b, a] = lists
    np.testing.assert_array_equal(graph.adjacency.toarray(), expected)
    np.testing.assert_array_equal(graph.degrees, (expected > 0).sum(axis=1))


def test_each_source_keeps_its_own_links(folder):
    write_edges(folder, "first_v2", [("D", "E")])
    partners = read_knowledge(folder).partners
    assert sorted(partners) == ["first", "second"]
    expected = np.zeros((5, 5))
    for a, b in [(0, 1), (2, 3), (3, 4)]:
        expected[a, b] = expected[b, a] = 1
    # Two releases of one source are one list.
    np.testing.assert_array_equal(partners["first"].toarray(), expected)


def test_terms_and_relations(folder):
    graph = read_knowledge(folder)
    assert graph.terms.tolist() == ["t1", "t2"]
    np.testing.assert_array_equal(graph.incidence.toarray().T, [[1, 1, 0, 0, 0], [0, 0, 0, 0, 1]])
    assert graph.term_relations.tolist() == ["words_member"] * 2
    assert [(r.name, r.kind, r.links) for r in graph.relations] == [
        ("first_link", "gene-gene", 4),
        ("second_link", "gene-gene", 2),
        ("words_member", "gene-term", 4),
    ]
    assert [path.name for path in graph.files] == [
        "edges_first.parquet",
        "edges_second.parquet",
        "gene_words.parquet",
    ]


def test_noncommercial_sources_only_when_asked(folder):
    graph = read_knowledge(folder, noncommercial=True)
    assert "F" in graph.genes
    # The same word in two sources is two terms.
    assert sorted(graph.terms) == ["t1", "t1", "t2"]


def test_large_terms_and_hubs_are_dropped_but_their_genes_stay(folder):
    graph = read_knowledge(folder, max_term_genes=1, max_degree=1)
    assert graph.terms.tolist() == ["t2"]
    assert graph.n_genes == 5
    # A and C have two partners each: no link of theirs is left.
    assert graph.adjacency.nnz == 0
    assert read_knowledge(folder, max_term_genes=None, max_degree=None).adjacency.nnz == 6


def test_symbols_resolve_by_graph_then_benchmark_map_then_alias(folder):
    write(folder, "benchmark_symbol_map", ["benchmark_symbol", "hgnc_symbol"], [("oldA", "A"), ("x", None)])
    rows = [("oldA", "B", True), ("b", "B", True), ("c", "C", False), ("A", "B", True), ("G", "D", True)]
    write(folder, "symbol_aliases", ["alias", "symbol", "chosen"], rows)
    write(folder, "hgnc_genes", ["symbol"], [("A",), ("G",)])
    graph = read_knowledge(folder)
    # A is itself in the graph; c is not a chosen alias; G is a symbol in force of a gene without links.
    names = ["A", "oldA", "b", "c", "G", "nowhere", None]
    assert graph.resolve(names).tolist() == [0, 0, 1, -1, -1, -1, -1]
    assert graph.resolve(names).dtype == np.int64
    assert graph.resolve([]).tolist() == []


def test_graph_does_not_depend_on_row_order(folder):
    before = read_knowledge(folder)
    for path in folder.glob("*_*.parquet"):
        if path.name != "gene_text.parquet":
            pd.read_parquet(path).iloc[::-1].to_parquet(path)
    after = read_knowledge(folder)
    assert before.terms.tolist() == after.terms.tolist()
    for name in ("adjacency", "incidence"):
        for part in ("data", "indices", "indptr"):
            a, b = (getattr(getattr(graph, name), part) for graph in (before, after))
            np.testing.assert_array_equal(a, b)


def test_every_problem_is_listed(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_knowledge(tmp_path / "missing")
    write(tmp_path, "gene_bad", ["gene", "term"], [("A", "t")])
    (tmp_path / "gene_worse.parquet").write_bytes(b"no table")
    with pytest.raises(InputError) as caught:
        read_knowledge(tmp_path)
    assert len(caught.value.problems) == 3
    assert "no edges_*.parquet" in caught.value.problems[0]
    assert "gene_bad.parquet lacks columns source_gene, target, relation" in caught.value.problems[1]
    assert "gene_worse.parquet is not a readable Parquet table" in caught.value.problems[2]


def test_empty_names_are_refused(tmp_path):
    write_edges(tmp_path, "holes", [("A", "B"), ("A", None), ("", "B")])
    with pytest.raises(InputError, match="2 rows have an empty name"):
        read_knowledge(tmp_path)


def test_folder_with_edges_only(tmp_path):
    write_edges(tmp_path, "simulated", [("SIM0001", "SIM0002")])
    graph = read_knowledge(tmp_path)
    assert graph.incidence.shape == (2, 0)
    assert graph.resolve(["SIM0002", "SIM0003"]).tolist() == [1, -1]


@pytest.mark.parametrize("shape", [(30,), (5, 6), (0,)])
@pytest.mark.parametrize("kind", [np.int64, str])
def test_positions_are_those_of_list_index(kind, shape):
    rng = np.random.default_rng(0)
    ordered = np.unique(rng.choice(60, 20).astype(kind))
    values = rng.integers(-3, 70, shape).astype(kind)
    known = ordered.tolist()
    expected = [known.index(value) if value in known else -1 for value in values.ravel().tolist()]
    places = sorted_positions(ordered, values)
    assert places.dtype == np.int64
    np.testing.assert_array_equal(places, np.reshape(expected, shape))
    assert (sorted_positions(ordered[:0], values) == -1).all()


def test_symbol_index_keeps_only_aliases_that_lead_somewhere():
    index = SymbolIndex.build(["B", "A", "A"], {"a": "A", "B": "A", "z": "Z"})
    assert index.genes.tolist() == ["A", "B"]
    assert index.aliases.tolist() == ["a"]
    again = SymbolIndex(**index.state())
    assert again.resolve(["a", "B", "z"]).tolist() == [0, 1, -1]


@pytest.mark.shared_data
def test_real_folder(shared_data):
    graph = read_knowledge(shared_data / "knowledge")
    assert graph.n_genes > 20_000
    assert not any("corum" in path.name for path in graph.files)
    assert abs(graph.adjacency - graph.adjacency.T).nnz == 0
    assert graph.adjacency.diagonal().sum() == 0
    assert graph.degrees.max() <= 1000
    labels = pd.read_parquet(shared_data / "labels" / "k562-de.parquet")
    assert (graph.resolve(labels["pert"].unique()) >= 0).all()
    assert (graph.resolve(labels["gene"].unique()) < 0).sum() < 10
