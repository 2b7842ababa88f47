"""Reading a folder of gene knowledge: ``edges_*.parquet``, ``gene_*.parquet`` and the symbol tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy import sparse

from storage.errors import InputError
from storage.tables import read_frame
from tasks.knowledge.graph import KnowledgeGraph, Relation
from tasks.knowledge.symbols import SymbolIndex

EDGE_COLUMNS = ("source_gene", "target_gene", "relation")
TERM_COLUMNS = ("source_gene", "target", "relation")
SYMBOL_TABLES = {
    "benchmark_symbol_map.parquet": ("benchmark_symbol", "hgnc_symbol"),
    "symbol_aliases.parquet": ("alias", "symbol", "chosen"),
    "hgnc_genes.parquet": ("symbol",),
}
# Sources whose licence forbids commercial use, by a word in the file's name.
NONCOMMERCIAL = ("corum",)
# Texts about genes share the prefix of the gene-term tables but hold no links.
TEXT_TABLE = "gene_text.parquet"


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
        Holds ``edges_*.parquet`` (source_gene, target_gene, relation), and may hold ``gene_*.parquet``
        (source_gene, target, relation), ``benchmark_symbol_map``, ``symbol_aliases`` and ``hgnc_genes``.
    noncommercial
        Read the sources whose licence forbids commercial use (CORUM) as well.
    max_term_genes, max_degree
        Terms with more genes are dropped, and so are the gene-gene links of genes with more partners
        (the genes stay): they say little of any one gene. ``None`` keeps all. 1000 is the choice of
        Wu et al. 2025.

    Raises
    ------
    InputError
        Listing every problem: no such folder, no ``edges_*`` file, missing columns, empty names.
    """
    edges, terms, tables = _found(Path(folder), noncommercial)
    edge_frames = {path: _links(path, EDGE_COLUMNS) for path in edges}
    term_frames = {path: _links(path, TERM_COLUMNS) for path in terms}
    names: set[str] = set()
    for frame in edge_frames.values():
        names.update(frame["source_gene"].cat.categories, frame["target_gene"].cat.categories)
    for frame in term_frames.values():
        names.update(frame["source_gene"].cat.categories)
    symbols = SymbolIndex.build(names, _aliases(tables))
    incidence, term_ids, term_relations = _incidence(symbols, term_frames, max_term_genes)
    return KnowledgeGraph(
        symbols=symbols,
        adjacency=_adjacency(symbols, list(edge_frames.values()), max_degree),
        incidence=incidence,
        terms=term_ids,
        term_relations=term_relations,
        relations=_relations(edge_frames, "gene-gene") + _relations(term_frames, "gene-term"),
        files=tuple(sorted([*edges, *terms, *tables])),
        partners=_partners(symbols, edge_frames, max_degree),
    )


def knowledge_files(folder: Path | str, *, noncommercial: bool = False) -> tuple[Path, ...]:
    """List the files that `read_knowledge` would read, after the same checks of folder and columns."""
    return tuple(sorted(path for group in _found(Path(folder), noncommercial) for path in group))


def _found(folder: Path, noncommercial: bool) -> tuple[list[Path], list[Path], list[Path]]:
    edges, terms, tables = _find(folder, noncommercial)
    _check(folder, edges, terms, tables)
    return edges, terms, tables


def _find(folder: Path, noncommercial: bool) -> tuple[list[Path], list[Path], list[Path]]:
    """List the edge files, gene-term files and symbol tables to be read, each sorted."""

    def allowed(path: Path) -> bool:
        return noncommercial or not any(word in path.name.lower() for word in NONCOMMERCIAL)

    edges = sorted(path for path in folder.glob("edges_*.parquet") if allowed(path))
    terms = sorted(
        path for path in folder.glob("gene_*.parquet") if allowed(path) and path.name != TEXT_TABLE
    )
    tables = [folder / name for name in SYMBOL_TABLES if (folder / name).is_file()]
    return edges, terms, tables


def _check(folder: Path, edges: list[Path], terms: list[Path], tables: list[Path]) -> None:
    """Refuse the folder with everything wrong in it, before any table is read."""
    if not folder.is_dir():
        raise InputError(str(folder), ["no such folder; give the folder that holds edges_*.parquet"])
    problems = []
    if not edges:
        problems.append("no edges_*.parquet file in it; at least one list of gene-gene links is needed")
    wanted = dict.fromkeys(edges, EDGE_COLUMNS) | dict.fromkeys(terms, TERM_COLUMNS)
    wanted |= {path: SYMBOL_TABLES[path.name] for path in tables}
    for path, columns in wanted.items():
        try:
            found = pq.read_schema(path).names
        except (OSError, ValueError) as error:
            problems.append(f"{path.name} is not a readable Parquet table ({str(error).splitlines()[0]})")
            continue
        missing = [column for column in columns if column not in found]
        if missing:
            problems.append(f"{path.name} lacks columns {', '.join(missing)}; found {', '.join(found)}")
    if problems:
        raise InputError(str(folder), problems)


def _links(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read the link columns of one file as categories; every name must be given."""
    # Categories: there are few distinct names, so each is checked and looked up once.
    frame = read_frame(path)[list(columns)].astype("category")
    named = [frame[column].cat.codes.ge(0) & frame[column].ne("") for column in columns]
    empty = int((~np.logical_and.reduce(named)).sum())
    if empty:
        raise InputError(str(path), [f"{empty} rows have an empty name in {', '.join(columns)}"])
    return frame


def _aliases(tables: list[Path]) -> dict[str, str]:
    """Other names of genes; the benchmark's own map outranks the general list of aliases."""
    frames = {path.name: read_frame(path) for path in tables}
    aliases: dict[str, str] = {}
    if "symbol_aliases.parquet" in frames:
        table = frames["symbol_aliases.parquet"]
        table = table[table["chosen"].astype(bool)].sort_values(["alias", "symbol"], kind="stable")
        table = table.drop_duplicates("alias")
        aliases.update(zip(table["alias"], table["symbol"], strict=True))
    if "hgnc_genes.parquet" in frames:
        # A symbol in force names its own gene even if the graph has no links for it.
        for symbol in frames["hgnc_genes.parquet"]["symbol"]:
            aliases.pop(symbol, None)
    if "benchmark_symbol_map.parquet" in frames:
        table = frames["benchmark_symbol_map.parquet"].dropna(subset=["benchmark_symbol", "hgnc_symbol"])
        aliases.update(zip(table["benchmark_symbol"], table["hgnc_symbol"], strict=True))
    return aliases


def _adjacency(symbols: SymbolIndex, frames: list[pd.DataFrame], max_degree: int | None) -> sparse.csr_array:
    """Merge the lists of links; the value counts the lists that hold the pair, in either order."""
    n = len(symbols.genes)
    total = sparse.csr_array((n, n), dtype=np.float32)
    for frame in frames:
        source, target = (_positions(symbols.genes, frame[c]) for c in ("source_gene", "target_gene"))
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
    symbols: SymbolIndex, frames: dict[Path, pd.DataFrame], max_degree: int | None
) -> dict[str, sparse.csr_array]:
    """Links of each source; its releases (``edges_string_v11``, ``edges_string_v12``) are one source."""
    by_source: dict[str, list[pd.DataFrame]] = {}
    for path, frame in frames.items():
        by_source.setdefault(path.stem.split("_")[1], []).append(frame)
    partners = {name: _adjacency(symbols, parts, max_degree) for name, parts in by_source.items()}
    for links in partners.values():
        links.data[:] = 1
    return partners


def _incidence(
    symbols: SymbolIndex, frames: dict[Path, pd.DataFrame], max_term_genes: int | None
) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
    """Set the sources' terms side by side: the same word in two sources is two terms."""
    blocks, ids, relations = [sparse.csr_array((len(symbols.genes), 0), dtype=np.float32)], [], []
    for frame in frames.values():
        rows, terms = _positions(symbols.genes, frame["source_gene"]), frame["target"].cat
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


def _relations(frames: dict[Path, pd.DataFrame], kind: str) -> tuple[Relation, ...]:
    return tuple(
        Relation(name=str(name), kind=kind, source=path.stem, links=int(links))
        for path, frame in frames.items()
        for name, links in sorted(frame["relation"].value_counts().items())
    )
