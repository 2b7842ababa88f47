"""Graph-kernel retrieval: observations weighted by nearness, and a regression on the same kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from pydantic import Field

from tasks.predictors.arrays import options_from_state, options_state
from tasks.predictors.kernels.gene_kernels import ALL, GeneKernels
from tasks.predictors.kernels.kernel_ridge import RidgeOptions
from tasks.predictors.kernels.line_models import LineModels
from tasks.predictors.kernels.lines import LineKernels, SimilarityOptions, by_line
from tasks.predictors.kernels.weighted_retrieval import Weights, weighted_scores
from tasks.predictors.options import Value
from tasks.predictors.protocol import TASKS, Context, Predictor, checked_tables, checked_task
from tasks.predictors.threads import limited_threads


class KernelOptions(RidgeOptions, SimilarityOptions):
    """The weight of lines, beside the options of ``RidgeOptions`` and ``SimilarityOptions``."""

    other_line: float = Field(0.2, ge=0, description="Weight of each other line's regression.")


class KernelPredictor(Predictor):
    """Weighted retrieval plus kernel ridge regression on pairs, and the regressions of other lines.

    The score is the retrieval's (``weighted_retrieval``) plus the regression's (``kernel_ridge``), both in
    units of outcome minus the gene's rate, plus ``other_line`` times the sum of the regressions fitted on
    each other line's rows, in which the perturbation asked about may itself occur. Other lines also teach
    which perturbations are alike (``lines.Programmes``).

    Parameters
    ----------
    **options
        Fields of ``KernelOptions``.

    Raises
    ------
    InputError
        If an option is unknown or not allowed; from ``fit``, if a table has rows of other lines only.
    """

    name: ClassVar[str] = "kernel"
    title: ClassVar[str] = "retrieval and ridge regression with kernels from the knowledge graph"
    options_type: ClassVar[type[KernelOptions]] = KernelOptions

    def __init__(self, /, **options: Value):
        super().__init__(**options)
        self._kernels: LineKernels | None = None
        self._models: dict[str, LineModels] = {}

    def fit(self, tables: Mapping[str, pd.DataFrame], context: Context) -> Self:
        """Make the kernels and fit a regression for every task and line."""
        lines = {task: by_line(task, table) for task, table in checked_tables(tables).items()}
        total, done = sum(map(len, lines.values())), 0

        def step() -> None:
            nonlocal done
            done += 1
            context.progress("lines", done, total)

        # One thread: the last bits of a product must not depend on how many there are.
        with limited_threads(1):
            self._kernels = LineKernels.build(context.knowledge, self.options, self.options, every=False)
            self._models = {
                task: LineModels.fit(
                    rows,
                    self._kernels,
                    gene_strength=self.options.gene_strength,
                    step=step,
                )
                for task, rows in lines.items()
            }
        return self

    def predict(self, task: str, pairs: pd.DataFrame) -> np.ndarray:
        """Score each pair; a perturbation unlike any observed gets its gene's rate."""
        checked_task(task, tuple(self._models))
        perts, row = np.unique(pairs["pert"].to_numpy(dtype=str), return_inverse=True)
        genes, column = np.unique(pairs["gene"].to_numpy(dtype=str), return_inverse=True)
        models, kernels = self._models[task], self._kernels
        with limited_threads(1):
            near = kernels.gene_kernels.by_source[ALL]
            scores = weighted_scores(perts, genes, models.own.observations, near, Weights())
            kernel = kernels.kernel(perts, models.own.ridge.perts, models.taught(kernels, perts))
            scores += kernels.scores(models.own, kernel, genes)
            for line in models.others:
                kernel = kernels.kernel(perts, line.ridge.perts)
                scores += self.options.other_line * kernels.scores(line, kernel, genes)
        return scores[row, column]

    def state(self) -> dict[str, np.ndarray]:
        """Return the options, the genes' vectors, the observations and the regressions' weights."""
        state = options_state(self.parameters())
        state |= self._kernels.gene_kernels.state() | {"tasks": np.array(list(self._models), dtype=str)}
        for task, models in self._models.items():
            state |= models.state(task)
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Build the fitted predictor from its arrays."""
        predictor = cls(**options_from_state(state))
        gene_kernels = GeneKernels.from_state(state)
        predictor._kernels = LineKernels(gene_kernels, predictor.options.names, predictor.options)
        for task in (task for task in TASKS if task in state["tasks"]):
            predictor._models[task] = LineModels.from_state(task, state, predictor._kernels)
        return predictor
