"""Training rows of both tasks as pairs with three classes, and the nodes that names stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.knowledge.lookup import sorted_positions
from tasks.knowledge.symbols import SymbolIndex
from tasks.predictors.protocol import OWN
from tasks.predictors.splits import draw_perturbations

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
            line=rows["source"].map({line: number for number, line in enumerate(lines)}).to_numpy(np.int64),
            possible=possible,
            true=true,
            de=de,
            direction=direction,
            lines=lines,
        )

    @property
    def names(self) -> np.ndarray:
        """All names of perturbations and genes, sorted, each once."""
        return np.unique(np.concatenate([self.pert, self.gene]))

    def validation(self) -> np.ndarray:
        """Mask of the rows held out: a tenth of the predicted line's perturbations, at least one.

        All False if the predicted line has fewer than two perturbations.
        """
        own = self.line == 0
        return own & np.isin(self.pert, draw_perturbations(self.pert[own]))

    def held_out(self) -> dict[str, pd.DataFrame]:
        """The rows held out, as ``pert``, ``gene``, ``label``, of each task that has labels among them."""
        held = self.validation()
        frames = {}
        for task, label in (("de", self.de), ("dir", self.direction)):
            rows = held & (label >= 0)
            if rows.any():
                columns = {"pert": self.pert[rows], "gene": self.gene[rows], "label": label[rows]}
                frames[task] = pd.DataFrame(columns)
        return frames


@dataclass(frozen=True, eq=False)
class NamedNodes:
    """Nodes that a pair can name: known genes, names only the training rows have, then one "unknown".

    Attributes
    ----------
    symbols
        Known genes and their other names.
    extra
        Sorted names of the training rows that lead to none of those genes.
    """

    symbols: SymbolIndex
    extra: np.ndarray

    @classmethod
    def build(cls, names: np.ndarray, symbols: SymbolIndex) -> NamedNodes:
        """Nodes for all of ``symbols``, and for the training rows' ``names`` that it does not know."""
        names = np.asarray(names, dtype=str)
        return cls(symbols, np.unique(names[symbols.resolve(names) < 0]))

    @classmethod
    def build_seen(cls, names: np.ndarray, symbols: SymbolIndex) -> NamedNodes:
        """Nodes for the training rows' ``names`` only; ``symbols`` tells which of them are the same gene."""
        gene = symbols.resolve(names)
        aliases = zip(symbols.aliases.tolist(), symbols.genes[symbols.alias_genes].tolist(), strict=True)
        return cls.build(names, SymbolIndex.build(symbols.genes[gene[gene >= 0]].tolist(), dict(aliases)))

    @property
    def count(self) -> int:
        """Number of nodes; the unknown one is the last."""
        return len(self.symbols.genes) + len(self.extra) + 1

    def find(self, names: np.ndarray) -> np.ndarray:
        """Node of each name, int64 [n]; the unknown one where neither symbols nor training rows have it."""
        names, n_genes = np.asarray(names, dtype=str), len(self.symbols.genes)
        extra, gene = sorted_positions(self.extra, names), self.symbols.resolve(names)
        return np.where(gene >= 0, gene, np.where(extra >= 0, n_genes + extra, self.count - 1))
