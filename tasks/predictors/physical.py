"""Whether the two genes are known to interact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.knowledge.symbols import SymbolIndex
from tasks.predictors.arrays import csr_from_state, csr_state, symbols_from_state
from tasks.predictors.options import Value
from tasks.predictors.protocol import TASKS, Context, Predictor, checked_tables, checked_task


class PhysicalPredictor(Predictor):
    """1 if the perturbed and the measured gene are linked in the graph, else 0 (Wu et al. 2025).

    For a gene set of the graph: the share of its members that are linked to the other gene. The labels are
    not looked at; the same scores serve both tasks. It has no options.
    """

    name: ClassVar[str] = "physical"
    title: ClassVar[str] = "1 if the two genes interact"

    def __init__(self, /, **options: Value):
        super().__init__(**options)
        self._tasks: tuple[str, ...] = ()
        self._symbols: SymbolIndex | None = None
        self._links: sparse.csr_array | None = None

    def fit(self, tables: Mapping[str, pd.DataFrame], context: Context) -> Self:
        """Keep the graph's gene-gene links and which tasks were asked for."""
        self._tasks = tuple(checked_tables(tables))
        self._symbols = context.knowledge.symbols
        self._links = context.knowledge.adjacency.astype(bool)
        if context.knowledge.members:
            # Counts of files become 1, shares of a set's members stay.
            self._links = context.knowledge.adjacency.minimum(1)
        context.progress("tables", len(self._tasks), len(self._tasks))
        return self

    def predict(self, task: str, pairs: pd.DataFrame) -> np.ndarray:
        """Score 1 (or a share) where the pair is linked; a gene unknown to the graph is linked to none."""
        checked_task(task, self._tasks)
        pert, gene = (self._symbols.resolve(pairs[column]) for column in ("pert", "gene"))
        score = np.zeros(len(pairs))
        known = np.flatnonzero((pert >= 0) & (gene >= 0))
        if len(known):
            score[known] = self._links[pert[known], gene[known]]
        return score

    def state(self) -> dict[str, np.ndarray]:
        """Return the symbols and the links."""
        return {
            "tasks": np.array(self._tasks, dtype=str),
            **self._symbols.state(),
            **csr_state("links", self._links),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Build the fitted predictor from its arrays."""
        predictor = cls()
        predictor._tasks = tuple(task for task in TASKS if task in state["tasks"])
        predictor._symbols = symbols_from_state(state)
        predictor._links = csr_from_state("links", state)
        return predictor
