"""From lists of links to the matrices of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.knowledge.graph import KnowledgeGraph, Relation
from tasks.knowledge.symbols import SymbolIndex


@dataclass(frozen=True, eq=False)
class LinkList:
    """The links of one kind in one file.

    Attributes
    ----------
    file
        The file's name without its ending.
    database
        What it is from; files of one database are its releases.
    kind
        ``gene-gene`` or ``gene-term``.
    frame
        ``source`` (a gene), ``target`` (a gene or a term) and ``relation`` as categories in order of name,
        without names that no row has.
    relations
        Rows of each relation in the file.
    """

    file: str
    database: str
    kind: str
    frame: pd.DataFrame
    relations: Mapping[str, int]


def make_graph(
    edges: Sequence[LinkList],
    terms: Sequence[LinkList],
    aliases: Mapping[str, str],
    *,
    files: tuple[Path, ...],
    max_term_genes: int | None,
    max_degree: int | None,
) -> KnowledgeGraph:
    """Put lists of links, in order of their files' names, into one graph."""
    names: set[str] = set()
    for listed in edges:
        names.update(listed.frame["source"].cat.categories, listed.frame["target"].cat.categories)
    for listed in terms:
        names.update(listed.frame["source"].cat.categories)
    symbols = SymbolIndex.build(names, aliases)
    incidence, term_ids, term_relations = _incidence(symbols, terms, max_term_genes)
    return KnowledgeGraph(
        symbols=symbols,
        adjacency=_adjacency(symbols, edges, max_degree),
        incidence=incidence,
        terms=term_ids,
        term_relations=term_relations,
        relations=tuple(
            Relation(name=name, kind=listed.kind, source=listed.file, links=links)
            for listed in (*edges, *terms)
            for name, links in sorted(listed.relations.items())
        ),
        files=files,
        partners=_partners(symbols, edges, max_degree),
    )


def _adjacency(symbols: SymbolIndex, lists: Sequence[LinkList], max_degree: int | None) -> sparse.csr_array:
    """Merge the lists of links; the value counts the lists that hold the pair, in either order."""
    n = len(symbols.genes)
    total = sparse.csr_array((n, n), dtype=np.float32)
    for listed in lists:
        source, target = (_positions(symbols.genes, listed.frame[column]) for column in ("source", "target"))
        apart = source != target
        rows = np.concatenate([source[apart], target[apart]])
        columns = np.concatenate([target[apart], source[apart]])
        links = sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(n, n))
        links.data[:] = 1
        total = total + links
    total.sort_indices()
    if max_degree is None:
        return total
    keep = sparse.diags_array((np.diff(total.indptr) <= max_degree).astype(np.float32))
    total = sparse.csr_array(keep @ total @ keep)
    total.eliminate_zeros()
    total.sort_indices()
    return total


def _partners(
    symbols: SymbolIndex, lists: Sequence[LinkList], max_degree: int | None
) -> dict[str, sparse.csr_array]:
    """Links of each database; its releases (``edges_string_v11``, ``edges_string_v12``) are one source."""
    by_database: dict[str, list[LinkList]] = {}
    for listed in lists:
        by_database.setdefault(listed.database, []).append(listed)
    partners = {name: _adjacency(symbols, parts, max_degree) for name, parts in by_database.items()}
    for links in partners.values():
        links.data[:] = 1
    return partners


def _incidence(
    symbols: SymbolIndex, lists: Sequence[LinkList], max_term_genes: int | None
) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
    """Set the sources' terms side by side: the same word in two sources is two terms."""
    blocks, ids, relations = [sparse.csr_array((len(symbols.genes), 0), dtype=np.float32)], [], []
    for listed in lists:
        frame = listed.frame
        rows, terms = _positions(symbols.genes, frame["source"]), frame["target"].cat
        shape = (len(symbols.genes), len(terms.categories))
        block = sparse.csr_array((np.ones(len(rows), np.float32), (rows, terms.codes)), shape=shape)
        block.data[:] = 1
        sizes = np.bincount(block.indices, minlength=shape[1])
        kept = np.flatnonzero(sizes <= (max_term_genes if max_term_genes is not None else np.inf))
        blocks.append(block[:, kept])
        ids.extend(np.asarray(terms.categories, dtype=str)[kept])
        first = frame.drop_duplicates("target").set_index("target")["relation"]
        relations.extend(first.reindex(terms.categories).astype(str).to_numpy()[kept])
    incidence = sparse.csr_array(sparse.hstack(blocks, format="csr"))
    incidence.sort_indices()
    return incidence, np.array(ids, dtype=str), np.array(relations, dtype=str)


def _positions(genes: np.ndarray, column: pd.Series) -> np.ndarray:
    """Position in ``genes`` of each row's name, by way of its category."""
    categories = np.asarray(column.cat.categories, dtype=str)
    return np.searchsorted(genes, categories)[column.cat.codes]
