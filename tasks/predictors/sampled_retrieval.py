"""A few observations drawn for each question, nearest kinds first, as Wu et al. 2025 show them to a model."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from tasks.knowledge.lookup import sorted_positions
from tasks.predictors.observations import Observations
from tasks.predictors.similarity import GeneSimilarity, same_names

# Categories in order of preference, as (kind of perturbation, kind of gene) alternatives.
CATEGORIES = (
    (("same", "near"), ("near", "same")),
    (("near", "near"),),
    (("same", "any"), ("any", "same")),
    (("near", "any"), ("any", "near")),
)


@dataclass(frozen=True)
class Cells:
    """Observed pairs of one task, cell lines pooled: cell (i, j) is perturbation i with gene j.

    Attributes
    ----------
    perts, genes
        Names, sorted.
    keys
        int64 [n_cells], sorted: ``i * n_genes + j``.
    outcome
        float64 [n_cells]: mean label of the pair over the lines it was seen in.
    by_gene
        int64 [n_cells]: cells in order of gene, then perturbation.
    pert_start, gene_start
        Where each perturbation's cells start in ``keys``, and each gene's in ``by_gene``.
    """

    perts: np.ndarray
    genes: np.ndarray
    keys: np.ndarray
    outcome: np.ndarray
    by_gene: np.ndarray
    pert_start: np.ndarray
    gene_start: np.ndarray

    @classmethod
    def build(cls, observations: Observations) -> Cells:
        """Pool the rows of the observations that share a perturbation."""
        perts, row_pert = np.unique(observations.perts, return_inverse=True)
        labels = observations.labels.tocoo()
        n_genes = len(observations.genes)
        key = row_pert[labels.row].astype(np.int64) * n_genes + labels.col
        keys, cell = np.unique(key, return_inverse=True)
        outcome = np.bincount(cell, weights=labels.data) / np.bincount(cell)
        gene = keys % n_genes
        return cls(
            perts=perts,
            genes=observations.genes,
            keys=keys,
            outcome=outcome,
            by_gene=np.argsort(gene, kind="stable"),
            pert_start=np.searchsorted(keys // n_genes, np.arange(len(perts) + 1)),
            gene_start=np.searchsorted(np.sort(gene), np.arange(n_genes + 1)),
        )

    def find(self, pert: np.ndarray, gene: np.ndarray) -> np.ndarray:
        """Cell of each (perturbation, gene) position, -1 where it was not observed or a position is -1."""
        key = pert * len(self.genes) + gene
        return np.where((pert >= 0) & (gene >= 0), sorted_positions(self.keys, key), -1)


def sampled_scores(
    perts: np.ndarray,
    genes: np.ndarray,
    cells: Cells,
    similarity: GeneSimilarity,
    *,
    neighbours: int,
    budget: int,
    seed: int,
) -> np.ndarray:
    """Mean outcome of the observations drawn for each pair, float64 [n_pairs].

    Parameters
    ----------
    perts, genes
        The pairs' names, [n_pairs] each.
    neighbours
        How many training perturbations, and genes, sharing most neighbours in the graph count as near.
    budget
        Observations drawn from each category, fewer where fewer exist.
    seed
        With the pair's two names it settles every draw, so a pair's score does not depend on the others.

    Notes
    -----
    Where one side is "any", draws are with replacement from all cells of the other side.
    """
    sides = sides_of(perts, genes, cells, similarity, neighbours=neighbours)
    drawn = np.concatenate(draw_observations(perts, genes, cells, sides, budget=budget, seed=seed), axis=1)
    count = (drawn >= 0).sum(axis=1)
    total = np.where(drawn >= 0, cells.outcome[drawn], 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), cells.outcome.mean())


def sides_of(
    perts: np.ndarray, genes: np.ndarray, cells: Cells, similarity: GeneSimilarity, *, neighbours: int
) -> dict[str, dict[str, np.ndarray]]:
    """Positions among the observed perturbations and genes that are near to each pair's two, and the same.

    Returns
    -------
    dict
        ``pert`` and ``gene``, each with ``near`` int64 [n_pairs, neighbours] and ``same`` [n_pairs, 1];
        -1 where there is none.
    """
    sides = {}
    for side, names, known in (("pert", perts, cells.perts), ("gene", genes, cells.genes)):
        unique, row = np.unique(names, return_inverse=True)
        near, same = _near_and_same(unique, known, similarity, neighbours)
        sides[side] = {"near": near[row], "same": same[row]}
    return sides


def draw_observations(
    perts: np.ndarray,
    genes: np.ndarray,
    cells: Cells,
    sides: dict[str, dict[str, np.ndarray]],
    *,
    budget: int,
    seed: int,
    categories: tuple | None = None,
) -> list[np.ndarray]:
    """Draw up to ``budget`` cells of each category for each pair: int64 [n_pairs, <= budget] each, -1 = none.

    ``categories`` are `CATEGORIES` unless given.
    The pair's two names, the category's number and ``seed`` settle every draw.
    """
    words = _question_words(perts, genes, seed)
    return [
        _draw_cells(cells, sides, category, budget, _mix(words + np.uint64(number)))
        for number, category in enumerate(CATEGORIES if categories is None else categories)
    ]


def _draw_cells(cells: Cells, sides: dict, category: tuple, budget: int, words: np.ndarray) -> np.ndarray:
    """Draw up to ``budget`` cells of one category for each pair, [n_pairs, budget], -1 where none."""
    if any("any" in kinds for kinds in category):
        spans = [_spans(cells, sides, *kinds) for kinds in category]
        starts, lengths = (np.concatenate(parts, axis=1) for parts in zip(*spans, strict=True))
        return _draw_from_spans(cells, starts, lengths, budget, words)
    candidates = np.concatenate([_candidates(cells, sides, *kinds) for kinds in category], axis=1)
    order = _mix(words[:, None] + _steps(candidates.shape[1]))
    order[candidates < 0] = np.iinfo(np.uint64).max
    chosen = np.argsort(order, axis=1, kind="stable")[:, :budget]
    return np.take_along_axis(candidates, chosen, axis=1)


def _candidates(cells: Cells, sides: dict, pert_kind: str, gene_kind: str) -> np.ndarray:
    """Cells of every combination of a pair's perturbations and genes of these kinds, [n_pairs, n]."""
    pert, gene = sides["pert"][pert_kind], sides["gene"][gene_kind]
    found = cells.find(pert[:, :, None], gene[:, None, :])
    return found.reshape(len(pert), -1)


def _spans(cells: Cells, sides: dict, pert_kind: str, gene_kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Start and length of the runs of cells that a pair's perturbations, or genes, of a kind have.

    Starts of genes' runs are counted on from the last cell, to tell ``by_gene`` from ``keys``.
    """
    if gene_kind == "any":
        at, start, shift = sides["pert"][pert_kind], cells.pert_start, 0
    else:
        at, start, shift = sides["gene"][gene_kind], cells.gene_start, len(cells.keys)
    length = np.where(at >= 0, start[at + 1] - start[at], 0)
    return start[at] + shift, length


def _draw_from_spans(
    cells: Cells, starts: np.ndarray, lengths: np.ndarray, budget: int, words: np.ndarray
) -> np.ndarray:
    ends = np.cumsum(lengths, axis=1)
    total = ends[:, -1]
    cell_of = np.concatenate([np.arange(len(cells.keys)), cells.by_gene])
    drawn = np.full((len(words), budget), -1, dtype=np.int64)
    some = np.flatnonzero(total > 0)
    for step in range(budget):
        pick = (_mix(words[some] + _steps(budget)[step]) % total[some].astype(np.uint64)).astype(np.int64)
        span = (ends[some] <= pick[:, None]).sum(axis=1)
        before = ends[some, span] - lengths[some, span]
        drawn[some, step] = cell_of[starts[some, span] + pick - before]
    return drawn


def _near_and_same(
    names: np.ndarray, known: np.ndarray, similarity: GeneSimilarity, neighbours: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions in ``known`` of each name's near genes [n, neighbours] and of itself [n, 1]; -1 = none."""
    shared = similarity.between(names, known)
    at, column = same_names(names, known)
    shared[at, column] = 0
    near = np.argsort(-shared, axis=1, kind="stable")[:, :neighbours].astype(np.int64)
    near[np.take_along_axis(shared, near, axis=1) <= 0] = -1
    same = np.full((len(names), 1), -1, dtype=np.int64)
    same[at, 0] = column
    return near, same


def _question_words(perts: np.ndarray, genes: np.ndarray, seed: int) -> np.ndarray:
    """One 64-bit word per pair, from its two names and the seed."""
    halves = []
    for names in (perts, genes):
        unique, row = np.unique(names, return_inverse=True)
        halves.append(np.array([zlib.crc32(n.encode()) for n in unique.tolist()], dtype=np.uint64)[row])
    return _mix(_mix((halves[0] << np.uint64(32)) | halves[1]) + np.uint64(seed))


def _steps(count: int) -> np.ndarray:
    """Well spread offsets for successive draws (the odd constant of splitmix64)."""
    return np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def _mix(words: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words: the output function of splitmix64 (Steele et al. 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
