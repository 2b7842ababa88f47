"""From sources to the store and back: names resolved, links merged, nothing lost without a word."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from storage.errors import InputError
from storage.knowledge_store import NODE_COLUMNS, is_store
from tasks.knowledge import read_knowledge
from tasks.knowledge.build import build_store
from tasks.knowledge.read import knowledge_files
from tasks.summer.entries import EntryIndex
from tests.knowledge_files import (
    FILES,
    edges_of,
    write,
    write_edges,
    write_sources,
    write_terms,
)


@pytest.fixture
def sources(tmp_path):
    return write_sources(tmp_path / "sources")


def same_graph(one, other):
    for part in ("genes", "terms", "term_relations"):
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
    np.testing.assert_array_equal(one.symbols.aliases, other.symbols.aliases)
    np.testing.assert_array_equal(one.symbols.alias_genes, other.symbols.alias_genes)
    assert one.relations == other.relations
    assert list(one.partners) == list(other.partners)
    pairs = [(one.adjacency, other.adjacency), (one.incidence, other.incidence)]
    pairs += [(one.partners[name], other.partners[name]) for name in one.partners]
    for a, b in pairs:
        assert a.shape == b.shape
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
            assert getattr(a, part).dtype == getattr(b, part).dtype


@pytest.fixture
def tables(tmp_path):
    """A folder of tables as `read_knowledge` reads it: releases, duplicates, self links, hubs, CORUM."""
    folder = tmp_path / "tables"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = np.array([f"G{i:02d}" for i in range(30)])
    for file in ("string_v11", "string_v12", "string-lab", "intact"):
        write_edges(folder, file, names[rng.integers(0, 30, (80, 2))])
    write(
        folder,
        "edges_two",
        ["source_gene", "target_gene", "relation"],
        [("G01", "G00", "b"), ("G00", "G01", "a"), ("G00", "G01", "a"), ("SELF", "SELF", "a")],
    )
    write_terms(folder, "words", [(a, f"t{b}") for a, b in zip(names, rng.integers(0, 6, 30), strict=True)])
    write_terms(folder, "words_v2", [("G00", "t1"), ("G00", "t1"), ("T_ONLY", "t9")])
    write_terms(folder, "corum_9", [("COMPLEX_ONLY", "t1")])
    write(folder, "benchmark_symbol_map", ["benchmark_symbol", "hgnc_symbol"], [("old", "G05")])
    return folder


@pytest.mark.parametrize("noncommercial", [False, True])
@pytest.mark.parametrize(
    "caps", [{}, {"max_term_genes": 4, "max_degree": 6}, dict.fromkeys(["max_term_genes", "max_degree"])]
)
def test_a_store_of_tables_is_the_same_graph_as_the_tables(tables, tmp_path, noncommercial, caps):
    build_store([tables], tmp_path / "store", noncommercial=noncommercial)
    graph = read_knowledge(tmp_path / "store", noncommercial=noncommercial, **caps)
    same_graph(graph, read_knowledge(tables, noncommercial=noncommercial, **caps))
    assert ("COMPLEX_ONLY" in graph.genes) == noncommercial


def test_noncommercial_sources_stay_out_of_a_store_and_out_of_its_graph(tables, tmp_path):
    write(tables, "terms_corum_9", ["term_id", "name"], [("t1", "a complex")])
    head = build_store([tables], tmp_path / "free")
    assert [entry["file"] for entry in head["left_out"]] == ["gene_corum_9.parquet", "terms_corum_9.parquet"]
    assert not (tmp_path / "free" / "terms_corum_9.parquet").exists()
    assert "CC BY-NC 4.0" not in set(edges_of(tmp_path / "free")["licence"])
    build_store([tables], tmp_path / "all", noncommercial=True)
    assert (tmp_path / "all" / "terms_corum_9.parquet").exists()
    same_graph(read_knowledge(tmp_path / "all"), read_knowledge(tables))
    with pytest.raises(InputError, match=r"left out for their licence: gene_corum_9\.parquet"):
        build_store([tables / "gene_corum_9.parquet"], tmp_path / "none")


def test_the_same_input_gives_the_same_bytes_and_row_order_does_not_matter(sources, tmp_path):
    build_store([sources], tmp_path / "one", noncommercial=True)
    for name in FILES:
        first = [line for line in FILES[name] if line.startswith(("!", "#", "p", '"Gene', "Complex"))]
        rest = [line for line in FILES[name] if line not in first]
        (sources / name).write_text("\n".join(first + rest[::-1]) + "\n")
    build_store([sources], tmp_path / "two", noncommercial=True)
    build_store([sources], tmp_path / "two", noncommercial=True)
    same_graph(
        read_knowledge(tmp_path / "one", noncommercial=True),
        read_knowledge(tmp_path / "two", noncommercial=True),
    )
    for name in ("edges.parquet", "nodes.parquet", "aliases.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_store_carries_texts_names_and_what_a_digest_must_cover(sources, tmp_path):
    store = tmp_path / "store"
    build_store([sources], store)
    assert is_store(store)
    assert not is_store(sources)
    for name in ("gene_text.parquet", "terms_go.parquet"):
        assert (store / name).read_bytes() == (sources / name).read_bytes()
    names = pd.read_parquet(store / "terms_of_sources.parquet")
    assert dict(zip(names["term_id"], names["name"], strict=True))["R-HSA-109581"] == "Apoptosis"
    assert [path.name for path in knowledge_files(store)] == [
        "aliases.parquet",
        "edges.parquet",
        "knowledge.json",
        "nodes.parquet",
        "unresolved.parquet",
    ]
    assert read_knowledge(store).files == knowledge_files(store)
    nodes = pd.read_parquet(store / "nodes.parquet")
    assert nodes.columns.tolist() == list(NODE_COLUMNS)
    assert not nodes.duplicated(["type", "node", "database"]).any()
    genes = nodes[nodes["type"] == "gene"].set_index("node")
    assert genes.loc["TP53", ["id", "name"]].tolist() == ["HGNC:11998", "tumor protein p53"]
    terms = nodes[nodes["type"] == "term"].set_index("node")
    assert terms.loc["GO:0003677", ["name", "database"]].tolist() == ["DNA binding", "go"]
    head = json.loads((store / "knowledge.json").read_text())
    assert str(tmp_path) not in json.dumps(head)


def test_a_store_that_is_not_whole_is_refused(sources, tmp_path):
    store = tmp_path / "store"
    build_store([sources], store)
    with pytest.raises(InputError, match="is a knowledge store already"):
        build_store([store], tmp_path / "again")
    with pytest.raises(InputError, match="one of the places that are read"):
        build_store([sources], sources)
    (store / "aliases.parquet").unlink()
    (store / "nodes.parquet").write_bytes(b"short")
    for read in (read_knowledge, knowledge_files):
        with pytest.raises(InputError) as caught:
            read(store)
        assert len(caught.value.problems) == 2
    (store / "knowledge.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_knowledge(store)


@pytest.mark.shared_data
def test_the_real_tables_as_a_store_are_the_same_graph(shared_data, tmp_path):
    store = tmp_path / "store"
    head = build_store([shared_data / "knowledge"], store)
    graph = read_knowledge(store)
    same_graph(graph, read_knowledge(shared_data / "knowledge"))
    assert all(entry["unresolved"] == 0 for entry in head["sources"])
    assert (store / "gene_text.parquet").is_file()
    # What SUMMER shows of a gene does not depend on the form either.
    entries = [
        EntryIndex.read(folder, graph).entries("TP53") for folder in (store, shared_data / "knowledge")
    ]
    assert entries[0] == entries[1]
    assert len(entries[0]) > 10
