"""GEARS, through its authors' package: learns from cells what perturbations do to expression."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from storage.errors import InputError
from tasks.predictors.arrays import (
    history_from_state,
    history_state,
    options_from_state,
    options_state,
)
from tasks.predictors.gears_model.cells import TrainingCells, read_training_cells
from tasks.predictors.gears_model.graph import GOGraph
from tasks.predictors.gears_model.options import GEARSOptions
from tasks.predictors.gears_model.package import load_package, package_is_installed, train_gears
from tasks.predictors.gears_model.scores import GEARSScores
from tasks.predictors.options import Value
from tasks.predictors.protocol import OWN, TASKS, Context, Predictor, checked_tables, checked_task
from tasks.predictors.splits import held_out_perturbations
from tasks.predictors.threads import deterministic_torch

log = logging.getLogger(__name__)


class GEARSPredictor(Predictor):
    """GEARS (Roohani, Huang and Leskovec 2024) on the cells of the line's own training perturbations.

    Scores are the predicted expression after the perturbation minus the controls', in standard deviations of
    the gene among control cells: with its sign for direction, its size for the response. A gene set's score
    is the mean over its members. Perturbations without GO terms cannot be encoded and get, for each gene, the
    mean score of the training perturbations; genes that are not measured get 0. Labels are not learnt from:
    the tables say which perturbations may be seen and which genes matter. Rows of other lines are not used.

    Parameters
    ----------
    **options
        Fields of ``GEARSOptions``.

    Attributes
    ----------
    counts
        After ``fit``: cells and genes learnt from, controls included; training perturbations learnt from,
        without cells and without GO terms; genes of the training rows that are not measured.

    Raises
    ------
    InputError
        If an option is unknown or out of range; from ``fit``, if there is no expression data, the package is
        not installed, the knowledge has no GO terms, or the screen lacks the perturbations.
    """

    name: ClassVar[str] = "gears"
    title: ClassVar[str] = "GEARS on the cells of the training perturbations"
    options_type: ClassVar[type[GEARSOptions]] = GEARSOptions
    seeded: bool = True
    uses_device: bool = True
    reads_cells: bool = True

    def __init__(self, /, **options: Value):
        super().__init__(**options)
        self._tasks: tuple[str, ...] = ()
        self._threads = 1
        self._scores: GEARSScores | None = None

    def fit(self, tables: Mapping[str, pd.DataFrame], context: Context) -> Self:
        """Learn from the cells of the tables' own perturbations and of the controls."""
        tables = checked_tables(tables)
        self._tasks, self._threads = tuple(tables), context.threads
        graph = GOGraph.build(context.knowledge)
        rows = pd.concat(tables.values())
        rows = rows[rows["source"] == OWN]
        _check(context, graph, rows)
        cells, nodes = self._read(rows, graph, context)
        held = held_out_perturbations(tables)
        held_nodes = graph.node_of(context.knowledge.resolve(held))
        choosing = _with_cells(held_nodes, nodes, context.seed)
        learnt = np.setdiff1d(nodes[nodes >= 0], choosing)
        options, strict = self.options, self.options.device == "cpu"
        load_package()
        with deterministic_torch(self._threads, seed=context.seed, strict=strict):
            trained = train_gears(
                cells,
                nodes,
                choosing,
                graph=graph,
                options=options,
                seed=context.seed,
                progress=context.progress,
            )
            self._scores = GEARSScores.build(
                trained,
                learnt,
                hidden=options.hidden,
                symbols=context.knowledge.symbols,
                node_genes=graph.genes,
                measured=cells.genes,
                controls=cells.controls,
                sets=context.sets,
            )
        self.history = trained.history
        self._validate(tables, held[~np.isin(held_nodes, learnt)])
        return self

    def predict(self, task: str, pairs: pd.DataFrame) -> np.ndarray:
        """Score each pair."""
        checked_task(task, self._tasks)
        perts, row = np.unique(pairs["pert"].to_numpy(dtype=str), return_inverse=True)
        genes, column = np.unique(pairs["gene"].to_numpy(dtype=str), return_inverse=True)
        load_package()
        with deterministic_torch(self._threads, seed=0):
            return self._scores.scores(task, perts, genes)[row, column]

    def state(self) -> dict[str, np.ndarray]:
        """Return the options, the network's weights and graphs, and what its output is measured by."""
        state = options_state(self.parameters()) | self._scores.state()
        state |= {"tasks": np.array(self._tasks, dtype=str), "threads": np.array(self._threads)}
        return state | history_state(self.history)

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Build the fitted predictor from its arrays."""
        predictor = cls(**options_from_state(state))
        predictor._tasks = tuple(task for task in TASKS if task in state["tasks"])
        predictor._threads = int(state["threads"])
        predictor.history = history_from_state(state)
        predictor._scores = GEARSScores.from_state(state)
        return predictor

    def _read(self, rows: pd.DataFrame, graph: GOGraph, context: Context) -> tuple[TrainingCells, np.ndarray]:
        """Cells of controls and of perturbations with GO terms, and the node perturbed in each (-1: none)."""
        perts, names = rows["pert"].unique(), rows["gene"].unique()
        genes = sorted({gene for name in names for gene in context.sets.get(name, (name,))})
        cells = read_training_cells(
            context.expression,
            context.screen_columns,
            perts,
            genes,
            most_cells=self.options.cells,
            most_controls=self.options.controls,
            most_genes=self.options.genes,
            seed=context.seed,
        )
        nodes = graph.node_of(context.knowledge.resolve(cells.perts))
        usable = (nodes >= 0) | (cells.perts == "")
        with_cells = len(np.unique(cells.perts[cells.perts != ""]))
        self.counts = {
            "cells": int(usable.sum()),
            "perturbations": len(np.unique(nodes[nodes >= 0])),
            "without_cells": len(perts) - with_cells,
            "without_go_terms": len(np.unique(cells.perts[~usable])),
            "genes": len(cells.genes),
            "genes_not_measured": len(np.setdiff1d(genes, cells.genes)),
        }
        log.info("gears: %s", ", ".join(f"{count} {what}" for what, count in self.counts.items()))
        if self.counts["perturbations"] < 2:
            message = f"two training perturbations with cells and GO terms are needed; found {self.counts}"
            raise InputError(str(context.expression), [message])
        return cells.of(usable), nodes[usable]

    def _validate(self, tables: Mapping[str, pd.DataFrame], held: np.ndarray) -> None:
        """Score the training rows of the perturbations whose cells were not learnt from."""
        self.validation_scores = {}
        for task, table in tables.items():
            mine = table[(table["source"] == OWN) & table["pert"].isin(held)]
            if len(mine):
                scores = self.predict(task, mine)
                self.validation_scores[task] = mine[["pert", "gene", "label"]].assign(score=scores)


def _check(context: Context, graph: GOGraph, rows: pd.DataFrame) -> None:
    """Say everything that keeps GEARS from running, at once."""
    problems = []
    if context.expression is None:
        problems.append(
            "it learns from cells, and no screen was given; give the line's screen (h5ad with raw counts), "
            "which the published tables come without"
        )
    if not package_is_installed():
        problems.append(
            "the authors' package cell-gears is not installed; install it: pip install '.[gears]'"
        )
    if not len(graph.genes):
        problems.append("the knowledge has no GO terms (gene_go_*.parquet), by which it knows perturbations")
    if rows.empty:
        problems.append(f"no training rows of the line itself (source '{OWN}'), whose cells it learns from")
    if problems:
        raise InputError("gears cannot run here", problems)


def _with_cells(held: np.ndarray, nodes: np.ndarray, seed: int) -> np.ndarray:
    """Held-out nodes with cells, one more drawn if there is none: the best epoch is chosen by them."""
    with_cells = np.unique(nodes[nodes >= 0])
    held = np.intersect1d(held, with_cells)
    if not len(held) or len(held) == len(with_cells):
        held = np.random.default_rng([seed, 6]).permutation(with_cells)[:1]
    return held
