"""Training perturbations held out to choose by: the same ones for every predictor and every seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tasks.predictors.protocol import OWN

VALIDATION_SHARE = 0.1


def held_out_perturbations(tables: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Names of a tenth of the line's own perturbations, over all tasks, at least one; none of fewer than two.

    Rows that other lines have of them are not held out: nor are they of perturbations in the test split.
    """
    own = [rows.loc[rows["source"] == OWN, "pert"] for rows in tables.values()]
    return draw_perturbations(np.concatenate([perts.to_numpy(dtype=str) for perts in own]))


def draw_perturbations(perts: np.ndarray) -> np.ndarray:
    """A tenth of the different names in ``perts``; the draw depends on nothing but them."""
    perts = np.unique(perts)
    if len(perts) < 2:
        return perts[:0]
    count = max(1, round(VALIDATION_SHARE * len(perts)))
    return np.random.default_rng([0, 3]).permutation(perts)[:count]


def rows_of_perturbations(rows: pd.DataFrame, perts: np.ndarray) -> np.ndarray:
    """Mask of the line's own rows that are of some perturbations, bool [n_rows]; other lines' are not."""
    return ((rows["source"] == OWN) & rows["pert"].isin(perts)).to_numpy()
