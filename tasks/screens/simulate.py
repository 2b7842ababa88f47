"""A simulated Perturb-seq screen with known truth: UMI counts of cells with guides, in batches.

Counts are negative binomial around ``library size x expression``; every part of a real screen that makes
labels hard is there: batches with shifts of their own, guides of which one a target does not work, cells
with another guide than recorded, weak effects beside strong ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from storage.atomic import atomic_path
from storage.errors import InputError
from storage.tables import write_table
from tasks.random_streams import RandomStream
from tasks.screens.planted_network import observed_knowledge, plant_network

CONTROL = "non-targeting"
#: Cells drawn at once; each block has a random stream of its own.
BLOCK_CELLS = 2048


@dataclass(frozen=True)
class ScreenSizes:
    """How large a screen is made; parameters as of `simulate_screen`."""

    cells: int
    genes: int
    perturbations: int
    controls: int
    guides: int
    batches: int
    mean_umis: float | None
    wrong_guide: float
    batch_imbalance: float
    seed: int

    def check(self) -> None:
        """Raise InputError with every size that no screen can have."""
        rules = [
            (self.cells >= 1, f"cells must be at least 1, not {self.cells}"),
            (self.genes >= 1, f"genes must be at least 1, not {self.genes}"),
            (
                1 <= self.perturbations <= self.genes,
                f"perturbations must be 1 to the number of genes, not {self.perturbations}",
            ),
            (
                1 <= self.controls <= self.cells,
                f"control cells must be 1 to the number of cells, not {self.controls}",
            ),
            (self.guides >= 1, f"guides must be at least 1, not {self.guides}"),
            (self.batches >= 1, f"batches must be at least 1, not {self.batches}"),
            (
                self.mean_umis is None or self.mean_umis > 0,
                f"mean UMIs must be above 0, not {self.mean_umis}",
            ),
            (
                0 <= self.wrong_guide <= 1,
                f"the share of wrong guides must be 0 to 1, not {self.wrong_guide}",
            ),
            (
                0 <= self.batch_imbalance <= 1,
                f"the batches' imbalance must be 0 to 1, not {self.batch_imbalance}",
            ),
            (self.seed >= 0, f"the seed must be at least 0, not {self.seed}"),
        ]
        if problems := [problem for fine, problem in rules if not fine]:
            raise InputError("simulated screen", problems)


@dataclass(frozen=True, eq=False)
class _Expression:
    """What counts are drawn around.

    Attributes
    ----------
    shares
        float64 (n_batches, n_genes): of a cell's UMIs without any effect, rows summing to one.
    fold
        float64 (n_perturbations + 1, n_genes): what each perturbation multiplies them by; the last row is of
        cells that carry none.
    depth
        float64 (n_cells,): mean UMIs of each cell.
    dispersion
        float64 (n_genes,): of the negative binomial.
    """

    shares: np.ndarray
    fold: np.ndarray
    depth: np.ndarray
    dispersion: np.ndarray


@dataclass(frozen=True)
class Simulated:
    """Paths and sizes of a simulated screen."""

    screen: Path
    knowledge: Path
    truth: Path
    n_cells: int
    n_values: int
    n_effects: int


def simulate_screen(
    target: Path | str,
    *,
    cells: int,
    genes: int,
    perturbations: int,
    seed: int = 0,
    controls: int | None = None,
    guides: int = 3,
    batches: int = 4,
    mean_umis: float | None = None,
    wrong_guide: float = 0.02,
    batch_imbalance: float = 0.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Simulated:
    """Write ``target`` (h5ad, CSR), ``<stem>.knowledge/`` and ``<stem>.truth.parquet`` beside it.

    Parameters
    ----------
    cells
        All cells, ``controls`` of them with non-targeting guides (default: an eighth).
    guides
        Guides a target; the last one does not work.
    mean_umis
        Mean UMIs a cell (default: 1.5 a gene).
    wrong_guide
        Share of cells whose recorded guide is not the one they carry.
    batch_imbalance
        0: perturbations spread evenly over batches; 1: each has a favourite batch with most of its cells.

    Returns
    -------
    Simulated
        ``truth``: ``pert, gene, true_log2_fold_change`` of every planted effect, the target's own included.
    """
    target = Path(target)
    sizes = ScreenSizes(
        cells=cells,
        genes=genes,
        perturbations=perturbations,
        controls=max(1, cells // 8) if controls is None else controls,
        guides=guides,
        batches=batches,
        mean_umis=mean_umis,
        wrong_guide=wrong_guide,
        batch_imbalance=batch_imbalance,
        seed=seed,
    )
    sizes.check()
    umis = 1.5 * genes if mean_umis is None else mean_umis
    network = plant_network(genes, seed=seed)
    rng = np.random.default_rng([seed, RandomStream.SIMULATED_CELLS])
    targets = np.sort(rng.choice(genes, perturbations, replace=False))
    effects = network.effects(targets, np.log2(rng.uniform(0.08, 0.35, perturbations)))
    obs, carried = design_cells(sizes, network.genes[targets], rng=rng)
    expression = _Expression(
        shares=_baseline(sizes, targets, rng=rng),
        fold=np.vstack([np.exp2(effects), np.ones(genes)]),
        depth=np.exp(rng.normal(0, 0.35, cells)) * umis,
        dispersion=rng.uniform(0.05, 0.4, genes),
    )
    batch = obs["batch"].cat.codes.to_numpy()
    # The truth first: it is what tells later that these files were made here.
    truth = _truth(network.genes, targets, effects=effects)
    truth_path = write_table(target.with_suffix(".truth.parquet"), truth, {"simulated": True, "seed": seed})
    with atomic_path(target) as temporary:
        counts = _count_blocks(expression, batch, carried=carried, seed=seed)
        n_values = _write_screen(temporary, obs, genes=network.genes, counts=counts, progress=progress)
    knowledge = target.with_suffix(".knowledge")
    edges, memberships = observed_knowledge(network, seed=seed)
    write_table(knowledge / "edges_simulated.parquet", edges, {"simulated": True, "seed": seed})
    write_table(knowledge / "gene_modules_simulated.parquet", memberships, {"simulated": True, "seed": seed})
    return Simulated(target, knowledge, truth_path, cells, n_values, len(truth))


def design_cells(
    sizes: ScreenSizes, names: np.ndarray, *, rng: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray]:
    """Who is in which cell: the recorded table, and the perturbation truly at work (-1: none).

    ``names`` are those of the targets.
    """
    n, cells = len(names), sizes.cells
    recorded = np.concatenate([np.full(sizes.controls, -1), rng.integers(0, n, cells - sizes.controls)])
    rng.shuffle(recorded)
    guide = rng.integers(0, sizes.guides, cells)
    control_guide = rng.integers(0, 8, cells)
    favourite = rng.integers(0, sizes.batches, n + 1)[recorded]
    at_favourite = rng.random(cells) < 0.8 * sizes.batch_imbalance
    batch = np.where(at_favourite, favourite, rng.integers(0, sizes.batches, cells))
    # The last guide of every target does not work; with a single guide there is none to spare.
    idle = (guide == sizes.guides - 1) & (sizes.guides > 1)
    carried = np.where(idle, -1, recorded)
    carried = np.where(rng.random(cells) < sizes.wrong_guide, rng.integers(-1, n, cells), carried)
    name = np.where(recorded < 0, CONTROL, names[recorded])
    number = np.where(recorded < 0, control_guide, guide) + 1
    obs = pd.DataFrame(
        {
            "perturbation": name,
            "guide_id": [f"{a}_{b}" for a, b in zip(name, number, strict=True)],
            "batch": [f"batch_{b + 1}" for b in batch],
        },
        index=[f"cell_{index:07d}" for index in range(cells)],
    )
    return obs.astype("category"), carried


def _baseline(sizes: ScreenSizes, targets: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Expression shares of each gene in each batch; see `_Expression`."""
    level = rng.normal(0, 1.2, sizes.genes)
    # Screens target genes that are expressed in the line.
    level[targets] = np.maximum(level[targets], rng.normal(0.3, 0.5, len(targets)))
    shares = np.exp(level + rng.normal(0, 0.1, (sizes.batches, sizes.genes)))
    return shares / shares.sum(axis=1, keepdims=True)


def _count_blocks(
    expression: _Expression, batch: np.ndarray, *, carried: np.ndarray, seed: int
) -> Iterator[sparse.csr_matrix]:
    """Draw counts, `BLOCK_CELLS` cells at a time; ``batch`` and ``carried`` are of each cell."""
    dispersion = expression.dispersion
    for number, first in enumerate(range(0, len(batch), BLOCK_CELLS)):
        rows = slice(first, first + BLOCK_CELLS)
        rng = np.random.default_rng([seed, RandomStream.SIMULATED_COUNTS, number])
        share = expression.shares[batch[rows]] * expression.fold[carried[rows]]
        mean = share * expression.depth[rows, None]
        yield sparse.csr_matrix(rng.poisson(rng.gamma(1 / dispersion, mean * dispersion)).astype(np.float32))


def _write_screen(
    path: Path,
    obs: pd.DataFrame,
    *,
    genes: np.ndarray,
    counts: Iterable[sparse.csr_matrix],
    progress: Callable[[int, int], None],
) -> int:
    """Write an h5ad file, X block by block; returns the number of non-zero values."""
    with h5py.File(path, "w") as file:
        _write_names(file, obs, genes=genes)
        group = file.create_group("X")
        shape = (len(obs), len(genes))
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
        options = {
            "shape": (0,),
            "maxshape": (None,),
            "chunks": (1 << 17,),
            "compression": "gzip",
            "compression_opts": 1,
        }
        data = group.create_dataset("data", dtype=np.float32, **options)
        columns = group.create_dataset("indices", dtype=np.int32, **options)
        starts = [0]
        for block in counts:
            for dataset, values in ((data, block.data), (columns, block.indices)):
                dataset.resize((starts[-1] + block.nnz,))
                dataset[starts[-1] :] = values
            starts.extend((block.indptr[1:].astype(np.int64) + starts[-1]).tolist())
            progress(len(starts) - 1, len(obs))
        group.create_dataset("indptr", data=np.array(starts, np.int64))
    return starts[-1]


def _write_names(file: h5py.File, obs: pd.DataFrame, *, genes: np.ndarray) -> None:
    """Write cells and genes as anndata does."""
    # Slow to import, and only needed here.
    import anndata
    from anndata.io import write_elem

    empty = anndata.AnnData(
        X=sparse.csr_matrix((len(obs), len(genes)), dtype=np.float32),
        obs=obs,
        var=pd.DataFrame(index=list(genes)),
    )
    for part in ("obs", "var"):
        write_elem(file, part, getattr(empty, part), dataset_kwargs={"compression": "gzip"})
    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})


def _truth(genes: np.ndarray, targets: np.ndarray, *, effects: np.ndarray) -> pd.DataFrame:
    row, gene = np.nonzero(effects)
    return pd.DataFrame(
        {"pert": genes[targets[row]], "gene": genes[gene], "true_log2_fold_change": effects[row, gene]}
    )
