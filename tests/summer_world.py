"""Forty genes, what was observed of them, and questions about them: the little world of SUMMER's tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.symbols import SymbolIndex
from tasks.summer.engines.protocol import Generation, ModelName, Sampling
from tasks.summer.entries import EntryIndex
from tasks.summer.gene_texts import texts_from_entries
from tasks.summer.questions import Questions
from tasks.summer.retrieval import Retrieved
from tasks.summer.templates import Prompts

GENES = [f"G{number:02}" for number in range(40)]
SAMPLING = Sampling(ModelName("m"), Generation(), votes=3)


def linked_groups() -> KnowledgeGraph:
    """Forty genes in four groups of ten: every two of a group are linked and share a pathway."""
    group = np.arange(40) // 10
    links = (group[:, None] == group) & ~np.eye(40, dtype=bool)
    return KnowledgeGraph(
        symbols=SymbolIndex.build(GENES, {"ALIAS": "G03"}),
        adjacency=sparse.csr_array(links.astype(np.float32)),
        incidence=sparse.csr_array((group[:, None] == np.arange(4)).astype(np.float32)),
        terms=np.array(["P0", "P1", "P2", "P3"]),
        term_relations=np.array(["go_bp", "go_bp", "reactome_member", "go_bp"]),
    )


def observed_pairs() -> pd.DataFrame:
    """Perturbations G00 to G29 observed on every fourth gene; a label says whether both are of one group."""
    rows = [
        (pert, gene, int(i // 10 == j // 10))
        for i, pert in enumerate(GENES[:30])
        for j, gene in enumerate(GENES)
        if (i + j) % 4 == 0 and i != j
    ]
    return pd.DataFrame(rows, columns=["pert", "gene", "label"])


def asked_pairs() -> pd.DataFrame:
    """Of a gene under another name, of one that was not perturbed, and of one that is not known."""
    return pd.DataFrame(
        [(p, g) for p in ("ALIAS", "G35", "NOBODY") for g in ("G01", "G22", "X1")], columns=["pert", "gene"]
    )


def questions_about(pairs: pd.DataFrame, retrieved: Retrieved, graph: KnowledgeGraph) -> Questions:
    texts = texts_from_entries(EntryIndex(graph, {}, {}, {}), {})
    return Questions("de", "full", pairs, retrieved, texts, Prompts.load(), "a line.")
