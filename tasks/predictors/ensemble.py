"""Several predictors' scores weighed by what they are worth on perturbations held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from storage.errors import InputError
from tasks.predictors.arrays import options_from_state, options_state, part_of_state
from tasks.predictors.options import TrainingOptions, Value
from tasks.predictors.prior import PriorPredictor
from tasks.predictors.protocol import OWN, TASKS, Context, Predictor, checked_tables, checked_task
from tasks.predictors.splits import rows_of_perturbations
from tasks.predictors.stacking.boosting import log_odds
from tasks.predictors.stacking.ensemble_weights import Blend

# The gene's rate is always beside the members, so that their weights answer for the rest.
RATE = PriorPredictor


class EnsembleOptions(TrainingOptions):
    """Who is weighed, on how many perturbations, and where members that can use a GPU are trained."""

    members: str = Field(
        "kernel,stack",
        min_length=1,
        description="Names in the registry, with commas between; a name may stand more than once, each with "
        "a seed of its own.",
    )
    held_out: float = Field(
        0.2, gt=0, lt=1, description="Share of the line's perturbations the weights are fitted on."
    )

    @property
    def names(self) -> list[str]:
        """The members' names."""
        return self.members.split(",")

    @field_validator("members")
    @classmethod
    def _known(cls, members: str) -> str:
        # The registry holds the ensemble too.
        from tasks.predictors.registry import PREDICTORS

        allowed = [name for name in PREDICTORS if name != EnsemblePredictor.name]
        unknown = [repr(name) for name in members.split(",") if name not in allowed]
        if unknown:
            raise ValueError(f"no member {' or '.join(unknown)}; allowed are {', '.join(allowed)}")
        return members


class EnsemblePredictor(Predictor):
    """Log odds of a logistic regression over the members' scores and the gene's rate.

    A share of the line's perturbations is held out, the members learn from the others, and the regression
    with weights of at least 0 is fitted on the held-out rows; then the members learn from all rows.

    Parameters
    ----------
    **options
        Fields of ``EnsembleOptions``.

    Raises
    ------
    InputError
        If an option is unknown or not allowed; from ``fit``, if fewer than three perturbations of the line
        are there.
    """

    name: ClassVar[str] = "ensemble"
    title: ClassVar[str] = "members weighed on held-out perturbations"
    options_type: ClassVar[type[EnsembleOptions]] = EnsembleOptions
    seeded: bool = True

    def __init__(self, /, **options: Value):
        super().__init__(**options)
        members = [self._member_type(name)() for name in self.options.names]
        self.uses_device = any(member.uses_device for member in members)
        self.reads_cells = any(member.reads_cells for member in members)
        self._rate: PriorPredictor | None = None
        self._members: list[Predictor] = []
        self._blends: dict[str, Blend] = {}

    def fit(self, tables: Mapping[str, pd.DataFrame], context: Context) -> Self:
        """Weigh the members on held-out perturbations, then fit them on all rows."""
        tables = checked_tables(tables)
        held = self._held_out(tables, context.seed)
        outside = {task: rows[~rows_of_perturbations(rows, held)] for task, rows in tables.items()}
        outside = {task: rows for task, rows in outside.items() if (rows["source"] == OWN).any()}
        if not outside:
            raise InputError("ensemble", ["too few perturbations to hold any out"])
        self._fit_members(outside, context, "members, for their weights")
        self._blends = {}
        for task in outside:
            asked = tables[task][rows_of_perturbations(tables[task], held)]
            if len(asked):
                scores = self._scores(task, asked[["pert", "gene"]])
                self._blends[task] = Blend.fit(scores, asked["label"].to_numpy())
        self._fit_members(tables, context, "members")
        for task in tables.keys() - self._blends.keys():
            # The few perturbations of this task are all held out, or none of them.
            own = tables[task][tables[task]["source"] == OWN]
            self._blends[task] = Blend.even(self._scores(task, own[["pert", "gene"]]))
        return self

    def predict(self, task: str, pairs: pd.DataFrame) -> np.ndarray:
        """Score each pair by its log odds."""
        checked_task(task, tuple(self._blends))
        return self._blends[task].log_odds(self._scores(task, pairs))

    def further_inputs(self, knowledge: Path) -> dict[str, str]:
        """Digests of what the members read."""
        digests = {}
        for name in self.options.names:
            digests |= self._member_type(name)().further_inputs(knowledge)
        return digests

    def state(self) -> dict[str, np.ndarray]:
        """Return the options, the weights, and each member's arrays under a name of its own."""
        state = options_state(self.parameters())
        for number, member in enumerate([self._rate, *self._members]):
            state |= {f"member{number}/{name}": values for name, values in member.state().items()}
        for task, blend in self._blends.items():
            state |= blend.state(task)
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Build the fitted predictor from its arrays."""
        predictor = cls(**options_from_state(state))
        types = [RATE, *map(cls._member_type, predictor.options.names)]
        fitted = []
        for number, member_type in enumerate(types):
            fitted.append(member_type.from_state(part_of_state(f"member{number}/", state)))
        predictor._rate, *predictor._members = fitted
        predictor._blends = {
            task: Blend.from_state(task, state) for task in TASKS if f"{task}_weights" in state
        }
        return predictor

    def weights(self, task: str) -> dict[str, float]:
        """Weight of the gene's rate and of each member, per standard deviation of its scores."""
        return dict(zip(["rate", *self.options.names], self._blends[task].weights, strict=True))

    @staticmethod
    def _member_type(name: str) -> type[Predictor]:
        # The registry holds the ensemble too.
        from tasks.predictors.registry import PREDICTORS

        return PREDICTORS[name]

    def _fit_members(self, tables: Mapping[str, pd.DataFrame], context: Context, unit: str) -> None:
        self._rate = RATE().fit(tables, context)
        self._members = []
        names = self.options.names
        for number, name in enumerate(names):
            # No member of one ensemble draws as a member of the next seed's does.
            with_own_seed = replace(context, seed=context.seed * len(names) + number)
            member = self._member_type(name)()
            if member.uses_device:
                member = self._member_type(name)(device=self.options.device)
            self._members.append(member.fit(tables, with_own_seed))
            context.progress(unit, number + 1, len(names))

    def _scores(self, task: str, pairs: pd.DataFrame) -> np.ndarray:
        """Log odds of the rate, then the members' scores, float64 [n_pairs, 1 + n_members]."""
        rate = log_odds(self._rate.predict(task, pairs))
        return np.column_stack([rate, *(member.predict(task, pairs) for member in self._members)])

    def _held_out(self, tables: Mapping[str, pd.DataFrame], seed: int) -> np.ndarray:
        """Names of the perturbations held out, the same for both tasks; other lines' rows of them stay."""
        own = pd.concat([rows.loc[rows["source"] == OWN, "pert"] for rows in tables.values()])
        perts = np.unique(own.to_numpy(dtype=str))
        if len(perts) < 3:
            raise InputError("ensemble", [f"three perturbations of the line are needed; found {len(perts)}"])
        count = max(1, round(self.options.held_out * len(perts)))
        return np.random.default_rng([seed, 4]).permutation(perts)[:count]
