"""Reading gene knowledge: a graph store, or a folder of Parquet tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from storage.errors import InputError
from storage.knowledge_store import is_store, read_aliases, read_edges, read_head, store_files
from tasks.knowledge.gene_names import SYMBOL_TABLES, aliases_of, read_symbol_tables
from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.matrices import LinkList, make_graph
from tasks.knowledge.sources.parquet_tables import (
    EDGE_COLUMNS,
    TERM_COLUMNS,
    TEXT_TABLE,
    database_of,
    read_links,
    schema_problems,
)
from tasks.knowledge.sources.protocol import GENE_GENE, GENE_TERM, NONCOMMERCIAL

__all__ = ["TEXT_TABLE", "knowledge_files", "read_knowledge"]


def read_knowledge(
    folder: Path | str,
    *,
    noncommercial: bool = False,
    max_term_genes: int | None = 1000,
    max_degree: int | None = 1000,
) -> KnowledgeGraph:
    """Read every link in ``folder`` into one graph.

    Parameters
    ----------
    folder
        A store that `tasks.knowledge.build.build_store` has written, or a folder of tables:
        ``edges_*.parquet`` (source_gene, target_gene, relation), and perhaps ``gene_*.parquet`` (source_gene,
        target, relation), ``benchmark_symbol_map``, ``symbol_aliases`` and ``hgnc_genes``. Both give the same
        graph for the same content.
    noncommercial
        Read the sources whose licence forbids commercial use (CORUM) as well; from a store, if it has them.
    max_term_genes, max_degree
        Terms with more genes are dropped, and so are the gene-gene links of genes with more partners
        (the genes stay): they say little of any one gene. ``None`` keeps all. 1000 is the choice of
        Wu et al. 2025.

    Raises
    ------
    InputError
        Listing every problem: no such folder, no ``edges_*`` file, missing columns, empty names; a store that
        is not whole.
    """
    folder = Path(folder)
    lists, aliases = (_of_store if is_store(folder) else _of_tables)(folder, noncommercial)
    return make_graph(
        [listed for listed in lists if listed.kind == GENE_GENE],
        [listed for listed in lists if listed.kind == GENE_TERM],
        aliases,
        files=knowledge_files(folder, noncommercial=noncommercial),
        max_term_genes=max_term_genes,
        max_degree=max_degree,
    )


def knowledge_files(folder: Path | str, *, noncommercial: bool = False) -> tuple[Path, ...]:
    """List the files that `read_knowledge` depends on, after the same checks of folder and columns."""
    folder = Path(folder)
    if is_store(folder):
        read_head(folder)
        return store_files(folder)
    return tuple(sorted(path for group in _found(folder, noncommercial) for path in group))


def _of_store(folder: Path, noncommercial: bool) -> tuple[list[LinkList], dict[str, str]]:
    """The lists of a store, in order of their files' names."""
    sources = [
        source for source in read_head(folder)["sources"] if noncommercial or not source["noncommercial"]
    ]
    edges = read_edges(folder, {source["file"] for source in sources})
    lists = []
    for source in sorted(sources, key=lambda entry: entry["file"]):
        mine = edges[(edges["file"] == source["file"]) & (edges["kind"] == source["kind"])]
        frame = mine[["source", "target", "relation"]].apply(_own_categories)
        file = Path(source["file"]).stem
        lists.append(LinkList(file, source["database"], source["kind"], frame, source["relations"]))
    if not any(listed.kind == GENE_GENE for listed in lists):
        raise InputError(str(folder), ["without the non-commercial sources it has no links between genes"])
    return lists, read_aliases(folder)


def _own_categories(column: pd.Series) -> pd.Series:
    """The column with the categories its rows have, in order of name."""
    used = column.cat.remove_unused_categories()
    return used.cat.reorder_categories(sorted(used.cat.categories))


def _of_tables(folder: Path, noncommercial: bool) -> tuple[list[LinkList], dict[str, str]]:
    """The lists of a folder of tables, in order of their files' names."""
    edges, terms, tables = _found(folder, noncommercial)
    lists = [_list_of(path, EDGE_COLUMNS, GENE_GENE) for path in edges]
    lists += [_list_of(path, TERM_COLUMNS, GENE_TERM) for path in terms]
    return lists, aliases_of(read_symbol_tables(tables))


def _list_of(path: Path, columns: tuple[str, ...], kind: str) -> LinkList:
    frame = read_links(path, columns)
    frame.columns = ["source", "target", "relation"]
    counts = {str(name): int(links) for name, links in frame["relation"].value_counts().items()}
    return LinkList(path.stem, database_of(path), kind, frame, counts)


def _found(folder: Path, noncommercial: bool) -> tuple[list[Path], list[Path], list[Path]]:
    """List the edge files, gene-term files and symbol tables to be read, each sorted."""

    def allowed(path: Path) -> bool:
        return noncommercial or not any(word in path.name.lower() for word in NONCOMMERCIAL)

    edges = sorted(path for path in folder.glob("edges_*.parquet") if allowed(path))
    terms = sorted(
        path for path in folder.glob("gene_*.parquet") if allowed(path) and path.name != TEXT_TABLE
    )
    tables = [folder / name for name in SYMBOL_TABLES if (folder / name).is_file()]
    _check(folder, edges, terms=terms, tables=tables)
    return edges, terms, tables


def _check(folder: Path, edges: list[Path], *, terms: list[Path], tables: list[Path]) -> None:
    """Refuse the folder with everything wrong in it, before any table is read."""
    if not folder.is_dir():
        raise InputError(str(folder), ["no such folder; give the folder that holds edges_*.parquet"])
    problems = []
    if not edges:
        problems.append("no edges_*.parquet file in it; at least one list of gene-gene links is needed")
    wanted = dict.fromkeys(edges, EDGE_COLUMNS) | dict.fromkeys(terms, TERM_COLUMNS)
    wanted |= {path: SYMBOL_TABLES[path.name] for path in tables}
    for path, columns in wanted.items():
        problems += schema_problems(path, columns)
    if problems:
        raise InputError(str(folder), problems)
