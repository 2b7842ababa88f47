"""Options of the graph attention network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from tasks.predictors.network_options import NetworkOptions


@dataclass(frozen=True)
class GATOptions(NetworkOptions):
    """Options of the network and its training, beside those of ``NetworkOptions``.

    Form ``paper``: random start, all links, one encoding a batch, a smaller learning rate, more patience.

    Attributes
    ----------
    start
        What the embeddings start from: ``graph`` = leading singular vectors of the gene-term and
        gene-gene links, ``random`` = normal noise as in Wu et al. 2025.
    max_links
        Partners, and terms, a gene hears from at most; 0 = all.
    edge_types
        Whether the attention learns how much each kind of link counts (which source, which relation, which
        way round, a node's link to itself); off in Wu et al. 2025.
    """

    predictor: ClassVar[str] = "gat"
    published: ClassVar[dict[str, str | int | float | bool]] = NetworkOptions.published | {
        "start": "random",
        "max_links": 0,
        "edge_types": False,
    }

    batches_per_encoding: int = 6
    start: Literal["graph", "random"] = "graph"
    max_links: int = field(default=12, metadata={"zero": True})
    edge_types: bool = False
