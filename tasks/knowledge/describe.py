"""What a store says of itself: nodes, names of terms, where every edge is from, what did not resolve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from storage.knowledge_store import NODE_COLUMNS, UNRESOLVED_COLUMNS
from storage.manifest import file_digest
from storage.tables import read_frame
from tasks.knowledge.collect import Collected
from tasks.knowledge.merge import Merged
from tasks.knowledge.sources.given import Given
from tasks.knowledge.sources.protocol import GENE_GENE, Source, constant, is_noncommercial, licence_of


@dataclass(frozen=True, eq=False)
class ReadFile:
    """One file, read and merged.

    Attributes
    ----------
    source, given
        The reader and the file.
    merged
        Its links, at least one.
    rows
        Rows of the file.
    terms
        Names of terms that the file gives.
    release
        As the file says, else empty.
    """

    source: Source
    given: Given
    merged: Merged
    rows: int
    terms: Mapping[str, str]
    release: str

    @property
    def database(self) -> str:
        """The database it is from."""
        return self.source.database(self.given)

    @property
    def kind(self) -> str:
        """``gene-gene`` or ``gene-term``; a file has links of one kind."""
        return str(self.merged.frame["kind"].iloc[0])

    @property
    def genes(self) -> set[str]:
        """Symbols of its genes."""
        columns = ["source", "target"] if self.kind == GENE_GENE else ["source"]
        return set().union(*(self.merged.frame[column].unique() for column in columns))

    @property
    def licence(self) -> str:
        """Under which it may be used."""
        return licence_of(self.database, self.given.name)


def edges_of(files: Sequence[ReadFile]) -> Iterator[pd.DataFrame]:
    """The files' links with database, file and licence."""
    for one in files:
        labels = {"database": one.database, "file": one.given.name, "licence": one.licence}
        n = len(one.merged.frame)
        yield one.merged.frame.assign(**{name: constant(text, n) for name, text in labels.items()})


def head_of(files: Sequence[ReadFile], collected: Collected, **options: object) -> dict:
    """Options, sources, what was not read, and digests of the lists of symbols."""
    lists = [*collected.symbol_tables, *([collected.hgnc.path] if collected.hgnc else [])]
    return {
        "options": options,
        "sources": [_source_entry(one) for one in files],
        "left_out": [
            {"file": given.name, "licence": licence_of(database, given.name)}
            for database, given in collected.left_out
        ],
        "not_read": [given.name for given in collected.not_read],
        "symbols": {path.name: file_digest(path) for path in sorted(lists)},
    }


def unresolved_of(files: Sequence[ReadFile]) -> pd.DataFrame:
    """Names that lead to no current symbol, by file, with the number of rows that have them."""
    parts = [
        one.merged.unresolved.assign(file=one.given.name, database=one.database)
        for one in files
        if len(one.merged.unresolved)
    ]
    if not parts:
        return pd.DataFrame(columns=list(UNRESOLVED_COLUMNS)).astype({"links": "int64"})
    return pd.concat(parts, ignore_index=True)[list(UNRESOLVED_COLUMNS)]


def nodes_of(
    files: Sequence[ReadFile], genes: pd.DataFrame | None, term_names: Mapping[str, str]
) -> pd.DataFrame:
    """Every gene, then every term of every database, sorted.

    ``genes`` is the list of current symbols, which has HGNC ids and full names.
    """
    symbols = set().union(*(one.genes for one in files))
    terms = {
        (term, one.database)
        for one in files
        if one.kind != GENE_GENE
        for term in one.merged.frame["target"].unique()
    }
    ids, full = _column(genes, "hgnc_id"), _column(genes, "name")
    rows = [(gene, "gene", ids.get(gene, ""), full.get(gene, ""), "") for gene in sorted(symbols)]
    rows += [(term, "term", term, term_names.get(term, ""), database) for term, database in sorted(terms)]
    return pd.DataFrame(rows, columns=list(NODE_COLUMNS), dtype=object)


def names_in(files: Sequence[ReadFile]) -> dict[str, str]:
    """Names of terms that the sources themselves give, in order of term."""
    found: dict[str, str] = {}
    for one in files:
        found |= {term: name for term, name in one.terms.items() if name}
    return dict(sorted(found.items()))


def names_beside(copied: Sequence[Path]) -> dict[str, str]:
    """Names of terms in the tables ``terms_*`` that lie beside."""
    found: dict[str, str] = {}
    for path in sorted(copied):
        frame = read_frame(path) if path.name.startswith("terms_") else pd.DataFrame()
        if {"term_id", "name"} <= set(frame.columns):
            # WikiPathways' names go on with release, id and species.
            plain = frame["name"].astype(str).str.partition("%")[0].str.strip()
            found |= dict(zip(frame["term_id"], plain, strict=True))
    return found


def _column(genes: pd.DataFrame | None, column: str) -> dict[str, str]:
    if genes is None or column not in genes:
        return {}
    return dict(zip(genes["symbol"], genes[column].fillna("").astype(str), strict=True))


def _source_entry(one: ReadFile) -> dict:
    merged, frame = one.merged, one.merged.frame
    return {
        "file": one.given.name,
        "format": one.source.name,
        "database": one.database,
        "release": one.release,
        "licence": one.licence,
        "noncommercial": is_noncommercial(one.database, one.given.name),
        "sha256": file_digest(one.given.path),
        "kind": one.kind,
        "relations": dict(merged.relations),
        "rows": {"read": one.rows, "dropped": dict(merged.dropped)},
        "links": len(frame),
        "self_links": int((frame["source"].astype(object) == frame["target"].astype(object)).sum()),
        "genes": len(one.genes),
        "terms": 0 if one.kind == GENE_GENE else int(frame["target"].nunique()),
        "unresolved": len(merged.unresolved),
    }
