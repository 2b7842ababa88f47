"""Predictors' states: options, histories, sparse matrices and symbol indices as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from tasks.knowledge.symbols import SymbolIndex

#: What the names of options begin with.
OPTION = "option_"


def csr_state(name: str, matrix: sparse.csr_array) -> dict[str, np.ndarray]:
    """Return the four arrays of a CSR matrix, under names that start with ``name``."""
    return {
        f"{name}_data": matrix.data,
        f"{name}_indices": matrix.indices,
        f"{name}_indptr": matrix.indptr,
        f"{name}_shape": np.array(matrix.shape, dtype=np.int64),
    }


def csr_from_state(name: str, state: Mapping[str, np.ndarray]) -> sparse.csr_array:
    """Build the CSR matrix whose ``csr_state`` lies in ``state``."""
    parts = tuple(np.asarray(state[f"{name}_{part}"]) for part in ("data", "indices", "indptr"))
    return sparse.csr_array(parts, shape=tuple(int(n) for n in state[f"{name}_shape"]))


def options_state(options: Mapping[str, str | int | float | bool | None]) -> dict[str, np.ndarray]:
    """Return options as arrays of their own."""
    return {f"{OPTION}{name}": np.array(value) for name, value in options.items()}


def options_from_state(state: Mapping[str, np.ndarray]) -> dict[str, str | int | float | bool | None]:
    """Read the options whose ``options_state`` lies in ``state``."""
    return {name: value.item() for name, value in part_of_state(OPTION, state).items()}


def history_state(history: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Return metrics by epoch as a table, float64 [n_epochs, n_metrics], NaN where an epoch lacks one."""
    columns = sorted({name for metrics in history for name in metrics})
    rows = [[metrics.get(column, np.nan) for column in columns] for metrics in history]
    names = np.array(columns, dtype=str) if columns else np.empty(0, "<U1")
    return {"history_columns": names, "history": np.array(rows, dtype=np.float64)}


def history_from_state(state: Mapping[str, np.ndarray]) -> list[dict[str, float]]:
    """Read the metrics whose ``history_state`` lies in ``state``."""
    columns = state["history_columns"].tolist()
    return [dict(zip(columns, metrics, strict=True)) for metrics in state["history"].tolist()]


def part_of_state(prefix: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays whose names start with ``prefix``, by the rest of their names."""
    return {key.removeprefix(prefix): np.asarray(state[key]) for key in state if key.startswith(prefix)}


def symbols_from_state(state: Mapping[str, np.ndarray]) -> SymbolIndex:
    """Build the symbol index whose ``state`` lies in ``state``."""
    return SymbolIndex(*(np.asarray(state[part]) for part in ("genes", "aliases", "alias_genes")))
