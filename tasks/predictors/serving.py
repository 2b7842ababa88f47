"""A fitted predictor loaded from its folder, in the form model servers ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from storage.errors import InputError
from tasks.predictors.protocol import TASKS
from tasks.predictors.registry import PREDICTORS


class PairScorer:
    """Scores frames of ``pert``, ``gene`` and ``task`` (``de`` or ``dir``) with one fitted predictor."""

    def __init__(self, folder: Path | str):
        with np.load(Path(folder) / "state.npz", allow_pickle=False) as arrays:
            state = dict(arrays)
        self._predictor = PREDICTORS[str(state.pop("predictor"))].from_state(state)

    def predict(self, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """One column ``score``, in the rows' order; higher = more likely 1.

        Raises
        ------
        InputError
            If a column is missing or a task unknown.
        """
        missing = [column for column in ("pert", "gene", "task") if column not in model_input]
        if missing:
            raise InputError("pairs to score", [f"columns {', '.join(missing)} are missing"])
        unknown = sorted(set(model_input["task"]) - set(TASKS))
        if unknown:
            raise InputError("pairs to score", [f"task must be one of {', '.join(TASKS)}; found {unknown}"])
        score = np.empty(len(model_input))
        for task in model_input["task"].unique():
            rows = (model_input["task"] == task).to_numpy()
            score[rows] = self._predictor.predict(task, model_input.loc[rows, ["pert", "gene"]])
        return pd.DataFrame({"score": score})


def _load_pyfunc(data_path: str) -> PairScorer:
    """Load the model; the name and signature are what MLflow's python_function flavour looks for."""
    return PairScorer(data_path)
