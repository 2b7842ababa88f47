"""Each source in its own format: what is read, left out and counted, and how bad files are refused."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from storage.errors import InputError
from tasks.knowledge.sources import SOURCES, is_beside, source_of
from tasks.knowledge.sources.protocol import COLUMNS, KINDS, Reading, is_noncommercial, licence_of, release_in
from tasks.knowledge.sources.source_file import SourceFile, files_in

BIOGRID_HEADER = (
    "#BioGRID Interaction ID\tEntrez Gene Interactor A\tEntrez Gene Interactor B\tBioGRID ID Interactor A\t"
    "BioGRID ID Interactor B\tSystematic Name Interactor A\tSystematic Name Interactor B\t"
    "Official Symbol Interactor A\tOfficial Symbol Interactor B\tSynonyms Interactor A\t"
    "Synonyms Interactor B\tExperimental System\tExperimental System Type\tAuthor\tPublication Source\t"
    "Organism ID Interactor A\tOrganism ID Interactor B\tThroughput\tScore"
)


def biogrid_row(a, b, *, system="Two-hybrid", kind="physical", species=("9606", "9606"), ids=("1", "2")):
    fields = ["77", *ids, "5", "6", "-", "-", a, b, 'a "quoted| name', "-", system, kind, "Doe J (2001)"]
    return "\t".join([*fields, "PUBMED:1", *species, "Low Throughput", "-"])


def gaf_row(symbol, term, *, accession="P00001", qualifier="enables", code="IDA", aspect="F", taxon="9606"):
    fields = ["UniProtKB", accession, symbol, qualifier, term, "PMID:1", code, "", aspect, "", "", "protein"]
    return "\t".join([*fields, f"taxon:{taxon}", "20240101", "UniProt", "", ""])


#: A sound file of each format by its usual name; tests change lines of it.
FILES = {
    "9606.protein.links.v12.0.txt": [
        "protein1 protein2 combined_score",
        "9606.ENSP01 9606.ENSP02 900",
        "9606.ENSP02 9606.ENSP01 900",
        "9606.ENSP01 9606.ENSP03 699",
        "9606.ENSP03 9606.ENSP04 700",
    ],
    "9606.protein.info.v12.0.txt": [
        "#string_protein_id\tpreferred_name\tprotein_size\tannotation",
        '9606.ENSP01\tTP53\t393\tsays "p53',
        "9606.ENSP02\tMDM2\t491\t",
        "9606.ENSP03\tOLD1\t10\t",
    ],
    "BIOGRID-ORGANISM-Homo_sapiens-4.4.232.tab3.txt": [
        BIOGRID_HEADER,
        biogrid_row("TP53", "MDM2", ids=("7157", "4193")),
        biogrid_row("MDM2", "TP53", kind="genetic", system="Synthetic Lethality", ids=("4193", "7157")),
        biogrid_row("TP53", "Mdm2", species=("9606", "10090")),
    ],
    "BioPlex_293T_Network_10K_Dec_2019.tsv": [
        '"GeneA"\t"GeneB"\t"UniprotA"\t"UniprotB"\t"SymbolA"\t"SymbolB"\t"pW"\t"pNI"\t"pInt"',
        '"7157"\t"4193"\t"P04637"\t"Q00987"\t"TP53"\t"MDM2"\t1e-10\t0.01\t0.99',
    ],
    "goa_human.gaf": [
        "!gaf-version: 2.2",
        "!date-generated: 2024-01-17T00:00",
        gaf_row("TP53", "GO:0003677", accession="P04637"),
        gaf_row("TP53", "GO:0003677", accession="P04637", code="IEA"),
        "!a comment between rows",
        gaf_row("MDM2", "GO:0006915", qualifier="NOT|involved_in", aspect="P"),
        gaf_row("MDM2", "GO:0005634", qualifier="located_in", aspect="C", taxon="9606|taxon:562"),
        gaf_row("Mdm2", "GO:0005634", qualifier="located_in", aspect="C", taxon="10090"),
    ],
    "ReactomePathways.gmt": [
        "Apoptosis\tR-HSA-109581\tTP53\tMDM2",
        "Translation%WikiPathways_20230410%WP9%Homo sapiens\thttp://x/WP9_r1\t7157\t",
        "Other%WikiPathways_20230410%WP8%Mus musculus\thttp://x/WP8_r1\t22059",
    ],
    "allComplexes.txt": [
        "ComplexID\tComplexName\tOrganism\tSynonyms\tsubunits(Gene name)\tPubMed ID",
        "1\tp53 complex\tHuman\t-\tTP53; MDM2;None\t1",
        "2\ta complex\tMouse\t-\tTrp53;Mdm2\t2",
    ],
}
MANIFOLD = [name for name in FILES if "info" not in name]


@pytest.fixture
def folder(tmp_path):
    for name, lines in FILES.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def given(folder, name):
    return SourceFile(folder / name)


def reading(folder, **options):
    return Reading(beside=tuple(files_in(folder)[0]), **options)


def read(folder, name, **options):
    one = given(folder, name)
    return source_of(one).read(one, reading(folder, **options))


def problems(folder, name):
    one = given(folder, name)
    return source_of(one).problems(one, reading(folder))


def rows(links, *columns):
    frame = links.frame[list(columns or ("source", "target"))].astype(str)
    return list(frame.itertuples(index=False, name=None))


def test_every_source_gives_the_same_columns_and_its_name_tells_the_format(folder):
    for name in MANIFOLD:
        one = given(folder, name)
        links = source_of(one).read(one, reading(folder))
        assert tuple(links.frame.columns) == COLUMNS
        assert set(links.frame["kind"]) <= set(KINDS)
        assert links.frame["score"].dtype == np.float32
        assert problems(folder, name) == []
    assert is_beside(given(folder, "9606.protein.info.v12.0.txt"))
    assert sorted(SOURCES) == ["biogrid", "bioplex", "corum", "gaf", "gmt", "published", "string", "tables"]


@pytest.mark.parametrize("name", MANIFOLD)
@pytest.mark.parametrize("how", ["gz", "zip", "crlf", "bom"])
def test_packed_and_windows_files_read_the_same(folder, tmp_path_factory, name, how):
    plain, other = read(folder, name), tmp_path_factory.mktemp("other")
    text = (folder / name).read_text()
    (other / "9606.protein.info.v12.0.txt").write_bytes((folder / "9606.protein.info.v12.0.txt").read_bytes())
    if how == "gz":
        (other / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        one = SourceFile(other / f"{name}.gz")
    elif how == "zip":
        with zipfile.ZipFile(other / "packed.zip", "w") as archive:
            archive.writestr(f"inside/{name}", text)
            archive.writestr("__MACOSX/._junk", "x")
        ((one,), _) = files_in(other / "packed.zip")
    else:
        text = text.replace("\n", "\r\n") if how == "crlf" else "\ufeff" + text
        (other / name).write_bytes(text.encode())
        one = SourceFile(other / name)
    assert source_of(one).problems(one, reading(other)) == []
    links = source_of(one).read(one, reading(other))
    pd.testing.assert_frame_equal(links.frame.astype(str), plain.frame.astype(str))
    assert (links.read, links.dropped, links.ids, links.terms) == (
        plain.read,
        plain.dropped,
        plain.ids,
        plain.terms,
    )


@pytest.mark.parametrize("name", MANIFOLD)
def test_an_empty_file_is_said_to_be_empty(folder, name):
    (folder / name).write_text("")
    assert problems(folder, name) == ["the file is empty"]


@pytest.mark.parametrize("name", MANIFOLD[:3] + MANIFOLD[5:])
def test_a_wrong_first_line_is_refused_with_what_was_found(folder, name):
    (folder / name).write_text("gene_one\tgene_two\n1\t2\n")
    (problem,) = problems(folder, name)
    assert "gene_one" in problem or "2 fields" in problem


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


@pytest.mark.parametrize(
    "row", ["9606.A 9606.B high", "9606.A 9606.B", "9606.A 9606.B 1 2", "9606.A 9606.B "]
)
def test_rows_that_are_no_rows_are_refused_not_skipped(folder, row):
    with (folder / "9606.protein.links.v12.0.txt").open("a") as handle:
        handle.write(row + "\n")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read(folder, "9606.protein.links.v12.0.txt")


def test_a_header_without_rows_is_refused(folder):
    for name in ("9606.protein.links.v12.0.txt", "allComplexes.txt"):
        (folder / name).write_text(FILES[name][0] + "\n")
        with pytest.raises(InputError, match="below its first line"):
            read(folder, name)


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
    assert SOURCES["gmt"].database(given(folder, "ReactomePathways.gmt")) == "reactome"


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


KG = {
    "string.json": {"TP53": [["MDM2", ["experiments", "database"]]], "MDM2": [["TP53", ["database"]]]},
    "bioplex.json": {"TP53": [["MDM2", "293T"], "OLD1"], "LONELY": []},
    "go.json": [
        {"TP53": [["GO:1", "involved_in"], ["GO:2", "NOT|enables"], ["GO:3", "part_of"], ["GO:4", "odd"]]},
        {"GO:1": [["TP53", "involved_in"]]},
        {},
    ],
    "corum.json": [{"TP53": [["p53 complex", "HeLa"]]}, {}],
    "go_dict.json": {"GO:1": "apoptosis", "GO:9": "unused"},
    "uniprot.json": [{"gene": "TP53", "function": "text"}],
}


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


def test_a_named_file_may_be_known_by_its_first_line(folder):
    (folder / "mine.txt").write_text((folder / "9606.protein.links.v12.0.txt").read_text())
    assert source_of(SourceFile(folder / "mine.txt", named=True)).name == "string"
    assert source_of(SourceFile(folder / "mine.txt")) is None


def test_broken_archives_and_missing_files_are_said(tmp_path):
    (tmp_path / "kg.zip").write_bytes(b"PK not an archive")
    (tmp_path / "x.gaf.gz").write_bytes(gzip.compress(b"!gaf-version: 2.2\n" * 1000)[:40])
    found, wrong = files_in(tmp_path)
    assert [one.name for one in found] == ["x.gaf.gz"]
    assert "kg.zip: cannot be read as a zip archive" in wrong[0]
    assert "no such file" in files_in(tmp_path / "nothing")[1][0]
    with pytest.raises(InputError, match="cannot be read"):
        problems(tmp_path, "x.gaf.gz")


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("9606.protein.links.v12.0", "12.0"),
        ("BIOGRID-ORGANISM-Homo_sapiens-4.4.232.tab3", "4.4.232"),
        ("edges_string_v11_5_min750", "11.5"),
        ("gene_go_goa_2026", "2026"),
        ("wikipathways-20230410-gmt-Homo_sapiens", "20230410"),
        ("ReactomePathways", ""),
    ],
)
def test_releases_from_names(name, release):
    assert release_in(name) == release


def test_licences():
    assert licence_of("string", "9606.protein.links") == "CC BY 4.0"
    assert licence_of("lab", "edges_lab_corum.parquet") == "CC BY-NC 4.0"
    assert licence_of("lab", "edges_lab.parquet") == "see the publisher's page"
    assert is_noncommercial("lab", str(Path("gene_CORUM_4.parquet")))
    assert not is_noncommercial("biogrid", "BIOGRID-ALL.tab3.txt")
