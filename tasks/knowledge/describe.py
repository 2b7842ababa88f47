"""What a store says of itself: nodes, names of terms, where every edge is from, what did not resolve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from storage.knowledge_store import NODE_COLUMNS, UNRESOLVED_COLUMNS
from storage.manifest import file_digest
from tasks.knowledge.collect import Collected
from tasks.knowledge.merge import Merged
from tasks.knowledge.sources.protocol import GENE_GENE, Source, constant, is_noncommercial, licence_of
from tasks.knowledge.sources.source_file import SourceFile
from tasks.knowledge.texts import term_names


@dataclass(frozen=True, eq=False)
class ReadFile:
    """One file, read and merged.

    Attributes
    ----------
    source, file
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
    file: SourceFile
    merged: Merged
    rows: int
    terms: Mapping[str, str]
    release: str

    @property
    def database(self) -> str:
        """The database it is from."""
        return self.source.database(self.file)

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
        return licence_of(self.database, self.file.name)


def edges_of(files: Sequence[ReadFile]) -> Iterator[pd.DataFrame]:
    """The files' links with database, file and licence."""
    for entry in files:
        labels = {"database": entry.database, "file": entry.file.name, "licence": entry.licence}
        n = len(entry.merged.frame)
        yield entry.merged.frame.assign(**{name: constant(text, n) for name, text in labels.items()})


def head_of(files: Sequence[ReadFile], collected: Collected, **options: object) -> dict:
    """Options, sources, what was not read, and digests of the lists of symbols."""
    lists = [*collected.symbol_tables, *([collected.hgnc.path] if collected.hgnc else [])]
    return {
        "options": options,
        "sources": [_source_entry(entry) for entry in files],
        "left_out": [
            {"file": file.name, "licence": licence_of(database, file.name)}
            for database, file in collected.left_out
        ],
        "not_read": [file.name for file in collected.not_read],
        "symbols": {path.name: file_digest(path) for path in sorted(lists)},
    }


def unresolved_of(files: Sequence[ReadFile]) -> pd.DataFrame:
    """Names that lead to no current symbol, by file, with the number of rows that have them."""
    parts = [
        entry.merged.unresolved.assign(file=entry.file.name, database=entry.database)
        for entry in files
        if len(entry.merged.unresolved)
    ]
    if not parts:
        return pd.DataFrame(columns=list(UNRESOLVED_COLUMNS)).astype({"links": "int64"})
    return pd.concat(parts, ignore_index=True)[list(UNRESOLVED_COLUMNS)]


def nodes_of(files: Sequence[ReadFile], genes: pd.DataFrame | None, names: Mapping[str, str]) -> pd.DataFrame:
    """Every gene, then every term of every database, sorted.

    ``genes`` is the list of current symbols, which has HGNC ids and full names; ``names`` are those of terms.
    """
    symbols = set().union(*(entry.genes for entry in files))
    terms = {
        (term, entry.database)
        for entry in files
        if entry.kind != GENE_GENE
        for term in entry.merged.frame["target"].unique()
    }
    ids, full = _column(genes, "hgnc_id"), _column(genes, "name")
    rows = [(gene, "gene", ids.get(gene, ""), full.get(gene, ""), "") for gene in sorted(symbols)]
    rows += [(term, "term", term, names.get(term, ""), database) for term, database in sorted(terms)]
    return pd.DataFrame(rows, columns=list(NODE_COLUMNS), dtype=object)


def names_in(files: Sequence[ReadFile]) -> dict[str, str]:
    """Names of terms that the sources themselves give, in order of term."""
    names: dict[str, str] = {}
    for entry in files:
        names |= {term: name for term, name in entry.terms.items() if name}
    return dict(sorted(names.items()))


def names_beside(copied: Sequence[Path]) -> dict[str, str]:
    """Names of terms in the tables ``terms_*`` that lie beside."""
    return term_names(path for path in copied if path.name.startswith("terms_"))


def _column(genes: pd.DataFrame | None, column: str) -> dict[str, str]:
    if genes is None or column not in genes:
        return {}
    return dict(zip(genes["symbol"], genes[column].fillna("").astype(str), strict=True))


def _source_entry(entry: ReadFile) -> dict:
    merged, frame = entry.merged, entry.merged.frame
    return {
        "file": entry.file.name,
        "format": entry.source.name,
        "database": entry.database,
        "release": entry.release,
        "licence": entry.licence,
        "noncommercial": is_noncommercial(entry.database, entry.file.name),
        "sha256": file_digest(entry.file.path),
        "kind": entry.kind,
        "relations": dict(merged.relations),
        "rows": {"read": entry.rows, "dropped": dict(merged.dropped)},
        "links": len(frame),
        "self_links": int((frame["source"].astype(object) == frame["target"].astype(object)).sum()),
        "genes": len(entry.genes),
        "terms": 0 if entry.kind == GENE_GENE else int(frame["target"].nunique()),
        "unresolved": len(merged.unresolved),
    }
