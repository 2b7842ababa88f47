"""Which of the files given are links, which are names and texts, and what is wrong with any of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storage.errors import InputError
from storage.knowledge_store import is_store
from tasks.knowledge.gene_names import GENES_TABLE, HGNC_COLUMNS, HGNC_FILE, SYMBOL_TABLES
from tasks.knowledge.sources import is_beside, source_of
from tasks.knowledge.sources.delimited import column_problems
from tasks.knowledge.sources.parquet_tables import TEXT_TABLE, schema_problems
from tasks.knowledge.sources.protocol import Reading, Source, is_noncommercial
from tasks.knowledge.sources.source_file import SourceFile, files_in

#: Texts about genes and names of terms.
TEXTS = re.compile(rf"^({re.escape(TEXT_TABLE)}|terms_.*\.parquet)$")
#: What `pqa knowledge` says of files it cannot tell.
KNOWN = (
    "STRING protein.links and protein.info, BioGRID tab3, BioPlex, GAF, GMT, CORUM complexes, kg.zip, "
    "edges_*.parquet, gene_*.parquet"
)


@dataclass(eq=False)
class Collected:
    """The files by what is done with them.

    Attributes
    ----------
    links
        Files to be read and their readers, by name.
    symbol_tables, hgnc
        Parquet tables of symbols, and HGNC's own file.
    copied
        Texts about genes and names of terms: put into the store as they are.
    left_out
        Databases and files whose licence forbids commercial use, where that was not asked for.
    not_read
        Files of a folder or archive that no reader is for.
    """

    links: list[tuple[Source, SourceFile]] = field(default_factory=list)
    symbol_tables: list[Path] = field(default_factory=list)
    hgnc: SourceFile | None = None
    copied: list[Path] = field(default_factory=list)
    left_out: list[tuple[str, SourceFile]] = field(default_factory=list)
    not_read: list[SourceFile] = field(default_factory=list)


def collect(
    paths: Sequence[Path], *, noncommercial: bool
) -> tuple[Collected, tuple[SourceFile, ...], list[str]]:
    """Sort the files of some paths; gives them, all files, and what is wrong so far."""
    collected, files, problems = Collected(), [], []
    for path in paths:
        if path.is_dir() and is_store(path):
            problems.append(f"{path} is a knowledge store already; give the files it was made from")
            continue
        found, wrong = files_in(path)
        files += found
        problems += wrong
    for file in files:
        try:
            problems += _sort(file, collected, noncommercial)
        except InputError as error:
            problems += [f"{file.name}: {problem}" for problem in error.problems]
    collected.links.sort(key=lambda pair: pair[1].name)
    names = Counter(file.name for file in files)
    problems += [f"{name} is given {n} times" for name, n in sorted(names.items()) if n > 1]
    return collected, tuple(files), problems


def check_files(collected: Collected, reading: Reading) -> list[str]:
    """What is wrong with the beginnings of all files, in sentences that name the file."""
    problems = []
    for source, file in collected.links:
        try:
            found = source.problems(file, reading)
        except InputError as error:
            found = list(error.problems)
        problems += [f"{file.name}: {problem}" for problem in found]
    for path in collected.symbol_tables:
        problems += schema_problems(path, SYMBOL_TABLES[path.name])
    if collected.hgnc is not None:
        found = column_problems(collected.hgnc, HGNC_COLUMNS, "\t")
        problems += [f"{collected.hgnc.name}: {problem}" for problem in found]
        if any(path.name == GENES_TABLE for path in collected.symbol_tables):
            problems.append(f"{GENES_TABLE} and {collected.hgnc.name} are two lists of genes; give one")
    return problems


def _sort(file: SourceFile, collected: Collected, noncommercial: bool) -> list[str]:
    """Put one file where it belongs."""
    name = file.own_name.lower()
    if HGNC_FILE.search(name):
        if collected.hgnc is not None:
            return [f"{collected.hgnc.name} and {file.name} are two lists of genes; give one"]
        collected.hgnc = file
    elif not file.member and name in SYMBOL_TABLES:
        collected.symbol_tables.append(file.path)
    elif not file.member and TEXTS.search(name):
        # Names of complexes are under the licence of the complexes.
        if noncommercial or not is_noncommercial("", name):
            collected.copied.append(file.path)
        else:
            collected.left_out.append(("", file))
    elif (source := source_of(file)) is not None:
        if noncommercial or not is_noncommercial(source.database(file), file.name):
            collected.links.append((source, file))
        else:
            collected.left_out.append((source.database(file), file))
    elif not is_beside(file):
        if file.named and not file.member:
            return [f"{file.name}: neither its name nor its first line is that of a known format ({KNOWN})"]
        collected.not_read.append(file)
    return []
