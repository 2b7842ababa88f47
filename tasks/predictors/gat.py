"""A graph attention network over the knowledge graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from tasks.knowledge.symbols import SymbolIndex
from tasks.predictors.arrays import options_from_state, options_state, symbols_from_state
from tasks.predictors.gat_options import GATOptions
from tasks.predictors.gat_rows import PairRows, named_nodes
from tasks.predictors.protocol import TASKS, Context, checked_tables, checked_task


class GATPredictor:
    """Graph attention network with three classes: none, down, up (Wu et al. 2025).

    Direction and response are learnt together; with one task's rows only, the classes that task leaves
    open are learnt. The response's score is 1 - p(none), the direction's is p(up | down or up).

    Parameters
    ----------
    **options
        Fields of ``GATOptions``.

    Raises
    ------
    InputError
        If an option is unknown or out of range; from ``fit``, if the device is not there.
    """

    name: ClassVar[str] = "gat"
    title: ClassVar[str] = "graph attention network on the knowledge graph"

    def __init__(self, **options: str | int | float):
        self.options = GATOptions.checked(options)
        self.history: list[dict[str, float]] = []
        self._tasks: tuple[str, ...] = ()
        self._threads = 1
        self._symbols: SymbolIndex | None = None
        self._extra = np.empty(0, dtype="<U1")
        self._vectors = np.empty((0, 0), dtype=np.float32)
        self._head: dict[str, np.ndarray] = {}

    def fit(self, tables: Mapping[str, pd.DataFrame], context: Context) -> Self:
        """Train on nine tenths of the perturbations, stop by the last tenth, keep every gene's vector."""
        from tasks.predictors.gat_training import train

        tables = checked_tables(tables)
        self._tasks, self._threads = tuple(tables), context.threads
        self._symbols = context.knowledge.symbols
        trained = train(PairRows.build(tables), context, self.options)
        self.history = trained.history
        self._extra, self._vectors, self._head = trained.extra, trained.vectors, trained.head
        return self

    def predict(self, task: str, pairs: pd.DataFrame) -> np.ndarray:
        """Score each pair; genes unknown to graph and training share one vector."""
        checked_task(task, self._tasks)
        # torch and torch_geometric take seconds to import: only those who use the network wait for them.
        from tasks.predictors.gat_network import score_pairs

        pert, gene = (self._nodes(pairs[column]) for column in ("pert", "gene"))
        return score_pairs(task, (self._vectors, self._head), (pert, gene), threads=self._threads)

    def parameters(self) -> dict[str, str | int | float | bool | None]:
        """Return the options in force."""
        return self.options.as_dict()

    def state(self) -> dict[str, np.ndarray]:
        """Return every gene's vector and the head; the network that made the vectors is not needed."""
        state = options_state(self.parameters())
        state |= {f"head_{name}": value for name, value in self._head.items()}
        state |= {"tasks": np.array(self._tasks, dtype=str), "threads": np.array(self._threads)}
        columns = sorted({key for row in self.history for key in row})
        history = [[row.get(column, np.nan) for column in columns] for row in self.history]
        state["history_columns"] = np.array(columns, dtype=str) if columns else np.empty(0, "<U1")
        state["history"] = np.array(history, dtype=np.float64)
        return state | self._symbols.state() | {"extra": self._extra, "vectors": self._vectors}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Build the fitted predictor from its arrays."""

        def part(prefix: str) -> dict[str, np.ndarray]:
            return {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}

        predictor = cls(**options_from_state(state))
        predictor._tasks = tuple(task for task in TASKS if task in state["tasks"])
        predictor._threads = int(state["threads"])
        predictor._symbols = symbols_from_state(state)
        predictor._extra, predictor._vectors = np.asarray(state["extra"]), np.asarray(state["vectors"])
        predictor._head = {name: np.asarray(value) for name, value in part("head_").items()}
        columns = state["history_columns"].tolist()
        predictor.history = [dict(zip(columns, row, strict=True)) for row in state["history"].tolist()]
        return predictor

    def _nodes(self, names: pd.Series) -> np.ndarray:
        names = names.to_numpy(dtype=str)
        n_genes = len(self._symbols.genes)
        return named_nodes(self._symbols.resolve(names), names, n_genes, self._extra)
