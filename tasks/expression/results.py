"""The results of finished blocks, read back a few perturbations at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from tasks.expression.blocks import BlockFile
from tasks.expression.moderation import moderated_t

#: Numbers of perturbations; -1 are the controls.
Rows = Sequence[int] | np.ndarray


class Tested(NamedTuple):
    """Some perturbations' tests, float64 (n_rows, n_genes) each; NaN where none was done.

    ``side`` is above 0 where the perturbed cells have more by the test's own statistic, below 0 where they
    have less.
    """

    statistic: np.ndarray
    p_value: np.ndarray
    log10_p_value: np.ndarray
    side: np.ndarray


class Results(Protocol):
    """What the table of tests is put together from."""

    def means(self, rows: Rows) -> np.ndarray:
        """Mean expression of groups, float64 (len(rows), n_genes)."""
        ...

    def control_means(self, rows: Rows) -> np.ndarray:
        """Mean expression of the controls that groups are compared with, float64 (len(rows), n_genes)."""
        ...

    def tests(self, rows: np.ndarray, measured: np.ndarray) -> Tested:
        """Tests of perturbations on the genes that ``measured``, bool (len(rows), n_genes), lets pass."""
        ...


class RankSumResults:
    """Rank-sum tests: done gene by gene, so that blocks hold their p-values.

    ``sizes`` are the groups' numbers of cells, int64 (n + 1,), controls last.
    """

    def __init__(self, blocks: Sequence[BlockFile], sizes: np.ndarray):
        self._blocks, self._sizes = blocks, sizes

    def means(self, rows: Rows) -> np.ndarray:
        """See `Results`."""
        return _all_genes(self._blocks, 3, rows)

    def control_means(self, rows: Rows) -> np.ndarray:
        """See `Results`; of all controls."""
        mean = self.means([-1])
        return np.broadcast_to(mean, (len(rows), mean.shape[1]))

    def tests(self, rows: np.ndarray, measured: np.ndarray) -> Tested:
        """See `Results`."""
        u, *p_values = (_all_genes(self._blocks, field, rows) for field in range(3))
        return _masked([u, *p_values, u - self._sizes[rows, None] * self._sizes[-1] / 2], measured)


class StratifiedResults(RankSumResults):
    """Rank-sum tests within batches."""

    def control_means(self, rows: Rows) -> np.ndarray:
        """See `Results`; of the controls in a group's batches, weighted as its cells are spread over them."""
        return _all_genes(self._blocks, 5, rows)

    def tests(self, rows: np.ndarray, measured: np.ndarray) -> Tested:
        """See `Results`."""
        return _masked([_all_genes(self._blocks, field, rows) for field in (0, 1, 2, 4)], measured)


class PairedResults:
    """Paired differences: a perturbation's genes are needed together to moderate their variances."""

    def __init__(self, blocks: Sequence[BlockFile]):
        self._blocks = blocks
        self._spread = _all_genes(blocks, 0, [-1])[0]

    def means(self, rows: Rows) -> np.ndarray:
        """See `Results`."""
        return _all_genes(self._blocks, 4, rows)

    def control_means(self, rows: Rows) -> np.ndarray:
        """See `Results`; of the controls in a group's batches, weighted as its cells are spread over them."""
        return _all_genes(self._blocks, 5, rows)

    def shifts(self, rows: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """Median log2 difference over a perturbation's genes, float64 (len(rows),); 0 without any."""
        effects = _all_genes(self._blocks, 0, rows)
        kept = [values[passed & ~np.isnan(values)] for values, passed in zip(effects, measured, strict=True)]
        return np.array([np.median(values) if len(values) else 0.0 for values in kept])

    def tests(self, rows: np.ndarray, measured: np.ndarray) -> Tested:
        """See `Results`."""
        effect, variance, pairs, weight = (_all_genes(self._blocks, field, rows) for field in range(4))
        tested = [
            moderated_t(
                effect[row],
                variance[row],
                pairs=pairs[row],
                weight=weight[row],
                spread=self._spread,
                measured=measured[row],
            )
            for row in range(len(rows))
        ]
        t, *p_values = (np.stack(column) for column in zip(*tested, strict=True))
        return Tested(t, *p_values, side=t)


class RegressionResults:
    """Negative-binomial regressions, with the means from the paired differences' blocks."""

    def __init__(self, blocks: Sequence[BlockFile], paired: PairedResults):
        self._blocks, self._paired = blocks, paired

    def means(self, rows: Rows) -> np.ndarray:
        """See `Results`."""
        return self._paired.means(rows)

    def control_means(self, rows: Rows) -> np.ndarray:
        """See `Results`."""
        return self._paired.control_means(rows)

    def tests(self, rows: np.ndarray, measured: np.ndarray) -> Tested:
        """See `Results`."""
        return _masked([_all_genes(self._blocks, field, rows) for field in (0, 1, 2, 0)], measured)


def _all_genes(blocks: Sequence[BlockFile], field: int, rows: Rows) -> np.ndarray:
    """One of the blocks' fields for some rows and all genes."""
    return np.concatenate([block[field][rows] for block in blocks], axis=1)


def _masked(fields: list[np.ndarray], measured: np.ndarray) -> Tested:
    for values in fields:
        values[~measured] = np.nan
    return Tested(*fields)
