"""A few observations drawn for each question, nearest kinds first, as Wu et al. 2025 show them to a model."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from tasks.knowledge.lookup import sorted_positions
from tasks.predictors.kernels.observations import Observations
from tasks.predictors.kernels.similarity import GeneSimilarity, same_names

# Categories in order of preference, as (kind of perturbation, kind of gene) alternatives.
CATEGORIES = (
    (("same", "near"), ("near", "same")),
    (("near", "near"),),
    (("same", "any"), ("any", "same")),
    (("near", "any"), ("any", "near")),
)


@dataclass(frozen=True)
class ObservedPairs:
    """Observed pairs of one task, cell lines pooled.

    Attributes
    ----------
    perts, genes
        Names, sorted.
    keys
        int64 [n_observed], sorted: ``i * n_genes + j`` for perturbation i with gene j.
    outcome
        float64 [n_observed]: mean label of the pair over the lines it was seen in.
    by_gene
        int64 [n_observed]: positions of the pairs in order of gene, then perturbation.
    pert_start, gene_start
        Where each perturbation's pairs start in ``keys``, and each gene's in ``by_gene``.
    """

    perts: np.ndarray
    genes: np.ndarray
    keys: np.ndarray
    outcome: np.ndarray
    by_gene: np.ndarray
    pert_start: np.ndarray
    gene_start: np.ndarray

    @classmethod
    def build(cls, observations: Observations) -> ObservedPairs:
        """Pool the rows of the observations that share a perturbation."""
        perts, row_pert = np.unique(observations.perts, return_inverse=True)
        labels = observations.labels.tocoo()
        n_genes = len(observations.genes)
        key = row_pert[labels.row].astype(np.int64) * n_genes + labels.col
        keys, place = np.unique(key, return_inverse=True)
        outcome = np.bincount(place, weights=labels.data) / np.bincount(place)
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
        """Position of each (perturbation, gene), -1 where it was not observed or one of the two is -1."""
        key = pert * len(self.genes) + gene
        return np.where((pert >= 0) & (gene >= 0), sorted_positions(self.keys, key), -1)


def sampled_scores(
    perts: np.ndarray,
    genes: np.ndarray,
    observed: ObservedPairs,
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
    Where one side is "any", draws are with replacement from all pairs of the other side.
    """
    sides = sides_of(perts, genes, observed, similarity, neighbours=neighbours)
    drawn = np.concatenate(draw_observations(perts, genes, observed, sides, budget=budget, seed=seed), axis=1)
    count = (drawn >= 0).sum(axis=1)
    total = np.where(drawn >= 0, observed.outcome[drawn], 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), observed.outcome.mean())


def sides_of(
    perts: np.ndarray,
    genes: np.ndarray,
    observed: ObservedPairs,
    similarity: GeneSimilarity,
    *,
    neighbours: int,
) -> dict[str, dict[str, np.ndarray]]:
    """Positions among the observed perturbations and genes that are near to each pair's two, and the same.

    Returns
    -------
    dict
        ``pert`` and ``gene``, each with ``near`` int64 [n_pairs, neighbours] and ``same`` [n_pairs, 1];
        -1 where there is none.
    """
    sides = {}
    for side, names, known in (("pert", perts, observed.perts), ("gene", genes, observed.genes)):
        unique, row = np.unique(names, return_inverse=True)
        near, same = _near_and_same(unique, known, similarity, neighbours)
        sides[side] = {"near": near[row], "same": same[row]}
    return sides


def draw_observations(
    perts: np.ndarray,
    genes: np.ndarray,
    observed: ObservedPairs,
    sides: dict[str, dict[str, np.ndarray]],
    *,
    budget: int,
    seed: int,
    categories: tuple | None = None,
) -> list[np.ndarray]:
    """Draw up to ``budget`` observed pairs of each category for each pair.

    Positions, int64 [n_pairs, <= budget] a category, -1 = none. ``categories`` are `CATEGORIES` unless given.
    The pair's two names, the category's number and ``seed`` settle every draw.
    """
    words = _question_words(perts, genes, seed)
    return [
        _draw_of_category(observed, sides, category, budget, _mix(words + np.uint64(number)))
        for number, category in enumerate(CATEGORIES if categories is None else categories)
    ]


def _draw_of_category(
    observed: ObservedPairs, sides: dict, category: tuple, budget: int, words: np.ndarray
) -> np.ndarray:
    """Draw up to ``budget`` observed pairs of one category for each pair, [n_pairs, budget], -1 = none."""
    if any("any" in kinds for kinds in category):
        spans = [_spans(observed, sides, *kinds) for kinds in category]
        starts, lengths = (np.concatenate(parts, axis=1) for parts in zip(*spans, strict=True))
        return _draw_from_spans(observed, starts, lengths, budget, words)
    candidates = np.concatenate([_candidates(observed, sides, *kinds) for kinds in category], axis=1)
    order = _mix(words[:, None] + _steps(candidates.shape[1]))
    order[candidates < 0] = np.iinfo(np.uint64).max
    chosen = np.argsort(order, axis=1, kind="stable")[:, :budget]
    return np.take_along_axis(candidates, chosen, axis=1)


def _candidates(observed: ObservedPairs, sides: dict, pert_kind: str, gene_kind: str) -> np.ndarray:
    """Observed pairs of every combination of a pair's perturbations and genes of these kinds [n_pairs, n]."""
    pert, gene = sides["pert"][pert_kind], sides["gene"][gene_kind]
    positions = observed.find(pert[:, :, None], gene[:, None, :])
    return positions.reshape(len(pert), pert.shape[1] * gene.shape[1])


def _spans(
    observed: ObservedPairs, sides: dict, pert_kind: str, gene_kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Start and length of the runs of observed pairs that a pair's perturbations, or genes, of a kind have.

    Starts of genes' runs are counted on from the last pair, to tell ``by_gene`` from ``keys``.
    """
    if gene_kind == "any":
        position, start, shift = sides["pert"][pert_kind], observed.pert_start, 0
    else:
        position, start, shift = sides["gene"][gene_kind], observed.gene_start, len(observed.keys)
    length = np.where(position >= 0, start[position + 1] - start[position], 0)
    return start[position] + shift, length


def _draw_from_spans(
    observed: ObservedPairs, starts: np.ndarray, lengths: np.ndarray, budget: int, words: np.ndarray
) -> np.ndarray:
    ends = np.cumsum(lengths, axis=1)
    total = ends[:, -1]
    position_of = np.concatenate([np.arange(len(observed.keys)), observed.by_gene])
    drawn = np.full((len(words), budget), -1, dtype=np.int64)
    some = np.flatnonzero(total > 0)
    for step in range(budget):
        pick = (_mix(words[some] + _steps(budget)[step]) % total[some].astype(np.uint64)).astype(np.int64)
        span = (ends[some] <= pick[:, None]).sum(axis=1)
        before = ends[some, span] - lengths[some, span]
        drawn[some, step] = position_of[starts[some, span] + pick - before]
    return drawn


def _near_and_same(
    names: np.ndarray, known: np.ndarray, similarity: GeneSimilarity, neighbours: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions in ``known`` of each name's near genes [n, neighbours] and of itself [n, 1]; -1 = none."""
    shared = similarity.between(names, known)
    row, column = same_names(names, known)
    shared[row, column] = 0
    near = np.argsort(-shared, axis=1, kind="stable")[:, :neighbours].astype(np.int64)
    near[np.take_along_axis(shared, near, axis=1) <= 0] = -1
    same = np.full((len(names), 1), -1, dtype=np.int64)
    same[row, 0] = column
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
