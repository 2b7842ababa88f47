"""Training rows of one task, apart by cell line, and what the other lines say of the perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from pydantic import Field

from storage.errors import InputError
from tasks.knowledge.graph import KnowledgeGraph
from tasks.predictors.kernels.gene_kernels import ALL, GeneKernels, source_features
from tasks.predictors.kernels.kernel_ridge import KernelRidge, RidgeOptions, pert_kernel
from tasks.predictors.kernels.observations import Observations
from tasks.predictors.options import Options
from tasks.predictors.protocol import OWN

# Programmes kept of each other line's responses.
PROGRAMMES = 40
DEFAULT_SOURCES = f"{ALL},string"


def by_line(task: str, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of each line, the predicted one (``own``) first, then by name.

    Raises
    ------
    InputError
        If the predicted line has no rows: other lines say how it differs from them only if it has.
    """
    lines = {str(source): rows.reset_index(drop=True) for source, rows in table.groupby("source", sort=True)}
    if OWN not in lines:
        raise InputError("training tables", [f"{task}: rows of other lines only ({', '.join(lines)})"])
    return {OWN: lines.pop(OWN)} | lines


@dataclass(frozen=True, eq=False)
class Line:
    """One line's observations of one task, and the regression fitted on them.

    Attributes
    ----------
    name
        ``own`` or the other line's name.
    observations
        Its rows.
    ridge
        Fitted on them.
    """

    name: str
    observations: Observations
    ridge: KernelRidge

    def state(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays, their names starting with ``prefix``."""
        state = self.observations.state(f"{prefix}_rows") | self.ridge.state(f"{prefix}_ridge")
        return state | {f"{prefix}_name": np.array(self.name)}

    @classmethod
    def from_state(cls, prefix: str, state: Mapping[str, np.ndarray], options: RidgeOptions) -> Self:
        """Build the line whose ``state`` lies in ``state``."""
        observations = Observations.from_state(f"{prefix}_rows", state)
        ridge = KernelRidge.from_state(f"{prefix}_ridge", state, options)
        return cls(str(state[f"{prefix}_name"]), observations, ridge)


@dataclass(frozen=True, eq=False)
class Programmes:
    """How alike two perturbations are by what they did in other lines.

    Each other line's regression says what a perturbation would do to each of that line's genes (or did, if
    it was observed there, smoothed); the leading singular vectors of these responses over the predicted
    line's perturbations are programmes of genes that respond together, and a perturbation's vector is how
    far it drives each. Only other lines' labels enter.

    Attributes
    ----------
    bases
        For each other line, float32 [n_genes, n_programmes], of a scale that gives lines equal weight.
    """

    bases: tuple[np.ndarray, ...]

    @classmethod
    def fit(cls, responses: Sequence[np.ndarray]) -> Self:
        """Take the programmes from the lines' responses, each [n_perts, n_genes of that line]."""
        from sklearn.utils.extmath import randomized_svd

        bases = []
        for number, response in enumerate(responses):
            count = max(1, min(PROGRAMMES, min(response.shape) - 1))
            # As for the genes' factors (`similarity`): the same start whatever the run's seed.
            state = int(np.random.default_rng([0, 2, number]).integers(2**31))
            _, values, right = randomized_svd(response, count, n_iter=3, random_state=state)
            scale = max(float(np.sqrt((values**2).sum())), 1e-12)
            bases.append((right.T / scale).astype(np.float32))
        return cls(tuple(bases))

    def vectors(self, responses: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors of unit length, float32 [n_perts, n_programmes of all lines]; 0 without any response."""
        parts = [response @ basis for response, basis in zip(responses, self.bases, strict=True)]
        vectors = np.hstack(parts).astype(np.float32)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


class SimilarityOptions(Options):
    """Options of the similarities and of the genes' rates."""

    gene_strength: float = Field(
        20.0, gt=0, description="Rows' worth of the line's rate in each gene's rate."
    )
    n_factors: int = Field(256, gt=0, description="Singular vectors in the similarity by everything known.")
    sources: str = Field(
        DEFAULT_SOURCES,
        min_length=1,
        description="Similarities whose mean is the perturbations' kernel in the regression, with commas "
        "between. Of the default ones, those that the knowledge at hand does not have are left out.",
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The similarities of perturbations by name."""
        return tuple(name.strip() for name in self.sources.split(","))


class LineKernels:
    """Kernels between perturbations: by knowledge and, where there are other lines, by what these learnt.

    Parameters
    ----------
    gene_kernels
        Similarities of genes.
    sources
        Those whose mean is the similarity of perturbations.
    options
        The regressions' options.
    """

    def __init__(self, gene_kernels: GeneKernels, sources: tuple[str, ...], options: RidgeOptions):
        self.gene_kernels, self.sources, self.options = gene_kernels, sources, options

    @classmethod
    def build(
        cls, graph: KnowledgeGraph, similarity: SimilarityOptions, ridge: RidgeOptions, *, every: bool
    ) -> Self:
        """Make the similarities of a graph: those of the options, or ``every`` one that it has.

        Raises
        ------
        InputError
            If the options name one that cannot be made of this graph.
        """
        names = similarity.names
        gene_kernels = GeneKernels.build(
            graph, sources=None if every else names, n_factors=similarity.n_factors
        )
        missing = [repr(name) for name in names if name not in gene_kernels.sources]
        if missing and similarity.sources != DEFAULT_SOURCES:
            there = ", ".join([ALL, *source_features(graph)])
            raise InputError("sources", [f"no similarity {' or '.join(missing)} in the knowledge: {there}"])
        return cls(gene_kernels, names, ridge)

    def fit_line(
        self, name: str, rows: pd.DataFrame, *, gene_strength: float, learnt: Learnt | None = None
    ) -> Line:
        """Arrange one line's rows as observations and fit the regression on them."""
        observations = Observations.build(rows.assign(source=OWN), gene_strength=gene_strength)
        kernel = self.kernel(observations.perts, observations.perts, learnt)
        vectors = self.gene_kernels.vectors(observations.genes, self.options.gene_factors)
        return Line(name, observations, KernelRidge.fit(observations, kernel, vectors, self.options))

    def kernel(self, perts: np.ndarray, others: np.ndarray, learnt: Learnt | None = None) -> np.ndarray:
        """The perturbations' part of the regressions' kernel, float32 [n_perts, n_others]."""
        similarity = self.gene_kernels.mixed(perts, others, self.sources)
        by_programme = None if learnt is None else learnt.between(perts, others)
        return pert_kernel(similarity, perts, others, self.options, learnt=by_programme)

    def scores(self, line: Line, kernel: np.ndarray, genes: np.ndarray) -> np.ndarray:
        """The line's regression for perturbations with that ``kernel`` to the line's, and any genes."""
        return line.ridge.scores(kernel, genes, self.gene_kernels.vectors(genes, self.options.gene_factors))

    def responses(self, others: Sequence[Line], perts: np.ndarray) -> list[np.ndarray]:
        """What perturbations would do to all genes of each other line, float32 [n_perts, n_genes] each."""
        return [
            line.ridge.scores(self.kernel(perts, line.ridge.perts), line.ridge.genes, line.ridge.vectors)
            for line in others
        ]


@dataclass(frozen=True, eq=False)
class Learnt:
    """Similarity of perturbations learnt from other lines, for those whose vectors are at hand.

    Attributes
    ----------
    perts
        Sorted names.
    vectors
        float32 [n_perts, n_programmes], unit length.
    """

    perts: np.ndarray
    vectors: np.ndarray

    def between(self, perts: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Cosine of the vectors, 0 where it is negative; all names must be among ``perts``."""
        rows, columns = np.searchsorted(self.perts, perts), np.searchsorted(self.perts, others)
        return np.maximum(self.vectors[rows] @ self.vectors[columns].T, 0)

    def joined(self, other: Learnt) -> Learnt:
        """With the vectors of further perturbations."""
        perts, first = np.unique(np.concatenate([self.perts, other.perts]), return_index=True)
        return Learnt(perts, np.vstack([self.vectors, other.vectors])[first])
