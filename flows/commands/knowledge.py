"""`pqa knowledge`: gene knowledge from its sources' own formats into one typed graph store."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

import numpy as np

from flows.commands.printing import print_json
from tasks.knowledge.build import build_store
from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.read import read_knowledge


def run(arguments: Namespace) -> None:
    """Write the store, read it back, and say what is in it."""
    head = build_store(
        arguments.sources,
        arguments.out,
        noncommercial=arguments.noncommercial,
        min_string_score=arguments.min_string_score,
    )
    graph = read_knowledge(
        arguments.out, noncommercial=arguments.noncommercial, max_term_genes=None, max_degree=None
    )
    figures = _figures(graph, arguments.max_links)
    if arguments.json:
        print_json({"out": str(arguments.out), "graph": figures} | head)
    else:
        _print(arguments, head, figures)


def _figures(graph: KnowledgeGraph, max_links: int) -> dict[str, int]:
    """Sizes of the whole graph, and what goes when it is read with a cap on links."""
    sizes = np.bincount(graph.incidence.indices, minlength=len(graph.terms))
    return {
        "genes": graph.n_genes,
        "gene_gene_links": graph.adjacency.nnz // 2,
        "gene_term_links": graph.incidence.nnz,
        "terms": len(graph.terms),
        "max_links": max_links,
        "hubs_above": int((graph.degrees > max_links).sum()),
        "terms_above": int((sizes > max_links).sum()),
    }


def _print(arguments: Namespace, head: Mapping, figures: Mapping[str, int]) -> None:
    sources = head["sources"]
    width = max(len("source"), *(len(source["file"]) for source in sources))
    print(f"{'source':<{width}}  {'links':>10}  {'genes':>7}  {'terms':>7}  {'unresolved':>10}  licence")
    for source in sources:
        counts = f"{source['links']:>10,}  {source['genes']:>7,}  {source['terms']:>7,}"
        print(f"{source['file']:<{width}}  {counts}  {source['unresolved']:>10,}  {source['licence']}")
    for entry in head["left_out"]:
        print(f"left out: {entry['file']} ({entry['licence']}; --noncommercial reads it)")
    if head["not_read"]:
        print(f"not read, no known format: {', '.join(head['not_read'])}")
    if not head["symbols"]:
        print("no list of genes (hgnc_genes.parquet, hgnc_complete_set.txt): names are taken as they are")
    print(
        f"{figures['genes']:,} genes, {figures['gene_gene_links']:,} links between them and "
        f"{figures['gene_term_links']:,} to {figures['terms']:,} terms in {arguments.out}"
    )
    print(
        f"read with --max-links {figures['max_links']}, links of {figures['hubs_above']:,} hubs and "
        f"{figures['terms_above']:,} terms are left out"
    )
