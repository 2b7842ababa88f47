"""Cells to learn from: of training perturbations and controls only, read from a screen's raw counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from storage.errors import InputError
from storage.h5ad import H5adFile
from tasks.screens.checks import count_problems, read_cells

#: Counts of a cell are scaled to this sum before the logarithm.
LIBRARY_SIZE = 10_000
#: A perturbation's variance needs two cells.
LEAST_CELLS = 2


@dataclass(frozen=True, eq=False)
class TrainingCells:
    """Expression of the chosen cells.

    Attributes
    ----------
    expression
        CSR float32 (n_cells, n_genes): log(1 + count x 10,000 / the cell's counts).
    perts
        Unicode (n_cells,): the cell's perturbation; empty for controls.
    genes
        Unicode (n_genes,), sorted.
    """

    expression: sparse.csr_matrix
    perts: np.ndarray
    genes: np.ndarray

    @property
    def controls(self) -> sparse.csr_matrix:
        """Rows of the control cells."""
        return self.expression[self.perts == ""]

    def of(self, chosen: np.ndarray) -> TrainingCells:
        """The chosen cells, bool (n_cells,)."""
        return TrainingCells(self.expression[chosen], self.perts[chosen], self.genes)


def read_training_cells(
    path: Path | str,
    columns: Mapping[str, str],
    perts: Sequence[str],
    genes: Sequence[str],
    *,
    most_cells: int,
    most_controls: int,
    most_genes: int,
    seed: int,
) -> TrainingCells:
    """Read cells of ``perts`` and controls; no other cell's counts are looked at.

    Parameters
    ----------
    columns
        ``perturbation_key``, ``control``, ``gene_key`` and ``only`` as in `read_cells`; ``layer`` that holds
        the counts.
    perts
        The training perturbations. Those with fewer than two cells are left out.
    genes
        Wanted first; then, up to ``most_genes``, come the most variable ones among the chosen cells.
    most_cells, most_controls
        Cells drawn of each perturbation, and of the controls.

    Raises
    ------
    InputError
        If the screen is not one of raw counts, or has none of the perturbations or genes.
    """
    usual = {"perturbation_key": "perturbation", "control": "non-targeting", "gene_key": None, "only": None}
    names = {name: columns.get(name) or default for name, default in usual.items()}
    with H5adFile(path, layer=columns.get("layer")) as file:
        table, measured = read_cells(file, **names)
        chosen, measured = _draw(table.frame, perts, most_cells, most_controls, seed), measured.astype(str)
        _raise(path, _problems(chosen, measured, perts, genes))
        counts = _read_rows(file, np.flatnonzero(table.keep)[chosen.index])
        _raise(path, count_problems(counts.data, "the cells to learn from", file.layers))
    expression, names = _log_normalised(counts), chosen["perturbation"].to_numpy(dtype=str)
    kept = _chosen_genes(expression, measured, genes, most_genes)
    return TrainingCells(expression[:, kept], names, measured[kept])


def _raise(path: Path | str, problems: list[str]) -> None:
    if problems:
        raise InputError(str(path), problems)


def _problems(
    chosen: pd.DataFrame, measured: np.ndarray, perts: Sequence[str], genes: Sequence[str]
) -> list[str]:
    problems = []
    if chosen["perturbation"].eq("").sum() < LEAST_CELLS:
        problems.append(f"fewer than {LEAST_CELLS} control cells")
    if chosen["perturbation"].ne("").sum() == 0:
        problems.append(f"none of the {len(perts):,} training perturbations has two cells in this screen")
    if not np.isin(measured, list(genes)).any():
        problems.append(f"none of the {len(genes):,} genes asked about is measured in this screen")
    return problems


def _draw(
    cells: pd.DataFrame, perts: Sequence[str], most_cells: int, most_controls: int, seed: int
) -> pd.DataFrame:
    """Rows of ``cells`` to learn from, in file order; a draw depends on its own perturbation's cells only."""
    of_pert = cells[~cells["control"]].groupby("perturbation").indices
    treated = np.flatnonzero(~cells["control"].to_numpy())
    cells_of = {"": np.flatnonzero(cells["control"].to_numpy())}
    cells_of |= {name: treated[of_pert[name]] for name in sorted(set(perts)) if name in of_pert}
    parts = [pd.DataFrame({"perturbation": []}, dtype=object)]
    for name, rows in cells_of.items():
        if len(rows) >= LEAST_CELLS:
            drawn = np.random.default_rng([seed, 5, *name.encode()]).permutation(rows)
            drawn = drawn[: most_cells if name else most_controls]
            parts.append(pd.DataFrame({"perturbation": name}, index=drawn))
    return pd.concat(parts).sort_index()


def _read_rows(file: H5adFile, rows: np.ndarray) -> sparse.csr_matrix:
    """The counts of some cells, all genes, in the order given, which is ascending."""
    blocks = []
    for first, block in file.row_blocks():
        begin, end = np.searchsorted(rows, [first, first + block.shape[0]])
        blocks.append(sparse.csr_matrix(block[rows[begin:end] - first], dtype=np.float64))
    return sparse.vstack(blocks, format="csr")


def _log_normalised(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    total = np.asarray(counts.sum(axis=1)).ravel()
    scaled = sparse.diags_array(LIBRARY_SIZE / np.maximum(total, 1)) @ counts
    return sparse.csr_matrix(scaled.log1p().astype(np.float32))


def _chosen_genes(
    expression: sparse.csr_matrix, measured: np.ndarray, wanted: Sequence[str], most: int
) -> np.ndarray:
    """Columns to keep, in order of name: wanted ones before others, among them the most variable first."""
    mean = np.asarray(expression.mean(axis=0)).ravel()
    variance = np.asarray(expression.multiply(expression).mean(axis=0)).ravel() - mean**2
    order = np.lexsort((measured, -variance, ~np.isin(measured, list(wanted))))
    kept = order[:most]
    return kept[np.argsort(measured[kept])]
