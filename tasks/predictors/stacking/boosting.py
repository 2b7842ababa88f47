"""Gradient-boosted trees that start from the genes' rates, kept as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic import Field

from tasks.predictors.options import Options

# Keeps the starting log odds finite where a gene's rate is 0 or 1.
RATE_LIMITS = (1e-3, 1 - 1e-3)


class BoostingOptions(Options):
    """Options of the trees (Ke et al. 2017), and how many models are averaged."""

    models: int = Field(3, gt=0, description="Models with different seeds, whose log odds are averaged.")
    rounds: int = Field(200, gt=0, description="Trees a model.")
    learning_rate: float = Field(0.05, gt=0, description="The step each tree takes.")
    leaves: int = Field(31, gt=1, description="Leaves a tree, at most.")
    min_rows: int = Field(100, gt=0, description="Training rows a leaf, at least.")
    l2: float = Field(10.0, ge=0, description="L2 penalty.")
    feature_share: float = Field(0.3, gt=0, le=1, description="Share of features a tree is grown on.")
    row_share: float = Field(0.5, gt=0, le=1, description="Share of rows a tree is grown on.")


@dataclass(frozen=True, eq=False)
class BoostedTrees:
    """Fitted models, as LightGBM writes them; without any, the genes' rates are all there is."""

    models: tuple[str, ...]

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        labels: np.ndarray,
        rates: np.ndarray,
        options: BoostingOptions,
        *,
        seed: int,
        threads: int,
    ) -> Self:
        """Grow trees on what the genes' rates leave open.

        Parameters
        ----------
        features
            float32 [n_rows, n_features], NaN where unknown.
        labels
            0 or 1 [n_rows].
        rates
            [n_rows]: each row's gene's rate, whose log odds the trees start from.
        options
            The trees.
        seed, threads
            The same seed gives the same trees, whatever the number of threads.
        """
        # The import takes half a second and a thread pool: only those who use the trees wait for it.
        import lightgbm

        settings = {
            "objective": "binary",
            "learning_rate": options.learning_rate,
            "num_leaves": options.leaves,
            "min_data_in_leaf": max(1, min(options.min_rows, len(labels) // 10)),
            "lambda_l2": options.l2,
            "feature_fraction": options.feature_share,
            "bagging_fraction": options.row_share,
            "bagging_freq": 1,
            "max_bin": 63,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": threads,
            "verbose": -1,
        }
        models = []
        for number in range(options.models):
            data = lightgbm.Dataset(features, labels, init_score=log_odds(rates))
            chosen = settings | {"seed": int(np.random.default_rng([seed, 5, number]).integers(2**31))}
            models.append(_text(lightgbm.train(chosen, data, options.rounds)))
        return cls(tuple(models))

    def scores(self, features: np.ndarray, rates: np.ndarray, *, threads: int) -> np.ndarray:
        """Mean log odds over the models, float64 [n_rows]."""
        import lightgbm

        total = np.zeros(len(features))
        for text in self.models:
            model = lightgbm.Booster(model_str=text)
            total += model.predict(features, raw_score=True, num_threads=threads)
        return log_odds(rates) + total / max(len(self.models), 1)

    def state(self, prefix: str) -> dict[str, np.ndarray]:
        """Return each model's text as bytes, uint8."""
        return {
            f"{prefix}_model{number}": np.frombuffer(text.encode(), dtype=np.uint8)
            for number, text in enumerate(self.models)
        }

    @classmethod
    def from_state(cls, prefix: str, state: Mapping[str, np.ndarray]) -> Self:
        """Build the models whose ``state`` lies in ``state``."""
        count = sum(key.startswith(f"{prefix}_model") for key in state)
        return cls(
            tuple(np.asarray(state[f"{prefix}_model{number}"]).tobytes().decode() for number in range(count))
        )


def log_odds(rates: np.ndarray) -> np.ndarray:
    """Log odds of rates, float64, within what ``RATE_LIMITS`` allow."""
    rates = np.clip(np.asarray(rates, dtype=np.float64), *RATE_LIMITS)
    return np.log(rates / (1 - rates))


def _text(model) -> str:
    """A booster's text without the settings it was trained with, of which the number of threads is one."""
    return model.model_to_string().split("\nparameters:")[0] + "\n"
