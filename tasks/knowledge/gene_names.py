"""From the names and ids that sources use to current HGNC symbols."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pandas as pd

from storage.tables import read_frame
from tasks.knowledge.sources.source_file import SourceFile

GENES_TABLE, ALIASES_TABLE = "hgnc_genes.parquet", "symbol_aliases.parquet"
BENCHMARK_TABLE = "benchmark_symbol_map.parquet"
#: The tables of symbols and the columns each must have.
SYMBOL_TABLES = {
    BENCHMARK_TABLE: ("benchmark_symbol", "hgnc_symbol"),
    ALIASES_TABLE: ("alias", "symbol", "chosen"),
    GENES_TABLE: ("symbol",),
}
#: HGNC's own file of all genes, and what is read of it.
HGNC_FILE = re.compile(r"hgnc_complete_set.*\.(txt|tsv)")
HGNC_COLUMNS = ("hgnc_id", "symbol", "name", "alias_symbol", "prev_symbol")
#: Ids by what they look like; a name is taken for one only where it is no symbol.
ID_FORMS = {
    "hgnc": re.compile(r"HGNC:\d+"),
    "entrez": re.compile(r"\d+"),
    "ensembl": re.compile(r"(ENSG\d{11})(?:\.\d+)?"),
    "uniprot": re.compile(r"([OPQ]\d[A-Z\d]{3}\d|[A-NR-Z]\d(?:[A-Z][A-Z\d]{2}\d){1,2})(?:-\d+)?"),
    "protein": re.compile(r"ENSP\d{11}(?:\.\d+)?"),
}
ID_COLUMNS = {
    "hgnc": "hgnc_id",
    "entrez": "entrez_id",
    "ensembl": "ensembl_gene_id",
    "uniprot": "uniprot_ids",
}
#: Ids that can be no symbol, so that they stand for no gene where there is no list of genes.
NEVER_SYMBOLS = {"entrez", "ensembl", "protein"}
#: What sources write where a gene has no symbol.
NO_NAME = {"", "-"}


@dataclass(frozen=True, eq=False)
class GeneNames:
    """What is known of genes' names.

    Attributes
    ----------
    genes
        The table of current symbols with ids and full names; None: no such list was given, and every name
        that is not an id stands for its own gene.
    aliases
        Other names to symbols.
    ids
        ``entrez:7157`` and the like to symbols; ids of several genes are left out.
    """

    genes: pd.DataFrame | None
    aliases: Mapping[str, str]
    ids: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def build(cls, frames: Mapping[str, pd.DataFrame]) -> Self:
        """Arrange the tables of symbols, by name of file."""
        genes = frames.get(GENES_TABLE)
        return cls(genes, aliases_of(frames), {} if genes is None else _ids(genes))

    def resolve(self, names: Sequence[str], ids: Mapping[str, str]) -> list[str | None]:
        """Current symbol of each name; None where there is none.

        An id that the source gives with a name (``ids``) outranks the name: symbols have changed hands.
        Then come the symbol in force, the benchmark's map, other aliases, and the name read as an id.
        """
        if self.genes is None:
            return [None if name in NO_NAME or id_form(name) in NEVER_SYMBOLS else name for name in names]
        current = set(self.genes["symbol"])
        return [self._resolve(name, ids.get(name, ""), current) for name in names]

    def _resolve(self, name: str, other_id: str, current: set[str]) -> str | None:
        if other_id in self.ids:
            return self.ids[other_id]
        if name in current:
            return name
        if self.aliases.get(name) in current:
            return self.aliases[name]
        form = id_form(name)
        return self.ids.get(f"{form}:{_bare(name, form)}") if form else None


def read_symbol_tables(tables: Iterable[Path], hgnc: SourceFile | None = None) -> dict[str, pd.DataFrame]:
    """Read the Parquet tables of symbols, or HGNC's own file in place of them, by name of table."""
    frames = {path.name: read_frame(path) for path in tables}
    if hgnc is not None:
        frames |= _read_hgnc(hgnc)
    return frames


def aliases_of(frames: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Other names of genes; the benchmark's own map outranks the general list of aliases."""
    aliases: dict[str, str] = {}
    if ALIASES_TABLE in frames:
        table = frames[ALIASES_TABLE]
        table = table[table["chosen"].astype(bool)].sort_values(["alias", "symbol"], kind="stable")
        table = table.drop_duplicates("alias")
        aliases.update(zip(table["alias"], table["symbol"], strict=True))
    if GENES_TABLE in frames:
        # A symbol in force names its own gene even if the graph has no links for it.
        for symbol in frames[GENES_TABLE]["symbol"]:
            aliases.pop(symbol, None)
    if BENCHMARK_TABLE in frames:
        table = frames[BENCHMARK_TABLE].dropna(subset=["benchmark_symbol", "hgnc_symbol"])
        aliases.update(zip(table["benchmark_symbol"], table["hgnc_symbol"], strict=True))
    return aliases


def id_form(name: str) -> str:
    """The kind of id a name looks like; empty for others."""
    return next((form for form, pattern in ID_FORMS.items() if pattern.fullmatch(name)), "")


def _bare(name: str, form: str) -> str:
    """The id without version or isoform."""
    found = ID_FORMS[form].fullmatch(name)
    return found.group(1) if found.re.groups else name


def _ids(genes: pd.DataFrame) -> dict[str, str]:
    ids: dict[str, str] = {}
    for form, column in ID_COLUMNS.items():
        if column not in genes:
            continue
        table = genes[["symbol", column]].fillna("").astype(str)
        listed = table.assign(id=table[column].str.split("|")).explode("id")
        listed = listed[(listed["id"] != "") & ~listed["id"].duplicated(keep=False)]
        ids |= {f"{form}:{one}": symbol for one, symbol in zip(listed["id"], listed["symbol"], strict=True)}
    return ids


def _read_hgnc(file: SourceFile) -> dict[str, pd.DataFrame]:
    """HGNC's own file as the two Parquet tables; an alias of several genes is chosen for none."""
    with file.open_text() as text:
        genes = pd.read_csv(text, sep="\t", dtype=str, keep_default_na=False, low_memory=False)
    parts = []
    for rank, column in enumerate(("prev_symbol", "alias_symbol")):
        listed = genes.assign(alias=genes[column].str.split("|")).explode("alias")
        listed = listed.loc[listed["alias"] != "", ["alias", "symbol"]].drop_duplicates()
        listed["chosen"] = ~listed["alias"].duplicated(keep=False)
        parts.append(listed.assign(rank=rank))
    aliases = pd.concat(parts)
    # A former symbol says more than an alias: where both exist, the alias is not chosen.
    former = set(parts[0]["alias"])
    aliases.loc[(aliases["rank"] == 1) & aliases["alias"].isin(former), "chosen"] = False
    return {GENES_TABLE: genes, ALIASES_TABLE: aliases.drop(columns="rank").reset_index(drop=True)}
