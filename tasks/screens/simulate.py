"""A simulated Perturb-seq screen with known truth: UMI counts of cells with guides, in batches.

Counts are negative binomial around ``library size x expression``; every part of a real screen that makes
labels hard is there: batches with shifts of their own, guides of which one a target does not work, cells
with another guide than recorded, weak effects beside strong ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from storage.atomic import atomic_path
from storage.errors import InputError
from storage.tables import write_table
from tasks.screens.planted_network import PlantedNetwork, observed_knowledge, plant_network

CONTROL = "non-targeting"
#: Cells drawn at once; each block has a random stream of its own.
BLOCK_CELLS = 2048


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
    controls = max(1, cells // 8) if controls is None else controls
    _check_sizes(
        cells, genes, perturbations, controls, guides, batches, mean_umis, wrong_guide, batch_imbalance, seed
    )
    network = plant_network(genes, seed=seed)
    rng = np.random.default_rng([seed, 12])
    targets = np.sort(rng.choice(genes, perturbations, replace=False))
    effects = network.effects(targets, np.log2(rng.uniform(0.08, 0.35, perturbations)))
    obs, carried = _design(
        network.genes[targets], cells, controls, guides, batches, wrong_guide, batch_imbalance, rng
    )
    rates = _baseline(network, targets, batches, rng)
    depth = np.exp(rng.normal(0, 0.35, cells)) * (1.5 * genes if mean_umis is None else mean_umis)
    dispersion = rng.uniform(0.05, 0.4, genes)
    with atomic_path(target) as temporary:
        n_values = _write_counts(
            temporary, obs, network.genes, carried, effects, rates, depth, dispersion, seed, progress
        )
    truth = _truth(network.genes, targets, effects)
    truth_path = write_table(target.with_suffix(".truth.parquet"), truth, {"simulated": True, "seed": seed})
    knowledge = target.with_suffix(".knowledge")
    edges, memberships = observed_knowledge(network, seed=seed)
    write_table(knowledge / "edges_simulated.parquet", edges, {"simulated": True, "seed": seed})
    write_table(knowledge / "gene_modules_simulated.parquet", memberships, {"simulated": True, "seed": seed})
    return Simulated(target, knowledge, truth_path, cells, n_values, len(truth))


def _check_sizes(
    cells: int,
    genes: int,
    perturbations: int,
    controls: int,
    guides: int,
    batches: int,
    mean_umis: float | None,
    wrong_guide: float,
    imbalance: float,
    seed: int,
) -> None:
    """Raise with every size that no screen can have."""
    rules = [
        (cells >= 1, f"cells must be at least 1, not {cells}"),
        (genes >= 1, f"genes must be at least 1, not {genes}"),
        (1 <= perturbations <= genes, f"perturbations must be 1 to the number of genes, not {perturbations}"),
        (1 <= controls <= cells, f"control cells must be 1 to the number of cells, not {controls}"),
        (guides >= 1, f"guides must be at least 1, not {guides}"),
        (batches >= 1, f"batches must be at least 1, not {batches}"),
        (mean_umis is None or mean_umis > 0, f"mean UMIs must be above 0, not {mean_umis}"),
        (0 <= wrong_guide <= 1, f"the share of wrong guides must be 0 to 1, not {wrong_guide}"),
        (0 <= imbalance <= 1, f"the batches' imbalance must be 0 to 1, not {imbalance}"),
        (seed >= 0, f"the seed must be at least 0, not {seed}"),
    ]
    if problems := [problem for fine, problem in rules if not fine]:
        raise InputError("simulated screen", problems)


def _design(
    names: np.ndarray,
    cells: int,
    controls: int,
    guides: int,
    batches: int,
    wrong: float,
    imbalance: float,
    rng,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Who is in which cell: the recorded table, and the perturbation truly at work (-1: none)."""
    n = len(names)
    recorded = np.concatenate([np.full(controls, -1), rng.integers(0, n, cells - controls)])
    rng.shuffle(recorded)
    guide = rng.integers(0, guides, cells)
    control_guide = rng.integers(0, 8, cells)
    favourite = rng.integers(0, batches, n + 1)[recorded]
    batch = np.where(rng.random(cells) < 0.8 * imbalance, favourite, rng.integers(0, batches, cells))
    # The last guide of every target does not work; with a single guide there is none to spare.
    idle = (guide == guides - 1) & (guides > 1)
    carried = np.where(idle, -1, recorded)
    carried = np.where(rng.random(cells) < wrong, rng.integers(-1, n, cells), carried)
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


def _baseline(network: PlantedNetwork, targets: np.ndarray, batches: int, rng) -> np.ndarray:
    """Expression shares of each gene in each batch, float64 (batches, n_genes), rows summing to one."""
    genes = len(network.genes)
    level = rng.normal(0, 1.2, genes)
    # Screens target genes that are expressed in the line.
    level[targets] = np.maximum(level[targets], rng.normal(0.3, 0.5, len(targets)))
    shares = np.exp(level + rng.normal(0, 0.1, (batches, genes)))
    return shares / shares.sum(axis=1, keepdims=True)


def _write_counts(
    path: Path, obs, genes, carried, effects, rates, depth, dispersion, seed: int, progress
) -> int:
    """Draw counts block by block and append them to X; returns the number of non-zero values."""
    # Slow to import, and only needed here.
    import anndata
    from anndata.io import write_elem

    cells = len(obs)
    batch = obs["batch"].cat.codes.to_numpy()
    fold = np.vstack([np.exp2(effects), np.ones(len(genes))])
    with h5py.File(path, "w") as file:
        empty = anndata.AnnData(
            X=sparse.csr_matrix((cells, len(genes)), dtype=np.float32),
            obs=obs,
            var=pd.DataFrame(index=list(genes)),
        )
        for part in ("obs", "var"):
            write_elem(file, part, getattr(empty, part), dataset_kwargs={"compression": "gzip"})
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        group = file.create_group("X")
        group.attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (cells, len(genes))}
        )
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
        for number, first in enumerate(range(0, cells, BLOCK_CELLS)):
            rows = slice(first, min(first + BLOCK_CELLS, cells))
            rng = np.random.default_rng([seed, 13, number])
            mean = rates[batch[rows]] * fold[carried[rows]] * depth[rows, None]
            counts = rng.poisson(rng.gamma(1 / dispersion, mean * dispersion))
            block = sparse.csr_matrix(counts.astype(np.float32))
            for dataset, values in ((data, block.data), (columns, block.indices)):
                dataset.resize((starts[-1] + block.nnz,))
                dataset[starts[-1] :] = values
            starts.extend((block.indptr[1:].astype(np.int64) + starts[-1]).tolist())
            progress(rows.stop, cells)
        group.create_dataset("indptr", data=np.array(starts, np.int64))
    return starts[-1]


def _truth(genes: np.ndarray, targets: np.ndarray, effects: np.ndarray) -> pd.DataFrame:
    row, gene = np.nonzero(effects)
    return pd.DataFrame(
        {"pert": genes[targets[row]], "gene": genes[gene], "true_log2_fold_change": effects[row, gene]}
    )
