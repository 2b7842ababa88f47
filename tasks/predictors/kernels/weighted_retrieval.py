"""All observations near a question, weighted by how near they are."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from scipy import sparse

from tasks.predictors.kernels.observations import Observations
from tasks.predictors.kernels.similarity import GeneSimilarity, nearest, same_names
from tasks.predictors.options import Options


class Weights(Options):
    """How much an observation counts."""

    near_perts: int = Field(
        200, gt=0, description="How many training perturbations, the most similar ones, are looked at."
    )
    near_genes: int = Field(40, gt=0, description="The same of genes.")
    pert_power: float = Field(
        2.0,
        ge=0,
        description="An observation's weight is the product of the similarity of the perturbations to this "
        "power and of the genes' to theirs.",
    )
    gene_power: float = Field(4.0, ge=0, description="To which the similarity of the genes is raised.")
    same_pert: float = Field(
        5.0,
        ge=0,
        description="Weight of the very same perturbation (seen in another line), where similarity alone "
        "would give 1.",
    )
    same_gene: float = Field(2.0, ge=0, description="Weight of the very same gene, likewise.")
    other_line: float = Field(0.3, ge=0, description="Factor on the weight of another line's observations.")
    shrinkage: float = Field(
        1.0, gt=0, description="Weight's worth of 'no different from the gene's rate' mixed into every mean."
    )
    response: float = Field(0.5, ge=0, description="Weight of the near perturbations' overall response rate.")
    response_rows: float = Field(
        1.0, ge=0, description="Rows' worth of 'no response' mixed into each perturbation's response rate."
    )


def weighted_scores(
    perts: np.ndarray,
    genes: np.ndarray,
    observations: Observations,
    similarity: GeneSimilarity,
    weights: Weights,
) -> np.ndarray:
    """Score every one of ``perts`` with every one of ``genes``, float64 [n_perts, n_genes].

    The score is the gene's rate, plus the weighted mean over near observations (near perturbation and
    the same or a near gene) of outcome minus rate, plus the near perturbations' mean response, that is
    the mean over all their genes of outcome minus rate.

    ``perts`` and ``genes`` are without repeats.
    """
    of_pert = _pert_weights(perts, observations, similarity, weights)
    of_gene = _gene_weights(genes, observations, similarity, weights)
    total = (of_pert @ observations.residuals).toarray() @ of_gene.T
    weight = (of_pert @ observations.observed).toarray() @ of_gene.T
    rows = np.asarray(observations.observed.sum(axis=1)).ravel()
    response = np.asarray(observations.residuals.sum(axis=1)).ravel() / (rows + weights.response_rows)
    pert_weight = np.asarray(of_pert.sum(axis=1)).ravel()
    offset = np.divide(of_pert @ response, pert_weight, out=np.zeros(len(perts)), where=pert_weight > 0)
    base = np.full(len(genes), observations.overall)
    row, column = same_names(genes, observations.genes)
    base[row] = observations.base[column]
    return base + total / (weight + weights.shrinkage) + weights.response * offset[:, None]


def _pert_weights(
    perts: np.ndarray, observations: Observations, similarity: GeneSimilarity, weights: Weights
) -> sparse.csr_array:
    """Weight of each row of the observations for each perturbation asked about."""
    names, row_name = np.unique(observations.perts, return_inverse=True)
    near = nearest(similarity.between(perts, names), weights.near_perts).astype(np.float64)
    near **= weights.pert_power
    same, column = same_names(perts, names)
    near[same, column] *= weights.same_pert
    line = np.where(observations.own, 1.0, weights.other_line)
    return sparse.csr_array(near[:, row_name] * line)


def _gene_weights(
    genes: np.ndarray, observations: Observations, similarity: GeneSimilarity, weights: Weights
) -> sparse.csr_array:
    """Weight of each column of the observations for each gene asked about."""
    near = nearest(similarity.between(genes, observations.genes), weights.near_genes).astype(np.float64)
    near **= weights.gene_power
    same, column = same_names(genes, observations.genes)
    near[same, column] *= weights.same_gene
    return sparse.csr_array(near)
