"""Each source in its own format: what is read, left out and counted, and how bad files are refused."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from storage.errors import InputError
from tasks.knowledge.sources import SOURCES, is_beside, source_of
from tasks.knowledge.sources.protocol import Reading, is_noncommercial
from tasks.knowledge.sources.source_file import files_in
from tests.knowledge_files import (
    BIOGRID_HEADER,
    KG,
    gaf_row,
    problems,
    read,
    rows,
    source_file,
    write_files,
)


@pytest.fixture
def folder(tmp_path):
    write_files(tmp_path)
    return tmp_path


def test_string_takes_names_from_info_and_leaves_out_low_scores_and_other_species(folder):
    name = "9606.protein.links.v12.0.txt"
    links = read(folder, name)
    # ENSP04 has no name: its id goes on, to be reported as unresolved.
    assert rows(links) == [("TP53", "MDM2"), ("MDM2", "TP53"), ("OLD1", "ENSP04")]
    assert links.frame["score"].tolist() == [900, 900, 700]
    assert (links.read, links.dropped, links.release) == (
        4,
        {"score below 700": 1, "other species": 0},
        "12.0",
    )
    assert len(read(folder, name, min_string_score=0).frame) == 4
    with (folder / name).open("a") as handle:
        handle.write("10090.ENSMUSP1 9606.ENSP01 999\n")
    assert read(folder, name).dropped["other species"] == 1


def test_string_detailed_links_have_more_columns(folder):
    lines = ["protein1 protein2 experimental combined_score", "9606.ENSP01 9606.ENSP02 1 800"]
    (folder / "9606.protein.links.detailed.v12.0.txt").write_text("\n".join(lines))
    links = read(folder, "9606.protein.links.detailed.v12.0.txt")
    assert rows(links) == [("TP53", "MDM2")]


def test_string_needs_the_names_of_its_proteins_and_those_of_its_release(folder):
    info = folder / "9606.protein.info.v12.0.txt"
    older = info.read_text().replace("TP53", "P53OLD")
    (folder / "9606.protein.info.v11.5.txt").write_text(older)
    assert rows(read(folder, "9606.protein.links.v12.0.txt"))[0] == ("TP53", "MDM2")
    info.unlink()
    (folder / "9606.protein.info.v11.0.txt").write_text(older)
    # Two lists of names, neither of this release: which is meant cannot be told.
    assert "names are missing" in problems(folder, "9606.protein.links.v12.0.txt")[0]
    (folder / "9606.protein.info.v11.0.txt").write_text("id\tname\n")
    (folder / "9606.protein.info.v11.5.txt").unlink()
    (problem,) = problems(folder, "9606.protein.links.v12.0.txt")
    assert "v11.0.txt: columns #string_protein_id, preferred_name are missing" in problem


def test_biogrid_keeps_the_kind_of_interaction_and_human_pairs_only(folder):
    links = read(folder, "BIOGRID-ORGANISM-Homo_sapiens-4.4.232.tab3.txt")
    assert rows(links, "source", "target", "relation", "evidence") == [
        ("TP53", "MDM2", "biogrid_physical", "Two-hybrid"),
        ("MDM2", "TP53", "biogrid_genetic", "Synthetic Lethality"),
    ]
    assert links.ids == {"TP53": "entrez:7157", "MDM2": "entrez:4193"}
    assert (links.read, links.dropped, links.release) == (3, {"other species": 1}, "4.4.232")
    assert links.frame["score"].isna().all()


def test_of_the_archive_by_organism_only_the_human_file_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "BIOGRID-ORGANISM-4.4.232.tab3.zip", "w") as archive:
        for organism in ("Homo_sapiens", "Mus_musculus"):
            archive.writestr(f"BIOGRID-ORGANISM-{organism}-4.4.232.tab3.txt", BIOGRID_HEADER)
    found = [source_of(one) for one in files_in(tmp_path / "BIOGRID-ORGANISM-4.4.232.tab3.zip")[0]]
    assert [source and source.name for source in found] == ["biogrid", None]


def test_bioplex_score_cell_line_and_ids(folder):
    links = read(folder, "BioPlex_293T_Network_10K_Dec_2019.tsv")
    assert rows(links, "source", "target", "evidence") == [("TP53", "MDM2", "293T")]
    np.testing.assert_allclose(links.frame["score"], [0.99])
    assert links.ids == {"TP53": "entrez:7157", "MDM2": "entrez:4193"}


def test_gaf_aspects_evidence_negations_and_species(folder):
    links = read(folder, "goa_human.gaf")
    assert rows(links, "source", "target", "relation", "evidence") == [
        ("TP53", "GO:0003677", "go_mf", "IDA"),
        ("TP53", "GO:0003677", "go_mf", "IEA"),
        ("MDM2", "GO:0005634", "go_cc", "IDA"),
    ]
    assert (links.read, links.release) == (5, "2024-01-17")
    assert links.dropped == {"other species": 1, "NOT annotations": 1}
    # Two accessions for one symbol decide nothing.
    assert links.ids == {"TP53": "uniprot:P04637", "MDM2": "uniprot:P00001"}


def test_gaf_of_another_version_width_or_aspect_is_refused(folder):
    path = folder / "goa_human.gaf"
    path.write_text("!gaf-version: 1.0\n" + "\t".join("abcdefghijklmno") + "\n")
    assert [text.split(";")[0] for text in problems(folder, "goa_human.gaf")] == [
        "GAF 2 begins with '!gaf-version: 2.2'",
        "a row has 15 fields",
    ]
    path.write_text("!gaf-version: 2.2\n!nothing else\n")
    assert problems(folder, "goa_human.gaf") == ["there are comments only, no annotations"]
    path.write_text("!gaf-version: 2.2\n" + gaf_row("TP53", "GO:1", aspect="X") + "\n")
    with pytest.raises(InputError, match="aspects must be P, C or F; found X"):
        read(folder, "goa_human.gaf")


def test_gmt_ids_names_and_species(folder):
    links = read(folder, "ReactomePathways.gmt")
    assert rows(links) == [("TP53", "R-HSA-109581"), ("MDM2", "R-HSA-109581"), ("7157", "WP9")]
    assert links.terms == {"R-HSA-109581": "Apoptosis", "WP9": "Translation"}
    assert (links.read, links.dropped) == (3, {"other species": 1})
    assert set(links.frame["relation"]) == {"reactome_member"}
    assert SOURCES["gmt"].database(source_file(folder, "ReactomePathways.gmt")) == "reactome"


def test_gmt_of_msigdb_tells_relations_by_the_names_of_sets(tmp_path):
    name = "c5.all.v2023.2.Hs.symbols.gmt"
    lines = ["GOBP_APOPTOSIS\tu\tTP53", "GOMF_BINDING\tu\tMDM2", "HP_SHORT\tu\tTP53", ""]
    (tmp_path / name).write_text("\n".join(lines))
    assert rows(read(tmp_path, name), "target", "relation") == [
        ("GOBP_APOPTOSIS", "go_bp"),
        ("GOMF_BINDING", "go_mf"),
        ("HP_SHORT", "msigdb_member"),
    ]
    (tmp_path / name).write_text("A\tu\tTP53\nB\tu\n\tu\tTP53\n")
    with pytest.raises(InputError, match="2 lines have no name or no third field: 2, 3"):
        read(tmp_path, name)


def test_corum_members_names_and_licence(folder):
    links = read(folder, "allComplexes.txt")
    assert rows(links) == [("MDM2", "CORUM:1"), ("TP53", "CORUM:1")]
    assert links.terms == {"CORUM:1": "p53 complex"}
    assert (links.read, links.dropped) == (2, {"other species": 1})


def test_corum_of_release_5_with_comments_over_several_lines(tmp_path):
    header = "complex_id\tcomplex_name\torganism\tcomment_complex\tsubunits_gene_name\tsubunits_gene_name_syn"
    body = '7\tone\tHuman\t"first line\nsecond line\n12 is no number of a complex"\tTP53;MDM2\tp53;x\n'
    (tmp_path / "corum_humanComplexes.txt").write_text(f"{header}\n{body}8\ttwo\tHuman\t\tTP53\t\n")
    links = read(tmp_path, "corum_humanComplexes.txt")
    assert rows(links) == [("MDM2", "CORUM:7"), ("TP53", "CORUM:7"), ("TP53", "CORUM:8")]
    (tmp_path / "corum_humanComplexes.txt").write_text(f"{header}\n7\tone\tHuman\n")
    with pytest.raises(InputError, match="too few fields: 7"):
        read(tmp_path, "corum_humanComplexes.txt")


@pytest.fixture
def archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "kg.zip", "w") as archive:
        for name, content in KG.items():
            archive.writestr(f"kg/{name}", json.dumps(content))
    return {one.own_name: one for one in files_in(tmp_path / "kg.zip")[0]}


def test_the_published_graphs(archive):
    beside = Reading(beside=tuple(archive.values()))

    def read_one(name):
        return source_of(archive[name]).read(archive[name], beside)

    assert rows(read_one("string.json"), "source", "target", "evidence") == [
        ("TP53", "MDM2", "database|experiments"),
        ("MDM2", "TP53", "database"),
    ]
    assert rows(read_one("bioplex.json"), "source", "target", "relation", "evidence") == [
        ("TP53", "MDM2", "bioplex_interacts", "293T"),
        ("TP53", "OLD1", "bioplex_interacts", ""),
    ]
    go = read_one("go.json")
    assert rows(go, "target", "relation", "kind") == [
        ("GO:1", "go_bp", "gene-term"),
        ("GO:3", "go_cc", "gene-term"),
        ("GO:4", "go_annotation", "gene-term"),
    ]
    assert go.dropped == {"NOT annotations": 1}
    assert go.terms == {"GO:1": "apoptosis"}
    assert source_of(archive["uniprot.json"]) is None
    assert is_beside(archive["go_dict.json"])
    assert is_noncommercial("corum", "kg.zip/kg/corum.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"TP53": [["MDM2"', "not JSON"),
        ('{"TP53": [[["MDM2"], 1]], "A": 3}', "2 genes have something else"),
        ("{}", "there are no links"),
        ("[]", "something else"),
        ('"text"', "something else"),
    ],
)
def test_published_graphs_of_another_layout_are_refused(tmp_path, content, message):
    (tmp_path / "string.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path, "string.json")
