"""Readers of gene knowledge, one file a format, by name."""

from __future__ import annotations

from tasks.knowledge.sources.biogrid import BioGrid
from tasks.knowledge.sources.bioplex import BioPlex
from tasks.knowledge.sources.corum import Corum
from tasks.knowledge.sources.delimited import columns_of
from tasks.knowledge.sources.gaf import Gaf
from tasks.knowledge.sources.gmt import Gmt
from tasks.knowledge.sources.parquet_tables import ParquetTables
from tasks.knowledge.sources.protocol import Source
from tasks.knowledge.sources.published import PublishedGraph
from tasks.knowledge.sources.source_file import SourceFile
from tasks.knowledge.sources.string_links import StringLinks

#: The first whose files are called like that is the reader of a file.
SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        ParquetTables(),
        StringLinks(),
        BioGrid(),
        BioPlex(),
        Gaf(),
        Gmt(),
        Corum(),
        PublishedGraph(),
    )
}


def source_of(file: SourceFile) -> Source | None:
    """The reader of a file: by the file's name, or else, if the user named the file, by its first line."""
    name = file.own_name.lower()
    by_name = (source for source in SOURCES.values() if source.files.search(name))
    found = next(by_name, None)
    if found is not None or not file.named or is_beside(file):
        return found
    return next((source for source in SOURCES.values() if source.columns and _fits(source, file)), None)


def is_beside(file: SourceFile) -> bool:
    """Whether the file holds no links, but what a reader needs for another's."""
    name = file.own_name.lower()
    return any(source.beside is not None and source.beside.search(name) for source in SOURCES.values())


def _fits(source: Source, file: SourceFile) -> bool:
    return set(source.columns) <= set(columns_of(file, source.delimiter))
