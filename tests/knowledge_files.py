"""Files of gene knowledge for tests: tables, and a small sound file of each source's own format."""

from __future__ import annotations

import pandas as pd

from tasks.knowledge.sources import source_of
from tasks.knowledge.sources.protocol import Reading
from tasks.knowledge.sources.source_file import SourceFile, files_in


def write(folder, name, columns, rows):
    pd.DataFrame(rows, columns=columns).to_parquet(folder / f"{name}.parquet")


def write_edges(folder, name, pairs):
    rows = [(a, b, f"{name}_link") for a, b in pairs]
    write(folder, f"edges_{name}", ["source_gene", "target_gene", "relation"], rows)


def write_terms(folder, name, pairs):
    rows = [(a, b, f"{name}_member") for a, b in pairs]
    write(folder, f"gene_{name}", ["source_gene", "target", "relation"], rows)


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


SYMBOLS = [
    # symbol, HGNC id, full name, Entrez, Ensembl, UniProt
    ("TP53", "HGNC:11998", "tumor protein p53", "7157", "ENSG00000141510", "P04637"),
    ("MDM2", "HGNC:6973", "MDM2 proto-oncogene", "4193", "ENSG00000135679", "Q00987"),
    ("NEW1", "HGNC:1", "renamed", "11", "ENSG00000000011", "P11111|P22222"),
    ("NEW2", "HGNC:2", "shares a protein", "12", "", "P11111"),
    ("SWAP", "HGNC:3", "", "13", "", ""),
]
HGNC = ["symbol", "hgnc_id", "name", "entrez_id", "ensembl_gene_id", "uniprot_ids"]


def write_symbols(folder):
    write(folder, "hgnc_genes", HGNC, SYMBOLS)
    aliases = [
        ("OLD1", "NEW1", True),
        ("OLD1", "MDM2", False),
        ("TP53", "MDM2", True),
        ("GONE", "LOST", True),
    ]
    write(folder, "symbol_aliases", ["alias", "symbol", "chosen"], aliases)
    write(
        folder, "benchmark_symbol_map", ["benchmark_symbol", "hgnc_symbol"], [("BENCH", "TP53"), ("x", None)]
    )


def write_files(folder):
    """A file of each format, under its usual name."""
    for name, lines in FILES.items():
        (folder / name).write_text("\n".join(lines) + "\n")


def write_sources(folder):
    """A file of each format with the tables of symbols, texts and names of terms beside them."""
    folder.mkdir()
    write_files(folder)
    write_symbols(folder)
    write(
        folder,
        "gene_text",
        ["gene", "description", "source"],
        [("TP53", "a text", "refseq_summary")],
    )
    write(folder, "terms_go", ["term_id", "name"], [("GO:0003677", "DNA binding")])
    (folder / "README.md").write_text("what is here")
    return folder


def edges_of(store):
    """The edges of a store, names as strings."""
    frame = pd.read_parquet(store / "edges.parquet")
    return frame.astype(
        {column: str for column in frame.columns if isinstance(frame[column].dtype, pd.CategoricalDtype)}
    )


def source_file(folder, name):
    return SourceFile(folder / name)


def reading(folder, **options):
    return Reading(beside=tuple(files_in(folder)[0]), **options)


def read(folder, name, **options):
    file = source_file(folder, name)
    return source_of(file).read(file, reading(folder, **options))


def problems(folder, name):
    file = source_file(folder, name)
    return source_of(file).problems(file, reading(folder))


def rows(links, *columns):
    frame = links.frame[list(columns or ("source", "target"))].astype(str)
    return list(frame.itertuples(index=False, name=None))
