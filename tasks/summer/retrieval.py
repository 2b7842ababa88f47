"""The observations shown with each question, drawn as the Retrieval predictor's sampled form draws them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import pandas as pd

from storage.atomic import atomic_path
from tasks.knowledge.graph import KnowledgeGraph
from tasks.predictors.kernels.observations import Observations
from tasks.predictors.kernels.sampled_retrieval import CATEGORIES, ObservedPairs, draw_observations, sides_of
from tasks.predictors.kernels.similarity import GeneSimilarity
from tasks.predictors.protocol import OWN

#: The class of observations that depends on the perturbation alone: a near one, any gene.
OF_PERTURBATION = (("near", "any"),)


class Category(IntEnum):
    """Positions in `CATEGORIES`: how near the pairs of a category are to the question."""

    SAME_AND_NEAR = 0
    BOTH_NEAR = 1
    SAME_AND_ANY = 2
    NEAR_AND_ANY = 3


class Kind(IntEnum):
    """The classes of observations in the order in which a prompt shows them, nearest first."""

    SAME_GENE_NEAR_PERT = 0
    NEAR_GENE_SAME_PERT = 1
    NEAR_GENE_NEAR_PERT = 2
    SAME_GENE_ANY_PERT = 3
    ANY_GENE_SAME_PERT = 4
    ANY_GENE_NEAR_PERT = 5
    NEAR_GENE_ANY_PERT = 6


#: What each class is called in a prompt.
TITLES = {
    Kind.SAME_GENE_NEAR_PERT: "{gene} itself, after knock-downs of genes related to {pert}:",
    Kind.NEAR_GENE_SAME_PERT: "Genes related to {gene}, after the knock-down of {pert} itself:",
    Kind.NEAR_GENE_NEAR_PERT: "Genes related to {gene}, after knock-downs of genes related to {pert}:",
    Kind.SAME_GENE_ANY_PERT: "{gene} itself, after other knock-downs:",
    Kind.ANY_GENE_SAME_PERT: "Other genes, after the knock-down of {pert} itself:",
    Kind.ANY_GENE_NEAR_PERT: "Other genes, after knock-downs of genes related to {pert}:",
    Kind.NEAR_GENE_ANY_PERT: "Genes related to {gene}, after other knock-downs:",
}


class Seen(NamedTuple):
    """One observed pair; ``outcome`` is its label."""

    pert: str
    gene: str
    outcome: int


@dataclass(frozen=True, eq=False)
class Retrieved:
    """Observations of many questions, some 100 bytes each.

    Attributes
    ----------
    seen_perts, seen_genes, outcomes
        Names and label of every observed pair of the cell line, [n_observed] each.
    drawn
        int32 [n_questions, n_slots]: which observed pair stands in a slot, -1 where it is empty; no pair
        twice.
    kinds
        int8 [n_questions, n_slots]: the `Kind` of each.
    shared
        int32 [n_questions, budget]: observations drawn once for the perturbation; no columns where all are
        drawn for the question.
    """

    seen_perts: np.ndarray
    seen_genes: np.ndarray
    outcomes: np.ndarray
    drawn: np.ndarray
    kinds: np.ndarray
    shared: np.ndarray

    def groups(self, question: int, pert: str, gene: str) -> list[tuple[str, list[Seen]]]:
        """The question's observations by class: title and pairs, classes without any left out."""
        by_kind: dict[Kind, list[Seen]] = {}
        for kind, pair in zip(self.kinds[question].tolist(), self.drawn[question].tolist(), strict=True):
            if pair >= 0:
                by_kind.setdefault(Kind(kind), []).append(self._seen(pair))
        return [(TITLES[kind].format(pert=pert, gene=gene), by_kind[kind]) for kind in sorted(by_kind)]

    def of_perturbation(self, question: int) -> list[Seen]:
        """The observations that all questions about this question's perturbation share."""
        return [self._seen(pair) for pair in self.shared[question].tolist() if pair >= 0]

    def table(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """One row an observation: the question's ``pert`` and ``gene``, then what was seen and its class."""
        of_pert = np.full(self.shared.shape, Kind.ANY_GENE_NEAR_PERT, np.int8)
        drawn = np.concatenate([self.shared, self.drawn], axis=1)
        question, slot = np.nonzero(drawn >= 0)
        seen = drawn[question, slot]
        return pd.DataFrame(
            {
                "pert": pairs["pert"].to_numpy()[question],
                "gene": pairs["gene"].to_numpy()[question],
                "kind": np.concatenate([of_pert, self.kinds], axis=1)[question, slot],
                "seen_pert": self.seen_perts[seen].astype(object),
                "seen_gene": self.seen_genes[seen].astype(object),
                "outcome": self.outcomes[seen],
            }
        )

    def save(self, path: Path) -> None:
        """Write all arrays to one file."""
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez_compressed(handle, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file that `save` wrote."""
        with np.load(path) as arrays:
            return cls(**arrays)

    def _seen(self, pair: int) -> Seen:
        return Seen(str(self.seen_perts[pair]), str(self.seen_genes[pair]), int(self.outcomes[pair]))


def retrieve(
    pairs: pd.DataFrame,
    training: pd.DataFrame,
    graph: KnowledgeGraph,
    *,
    neighbours: int = 10,
    budget: int = 5,
    seed: int = 0,
    nearness: Literal["shared", "kernel"] = "shared",
    draw_for: Literal["question", "perturbation"] = "question",
) -> Retrieved:
    """Draw each question's observations from the training rows of its own cell line.

    Parameters
    ----------
    pairs
        The questions, ``pert`` and ``gene``.
    training
        ``pert``, ``gene``, ``label``: what was observed.
    neighbours, budget
        Near genes a side, and observations a category, as in Wu et al. 2025.
    nearness
        ``shared``: number of graph neighbours in common (the paper's); ``kernel``: the graph kernel of the
        weighted Retrieval predictor.
    draw_for
        ``question``: all draws are seeded by the question (the paper's). ``perturbation``: observations of
        near perturbations with any gene are drawn once for the perturbation, so that all its questions
        begin alike and an engine computes that beginning once.
    """
    rows = training.assign(source=OWN)[["pert", "gene", "label", "source"]]
    rows = rows.sort_values(["pert", "gene"], kind="stable")
    observed = ObservedPairs.build(Observations.build(rows, gene_strength=1.0))
    kind = "shared" if nearness == "shared" else "cosine"
    similarity = GeneSimilarity.build(graph, kind=kind)
    perts, genes = (pairs[column].to_numpy(dtype=str) for column in ("pert", "gene"))
    sides = sides_of(perts, genes, observed, similarity, neighbours=neighbours)
    draw = partial(draw_observations, observed=observed, sides=sides, budget=budget, seed=seed)
    parts, shared = _drawn(perts, genes, draw=draw, by_pert=draw_for == "perturbation")
    drawn = _each_once(np.concatenate(parts, axis=1), shared)
    # A question that is itself among the training rows is not shown its own answer.
    own = observed.find(sides["pert"]["same"][:, 0], sides["gene"]["same"][:, 0])[:, None]
    drawn, shared = (np.where(found == own, -1, found) for found in (drawn, shared))
    numbers = np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])
    kinds = _kinds(drawn, numbers, observed=observed, sides=sides, by_pert=draw_for == "question")
    pert, gene = np.divmod(observed.keys, len(observed.genes))
    return Retrieved(
        seen_perts=observed.perts[pert],
        seen_genes=observed.genes[gene],
        outcomes=np.rint(observed.outcome).astype(np.int8),
        drawn=drawn.astype(np.int32),
        kinds=kinds,
        shared=shared.astype(np.int32),
    )


def _drawn(
    perts: np.ndarray, genes: np.ndarray, *, draw: Callable[..., list[np.ndarray]], by_pert: bool
) -> tuple[list[np.ndarray], np.ndarray]:
    """Observed pairs drawn for each question by category, and those drawn once for its perturbation.

    ``draw`` is `draw_observations`, given all but the pairs and the categories.
    """
    nothing = np.full((len(perts), 0), -1, dtype=np.int64)
    if not by_pert:
        return draw(perts, genes), nothing
    parts = draw(perts, genes, categories=(*CATEGORIES[:-1], (("any", "near"),)))
    # Without the gene's name in the seed, all questions about a perturbation draw the same.
    (of_pert,) = draw(perts, np.full(len(perts), ""), categories=(OF_PERTURBATION,))
    return parts, _each_once(of_pert, nothing)


def _each_once(drawn: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Empty the slots of pairs that stand further left in the row, or in ``taken``."""
    drawn = drawn.copy()
    for slot in range(drawn.shape[1]):
        before = np.concatenate([taken, drawn[:, :slot]], axis=1)
        drawn[(before == drawn[:, slot : slot + 1]).any(axis=1), slot] = -1
    return drawn


def _kinds(
    drawn: np.ndarray,
    categories: np.ndarray,
    *,
    observed: ObservedPairs,
    sides: dict[str, dict[str, np.ndarray]],
    by_pert: bool,
) -> np.ndarray:
    """Which `Kind` each drawn pair is of, int8 like ``drawn``; ``categories`` are those of its columns."""
    pert, gene = np.divmod(observed.keys[drawn], len(observed.genes))
    same_gene = gene == sides["gene"]["same"]
    # A pair near on both sides may be drawn by way of either; it is named by its perturbation, unless those
    # are drawn for the perturbation alone.
    near_pert = (pert[:, :, None] == sides["pert"]["near"][:, None, :]).any(axis=2) & by_pert
    kinds = np.full(drawn.shape, Kind.NEAR_GENE_NEAR_PERT, dtype=np.int8)
    for category, told_by, kind, other in (
        (Category.SAME_AND_NEAR, same_gene, Kind.SAME_GENE_NEAR_PERT, Kind.NEAR_GENE_SAME_PERT),
        (Category.SAME_AND_ANY, same_gene, Kind.SAME_GENE_ANY_PERT, Kind.ANY_GENE_SAME_PERT),
        (Category.NEAR_AND_ANY, near_pert, Kind.ANY_GENE_NEAR_PERT, Kind.NEAR_GENE_ANY_PERT),
    ):
        columns = categories == category
        kinds[:, columns] = np.where(told_by, kind, other)[:, columns]
    return kinds


def blocks_of_perturbations(perts: np.ndarray, most: int) -> Iterator[range]:
    """Runs of questions about one perturbation, at most ``most`` each; ``perts`` must be grouped."""
    changes = (np.flatnonzero(perts[1:] != perts[:-1]) + 1).tolist()
    for start, end in itertools.pairwise([0, *changes, len(perts)]):
        for first in range(start, end, most):
            yield range(first, min(first + most, end))
