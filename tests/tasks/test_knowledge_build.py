"""From sources in their own formats to a store: names resolved, links merged, every row accounted for."""

from __future__ import annotations

import json
import zipfile

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from storage.errors import InputError
from storage.knowledge_store import UNRESOLVED_COLUMNS
from tasks.knowledge import read_knowledge
from tasks.knowledge.build import build_store
from tasks.knowledge.gene_names import GeneNames
from tests.knowledge_files import (
    FILES,
    HGNC,
    KG,
    SYMBOLS,
    edges_of,
    write,
    write_edges,
    write_sources,
    write_terms,
)


@pytest.fixture
def sources(tmp_path):
    return write_sources(tmp_path / "sources")


def test_original_formats_end_in_one_graph_under_current_symbols(sources, tmp_path):
    store = tmp_path / "store"
    head = build_store([sources], store, noncommercial=True)
    edges = edges_of(store)
    # Oracle: every pair of the hand-made files, resolved by hand.
    links = edges[edges["kind"] == "gene-gene"]
    found = nx.Graph()
    found.add_edges_from(zip(links["source"], links["target"], strict=True))
    expected = nx.Graph([("TP53", "MDM2")])
    assert nx.utils.graphs_equal(found, expected)
    graph = read_knowledge(store, noncommercial=True)
    assert graph.genes.tolist() == ["MDM2", "TP53"]
    # STRING, BioGRID and BioPlex list the pair.
    np.testing.assert_array_equal(graph.adjacency.toarray(), [[0, 3], [3, 0]])
    assert sorted(graph.partners) == ["biogrid", "bioplex", "string"]
    terms = dict(
        zip(zip(graph.term_relations, graph.terms, strict=True), graph.incidence.T.toarray(), strict=True)
    )
    assert {key: value.tolist() for key, value in terms.items()} == {
        ("go_mf", "GO:0003677"): [0, 1],
        ("go_cc", "GO:0005634"): [1, 0],
        ("reactome_member", "R-HSA-109581"): [1, 1],
        ("reactome_member", "WP9"): [0, 1],
        ("corum_member", "CORUM:1"): [1, 1],
    }
    assert head["not_read"] == ["README.md"]
    assert {entry["file"]: entry["licence"] for entry in head["sources"]}[
        "allComplexes.txt"
    ] == "CC BY-NC 4.0"


def test_links_are_merged_and_every_row_is_accounted_for(sources, tmp_path):
    head = build_store([sources], tmp_path / "store", noncommercial=True, min_string_score=600)
    edges = edges_of(tmp_path / "store")
    for entry in head["sources"]:
        mine = edges[edges["file"] == entry["file"]]
        assert len(mine) == entry["links"]
        assert entry["genes"] == len(set(mine["source"]) | set(mine["target"] if entry["terms"] == 0 else []))
        if entry["format"] not in {"gmt", "corum"}:
            # A row of a GMT or CORUM file is a set: its members are more than rows.
            assert entry["rows"]["read"] == len(mine) + sum(entry["rows"]["dropped"].values())
    by_file = {entry["file"]: entry["rows"]["dropped"] for entry in head["sources"]}
    assert by_file["9606.protein.links.v12.0.txt"] == {"unresolved": 1, "repeated": 1}
    assert by_file["goa_human.gaf"] == {"other species": 1, "NOT annotations": 1, "repeated": 1}
    assert edges[edges["relation"] == "go_mf"]["evidence"].tolist() == ["IDA|IEA"]
    scores = edges[edges["database"] == "string"].set_index(["source", "target"])["score"]
    # OLD1 is NEW1 now; names within a pair are in order.
    assert scores.to_dict() == {("MDM2", "TP53"): 900, ("NEW1", "TP53"): 699}
    relations = {entry["database"]: entry["relations"] for entry in head["sources"]}
    assert relations["biogrid"] == {"biogrid_genetic": 1, "biogrid_physical": 1}


def test_what_did_not_resolve_is_reported_by_source(sources, tmp_path):
    with (sources / "goa_human.gaf").open("a") as handle:
        row = FILES["goa_human.gaf"][2]
        for _ in range(2):
            handle.write(row.replace("\tTP53\t", "\tNOBODY\t").replace("P04637", "Q99999") + "\n")
    write_edges(sources, "lab", [("TP53", "lab name"), ("OLD1", "MDM2")])
    head = build_store([sources], tmp_path / "store")
    unresolved = pd.read_parquet(tmp_path / "store" / "unresolved.parquet")
    assert unresolved.columns.tolist() == list(UNRESOLVED_COLUMNS)
    assert sorted(unresolved.itertuples(index=False, name=None)) == [
        ("9606.protein.links.v12.0.txt", "string", "ENSP04", 1),
        ("edges_lab.parquet", "lab", "lab name", 1),
        ("goa_human.gaf", "go", "NOBODY", 2),
    ]
    counts = {entry["file"]: entry["unresolved"] for entry in head["sources"] if entry["unresolved"]}
    assert counts == {"9606.protein.links.v12.0.txt": 1, "edges_lab.parquet": 1, "goa_human.gaf": 1}
    # A table's own names stay, resolved where a list of genes knows better.
    graph = read_knowledge(tmp_path / "store")
    assert {"lab name", "NEW1"} <= set(graph.genes)
    assert not {"OLD1", "NOBODY", "ENSP04"} & set(graph.genes)


def test_names_resolve_by_id_then_symbol_then_map_then_alias():
    genes = pd.DataFrame(SYMBOLS, columns=HGNC)
    aliases = pd.DataFrame(
        [("OLD1", "NEW1", True), ("SWAP", "TP53", True)], columns=["alias", "symbol", "chosen"]
    )
    bench = pd.DataFrame([("OLD1", "MDM2")], columns=["benchmark_symbol", "hgnc_symbol"])
    frames = {"hgnc_genes.parquet": genes, "symbol_aliases.parquet": aliases}
    names = GeneNames.build(frames)
    ids = {"SWAP": "entrez:7157", "MDM2": "entrez:999999", "x": "uniprot:P11111"}
    assert names.resolve(["SWAP", "MDM2", "OLD1", "x"], ids) == ["TP53", "MDM2", "NEW1", None]
    assert names.resolve(["SWAP"], {}) == ["SWAP"]
    by_id = ["7157", "ENSG00000141510.12", "P04637-2", "P11111", "P22222", "HGNC:6973", "ENSP00000000001", ""]
    assert names.resolve(by_id, {}) == ["TP53", "TP53", "TP53", None, "NEW1", "MDM2", None, None]
    with_map = GeneNames.build(frames | {"benchmark_symbol_map.parquet": bench})
    assert with_map.resolve(["OLD1"], {}) == ["MDM2"]
    # Without a list of genes a name is its own gene; ids are none.
    assert GeneNames.build({}).resolve(["any", "7157", "ENSG00000141510", "-"], {}) == ["any", *[None] * 3]


def test_hgnc_own_file_in_place_of_the_tables(sources, tmp_path):
    for name in ("hgnc_genes", "symbol_aliases", "benchmark_symbol_map"):
        (sources / f"{name}.parquet").unlink()
    genes = pd.DataFrame(SYMBOLS, columns=HGNC).assign(prev_symbol="", alias_symbol="")
    genes.loc[2, "prev_symbol"] = "OLD1|TWICE"
    genes.loc[1, "alias_symbol"] = "OLD1|AMBIGUOUS"
    genes.loc[0, "alias_symbol"] = "AMBIGUOUS|p53|MDM2"
    genes.to_csv(sources / "hgnc_complete_set_2024-10-01.txt", sep="\t", index=False)
    build_store([sources], tmp_path / "store", min_string_score=0)
    graph = read_knowledge(tmp_path / "store")
    assert graph.genes.tolist() == ["MDM2", "NEW1", "TP53"]
    assert graph.resolve(["OLD1", "TWICE", "p53", "AMBIGUOUS", "MDM2"]).tolist() == [1, 1, 2, -1, 0]
    write(sources, "hgnc_genes", HGNC, SYMBOLS)
    with pytest.raises(InputError, match="two lists of genes"):
        build_store([sources], tmp_path / "other")


def test_without_a_list_of_genes_names_stay_and_ids_are_refused(tmp_path):
    lines = FILES["BioPlex_293T_Network_10K_Dec_2019.tsv"]
    (tmp_path / "BioPlex.tsv").write_text("\n".join(lines))
    (tmp_path / "ids.gmt").write_text("a set\tu\t7157\t4193\n")
    with pytest.raises(InputError, match=r"ids.gmt: none of its 1 rows.*7157.*ids need hgnc_genes"):
        build_store([tmp_path], tmp_path / "out")
    head = build_store([tmp_path / "BioPlex.tsv"], tmp_path / "out")
    assert head["symbols"] == {}
    assert read_knowledge(tmp_path / "out").genes.tolist() == ["MDM2", "TP53"]


def test_all_problems_of_all_files_come_in_one_message(tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    (place / "goa_human.gaf").write_text("")
    (place / "9606.protein.links.v12.0.txt").write_text("a b\n1 2\n")
    (place / "BioPlex.tsv").write_text("SymbolA\tSymbolB\n")
    (place / "x.gmt").write_text("one field\n")
    (place / "kg.zip").write_bytes(b"junk")
    (place / "edges_bad.parquet").write_bytes(b"junk")
    (place / "symbol_aliases.parquet").write_bytes(b"junk")
    (tmp_path / "notes.txt").write_text("nothing known")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("keep")
    given = [place, tmp_path / "notes.txt", tmp_path / "missing"]
    with pytest.raises(InputError) as caught:
        build_store(given, tmp_path / "out", min_string_score=2000)
    message = str(caught.value)
    for part in (
        "goa_human.gaf: the file is empty",
        "links.v12.0.txt: columns protein1, protein2, combined_score are missing",
        "the proteins' names are missing",
        "BioPlex.tsv: columns pInt are missing",
        "x.gmt: its first line has 1 fields",
        "kg.zip: cannot be read as a zip archive",
        "edges_bad.parquet: is not a readable Parquet table",
        "symbol_aliases.parquet is not a readable Parquet table",
        "notes.txt: neither its name nor its first line",
        "missing: no such file or folder",
        "holds other things than a knowledge store",
        "from 0 to 1000; found 2000",
    ):
        assert part in message, part
    assert (tmp_path / "out" / "precious.txt").read_text() == "keep"


def test_problems_within_files_come_together_and_leave_an_older_store(sources, tmp_path):
    store = tmp_path / "store"
    build_store([sources], store)
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    with (sources / "9606.protein.links.v12.0.txt").open("a") as handle:
        handle.write("9606.A 9606.B none\n")
    (sources / "ReactomePathways.gmt").write_text("Set\tu\tNOBODY\tNOWHERE\n")
    with pytest.raises(InputError) as caught:
        build_store([sources], store)
    assert len(caught.value.problems) == 2
    assert "none of its 1 rows is left (unresolved 2: NOBODY, NOWHERE)" in str(caught.value)
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before
    assert not list(tmp_path.glob(".partial*"))


def test_terms_alone_are_no_graph(tmp_path):
    write_terms(tmp_path, "words", [("A", "t1")])
    with pytest.raises(InputError, match="no links between genes"):
        build_store([tmp_path], tmp_path / "out")


def test_the_published_archive_becomes_a_store(tmp_path):
    with zipfile.ZipFile(tmp_path / "kg.zip", "w") as archive:
        for name, content in KG.items():
            archive.writestr(name, json.dumps(content))
    head = build_store([tmp_path / "kg.zip"], tmp_path / "store")
    assert [entry["file"] for entry in head["sources"]] == [
        "kg.zip/bioplex.json",
        "kg.zip/string.json",
        "kg.zip/go.json",
    ]
    assert [entry["file"] for entry in head["left_out"]] == ["kg.zip/corum.json"]
    assert head["not_read"] == ["kg.zip/uniprot.json"]
    graph = read_knowledge(tmp_path / "store")
    assert graph.genes.tolist() == ["MDM2", "OLD1", "TP53"]
    np.testing.assert_array_equal(graph.adjacency.toarray(), [[0, 0, 2], [0, 0, 1], [2, 1, 0]])
    assert [relation.source for relation in graph.relations[:2]] == ["bioplex", "string"]


def test_random_links_equal_an_independent_merge(tmp_path):
    rng = np.random.default_rng(5)
    names = [f"9606.E{i}" for i in range(40)]
    pairs = rng.integers(0, 40, (600, 2))
    scores = rng.integers(150, 1000, 600)
    lines = ["protein1 protein2 combined_score"]
    lines += [f"{names[a]} {names[b]} {s}" for (a, b), s in zip(pairs, scores, strict=True)]
    (tmp_path / "9606.protein.links.v12.0.txt").write_text("\n".join(lines))
    # Every two proteins share a gene's name.
    info = ["#string_protein_id\tpreferred_name"] + [f"{n}\tG{i // 2:02d}" for i, n in enumerate(names)]
    (tmp_path / "9606.protein.info.v12.0.txt").write_text("\n".join(info))
    build_store([tmp_path], tmp_path / "store", min_string_score=400)
    graph = read_knowledge(tmp_path / "store", max_degree=None)
    kept = pairs[scores >= 400] // 2
    dense = np.zeros((20, 20))
    dense[kept[:, 0], kept[:, 1]] = 1
    dense = np.maximum(dense, dense.T)
    best = sparse.coo_array((scores[scores >= 400], (kept.min(axis=1), kept.max(axis=1)))).tocsr()
    np.fill_diagonal(dense, 0)
    np.testing.assert_array_equal(graph.adjacency.toarray(), dense)
    edges = edges_of(tmp_path / "store")
    assert len(edges) == best.nnz
    table = pd.DataFrame({"a": kept.min(axis=1), "b": kept.max(axis=1), "score": scores[scores >= 400]})
    expected = table.groupby(["a", "b"])["score"].max().to_numpy()
    np.testing.assert_array_equal(edges["score"], expected)
