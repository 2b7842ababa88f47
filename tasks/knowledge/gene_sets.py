"""Gene sets as nodes of the graph: the mean over their member genes, as Wu et al. 2025 read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from storage.errors import InputError
from tasks.knowledge.symbols import SymbolIndex

if TYPE_CHECKING:
    from tasks.knowledge.graph import KnowledgeGraph


def add_sets(graph: KnowledgeGraph, sets: Mapping[str, Sequence[str]]) -> KnowledgeGraph:
    """The graph with a node for each set; see `KnowledgeGraph.with_sets`."""
    members = _known_members(graph, sets)
    genes = np.union1d(graph.genes, np.array(list(members), dtype=str))
    place = np.searchsorted(genes, graph.genes)
    aliases = dict(
        zip(graph.symbols.aliases.tolist(), graph.genes[graph.symbols.alias_genes].tolist(), strict=True)
    )
    moved = _selection(place, np.arange(graph.n_genes), (len(genes), graph.n_genes))
    mean = _Mean(genes, members, graph.n_genes)
    return replace(
        graph,
        symbols=SymbolIndex.build(genes.tolist(), aliases),
        adjacency=_adjacency(graph.adjacency, moved, mean),
        incidence=_sorted(moved @ graph.incidence + mean.rows(graph.incidence)),
        partners={
            name: _sorted((moved @ links + mean.rows(links)) @ moved.T)
            for name, links in graph.partners.items()
        },
        members=dict(graph.members) | {name: tuple(graph.genes[at]) for name, at in members.items()},
    )


class _Mean:
    """Means over the members of sets, as rows of a larger matrix."""

    def __init__(self, genes: np.ndarray, members: Mapping[str, np.ndarray], n_before: int):
        at = np.searchsorted(genes, list(members))
        sizes = np.array([len(positions) for positions in members.values()])
        rows, columns = np.repeat(at, sizes), np.concatenate(list(members.values()))
        self._sum = _selection(rows, columns, (len(genes), n_before))
        self._size = np.ones(len(genes), dtype=np.float32)
        self._size[at] = sizes

    def rows(self, matrix: sparse.csr_array) -> sparse.csr_array:
        """Each set's mean over its members' rows; all other rows are empty."""
        # Summed before it is divided: shares of whole numbers come out the same in any order.
        return sparse.csr_array(sparse.diags_array(1 / self._size) @ (self._sum @ matrix))


def _adjacency(links: sparse.csr_array, moved: sparse.csr_array, mean: _Mean) -> sparse.csr_array:
    """Counts between genes as before; between a set and a gene the share of members that are linked."""
    shares = links.copy()
    shares.data = np.minimum(shares.data, np.float32(1))
    of_sets = mean.rows(shares)
    to_genes = of_sets @ moved.T
    between_sets = mean.rows(sparse.csr_array(of_sets.T))
    between_sets = sparse.csr_array((between_sets + between_sets.T) / 2)
    between_sets = between_sets - sparse.diags_array(between_sets.diagonal())
    between_sets.eliminate_zeros()
    return _sorted(moved @ links @ moved.T + to_genes + to_genes.T + between_sets)


def _known_members(graph: KnowledgeGraph, sets: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Positions of each set's members among the graph's genes, each once; sets in order of name."""
    problems = [] if sets else ["no sets are given"]
    found = {}
    known_sets = graph.symbols.resolve(graph.members)
    for name in sorted(sets):
        at = graph.resolve(sets[name])
        found[name] = np.setdiff1d(at[at >= 0], known_sets)
        if not name or graph.resolve([name])[0] >= 0:
            problems.append(f"set '{name}' has the name of a gene (or none); give it another")
        if not len(found[name]):
            problems.append(f"set '{name}': none of its {len(sets[name])} members is in the graph")
    if problems:
        raise InputError("gene sets", problems)
    return found


def _selection(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)


def _sorted(matrix: sparse.sparray) -> sparse.csr_array:
    made = sparse.csr_array(matrix, dtype=np.float32)
    made.sort_indices()
    return made
