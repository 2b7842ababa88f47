"""Training rows of both tasks as pairs with three classes, and their cut into training and validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.predictors.protocol import OWN

VALIDATION_SHARE = 0.1
NONE, DOWN, UP = 0, 1, 2


@dataclass(frozen=True, eq=False)
class PairRows:
    """Pairs with what is known of their class; all arrays [n] or [n, 3].

    Attributes
    ----------
    pert, gene
        Names.
    line
        0 for the predicted line, then the others by name.
    possible, true
        Masks over none, down, up: the classes the task leaves open, and those the label allows.
    de, direction
        The labels as given, -1 where the task does not have the pair.
    lines
        Names of the lines.
    """

    pert: np.ndarray
    gene: np.ndarray
    line: np.ndarray
    possible: np.ndarray
    true: np.ndarray
    de: np.ndarray
    direction: np.ndarray
    lines: tuple[str, ...]

    @classmethod
    def build(cls, tables: Mapping[str, pd.DataFrame]) -> PairRows:
        """Join the checked tables of the two tasks, either of which may be absent."""
        key = ["source", "pert", "gene"]
        parts = [
            table.drop_duplicates(key).set_index(key)["label"].rename(task) for task, table in tables.items()
        ]
        rows = pd.concat(parts, axis=1).sort_index().reset_index()
        de, direction = (
            rows[task].fillna(-1).to_numpy(np.int8) if task in rows else np.full(len(rows), -1, np.int8)
            for task in ("de", "dir")
        )
        lines = (OWN, *sorted(set(rows["source"]) - {OWN}))
        possible = np.ones((len(rows), 3), dtype=bool)
        possible[de < 0, NONE] = False
        true = np.zeros_like(possible)
        true[:, NONE] = de == 0
        true[:, DOWN] = (de != 0) & (direction != 1)
        true[:, UP] = (de != 0) & (direction != 0)
        return cls(
            pert=rows["pert"].to_numpy(dtype=str),
            gene=rows["gene"].to_numpy(dtype=str),
            line=rows["source"].map({line: at for at, line in enumerate(lines)}).to_numpy(np.int64),
            possible=possible,
            true=true,
            de=de,
            direction=direction,
            lines=lines,
        )

    def validation(self, seed: int) -> np.ndarray:
        """Mask of the rows held out: a tenth of the predicted line's perturbations, at least one.

        All False if the predicted line has fewer than two perturbations.
        """
        perts = np.unique(self.pert[self.line == 0])
        if len(perts) < 2:
            return np.zeros(len(self.pert), dtype=bool)
        count = max(1, round(VALIDATION_SHARE * len(perts)))
        held = np.random.default_rng([seed, 3]).permutation(perts)[:count]
        return (self.line == 0) & np.isin(self.pert, held)


def named_nodes(resolved: np.ndarray, names: np.ndarray, n_genes: int, extra: np.ndarray) -> np.ndarray:
    """Node of each name, given where the graph has it (-1: nowhere)."""
    names = np.asarray(names, dtype=str)
    node = np.full(len(names), n_genes + len(extra), dtype=np.int64)
    if len(extra):
        at = np.minimum(np.searchsorted(extra, names), len(extra) - 1)
        node = np.where(extra[at] == names, n_genes + at, node)
    return np.where(resolved >= 0, resolved, node)
