"""Training rows of one task as matrices: which pairs were observed, and with what outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.predictors.arrays import csr_from_state, csr_state
from tasks.predictors.protocol import OWN


@dataclass(frozen=True, eq=False)
class Observations:
    """Outcomes of the observed pairs; a row is a perturbation in one cell line.

    Attributes
    ----------
    perts, own
        [n_rows] the row's perturbation, and whether it is of the line that is predicted.
    genes
        [n_columns] the measured genes, sorted.
    residuals
        CSR float32 [n_rows, n_columns]: outcome minus the gene's smoothed rate in that line.
    observed
        CSR float32, same pattern: 1.
    labels
        CSR float32, same pattern: 0 or 1.
    base
        float64 [n_columns]: the gene's smoothed rate in the predicted line (in all lines together if the
        predicted one has no rows).
    overall
        The rate over all rows ``base`` is made from.
    """

    perts: np.ndarray
    own: np.ndarray
    genes: np.ndarray
    residuals: sparse.csr_array
    observed: sparse.csr_array
    labels: sparse.csr_array
    base: np.ndarray
    overall: float

    @classmethod
    def build(cls, table: pd.DataFrame, *, gene_strength: float) -> Self:
        """Arrange checked training rows; ``gene_strength`` rows of the line's rate smooth each gene's."""
        table = table.drop_duplicates(["source", "pert", "gene"])
        genes = np.unique(table["gene"].to_numpy(dtype=str))
        column = np.searchsorted(genes, table["gene"].to_numpy(dtype=str))
        # The table is sorted, own rows first: groups in order of appearance are own rows first too.
        row = table.groupby(["source", "pert"], sort=False).ngroup().to_numpy()
        first = table.drop_duplicates(["source", "pert"])
        label = table["label"].to_numpy(np.float64)
        rate = np.empty(len(table))
        for source in table["source"].unique():
            mine = (table["source"] == source).to_numpy()
            rate[mine] = _rates(label[mine], column[mine], len(genes), gene_strength)[0][column[mine]]
        own = (table["source"] == OWN).to_numpy()
        base_of = own if own.any() else np.ones(len(table), dtype=bool)
        base, overall = _rates(label[base_of], column[base_of], len(genes), gene_strength)

        def matrix(values: np.ndarray) -> sparse.csr_array:
            cells = (values.astype(np.float32), (row, column))
            return sparse.csr_array(cells, shape=(len(first), len(genes)))

        return cls(
            perts=first["pert"].to_numpy(dtype=str),
            own=(first["source"] == OWN).to_numpy(),
            genes=genes,
            residuals=matrix(label - rate),
            observed=matrix(np.ones(len(table))),
            labels=matrix(label),
            base=base,
            overall=overall,
        )

    def state(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays, their names starting with ``prefix``."""
        state = {f"{prefix}_{name}": getattr(self, name) for name in ("perts", "own", "genes", "base")}
        state[f"{prefix}_overall"] = np.float64(self.overall)
        for name in ("residuals", "observed", "labels"):
            state |= csr_state(f"{prefix}_{name}", getattr(self, name))
        return state

    @classmethod
    def from_state(cls, prefix: str, state: Mapping[str, np.ndarray]) -> Self:
        """Build the observations whose ``state`` lies in ``state``."""
        plain = {name: np.asarray(state[f"{prefix}_{name}"]) for name in ("perts", "own", "genes", "base")}
        matrices = {n: csr_from_state(f"{prefix}_{n}", state) for n in ("residuals", "observed", "labels")}
        return cls(**plain, **matrices, overall=float(state[f"{prefix}_overall"]))


def _rates(label: np.ndarray, column: np.ndarray, n_genes: int, strength: float) -> tuple[np.ndarray, float]:
    """Each gene's rate, drawn towards the overall rate by ``strength`` rows, and the overall rate."""
    overall = float(label.mean())
    positives = np.bincount(column, weights=label, minlength=n_genes)
    rows = np.bincount(column, minlength=n_genes)
    return (positives + strength * overall) / (rows + strength), overall
