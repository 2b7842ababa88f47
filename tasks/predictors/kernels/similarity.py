"""How alike two genes are by what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from scipy import sparse

from storage.errors import InputError
from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.symbols import SymbolIndex
from tasks.predictors.arrays import csr_from_state, csr_state, symbols_from_state

Kind = Literal["cosine", "shared"]
# Rows compared at once: the dense block of a whole screen's genes stays below ~40 MB.
BLOCK = 1024


@dataclass(frozen=True, eq=False)
class GeneSimilarity:
    """Genes as vectors over their terms and partners.

    Attributes
    ----------
    symbols
        The graph's genes and their other names.
    links
        CSR float32 [n_genes, n_features]. Kind ``cosine``: tf-idf of unit length. Kind ``shared``: 1 for
        every term and partner, so that a product of two rows counts the neighbours both have. For a gene set
        shares of its members take the place of ones.
    factors
        float32 [n_genes, n_factors], unit length: the leading singular vectors of ``links``; no columns
        for kind ``shared``.
    """

    symbols: SymbolIndex
    links: sparse.csr_array
    factors: np.ndarray

    @classmethod
    def build(
        cls,
        knowledge: KnowledgeGraph,
        *,
        kind: Kind = "cosine",
        n_factors: int = 256,
        max_feature_genes: int = 1500,
    ) -> Self:
        """Make the vectors from a graph.

        Features that fewer than 2 or more than ``max_feature_genes`` genes have are left out of kind
        ``cosine``. Gene sets change nothing between genes.
        """
        partners = knowledge.adjacency.copy()
        # Counts of files become 1; the shares of gene sets, at most 1, stay.
        partners.data = np.minimum(partners.data, np.float32(1))
        if kind == "cosine":
            partners = _with_members(partners, knowledge) if knowledge.members else with_self(partners)
        # To be linked to a set is no feature: its members are features already.
        partners = partners[:, ~knowledge.is_set] if knowledge.members else partners
        links = sparse.csr_array(sparse.hstack([knowledge.incidence, partners], format="csr"))
        if kind == "shared":
            return cls(knowledge.symbols, links, np.zeros((knowledge.n_genes, 0), np.float32))
        return cls.from_features(
            knowledge.symbols,
            links,
            n_factors=n_factors,
            max_feature_genes=max_feature_genes,
            sets=knowledge.is_set if knowledge.members else None,
        )

    @classmethod
    def from_features(
        cls,
        symbols: SymbolIndex,
        features: sparse.csr_array,
        *,
        n_factors: int,
        max_feature_genes: int = 1500,
        sets: np.ndarray | None = None,
    ) -> Self:
        """Make the vectors of kind ``cosine`` from any features, CSR [n_genes, n_features] of ones.

        Rows that are gene sets (``sets``, bool [n_genes]) hold shares. They are not counted and have no part
        in the singular vectors, but are laid into them.

        Raises
        ------
        InputError
            If no feature is that of 2 to ``max_feature_genes`` genes.
        """
        counted = features if sets is None else features[~sets]
        sizes = np.bincount(counted.indices, minlength=features.shape[1])
        kept = np.flatnonzero((sizes >= 2) & (sizes <= max_feature_genes))
        if not len(kept):
            message = (
                f"no term or partner is that of 2 to {max_feature_genes:,} genes, so that no two are alike"
            )
            raise InputError("knowledge", [f"{message}; raise --max-links, or give more sources"])
        links = _unit_rows(features[:, kept], np.log(counted.shape[0] / sizes[kept]))
        return cls(symbols, links, _factors(links, n_factors, sets))

    def between(self, names: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Similarity of each of ``names`` to each of ``others``, float32 [n_names, n_others], >= 0.

        Kind ``cosine``: mean of the cosines of the tf-idf vectors and of their factors, 0 where that is
        negative. The same name is 1 (``cosine``) whether or not the graph knows it; to anything else a
        gene unknown to the graph is 0.
        """
        gene, other = self.symbols.resolve(names), self.symbols.resolve(others)
        known = np.flatnonzero(other >= 0)
        similarity = np.zeros((len(names), len(others)), dtype=np.float32)
        columns = sparse.csc_array(self.links[other[known]].T)
        for start in range(0, len(names), BLOCK):
            rows = start + np.flatnonzero(gene[start : start + BLOCK] >= 0)
            block = (self.links[gene[rows]] @ columns).toarray()
            if self.factors.shape[1]:
                block = (block + self.factors[gene[rows]] @ self.factors[other[known]].T) / 2
            similarity[np.ix_(rows, known)] = np.maximum(block, 0)
        if self.factors.shape[1]:
            same, column = same_names(names, others)
            similarity[same, column] = 1
        return similarity

    def vectors(self, names: np.ndarray, count: int) -> np.ndarray:
        """The first ``count`` factors of each name, float32 [n_names, count]; 0 where it is unknown."""
        gene = self.symbols.resolve(names)
        return np.where(gene[:, None] >= 0, self.factors[gene][:, :count], np.float32(0))

    def state(self) -> dict[str, np.ndarray]:
        """Return the arrays ``from_state`` needs."""
        return {**self.symbols.state(), **csr_state("links", self.links), "factors": self.factors}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Build the similarity whose ``state`` this is."""
        return cls(symbols_from_state(state), csr_from_state("links", state), np.asarray(state["factors"]))


def with_self(partners: sparse.csr_array) -> sparse.csr_array:
    """Gene-gene links with every gene its own partner, so that two interacting genes share two features."""
    return sparse.csr_array(partners + sparse.eye_array(partners.shape[0], dtype=np.float32))


def same_names(names: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns where ``names`` and ``others``, each without repeats, have the same name."""
    _, rows, columns = np.intersect1d(names, others, return_indices=True)
    return rows, columns


def nearest(similarity: np.ndarray, count: int) -> np.ndarray:
    """``similarity`` with 0 in place of all but the ``count`` largest of each row and those equal to them."""
    if count >= similarity.shape[1]:
        return similarity
    cut = np.partition(similarity, similarity.shape[1] - count, axis=1)[:, -count]
    return np.where(similarity >= cut[:, None], similarity, 0)


def _unit_rows(links: sparse.csr_array, weights: np.ndarray) -> sparse.csr_array:
    """Columns times ``weights``, then rows to unit length; empty rows stay empty."""
    links = links @ sparse.diags_array(weights.astype(np.float32))
    length = np.sqrt(np.asarray(links.multiply(links).sum(axis=1)).ravel())
    scale = np.divide(1, length, out=np.zeros_like(length), where=length > 0)
    links = sparse.csr_array(sparse.diags_array(scale.astype(np.float32)) @ links)
    links.sort_indices()
    return links


def _with_members(partners: sparse.csr_array, knowledge: KnowledgeGraph) -> sparse.csr_array:
    """Every gene its own partner, as in `with_self`, and a gene set the partner of its members, in shares."""
    single = np.flatnonzero(~knowledge.is_set)
    rows, columns, shares = [single], [single], [np.ones(len(single))]
    for name, members in knowledge.members.items():
        genes = knowledge.resolve(members)
        rows.append(np.full(len(genes), knowledge.resolve([name])[0]))
        columns.append(genes)
        shares.append(np.full(len(genes), 1 / len(genes)))
    cells = (np.concatenate(shares).astype(np.float32), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(partners + sparse.csr_array(cells, shape=partners.shape))


def _factors(links: sparse.csr_array, n_factors: int, sets: np.ndarray | None) -> np.ndarray:
    """Leading singular vectors times their values, rows to unit length (randomised, Halko et al. 2011)."""
    # Only fitting needs it, and its import takes longer than reading a small graph.
    from sklearn.utils.extmath import randomized_svd

    fitted = links if sets is None else links[~sets]
    count = max(1, min(n_factors, min(fitted.shape) - 1))
    # A singular vector is no draw, though its search starts from random numbers: a run's seed must not move
    # it, or what draws nothing would come out different with every seed.
    state = int(np.random.default_rng([0, 1]).integers(2**31))
    left, values, right = randomized_svd(fitted, count, n_iter=2, random_state=state)
    factors = (left * values).astype(np.float32)
    if sets is not None:
        genes, factors = factors, (links @ right.T).astype(np.float32)
        factors[~sets] = genes
    length = np.linalg.norm(factors, axis=1, keepdims=True)
    return np.divide(factors, length, out=np.zeros_like(factors), where=length > 1e-6)
