"""The truth behind a simulated screen: modules of genes, who regulates whom, and what a knock-down does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.random_streams import RandomStream

#: Genes a module; modules stand for pathways and complexes.
MODULE_GENES = 25
#: Planted effects below this |log2 fold change| are set to exactly none, so that "no effect" is exact.
SMALLEST_EFFECT = 0.15


@dataclass(frozen=True)
class PlantedNetwork:
    """A signed regulatory network over simulated genes.

    Attributes
    ----------
    genes
        Names, (n_genes,).
    member
        bool CSR (n_genes, n_modules): a gene is in one module, some in two.
    regulation
        float64 CSR (n_genes, n_genes): change of gene j's log2 expression for one unit of log2 change in i.
    """

    genes: np.ndarray
    member: sparse.csr_matrix
    regulation: sparse.csr_matrix

    def effects(self, targets: np.ndarray, knock_down: np.ndarray) -> np.ndarray:
        """Effects of knocking down each target: they travel two steps along the network and fade.

        Parameters
        ----------
        targets
            int (n_perturbations,): indices of the target genes.
        knock_down
            (n_perturbations,): log2 change of the target itself, negative.

        Returns
        -------
        ndarray
            float64 (n_perturbations, n_genes): log2 fold change of each gene's expression rate.
        """
        start = sparse.csr_matrix(
            (knock_down, (np.arange(len(targets)), targets)), shape=(len(targets), len(self.genes))
        )
        first = start @ self.regulation
        effects = np.clip((first + 0.5 * (first @ self.regulation)).toarray(), -3, 3)
        effects[np.abs(effects) < SMALLEST_EFFECT] = 0
        effects[np.arange(len(targets)), targets] = knock_down
        return effects


def plant_network(n_genes: int, *, seed: int) -> PlantedNetwork:
    """Draw modules and the regulation between them.

    Modules act on a few others with a sign; a gene acts on part of the genes of those modules, with a
    strength of its own, so that genes of a module have similar effects but not the same.
    """
    rng = np.random.default_rng([seed, RandomStream.PLANTED_NETWORK])
    n_modules = max(4, n_genes // MODULE_GENES)
    home = rng.integers(0, n_modules, n_genes)
    second = np.where(rng.random(n_genes) < 0.2, rng.integers(0, n_modules, n_genes), home)
    rows = np.concatenate([np.arange(n_genes)] * 2)
    member = sparse.csr_matrix(
        (np.ones(2 * n_genes), (rows, np.concatenate([home, second]))), shape=(n_genes, n_modules)
    )
    member.data[:] = 1.0
    n_acts = rng.integers(1, 3, n_modules)
    acting = np.repeat(np.arange(n_modules), n_acts)
    acted = rng.integers(0, n_modules, len(acting))
    strength = rng.choice([-1.0, 1.0], len(acting)) * rng.uniform(0.4, 1.1, len(acting))
    between = sparse.csr_matrix((strength, (acting, acted)), shape=(n_modules, n_modules))
    # Most genes matter little and a few matter much, as in real screens.
    potency = rng.beta(0.7, 1.3, n_genes)
    sensitivity = rng.gamma(3.0, 1 / 3, n_genes)
    dense = (member @ between @ member.T).tocsr()
    dense = sparse.diags(potency) @ dense @ sparse.diags(sensitivity)
    regulation = dense.tocsr()
    regulation.data *= rng.random(regulation.nnz) < 0.6
    regulation.setdiag(0)
    regulation.eliminate_zeros()
    width = max(4, len(str(n_genes)))
    genes = np.array([f"SIM{index + 1:0{width}d}" for index in range(n_genes)], dtype=object)
    return PlantedNetwork(genes, member, regulation)


def observed_knowledge(network: PlantedNetwork, *, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What databases would know of the network: a noisy, incomplete view of it.

    Half of the pairs within a module are never seen to interact; a twelfth of the regulatory links are
    listed, without sign; a fifth of the listed edges are wrong. A quarter of module memberships is missing
    and a tenth of those listed is wrong; generic terms say nothing.

    Returns
    -------
    edges, memberships
        ``source_gene, target_gene, relation`` and ``source_gene, target, relation``.
    """
    rng = np.random.default_rng([seed, RandomStream.OBSERVED_KNOWLEDGE])
    n_genes = len(network.genes)
    shared = sparse.triu(network.member @ network.member.T, k=1).tocoo()
    links = network.regulation.tocoo()
    physical = rng.random(shared.nnz) < 0.5
    regulatory = rng.random(links.nnz) < 1 / 12
    pairs = np.concatenate(
        [
            np.column_stack([shared.row[physical], shared.col[physical]]),
            np.column_stack([links.row[regulatory], links.col[regulatory]]),
        ]
    )
    pairs = np.concatenate([pairs, rng.integers(0, n_genes, (len(pairs) // 4, 2))])
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    edges = pd.DataFrame(network.genes[pairs], columns=["source_gene", "target_gene"])
    known = network.member.tocoo()
    seen = rng.random(known.nnz) < 0.75
    wrong = rng.integers(0, known.shape[1], int(seen.sum()) // 9)
    gene = np.concatenate([known.row[seen], rng.integers(0, n_genes, len(wrong)), np.arange(n_genes)])
    term = [f"MODULE:{index:04d}" for index in np.concatenate([known.col[seen], wrong])]
    term += [f"GENERIC:{index}" for index in rng.integers(0, 5, n_genes)]
    memberships = pd.DataFrame({"source_gene": network.genes[gene], "target": term}).drop_duplicates()
    return (
        edges.assign(relation="simulated_interacts"),
        memberships.sort_values(["source_gene", "target"]).assign(relation="simulated_member"),
    )
