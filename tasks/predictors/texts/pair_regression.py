"""Logistic regression on pairs of vectors, without a matrix of pairs.

A pair's features are the perturbation's vector, the gene's vector and, if asked for, their element-wise
product, each standardised over the training rows. There are a few thousand perturbations and genes and some
hundred thousand pairs: what is linear in one vector is computed once for it, and the products as a matrix
product of the two tables. So a step takes the memory of the tables, not of the pairs times the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit

#: Fields that are arrays; with a prefix, their names in a state.
PARTS = ("pert_mean", "pert_scale", "gene_mean", "gene_scale", "pert", "gene", "product", "intercept")
MOST_STEPS = 500
#: Standard deviations below it are rounding: such a dimension is constant and says nothing.
CONSTANT = 1e-8

#: Two tables of vectors, and two columns of row numbers into them: perturbations first, then genes.
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class PairRegression:
    """A fitted regression.

    Attributes
    ----------
    pert_mean, pert_scale, gene_mean, gene_scale
        float64 (n_dimensions,): subtracted from the vectors, and what they are divided by.
    pert, gene, product
        float64 (n_dimensions,): weights of the standardised vectors and of their product (zero where that is
        not used); the products' own mean and scale are in them and in the intercept.
    intercept
        float64 ().
    """

    pert_mean: np.ndarray
    pert_scale: np.ndarray
    gene_mean: np.ndarray
    gene_scale: np.ndarray
    pert: np.ndarray
    gene: np.ndarray
    product: np.ndarray
    intercept: np.ndarray

    @classmethod
    def fit(cls, vectors: Pair, rows: Pair, label: np.ndarray, *, product: bool, strength: float) -> Self:
        """Minimise the log loss plus half the squared weights divided by ``strength``, as scikit-learn does.

        Parameters
        ----------
        vectors
            Of the perturbations (n_perts, n_dimensions) and of the genes (n_genes, n_dimensions).
        rows
            Which perturbation and which gene each training row is about, int (n_rows,) each.
        label
            0 or 1, (n_rows,).
        product
            Whether the element-wise product is a feature too.
        strength
            Scikit-learn's ``C``: the smaller, the more the weights are held back.
        """
        shape = (len(vectors[0]), len(vectors[1]))
        count = sparse.csr_array((np.ones(len(label)), rows), shape=shape)
        pert, pert_mean, pert_scale = _standardised(vectors[0], count.sum(axis=1))
        gene, gene_mean, gene_scale = _standardised(vectors[1], count.sum(axis=0))
        mean, scale = _product_moments(pert, gene, count)
        if not product:
            # An infinitely wide feature has weight zero.
            scale = np.full_like(scale, np.inf)
        problem = _Problem(pert, gene, rows, label, mean, scale, strength)
        options = {"maxiter": MOST_STEPS, "gtol": 1e-6, "ftol": 1e-12}
        start = np.zeros(3 * len(mean) + 1)
        optimum = minimize(problem.loss, start, jac=True, method="L-BFGS-B", options=options)
        *weights, intercept = problem.unpacked(optimum.x)
        return cls(pert_mean, pert_scale, gene_mean, gene_scale, *weights, np.asarray(intercept))

    def logits(self, vectors: Pair, rows: Pair) -> np.ndarray:
        """Log odds of pairs, float64 (n_rows,); vectors and rows as in `fit`."""
        pert = (vectors[0] - self.pert_mean) / self.pert_scale
        gene = (vectors[1] - self.gene_mean) / self.gene_scale
        return _logits(pert, gene, rows, (self.pert, self.gene, self.product)) + self.intercept

    def state(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays, their names starting with ``prefix``."""
        return {f"{prefix}_{part}": getattr(self, part) for part in PARTS}

    @classmethod
    def from_state(cls, prefix: str, state: Mapping[str, np.ndarray]) -> Self:
        """Build the regression whose ``state`` lies in ``state``."""
        return cls(**{part: np.asarray(state[f"{prefix}_{part}"]) for part in PARTS})


@dataclass(frozen=True, eq=False)
class _Problem:
    """What is minimised, over the weights of perturbation, gene and product and the intercept, end to end."""

    pert: np.ndarray
    gene: np.ndarray
    rows: Pair
    label: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    strength: float

    def unpacked(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """The three kinds of weights and the intercept, the products' mean and scale worked into them."""
        pert, gene, product = np.split(weights[:-1], 3)
        product = product / self.scale
        return pert, gene, product, weights[-1] - np.sum(product * self.mean)

    def loss(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Penalised log loss a row, and its gradient."""
        *parts, intercept = self.unpacked(weights)
        logit = _logits(self.pert, self.gene, self.rows, parts) + intercept
        penalty = weights[:-1] / self.strength
        value = np.logaddexp(0, logit).sum() - logit[self.label == 1].sum() + penalty @ weights[:-1] / 2
        error = expit(logit) - self.label
        shape = (len(self.pert), len(self.gene))
        by_pair = sparse.csr_array((error, self.rows), shape=shape)
        products = (self.pert * (by_pair @ self.gene)).sum(axis=0) if np.isfinite(self.scale).any() else 0
        gradient = [
            by_pair.sum(axis=1) @ self.pert,
            by_pair.sum(axis=0) @ self.gene,
            (products - error.sum() * self.mean) / self.scale,
        ]
        whole = np.append(np.concatenate(gradient) + penalty, error.sum())
        return value / len(error), whole / len(error)


def _standardised(table: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors with mean 0 and variance 1 over the training rows, and what made them so."""
    table = np.asarray(table, dtype=np.float64)
    mean = np.average(table, axis=0, weights=count)
    deviation = np.sqrt(np.average((table - mean) ** 2, axis=0, weights=count))
    scale = np.where(deviation > CONSTANT, deviation, 1.0)
    return (table - mean) / scale, mean, scale


def _product_moments(
    pert: np.ndarray, gene: np.ndarray, count: sparse.csr_array
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the rows of the standardised vectors' products."""
    mean = (pert * (count @ gene)).sum(axis=0) / count.sum()
    square = (pert**2 * (count @ gene**2)).sum(axis=0) / count.sum()
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return mean, np.where(deviation > CONSTANT, deviation, 1.0)


def _logits(pert: np.ndarray, gene: np.ndarray, rows: Pair, weights) -> np.ndarray:
    of_pert, of_gene, of_product = weights
    logit = (pert @ of_pert)[rows[0]] + (gene @ of_gene)[rows[1]]
    if of_product.any():
        logit += ((pert * of_product) @ gene.T)[rows]
    return logit
