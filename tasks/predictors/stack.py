"""Gradient boosting over what retrieval and kernel regression say of perturbations they have not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from pydantic import Field

from tasks.predictors.arrays import options_from_state, options_state
from tasks.predictors.kernels.gene_kernels import GeneKernels
from tasks.predictors.kernels.kernel_ridge import RidgeOptions
from tasks.predictors.kernels.line_models import LineModels
from tasks.predictors.kernels.lines import LineKernels, SimilarityOptions, by_line
from tasks.predictors.options import Value
from tasks.predictors.protocol import OWN, TASKS, Context, Predictor, checked_tables, checked_task
from tasks.predictors.stacking.boosting import BoostedTrees, BoostingOptions
from tasks.predictors.stacking.stack_features import features_of
from tasks.predictors.threads import limited_threads

# Perturbations whose features are made at once: their scores for all genes stay below ~100 MB.
BLOCK = 512


class StackOptions(BoostingOptions, SimilarityOptions):
    """The folds, beside the options of ``BoostingOptions`` and ``SimilarityOptions``."""

    folds: int = Field(5, gt=1, description="Parts the perturbations are cut into.")


class StackPredictor(Predictor):
    """Gradient-boosted trees over out-of-fold retrieval scores and the like (``stack_features``).

    Perturbations of the line are cut into folds; a fold's features come from the other folds' rows, as a
    test perturbation's come from the training rows. Other lines' rows are observations for all folds, each
    line with features of its own, and never rows to be learnt from. A task of which one perturbation only
    is known gets the genes' rates.

    Parameters
    ----------
    **options
        Fields of ``StackOptions``.

    Raises
    ------
    InputError
        If an option is unknown or not allowed; from ``fit``, if the line itself has no rows.
    """

    name: ClassVar[str] = "stack"
    title: ClassVar[str] = "gradient boosting over out-of-fold retrieval scores"
    options_type: ClassVar[type[StackOptions]] = StackOptions
    seeded: bool = True

    def __init__(self, /, **options: Value):
        super().__init__(**options)
        self._threads = 1
        self._kernels: LineKernels | None = None
        self._models: dict[str, LineModels] = {}
        self._boosted: dict[str, BoostedTrees] = {}

    def fit(self, tables: Mapping[str, pd.DataFrame], context: Context) -> Self:
        """Make out-of-fold features and grow the trees, then keep all rows' observations for prediction."""
        lines = {task: by_line(task, table) for task, table in checked_tables(tables).items()}
        self._threads = context.threads
        total, done = sum(self.options.folds + len(rows) + 1 for rows in lines.values()), 0

        def step() -> None:
            nonlocal done
            done += 1
            context.progress("steps", done, total)

        # One thread: the last bits of a product must not depend on how many there are.
        with limited_threads(1):
            self._kernels = LineKernels.build(context.knowledge, self.options, RidgeOptions(), every=True)
        for task, rows in lines.items():
            with limited_threads(1):
                self._models[task] = LineModels.fit(
                    rows,
                    self._kernels,
                    gene_strength=self.options.gene_strength,
                    step=step,
                )
                own = rows[OWN].drop_duplicates(["pert", "gene"])
                if own["pert"].nunique() < 2:
                    self._boosted[task] = BoostedTrees(())
                    continue
                features = self._out_of_fold(task, own, context.seed, step)
            self._boosted[task] = BoostedTrees.fit(
                features.to_numpy(dtype=np.float32),
                own["label"].to_numpy(),
                features["rate"].to_numpy(),
                self.options,
                seed=context.seed,
                threads=context.threads,
            )
            step()
        return self

    def predict(self, task: str, pairs: pd.DataFrame) -> np.ndarray:
        """Score each pair by its log odds."""
        checked_task(task, tuple(self._boosted))
        if pairs.empty:
            return np.empty(0)
        pairs = pairs[["pert", "gene"]].astype(str).reset_index(drop=True)
        with limited_threads(1):
            features = self._features(pairs, self._models[task])
        matrix = features.to_numpy(dtype=np.float32)
        return self._boosted[task].scores(matrix, features["rate"].to_numpy(), threads=self._threads)

    def state(self) -> dict[str, np.ndarray]:
        """Return the options, the genes' vectors, each line's observations and regression, and the trees."""
        state = options_state(self.parameters())
        state |= self._kernels.gene_kernels.state() | {"threads": np.array(self._threads)}
        state["tasks"] = np.array(list(self._models), dtype=str)
        for task, models in self._models.items():
            state |= models.state(task) | self._boosted[task].state(task)
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Build the fitted predictor from its arrays."""
        predictor = cls(**options_from_state(state))
        predictor._threads = int(state["threads"])
        gene_kernels = GeneKernels.from_state(state)
        predictor._kernels = LineKernels(gene_kernels, predictor.options.names, RidgeOptions())
        for task in (task for task in TASKS if task in state["tasks"]):
            predictor._boosted[task] = BoostedTrees.from_state(task, state)
            predictor._models[task] = LineModels.from_state(task, state, predictor._kernels)
        return predictor

    def _features(self, pairs: pd.DataFrame, models: LineModels) -> pd.DataFrame:
        """Features of all pairs, made for some perturbations at a time, in the pairs' order."""
        perts, row = np.unique(pairs["pert"].to_numpy(dtype=str), return_inverse=True)
        blocks = range(-(-len(perts) // BLOCK))
        parts = [features_of(pairs[row // BLOCK == block], models, self._kernels) for block in blocks]
        return pd.concat(parts).loc[pairs.index]

    def _out_of_fold(
        self, task: str, rows: pd.DataFrame, seed: int, step: Callable[[], None]
    ) -> pd.DataFrame:
        """Features of the training rows, each fold's from the other folds, in the rows' order."""
        perts, row = np.unique(rows["pert"].to_numpy(dtype=str), return_inverse=True)
        count = min(self.options.folds, len(perts))
        order = np.random.default_rng([seed, 3]).permutation(len(perts))
        fold = np.empty(len(perts), dtype=np.int64)
        fold[order] = np.arange(len(perts)) % count
        parts, models = [], self._models[task]
        for part in range(count):
            inside = fold[row] == part
            seen = self._kernels.fit_line(
                OWN, rows[~inside], gene_strength=self.options.gene_strength, learnt=models.learnt
            )
            parts.append(self._features(rows[inside], models.with_own(seen)))
            step()
        return pd.concat(parts).loc[rows.index]
