"""The authors' package cell-gears, unmodified: what it needs, prepared; and run.

The package looks for its files in a data folder and would download those that are missing. Here the folder
is a temporary one and holds all of them beforehand: GO terms of genes, genes of the perturbation graph, the
split. The perturbation graph itself is handed over ready made. Tried with version 0.1.2.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from tasks.predictors.gears_model.cells import TrainingCells
from tasks.predictors.gears_model.graph import GOGraph
from tasks.predictors.gears_model.options import GEARSOptions

#: What the package calls controls.
CONTROL = "ctrl"
#: The graphs among the settings of a network.
GRAPHS = ("G_coexpress", "G_coexpress_weight", "G_go", "G_go_weight")


@dataclass(frozen=True, eq=False)
class TrainedGEARS:
    """A trained network as arrays.

    Attributes
    ----------
    weights
        The network's tensors by name.
    graphs
        Edges and edge weights of the co-expression and the GO graph, by the names in `GRAPHS`.
    history
        Metrics of each epoch.
    """

    weights: dict[str, np.ndarray]
    graphs: dict[str, np.ndarray]
    history: list[dict[str, float]]


def package_is_installed() -> bool:
    """Whether cell-gears is there."""
    return importlib.util.find_spec("gears") is not None


def load_package():
    """Import the package, and put back what its import changes: random draws, warnings, scanpy's chatter.

    To be called before threads and algorithms are set: the first fit after an import in between came out
    different in its last bits.
    """
    import scanpy
    import torch

    verbosity = scanpy.settings.verbosity
    try:
        with warnings.catch_warnings(), torch.random.fork_rng():
            import gears
    finally:
        scanpy.settings.verbosity = verbosity
    return gears


@contextlib.contextmanager
def quiet_package(seed: int) -> Iterator[object]:
    """Start the package's random draws from ``seed``; afterwards this process is as it was found."""
    import torch

    package, draws = load_package(), np.random.get_state()
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    try:
        with warnings.catch_warnings(), quiet[0], quiet[1]:
            # What it does in old ways is nothing that a user could mend.
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            np.random.seed(seed)
            yield package
    finally:
        np.random.set_state(draws)


def train_gears(
    cells: TrainingCells,
    nodes: np.ndarray,
    held_out: np.ndarray,
    *,
    graph: GOGraph,
    options: GEARSOptions,
    seed: int,
    progress: Callable[[str, int, int], None],
) -> TrainedGEARS:
    """Train with the package's own preparation of data, loss and choice of epoch.

    Parameters
    ----------
    nodes
        Node of ``graph`` that is perturbed in each cell, int (n_cells,); -1 for controls.
    held_out
        Nodes whose cells are kept for choosing the best epoch, at least one; the others are learnt from.
    """
    stderr = sys.stderr
    with quiet_package(seed) as package, tempfile.TemporaryDirectory(prefix="gears-") as folder:
        paths = _write_files(Path(folder), graph, nodes, held_out)
        data = package.PertData(folder, gene_set_path=paths["genes"], default_pert_graph=False)
        data.new_data_process("screen", adata=_annotated(cells, nodes))
        data.prepare_split("custom", seed=seed, split_dict_path=paths["split"])
        # The package drops the last batch if it is not full: the only one must not be.
        learnt = int((~np.isin(nodes, held_out)).sum())
        data.get_dataloader(min(options.batch_size, learnt), options.batch_size)
        # Nothing is held out for a test; at the end of training the package stops at an empty loader.
        del data.dataloader["test_loader"]
        model = _new_model(package, data, options)
        model.model_initialize(hidden_size=options.hidden, **graph.tensors())
        # The package reports to whatever stands in place of its wandb run.
        model.wandb = _Recorder(options.epochs, progress, stderr)
        model.train(epochs=options.epochs, lr=options.learning_rate)
        weights = {name: tensor.cpu().numpy() for name, tensor in model.best_model.state_dict().items()}
        graphs = {name: model.config[name].cpu().numpy() for name in GRAPHS}
    return TrainedGEARS(weights, graphs, model.wandb.history)


def _write_files(folder: Path, graph: GOGraph, nodes: np.ndarray, held_out: np.ndarray) -> dict[str, str]:
    """Write the files that the package would download or ask for."""
    names = [_node_name(node) for node in range(len(graph.genes))]
    learnt = np.setdiff1d(nodes[nodes >= 0], held_out)
    contents = {
        "gene2go_all": {name: graph.terms_of(node) for node, name in enumerate(names)},
        "genes": names,
        "split": {
            "train": [CONTROL, *map(_condition, learnt)],
            "val": [_condition(node) for node in held_out],
            "test": [],
        },
    }
    for name, content in contents.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(content))
    return {name: str(folder / f"{name}.pkl") for name in contents}


def _node_name(node: int) -> str:
    """Name of a node for the package, which takes some symbols for its own marks; sorted as the nodes are."""
    return f"g{node:06d}"


def _condition(node: int) -> str:
    return f"{_node_name(node)}+{CONTROL}" if node >= 0 else CONTROL


def _annotated(cells: TrainingCells, nodes: np.ndarray):
    """The cells as the package wants them."""
    import anndata

    obs = pd.DataFrame({"condition": [_condition(node) for node in nodes], "cell_type": "line"})
    var = pd.DataFrame({"gene_name": cells.genes.astype(object)})
    obs.index, var.index = "cell" + obs.index.astype(str), "gene" + var.index.astype(str)
    return anndata.AnnData(cells.expression, obs=obs, var=var)


def _new_model(package, data, options: GEARSOptions):
    # GEARS 0.1.2 takes rows of X by a pandas column of booleans, which SciPy's sparse matrices refuse (tried
    # with 1.17): X is dense while the model is made, and only then.
    counts = data.adata.X
    data.adata.X = counts.toarray()
    try:
        return package.GEARS(data, device=options.training_device())
    finally:
        data.adata.X = counts


class _Recorder:
    """Takes the metrics of each epoch, which the package sends in two parts."""

    def __init__(self, epochs: int, progress: Callable[[str, int, int], None], stderr: TextIO):
        self.history: list[dict[str, float]] = []
        self._epochs, self._progress, self._stderr = epochs, progress, stderr

    def log(self, metrics: dict[str, float]) -> None:
        """Keep one report; those of single steps are not kept."""
        if "val_mse" in metrics:
            self.history.append({})
            with contextlib.redirect_stderr(self._stderr):
                self._progress("epochs", len(self.history), self._epochs)
        if "training_loss" not in metrics:
            self.history[-1] |= {name: float(value) for name, value in metrics.items()}
