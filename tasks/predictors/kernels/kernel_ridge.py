"""Kernel ridge regression on pairs: near perturbations move near genes alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic import Field
from scipy import sparse

from tasks.predictors.arrays import csr_from_state, csr_state
from tasks.predictors.kernels.observations import Observations
from tasks.predictors.kernels.similarity import same_names
from tasks.predictors.options import Options


class RidgeOptions(Options):
    """Shape of the kernel, and how strongly it is held back.

    The kernel of two pairs is the product of a perturbation's part (``pert_kernel``) and a gene's part: 1
    for the very same gene plus ``near_gene`` times the cosine of the genes' vectors plus ``any_gene``.
    """

    power: float = Field(
        2.0, ge=0, description="To which similarity of perturbations by knowledge is raised."
    )
    same_pert: float = Field(
        0.5,
        ge=0,
        description="Added for the very same perturbation, which matters where the one asked about was "
        "observed in another line.",
    )
    near_gene: float = Field(0.5, ge=0, description="Weight of the cosine of two genes' vectors.")
    any_gene: float = Field(0.03, ge=0, description="Added for any two genes.")
    ridge: float = Field(
        2.0,
        gt=0,
        description="Added to the kernel's diagonal: variance of an outcome that no kernel explains.",
    )
    gene_factors: int = Field(128, gt=0, description="Length of the genes' vectors.")
    steps: int = Field(
        15, gt=0, description="Of conjugate gradients; so few that they hold back as the ridge does."
    )


@dataclass(frozen=True, eq=False)
class KernelRidge:
    """Fitted on one line's observations of one task.

    Attributes
    ----------
    perts, genes
        The observed perturbations [n_perts] and genes [n_genes].
    vectors
        float32 [n_genes, gene_factors]: the genes' vectors.
    weights
        CSR float32 [n_perts, n_genes]: the coefficient of each observed pair.
    options
        The kernel's shape.
    """

    perts: np.ndarray
    genes: np.ndarray
    vectors: np.ndarray
    weights: sparse.csr_array
    options: RidgeOptions

    @classmethod
    def fit(
        cls,
        observations: Observations,
        kernel: np.ndarray,
        vectors: np.ndarray,
        options: RidgeOptions,
    ) -> Self:
        """Solve (K + ridge) weights = residuals by conjugate gradients (Hestenes & Stiefel 1952).

        The kernel matrix of all pairs is never made: it is applied to a matrix of perturbations x genes
        from both sides (the "vec trick" for Kronecker kernels), at 2 n_perts^2 n_genes multiplications.

        Parameters
        ----------
        observations
            Of one line.
        kernel
            The perturbations' part, of the observed ones to each other, float32 [n_perts, n_perts].
        vectors
            Of its genes, float32 [n_genes, gene_factors].
        options
            The genes' part and the ridge.
        """
        residuals = observations.residuals.tocoo()
        rows, columns = residuals.row, residuals.col
        dense = np.zeros(residuals.shape, dtype=np.float32)

        def apply(values: np.ndarray) -> np.ndarray:
            dense[rows, columns] = values
            spread = kernel @ dense
            mixed = spread + options.near_gene * ((spread @ vectors) @ vectors.T)
            mixed += options.any_gene * spread.sum(axis=1, keepdims=True)
            return mixed[rows, columns] + options.ridge * values

        weights = _conjugate_gradients(apply, residuals.data, options.steps)
        matrix = sparse.csr_array((weights, (rows, columns)), shape=residuals.shape)
        return cls(observations.perts, observations.genes, vectors, matrix, options)

    def scores(self, kernel: np.ndarray, genes: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Expected outcome minus the gene's rate, float32 [n_asked_perts, n_asked_genes].

        Parameters
        ----------
        kernel
            The perturbations' part, of those asked about to those observed, [n_asked_perts, n_perts].
        genes
            Those asked about, without repeats.
        vectors
            Of the genes asked about, float32 [n_asked_genes, gene_factors].
        """
        spread = kernel @ self.weights
        scores = self.options.near_gene * ((spread @ self.vectors) @ vectors.T)
        scores += self.options.any_gene * spread.sum(axis=1, keepdims=True)
        asked, observed = same_names(genes, self.genes)
        scores[:, asked] += spread[:, observed]
        return scores

    def strengths(self, kernel: np.ndarray) -> np.ndarray:
        """Sum over the observed genes of what near perturbations do to each, float32 [n_asked_perts].

        ``kernel`` is as in ``scores``.
        """
        return kernel @ np.asarray(self.weights.sum(axis=1)).ravel()

    def state(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays, their names starting with ``prefix``; the options are kept by the predictor."""
        plain = {f"{prefix}_{name}": getattr(self, name) for name in ("perts", "genes", "vectors")}
        return plain | csr_state(f"{prefix}_weights", self.weights)

    @classmethod
    def from_state(cls, prefix: str, state: Mapping[str, np.ndarray], options: RidgeOptions) -> Self:
        """Build the regression whose ``state`` lies in ``state``."""
        plain = {name: np.asarray(state[f"{prefix}_{name}"]) for name in ("perts", "genes", "vectors")}
        return cls(**plain, weights=csr_from_state(f"{prefix}_weights", state), options=options)


def pert_kernel(
    similarity: np.ndarray,
    perts: np.ndarray,
    others: np.ndarray,
    options: RidgeOptions,
    *,
    learnt: np.ndarray | None = None,
) -> np.ndarray:
    """The perturbations' part of the kernel, float32 [n_perts, n_others].

    Similarity by knowledge to ``options.power``, plus its product with the similarity learnt from other
    lines where there is one, plus ``options.same_pert`` for the very same perturbation.
    """
    similarity = np.asarray(similarity, dtype=np.float32)
    kernel = similarity ** np.float32(options.power)
    if learnt is not None:
        kernel += similarity * learnt
    same, column = same_names(perts, others)
    kernel[same, column] += np.float32(options.same_pert)
    return kernel


def _conjugate_gradients(
    apply: Callable[[np.ndarray], np.ndarray], right: np.ndarray, steps: int, tolerance: float = 1e-3
) -> np.ndarray:
    """Solve ``apply(x) = right`` for a symmetric positive definite ``apply``, by at most ``steps`` steps."""
    solution = np.zeros_like(right)
    left_over = right.copy()
    direction = left_over.copy()
    size = start = float(left_over @ left_over)
    for _ in range(steps):
        if size <= tolerance**2 * start or size == 0:
            break
        image = apply(direction)
        step = np.float32(size / float(direction @ image))
        solution += step * direction
        left_over -= step * image
        new = float(left_over @ left_over)
        direction = left_over + np.float32(new / size) * direction
        size = new
    return solution
