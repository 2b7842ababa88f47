"""From the changes of expression that a trained GEARS predicts to scores of pairs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy import sparse

from tasks.knowledge.lookup import sorted_positions
from tasks.knowledge.symbols import SymbolIndex
from tasks.predictors.arrays import csr_from_state, csr_state, part_of_state, symbols_from_state
from tasks.predictors.gears_model.package import TrainedGEARS
from tasks.predictors.gears_model.prediction import predicted_change

log = logging.getLogger(__name__)

#: Fields that are plain arrays.
PLAIN = ("node_genes", "measured", "sets", "spread")


@dataclass(frozen=True, eq=False)
class GEARSScores:
    """All that scoring needs.

    Attributes
    ----------
    trained, hidden
        The network and its number of units.
    symbols
        Of the knowledge graph.
    node_genes
        int64 (n_nodes,): position among the graph's genes of each node of the perturbation graph, ascending.
    measured
        Unicode (n_genes,), sorted: the genes whose expression is predicted.
    spread
        float64 (n_genes,): standard deviation among control cells, infinite where that is 0.
    sets, members
        Names of gene sets, sorted, and CSR (n_sets, n_genes) with 1 where a gene is a member.
    neutral
        Task to float64 (n_genes,): the mean score over training perturbations.
    """

    trained: TrainedGEARS
    hidden: int
    symbols: SymbolIndex
    node_genes: np.ndarray
    measured: np.ndarray
    spread: np.ndarray
    sets: np.ndarray
    members: sparse.csr_array
    neutral: Mapping[str, np.ndarray]

    @classmethod
    def build(
        cls,
        trained: TrainedGEARS,
        learnt: np.ndarray,
        *,
        hidden: int,
        symbols: SymbolIndex,
        node_genes: np.ndarray,
        measured: np.ndarray,
        controls: sparse.csr_matrix,
        sets: Mapping[str, tuple[str, ...]],
    ) -> Self:
        """Measure the controls' spread and the mean scores of the nodes learnt from."""
        mean = np.asarray(controls.mean(axis=0)).ravel()
        square = np.asarray(controls.multiply(controls).mean(axis=0)).ravel()
        spread = np.sqrt(np.maximum(square - mean**2, 0))
        spread = np.where(spread > 1e-6, spread, np.inf)
        names = sorted(sets)
        members = np.array([np.isin(measured, list(sets[name])) for name in names], dtype=np.float64)
        scores = cls(
            trained,
            hidden,
            symbols,
            node_genes,
            measured,
            spread,
            np.array(names, dtype=str) if names else np.empty(0, dtype="<U1"),
            sparse.csr_array(members.reshape(-1, len(measured))),
            {},
        )
        scaled = scores._scaled(learnt)
        return replace(scores, neutral={"de": np.abs(scaled).mean(axis=0), "dir": scaled.mean(axis=0)})

    def scores(self, task: str, perts: np.ndarray, genes: np.ndarray) -> np.ndarray:
        """Scores of every perturbation with every gene, float64 (n_perts, n_genes)."""
        nodes = self.nodes(perts)
        if unknown := int((nodes < 0).sum()):
            log.info("gears: %d of %d perturbations have no GO terms: neutral scores", unknown, len(perts))
        table = np.repeat(self.neutral[task][None], len(perts), axis=0)
        scaled = self._scaled(nodes[nodes >= 0])
        table[nodes >= 0] = np.abs(scaled) if task == "de" else scaled
        return table @ self._asked(genes).T

    def nodes(self, perts: np.ndarray) -> np.ndarray:
        """Node of each perturbation, int64; -1 where it cannot be encoded."""
        return sorted_positions(self.node_genes, self.symbols.resolve(perts))

    def _scaled(self, nodes: np.ndarray) -> np.ndarray:
        change = predicted_change(self.trained, nodes, hidden=self.hidden)
        return change.astype(np.float64) / self.spread

    def _asked(self, names: np.ndarray) -> sparse.csr_array:
        """Which measured genes make up each name, (n_names, n_genes): rows sum to 1, or to 0 if none do."""
        gene, in_sets = sorted_positions(self.measured, names), sorted_positions(self.sets, names)
        is_set = np.flatnonzero(in_sets >= 0)
        is_gene = np.flatnonzero((gene >= 0) & (in_sets < 0))
        genes = _ones(is_gene, gene[is_gene], (len(names), len(self.measured)))
        members = _ones(is_set, in_sets[is_set], (len(names), len(self.sets))) @ self.members
        parts = genes + members
        return sparse.diags_array(1 / np.maximum(parts.sum(axis=1), 1)) @ parts

    def state(self) -> dict[str, np.ndarray]:
        """Return the arrays."""
        state = {name: getattr(self, name) for name in PLAIN} | {"hidden": np.array(self.hidden)}
        state |= self.symbols.state() | csr_state("members", self.members)
        state |= {f"neutral_{task}": values for task, values in self.neutral.items()}
        state |= {f"weights_{name}": values for name, values in self.trained.weights.items()}
        return state | {f"graphs_{name}": values for name, values in self.trained.graphs.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Build the scores whose ``state`` lies in ``state``."""
        weights, graphs = part_of_state("weights_", state), part_of_state("graphs_", state)
        return cls(
            trained=TrainedGEARS(weights, graphs, []),
            hidden=int(state["hidden"]),
            symbols=symbols_from_state(state),
            members=csr_from_state("members", state),
            neutral=part_of_state("neutral_", state),
            **{name: np.asarray(state[name]) for name in PLAIN},
        )


def _ones(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
