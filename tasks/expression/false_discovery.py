"""Benjamini-Hochberg adjustment within each perturbation, or over all of a screen's tests."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def adjust_within(p_value: np.ndarray) -> np.ndarray:
    """Adjust each row by itself; NaN (not tested) stays and is not counted. Float64, (n, n_genes)."""
    # NaN sorts last, so that what was tested has the ranks 1 to n.
    order = np.argsort(p_value, axis=1)
    adjusted = np.take_along_axis(p_value, order, axis=1)
    tested = np.maximum(np.count_nonzero(~np.isnan(p_value), axis=1), 1)
    adjusted /= np.arange(1, p_value.shape[1] + 1) / tested[:, None]
    # The smallest of these from there on upwards; fmin passes over NaN, which then comes back.
    smallest = np.fmin.accumulate(adjusted[:, ::-1], axis=1)[:, ::-1]
    result = np.empty_like(adjusted)
    np.put_along_axis(result, order, np.minimum(smallest, 1), axis=1)
    result[np.isnan(p_value)] = np.nan
    return result


class AdjustOverAll:
    """Adjusts p-values as one family.

    The sorted p-values and their adjusted values are held in memory: 16 bytes for each of ``n_most`` tests,
    where adjusting within perturbations holds a few of these only.

    Parameters
    ----------
    parts
        The p-values of all tests, in pieces of any shape; NaN is not counted.
    n_most
        How many there are at most.
    """

    def __init__(self, parts: Iterable[np.ndarray], n_most: int):
        values, n = np.empty(n_most), 0
        for part in parts:
            tested = part[~np.isnan(part)]
            values[n : n + len(tested)] = tested
            n += len(tested)
        self._sorted = values[:n]
        self._sorted.sort()
        # p * n / rank, and the smallest of these from there on upwards; block by block, to hold no ranks.
        self._adjusted = self._sorted * n
        for start in range(0, n, 1 << 20):
            stop = min(start + (1 << 20), n)
            self._adjusted[start:stop] /= np.arange(start + 1, stop + 1)
        np.minimum.accumulate(self._adjusted[::-1], out=self._adjusted[::-1])
        np.minimum(self._adjusted, 1, out=self._adjusted)

    def __call__(self, p_value: np.ndarray) -> np.ndarray:
        """Adjusted values of some of the p-values, in their shape."""
        adjusted = np.full(p_value.shape, np.nan)
        tested = ~np.isnan(p_value)
        # Equal p-values share the adjusted value of the last of them.
        adjusted[tested] = self._adjusted[np.searchsorted(self._sorted, p_value[tested], side="right") - 1]
        return adjusted
