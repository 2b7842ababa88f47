"""Kinds of links: which source or relation they are from, and which way round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from storage.errors import InputError
from tasks.predictors.networks.gat_graph import NodeIndex

ITSELF, OTHER = "itself", "gene-gene"
# A link's kinds are the bits of one integer.
MOST = 63


@dataclass(frozen=True, eq=False)
class LinkKinds:
    """Links with what they are.

    Attributes
    ----------
    names
        ``itself``; ``gene-gene`` with each source of such links; ``gene-gene`` alone for those that no source
        lists; each relation of genes to terms, by its own name where a gene hears from a term, and with
        ``turned`` before it where a term hears from a gene.
    parts
        float32 [n_types, n_kinds]: 1 where links of the type are of the kind. A gene-gene link is of as many
        kinds as sources list it.
    links
        CSR int32 like the links they were made from; the value is the link's type.
    """

    names: tuple[str, ...]
    parts: np.ndarray
    links: sparse.csr_array

    @classmethod
    def build(cls, nodes: NodeIndex, links: sparse.csr_array) -> LinkKinds:
        """Find the kinds of some links [n_nodes, n_nodes], into each node (row) from others (columns).

        Raises
        ------
        InputError
            If there are more kinds than 63.
        """
        knowledge, n, first_term = nodes.knowledge, nodes.n_nodes, nodes.n_named
        to = np.repeat(np.arange(n), np.diff(links.indptr))
        source = links.indices.astype(np.int64)
        of_genes = (to != source) & (np.maximum(to, source) < first_term)
        kinds = {ITSELF: to == source}
        for name in sorted(knowledge.partners):
            listed = knowledge.partners[name].tocoo()
            pairs = listed.row.astype(np.int64) * n + listed.col
            kinds[f"{OTHER} {name}"] = of_genes & np.isin(to * n + source, pairs, assume_unique=True)
        kinds[OTHER] = of_genes & ~np.any(list(kinds.values()), axis=0)
        names, relation = np.unique(knowledge.term_relations, return_inverse=True)
        relation_of_node = np.append(np.full(first_term, -1), relation)
        relation_heard = np.where(to == source, -1, relation_of_node[source])
        relation_told = np.where(to == source, -1, relation_of_node[to])
        for number, name in enumerate(names.tolist()):
            kinds[name] = relation_heard == number
            kinds[f"turned {name}"] = relation_told == number
        if len(kinds) > MOST:
            raise InputError("gat", [f"edge_types tells at most {MOST} kinds of links; found {len(kinds)}"])
        bits = np.zeros(len(to), dtype=np.int64)
        for bit, mask in enumerate(kinds.values()):
            bits |= mask.astype(np.int64) << bit
        types, value = np.unique(bits, return_inverse=True)
        parts = types[:, None] >> np.arange(len(kinds)) & 1
        typed = sparse.csr_array((value.astype(np.int32), links.indices, links.indptr), shape=links.shape)
        return cls(tuple(kinds), parts.astype(np.float32), typed)
