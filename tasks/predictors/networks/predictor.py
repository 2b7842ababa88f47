"""What the trained networks have in common: fitting, scoring and their arrays."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import pandas as pd

from tasks.predictors.arrays import (
    history_from_state,
    history_state,
    options_from_state,
    options_state,
    part_of_state,
    symbols_from_state,
)
from tasks.predictors.networks.options import NetworkOptions
from tasks.predictors.networks.rows import NamedNodes, PairRows
from tasks.predictors.options import Value
from tasks.predictors.protocol import TASKS, Context, Predictor, checked_tables, checked_task

if TYPE_CHECKING:
    from tasks.predictors.networks.training import Encoding


class NetworkPredictor(Predictor):
    """Network with three classes: none, down, up (Wu et al. 2025).

    Direction and response are learnt together; with one task's rows only, the classes that task leaves
    open are learnt. The response's score is 1 - p(none), the direction's is p(up | down or up).
    """

    options_type: ClassVar[type[NetworkOptions]]
    seeded: bool = True
    uses_device: bool = True
    is_sized: ClassVar[bool] = True

    def __init__(self, /, **options: Value):
        super().__init__(**options)
        self._tasks: tuple[str, ...] = ()
        self._threads = 1
        self._named: NamedNodes | None = None
        self._vectors = np.empty((0, 0), dtype=np.float32)
        self._head: dict[str, np.ndarray] = {}

    @abstractmethod
    def encoding(self, rows: PairRows, context: Context) -> Encoding:
        """Say what the nodes are and how they become vectors."""

    def fit(self, tables: Mapping[str, pd.DataFrame], context: Context) -> Self:
        """Train on nine tenths of the perturbations, stop by the last tenth, keep every node's vector."""
        # torch and torch_geometric take seconds to import: only those who use the network wait for them.
        from tasks.predictors.networks.training import train

        tables = checked_tables(tables)
        self._tasks, self._threads = tuple(tables), context.threads
        rows = PairRows.build(tables)
        encoding = self.encoding(rows, context)
        trained = train(rows, encoding, context, self.options)
        self.history, self._named = trained.history, encoding.named
        self._vectors, self._head = trained.vectors, trained.head
        self.validation_scores = {
            task: frame.assign(score=self.predict(task, frame)) for task, frame in rows.held_out().items()
        }
        return self

    def predict(self, task: str, pairs: pd.DataFrame) -> np.ndarray:
        """Score each pair; names unknown to the network share one vector."""
        checked_task(task, self._tasks)
        from tasks.predictors.networks.head import score_pairs

        pert, gene = (self._named.find(pairs[column].to_numpy(dtype=str)) for column in ("pert", "gene"))
        return score_pairs(task, (self._vectors, self._head), (pert, gene), threads=self._threads)

    def state(self) -> dict[str, np.ndarray]:
        """Return every node's vector and the head; the encoder that made the vectors is not needed."""
        state = options_state(self.parameters())
        state |= {f"head_{name}": value for name, value in self._head.items()}
        state |= {"tasks": np.array(self._tasks, dtype=str), "threads": np.array(self._threads)}
        state |= history_state(self.history)
        return state | self._named.symbols.state() | {"extra": self._named.extra, "vectors": self._vectors}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Build the fitted predictor from its arrays."""
        predictor = cls(**options_from_state(state))
        predictor._tasks = tuple(task for task in TASKS if task in state["tasks"])
        predictor._threads = int(state["threads"])
        predictor._named = NamedNodes(symbols_from_state(state), np.asarray(state["extra"]))
        predictor._vectors = np.asarray(state["vectors"])
        predictor._head = part_of_state("head_", state)
        predictor.history = history_from_state(state)
        return predictor
