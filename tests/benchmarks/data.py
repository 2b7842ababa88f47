"""Input of the benchmarks: simulated counts of the size of an essential-gene screen, kept between runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

CONTROL = "non-targeting"
BLOCK = 2000


@dataclass(frozen=True)
class Size:
    """A screen's size; ``controls`` of the cells are controls."""

    cells: int = 60_000
    genes: int = 8_500
    perturbations: int = 400
    controls: int = 3_000

    @property
    def name(self) -> str:
        """Name of the folder the screen is kept in."""
        return f"{self.cells}x{self.genes}x{self.perturbations}-{self.controls}"


def make_counts(folder: Path, size: Size) -> Path:
    """Write ``counts.h5ad`` (CSR, float32, raw counts, ~36 % non-zero) unless it is there.

    Only the sizes and the sparsity matter to a benchmark; effects are tested elsewhere.
    """
    target = folder / size.name / "counts.h5ad"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(-1.1, 1.5, size.genes)).astype(np.float32)
    blocks = []
    for first in range(0, size.cells, BLOCK):
        depth = np.exp(rng.normal(0, 0.35, min(BLOCK, size.cells - first))).astype(np.float32)
        blocks.append(sparse.csr_matrix(rng.poisson(depth[:, None] * rate).astype(np.float32)))
    names = np.array([f"P{index:05d}" for index in range(size.perturbations)])
    group = np.concatenate([np.full(size.controls, CONTROL), rng.choice(names, size.cells - size.controls)])
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(rng.permutation(group)),
            "batch": pd.Categorical(rng.choice([f"b{i}" for i in range(8)], size.cells)),
        },
        index=[f"c{index}" for index in range(size.cells)],
    )
    var = pd.DataFrame(index=[f"g{index}" for index in range(size.genes)])
    made = anndata.AnnData(sparse.vstack(blocks, format="csr"), obs=obs, var=var)
    made.write_h5ad(target)
    return target
