"""Which genes are expressed enough to be tested, decided before any p-value is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

from tasks.expression.blocks import BlockFile, GeneSpan, write_block
from tasks.expression.groups import CellGroups


@dataclass(frozen=True)
class GeneFilters:
    """Least expression of a gene in a comparison; 0 asks for nothing.

    Both are counted over the perturbed and the control cells of the comparison together. Unlike either alone,
    that says next to nothing about which of the two is higher, so p-values of the genes kept stay uniform
    where nothing changes (independent filtering, Bourgon et al. 2010, PNAS 107:9546).

    Attributes
    ----------
    min_mean_umis
        Mean UMIs of the gene a cell.
    min_expressing_cells
        Cells with at least one UMI of the gene.
    """

    min_mean_umis: float = 0.0
    min_expressing_cells: int = 0

    @property
    def active(self) -> bool:
        """Whether any gene can fail."""
        return self.min_mean_umis > 0 or self.min_expressing_cells > 0

    def passed(self, counts: BlockFile, sizes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Which genes the perturbations ``rows`` may be tested on, bool (len(rows), n_genes).

        ``counts`` are a block's, as `count_block` writes them; ``sizes`` the cells of each group.
        """
        umis, expressing = counts[:, rows] + counts[:, -1:]
        cells = sizes[rows] + sizes[-1]
        return (umis >= self.min_mean_umis * cells[:, None]) & (expressing >= self.min_expressing_cells)


NO_FILTERS = GeneFilters()


def count_block(span: GeneSpan, groups: CellGroups) -> Path:
    """Count one block of genes; writes int64 (2, n_groups + 1, n_genes): UMIs, and cells with any."""
    block = span.read()
    umis_and_cells = _counts(
        block.starts, block.cells, counts=block.counts, group=groups.group, n_groups=len(groups.sizes)
    )
    write_block(span.target, umis_and_cells)
    return span.target


@njit(cache=True, nogil=True)
def _counts(starts, cells, counts, group, n_groups):
    result = np.zeros((2, n_groups, len(starts) - 1), np.int64)
    for gene in range(len(starts) - 1):
        for position in range(starts[gene], starts[gene + 1]):
            owner = group[cells[position]]
            if owner >= 0:
                result[0, owner, gene] += counts[position]
                result[1, owner, gene] += 1
    return result
