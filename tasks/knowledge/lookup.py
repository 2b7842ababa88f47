"""Where values stand in a sorted array."""

from __future__ import annotations

import numpy as np


def sorted_positions(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Position of each value in ``ordered``, int64 of the shape of ``values``; -1 where it is not there.

    Parameters
    ----------
    ordered
        [n], ascending, each value once; may be empty.
    values
        Of any shape.
    """
    values = np.asarray(values)
    if not len(ordered):
        return np.full(values.shape, -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.where(ordered[place] == values, place, -1).astype(np.int64)
