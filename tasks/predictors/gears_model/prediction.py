"""What a trained GEARS says of perturbations, by the package's own network."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from tasks.predictors.gears_model.package import TrainedGEARS, quiet_package

#: Perturbations sent through the network at once.
BLOCK_PERTS = 16


def predicted_change(trained: TrainedGEARS, nodes: np.ndarray, *, hidden: int) -> np.ndarray:
    """Expression of a perturbed cell minus that of a control, float32 (n_nodes, n_genes).

    The network adds what it computes of the perturbation to the control cell's expression, so for a cell of
    zeros it gives the change itself, which is the same for every control cell but the first of a batch: in
    version 0.1.2 the co-expression graph reaches that one only. The package's own prediction is the mean over
    a batch of 300 cells; here it is that of a cell which is not the first.
    """
    import torch

    with quiet_package(seed=0) as package:
        network = loaded_network(package, trained, hidden)
        n_genes = network.num_genes
        blocks = [np.empty((0, n_genes), dtype=np.float32)]
        for first in range(0, len(nodes), BLOCK_PERTS):
            block = [0, *nodes[first : first + BLOCK_PERTS].tolist()]
            cells = SimpleNamespace(
                x=torch.zeros(len(block) * n_genes, 1),
                pert_idx=[[node] for node in block],
                batch=torch.arange(len(block)).repeat_interleave(n_genes),
            )
            with torch.no_grad():
                blocks.append(network(cells).numpy()[1:])
    return np.concatenate(blocks)


def loaded_network(package, trained: TrainedGEARS, hidden: int):
    """The package's network with the trained weights, on the CPU."""
    import torch

    weights = {name: torch.tensor(value) for name, value in trained.weights.items()}
    settings = {name: torch.tensor(value) for name, value in trained.graphs.items()} | {
        "num_genes": len(weights["gene_emb.weight"]),
        "num_perts": len(weights["pert_emb.weight"]),
        "hidden_size": hidden,
        "decoder_hidden_size": 16,
        "num_go_gnn_layers": 1,
        "num_gene_gnn_layers": 1,
        "uncertainty": False,
        "no_perturb": False,
        "device": "cpu",
    }
    network = package.model.GEARS_Model(settings)
    network.load_state_dict(weights)
    return network.eval()
