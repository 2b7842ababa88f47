"""Retrieval without a language model: outcomes of observed pairs near the question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field

from tasks.predictors.arrays import options_from_state, options_state
from tasks.predictors.kernels.observations import Observations
from tasks.predictors.kernels.sampled_retrieval import ObservedPairs, sampled_scores
from tasks.predictors.kernels.similarity import GeneSimilarity
from tasks.predictors.kernels.weighted_retrieval import Weights, weighted_scores
from tasks.predictors.options import Value
from tasks.predictors.protocol import TASKS, Context, Predictor, checked_tables, checked_task
from tasks.predictors.threads import limited_threads


class RetrievalOptions(Weights):
    """Options of both forms; ``Weights`` are of the weighted one."""

    form: Literal["weighted", "sampled"] = Field(
        "weighted",
        description="weighted: every observation of a near perturbation with the same or a near gene, "
        "weighted by similarity. sampled: a few drawn from each category of nearness, the form of Wu et al. "
        "2025.",
    )
    neighbours: int = Field(10, gt=0, description="Of the sampled form: near genes a side.")
    budget: int = Field(5, gt=0, description="Of the sampled form: observations a category.")
    gene_strength: float = Field(
        20.0, gt=0, description="Of the weighted form: rows' worth of the overall rate in each gene's rate."
    )
    n_factors: int = Field(256, gt=0, description="Of the weighted form: singular vectors in the similarity.")


class RetrievalPredictor(Predictor):
    """Mean outcome of the training observations near a pair.

    The forms are in ``weighted_retrieval`` and ``sampled_retrieval``.

    Parameters
    ----------
    **options
        Fields of ``RetrievalOptions``.
    """

    name: ClassVar[str] = "retrieval"
    title: ClassVar[str] = "outcomes of observed pairs near the question, no language model"
    options_type: ClassVar[type[RetrievalOptions]] = RetrievalOptions

    def __init__(self, /, **options: Value):
        super().__init__(**options)
        self.seeded = self.options.form == "sampled"
        self._seed, self._threads = 0, 1
        self._observations: dict[str, Observations] = {}
        self._similarity: GeneSimilarity | None = None

    def fit(self, tables: Mapping[str, pd.DataFrame], context: Context) -> Self:
        """Arrange the observations and make the genes' vectors."""
        tables = checked_tables(tables)
        # The weighted form draws nothing, so no seed is part of what it has learnt.
        self._seed = context.seed if self.seeded else 0
        self._threads = context.threads
        with limited_threads(context.threads):
            self._similarity = GeneSimilarity.build(
                context.knowledge,
                kind="cosine" if self.options.form == "weighted" else "shared",
                n_factors=self.options.n_factors,
            )
        self._observations = {}
        for task, table in tables.items():
            self._observations[task] = Observations.build(table, gene_strength=self.options.gene_strength)
            context.progress("tables", len(self._observations), len(tables))
        return self

    def predict(self, task: str, pairs: pd.DataFrame) -> np.ndarray:
        """Score each pair; one with no observation near it gets its gene's rate (or the overall one)."""
        checked_task(task, tuple(self._observations))
        observations = self._observations[task]
        perts, genes = (pairs[column].to_numpy(dtype=str) for column in ("pert", "gene"))
        with limited_threads(self._threads):
            if self.options.form == "sampled":
                return sampled_scores(
                    perts,
                    genes,
                    ObservedPairs.build(observations),
                    self._similarity,
                    neighbours=self.options.neighbours,
                    budget=self.options.budget,
                    seed=self._seed,
                )
            perts, row = np.unique(perts, return_inverse=True)
            genes, column = np.unique(genes, return_inverse=True)
            scores = weighted_scores(perts, genes, observations, self._similarity, self.options)
            return scores[row, column]

    def state(self) -> dict[str, np.ndarray]:
        """Return the options, the genes' vectors and the observations."""
        state = options_state(self.parameters())
        state |= {"seed": np.array(self._seed), "threads": np.array(self._threads)}
        state |= self._similarity.state()
        for task, observations in self._observations.items():
            state |= observations.state(task)
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Build the fitted predictor from its arrays."""
        predictor = cls(**options_from_state(state))
        predictor._seed, predictor._threads = int(state["seed"]), int(state["threads"])
        predictor._similarity = GeneSimilarity.from_state(state)
        predictor._observations = {
            task: Observations.from_state(task, state) for task in TASKS if f"{task}_perts" in state
        }
        return predictor
