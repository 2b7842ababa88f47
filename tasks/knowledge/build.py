"""From sources in their own formats to one typed graph store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from storage.errors import InputError
from storage.knowledge_store import check_place, write_store
from tasks.knowledge.collect import Collected, check_files, collect
from tasks.knowledge.describe import (
    ReadFile,
    edges_of,
    head_of,
    names_beside,
    names_in,
    nodes_of,
    unresolved_of,
)
from tasks.knowledge.gene_names import GeneNames, read_symbol_tables
from tasks.knowledge.merge import Merged, merge_links
from tasks.knowledge.sources.protocol import GENE_GENE, Reading


def build_store(
    paths: Sequence[Path | str],
    folder: Path | str,
    *,
    noncommercial: bool = False,
    min_string_score: int = 700,
) -> dict:
    """Read every source among ``paths`` and write the store.

    Parameters
    ----------
    paths
        Files, folders (their files, not folders in them) and zip archives.
    folder
        Where the store comes; an older store there is replaced.
    noncommercial
        Read sources whose licence forbids commercial use (CORUM) as well.
    min_string_score
        STRING's combined score, 0 to 1000, below which its links are left out. 700 is what STRING calls high
        confidence.

    Returns
    -------
    dict
        The store's head.

    Raises
    ------
    InputError
        Listing every problem of every file: what cannot be read, what no format is known for, missing
        columns, no link between genes, a place that is taken.
    """
    paths = [Path(path) for path in paths]
    collected, files, problems = collect(paths, noncommercial=noncommercial)
    reading = Reading(min_string_score, files)
    problems += check_files(collected, reading) + check_place(folder, paths)
    if not 0 <= min_string_score <= 1000:
        problems.append(f"STRING's score is from 0 to 1000; found {min_string_score}")
    if not collected.links and not problems:
        left = ", ".join(file.name for _, file in collected.left_out)
        problems.append("no file with links" + (f"; left out for their licence: {left}" if left else ""))
    if problems:
        raise InputError("knowledge", problems)
    names = GeneNames.build(read_symbol_tables(collected.symbol_tables, collected.hgnc))
    read = _read_all(collected, names, reading)
    terms = names_in(read)
    return write_store(
        folder,
        edges_of(read),
        nodes=nodes_of(read, names.genes, names_beside(collected.copied) | terms),
        aliases=names.aliases,
        unresolved=unresolved_of(read),
        copied=collected.copied,
        term_names=pd.DataFrame(list(terms.items()), columns=["term_id", "name"], dtype=object),
        head=head_of(read, collected, noncommercial=noncommercial, min_string_score=min_string_score),
    )


def _read_all(collected: Collected, names: GeneNames, reading: Reading) -> list[ReadFile]:
    """Read and merge every file, links between genes first; all that is wrong within them in one message."""
    read, problems = [], []
    for source, file in collected.links:
        try:
            links = source.read(file, reading)
        except InputError as error:
            problems += [f"{file.name}: {problem}" for problem in error.problems]
            continue
        merged = merge_links(links, names, keeps_unknown=source.keeps_unknown)
        if merged.frame.empty:
            why = _reasons(merged, names)
            problems.append(f"{file.name}: none of its {links.read:,} rows is left ({why})")
            continue
        read.append(ReadFile(source, file, merged, links.read, links.terms, links.release))
    if not problems and not any(entry.kind == GENE_GENE for entry in read):
        problems.append("no links between genes; at least one list of them is needed")
    if problems:
        raise InputError("knowledge", problems)
    return sorted(read, key=lambda entry: (entry.kind, entry.file.name))


def _reasons(merged: Merged, names: GeneNames) -> str:
    """Why nothing is left of a file, with examples of names that led nowhere."""
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in merged.dropped.items()) or "it has none"
    if not len(merged.unresolved):
        return reasons
    examples = ", ".join(merged.unresolved["name"].head(3))
    advice = "; ids need hgnc_genes.parquet or hgnc_complete_set.txt beside them"
    return f"{reasons}: {examples}{advice if names.genes is None else ''}"
