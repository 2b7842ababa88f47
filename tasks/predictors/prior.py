"""The plainest predictor: how often each gene was 1 in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from pydantic import Field

from tasks.predictors.arrays import options_from_state, options_state
from tasks.predictors.options import Options, Value
from tasks.predictors.protocol import TASKS, Context, Predictor, checked_tables, checked_task


class PriorOptions(Options):
    """How strongly rates are smoothed."""

    strength: float = Field(10.0, gt=0, description="Rows' worth of the overall rate added to every gene.")


class PriorPredictor(Predictor):
    """A gene's smoothed training rate, whatever the perturbation.

    Within a gene all scores are equal, so its AUROC per gene is exactly 0.5; pooled over genes it is
    high. It is the measure of how much a pooled figure owes to the genes alone.

    Parameters
    ----------
    **options
        Fields of ``PriorOptions``.
    """

    name: ClassVar[str] = "prior"
    title: ClassVar[str] = "the gene's training rate"
    options_type: ClassVar[type[PriorOptions]] = PriorOptions

    def __init__(self, /, **options: Value):
        super().__init__(**options)
        self._rates: dict[str, pd.Series] = {}
        self._overall: dict[str, float] = {}

    def fit(self, tables: Mapping[str, pd.DataFrame], context: Context) -> Self:
        """Take each gene's rate over all rows, of this and of other lines."""
        for task, table in checked_tables(tables).items():
            overall, strength = float(table["label"].mean()), self.options.strength
            label = table.groupby("gene", sort=True)["label"].agg(["sum", "count"])
            self._overall[task] = overall
            self._rates[task] = (label["sum"] + strength * overall) / (label["count"] + strength)
            context.progress("tables", len(self._rates), len(tables))
        return self

    def predict(self, task: str, pairs: pd.DataFrame) -> np.ndarray:
        """Score each pair with its gene's rate; an unseen gene gets the overall rate."""
        checked_task(task, tuple(self._rates))
        rates = pairs["gene"].astype(str).map(self._rates[task])
        return rates.fillna(self._overall[task]).to_numpy(np.float64)

    def state(self) -> dict[str, np.ndarray]:
        """Return the options, and the genes and their rates, per task."""
        state = options_state(self.parameters())
        for task, rates in self._rates.items():
            state[f"{task}_genes"] = rates.index.to_numpy(dtype=str)
            state[f"{task}_rates"] = rates.to_numpy(np.float64)
            state[f"{task}_overall"] = np.float64(self._overall[task])
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Build the fitted predictor from its arrays."""
        predictor = cls(**options_from_state(state))
        for task in TASKS:
            if f"{task}_genes" in state:
                genes = np.asarray(state[f"{task}_genes"]).astype(object)
                predictor._rates[task] = pd.Series(np.asarray(state[f"{task}_rates"]), index=genes)
                predictor._overall[task] = float(state[f"{task}_overall"])
        return predictor
