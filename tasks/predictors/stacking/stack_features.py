"""What is known of a pair before its outcome: retrieval scores of several widths and sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.predictors.kernels.gene_kernels import ALL, GeneKernels
from tasks.predictors.kernels.line_models import LineModels
from tasks.predictors.kernels.lines import Learnt, Line, LineKernels
from tasks.predictors.kernels.observations import Observations
from tasks.predictors.kernels.similarity import nearest, same_names

# Near perturbations looked at, and the power of their similarity; narrow ones follow the nearest few.
WIDTHS_ALL = ((10, 1), (50, 2), (200, 2), (10**6, 1), (10**6, 4))
WIDTHS_SOURCE = ((30, 1), (200, 2))
WIDTHS_LEARNT = ((50, 2), (200, 2))
# Scores of these widths are also smoothed over near genes.
SMOOTHED = ((10, 1), (50, 2), (200, 2))
NEAR_GENES, GENE_POWER, SAME_GENE = 60, 4, 2.0
PERT_FACTORS, GENE_FACTORS = 24, 12


@dataclass(frozen=True, eq=False)
class Asked:
    """Pairs, by their perturbations and genes.

    Attributes
    ----------
    perts, genes
        Sorted, without repeats.
    row, column
        int64 [n_pairs]: positions in ``perts`` and ``genes``.
    """

    perts: np.ndarray
    genes: np.ndarray
    row: np.ndarray
    column: np.ndarray

    @classmethod
    def build(cls, pairs: pd.DataFrame) -> Self:
        """Index the columns ``pert`` and ``gene``."""
        perts, row = np.unique(pairs["pert"].to_numpy(dtype=str), return_inverse=True)
        genes, column = np.unique(pairs["gene"].to_numpy(dtype=str), return_inverse=True)
        return cls(perts, genes, row, column)


def features_of(pairs: pd.DataFrame, models: LineModels, kernels: LineKernels) -> pd.DataFrame:
    """All features of pairs, float32, indexed as ``pairs``; the columns depend on the lines and sources.

    The predicted line's observations must not hold any of the perturbations asked about.
    """
    asked = Asked.build(pairs)
    learnt = models.taught(kernels, asked.perts)
    features = own_features(asked, models.own, kernels, learnt) | pair_features(asked, kernels.gene_kernels)
    if models.others:
        by_line = [other_features(asked, line, kernels) for line in models.others]
        features |= features_of_lines(features["ridge"], by_line)
    columns = {name: np.asarray(values, dtype=np.float32) for name, values in features.items()}
    return pd.DataFrame(columns, index=pairs.index)


def own_features(
    asked: Asked, line: Line, kernels: LineKernels, learnt: Learnt | None
) -> dict[str, np.ndarray]:
    """Features from the line's own observations: rates, the regression, retrieval by each similarity."""
    observations = line.observations
    features = _rates(asked, observations) | ridge_features(asked, line, kernels, learnt)
    retrieval = Retrieval.build(asked, observations, kernels.gene_kernels)
    for source in kernels.gene_kernels.sources:
        near = kernels.gene_kernels.by_source[source].between(asked.perts, observations.perts)
        if source == ALL:
            ordered = np.sort(near, axis=1)
            features["nearest"] = ordered[asked.row, -1]
            features["ten_nearest"] = ordered[:, -10:].mean(axis=1)[asked.row]
        widths = WIDTHS_ALL if source == ALL else WIDTHS_SOURCE
        features |= retrieval.features(source, near, widths)
        if source == ALL and learnt is not None:
            by_programme = learnt.between(asked.perts, observations.perts)
            features |= retrieval.features("learnt", by_programme, WIDTHS_LEARNT)
            features |= retrieval.features("both", by_programme * near, WIDTHS_LEARNT)
    return features


def ridge_features(
    asked: Asked, line: Line, kernels: LineKernels, learnt: Learnt | None = None
) -> dict[str, np.ndarray]:
    """What a line's regression says of each pair, and of its perturbation over all genes."""
    kernel = kernels.kernel(asked.perts, line.ridge.perts, learnt)
    scores = kernels.scores(line, kernel, asked.genes)
    strength = line.ridge.strengths(kernel)
    return {"ridge": scores[asked.row, asked.column], "ridge_strength": strength[asked.row]}


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Weighted means of a line's observations, by any similarity of perturbations.

    Attributes
    ----------
    asked, observations
        The pairs, and what was observed.
    place
        int64 [n_pairs]: the gene's column in the observations, -1 where it has none.
    smoother
        CSR [n_observed_genes, n_asked_genes]: weight of each observed gene for each gene asked about.
    response
        Each observed perturbation's overall response.
    """

    asked: Asked
    observations: Observations
    place: np.ndarray
    smoother: sparse.csr_array
    response: np.ndarray

    @classmethod
    def build(cls, asked: Asked, observations: Observations, kernels: GeneKernels) -> Self:
        """Prepare what does not depend on the similarity of perturbations."""
        place = _places(asked.genes, observations.genes)[asked.column]
        smoother = _gene_smoother(asked.genes, observations.genes, kernels)
        return cls(asked, observations, place, smoother, _responses(observations))

    def features(
        self, source: str, near: np.ndarray, widths: tuple[tuple[int, int], ...]
    ) -> dict[str, np.ndarray]:
        """Scores for the gene itself and smoothed over near genes, and overall responses, by width."""
        row, known, features = self.asked.row, np.maximum(self.place, 0), {}
        for count, power in widths:
            name = f"{source}_{count}_{power}"
            weights = nearest(near, count) ** power
            total = np.asarray(weights @ self.observations.residuals)
            weight = np.asarray(weights @ self.observations.observed)
            score = total[row, known] / (weight[row, known] + 1)
            features[name] = np.where(self.place >= 0, score, 0)
            sums = np.maximum(weights.sum(axis=1), 1e-6)
            features[f"{name}_response"] = ((weights @ self.response) / sums)[row]
            if (count, power) in SMOOTHED:
                smoothed = (total @ self.smoother) / (weight @ self.smoother + 1)
                features[f"{name}_smoothed"] = smoothed[row, self.asked.column]
        return features


def other_features(asked: Asked, line: Line, kernels: LineKernels) -> dict[str, np.ndarray]:
    """Features from another line's observations, which may hold the very perturbation, and even the pair."""
    observations = line.observations
    pert = _places(asked.perts, observations.perts)[asked.row]
    place = _places(asked.genes, observations.genes)[asked.column]
    features = ridge_features(asked, line, kernels)
    features["seen"] = (pert >= 0) + 2.0 * (place >= 0)
    features["rate"] = np.where(place >= 0, observations.base[place], np.nan)
    features["response"] = np.where(pert >= 0, _responses(observations)[pert], np.nan)
    both = np.flatnonzero((pert >= 0) & (place >= 0))
    features["outcome"] = np.full(len(pert), np.nan)
    if len(both):
        seen = observations.observed[pert[both], place[both]] > 0
        label = observations.labels[pert[both], place[both]]
        features["outcome"][both] = np.where(seen, label, np.nan)
    return features


def features_of_lines(
    ridge: np.ndarray, by_line: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Features from each other line, and from all of them together.

    A tree asks one line at a time, and a pair was observed in few of them: together they say more.
    """
    features = {f"line{number}_{name}": x for number, line in enumerate(by_line) for name, x in line.items()}
    together = {name: np.stack([line[name] for line in by_line]) for name in by_line[0]}
    for name in ("ridge", "ridge_strength", "rate", "response", "outcome"):
        known = ~np.isnan(together[name])
        count, total = known.sum(axis=0), np.where(known, together[name], 0).sum(axis=0)
        features[f"lines_{name}"] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        if name in ("response", "outcome"):
            features |= {f"lines_{name}_count": count, f"lines_{name}_sum": total}
    features["lines_ridge_least"] = together["ridge"].min(axis=0)
    features["lines_ridge_most"] = together["ridge"].max(axis=0)
    features["ridge_of_all"] = ridge + together["ridge"].sum(axis=0)
    features["lines_residual"] = np.nansum(together["outcome"] - together["rate"], axis=0)
    return features


def pair_features(asked: Asked, kernels: GeneKernels) -> dict[str, np.ndarray]:
    """Features from the knowledge graph alone: the two genes' similarity, how much is known, coordinates."""
    features = {}
    for source in kernels.sources:
        similarity = kernels.by_source[source]
        features[f"{source}_pair"] = similarity.between(asked.perts, asked.genes)[asked.row, asked.column]
        count = np.append(np.diff(similarity.links.indptr), 0)
        features[f"{source}_pert_links"] = count[kernels.symbols.resolve(asked.perts)][asked.row]
        features[f"{source}_gene_links"] = count[kernels.symbols.resolve(asked.genes)][asked.column]
    pert = kernels.vectors(asked.perts, PERT_FACTORS)
    gene = kernels.vectors(asked.genes, GENE_FACTORS)
    features |= {f"pert_factor{n}": values[asked.row] for n, values in enumerate(pert.T)}
    return features | {f"gene_factor{n}": values[asked.column] for n, values in enumerate(gene.T)}


def _rates(asked: Asked, observations: Observations) -> dict[str, np.ndarray]:
    """The gene's rate and number of positives."""
    place = _places(asked.genes, observations.genes)[asked.column]
    positives = np.asarray(observations.labels.sum(axis=0)).ravel()
    return {
        "rate": np.where(place >= 0, observations.base[place], observations.overall),
        "positives": np.where(place >= 0, positives[place], 0),
    }


def _places(names: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Position of each name (no repeats) among ``known`` (no repeats), int64; -1 where it is not there."""
    places = np.full(len(names), -1, dtype=np.int64)
    row, column = same_names(names, known)
    places[row] = column
    return places


def _responses(observations: Observations) -> np.ndarray:
    """Each perturbation's mean of outcome minus the gene's rate, one row of no response mixed in."""
    rows = np.asarray(observations.observed.sum(axis=1)).ravel()
    return np.asarray(observations.residuals.sum(axis=1)).ravel() / (rows + 1)


def _gene_smoother(genes: np.ndarray, observed: np.ndarray, kernels: GeneKernels) -> sparse.csr_array:
    """Weight of each observed gene (row) for each gene asked about (column)."""
    near = nearest(kernels.by_source[ALL].between(genes, observed), NEAR_GENES) ** GENE_POWER
    same, column = same_names(genes, observed)
    near[same, column] = SAME_GENE
    return sparse.csr_array(near.T)
