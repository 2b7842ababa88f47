"""Options of the graph attention network."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tasks.predictors.networks.options import NetworkOptions


class GATOptions(NetworkOptions):
    """Options of the network and its training, beside those of ``NetworkOptions``.

    Form ``paper``: random start, all links, one encoding a batch, a smaller learning rate, more patience.
    """

    published: ClassVar[dict[str, str | int | float | bool]] = NetworkOptions.published | {
        "start": "random",
        "max_links": 0,
        "edge_types": False,
    }

    batches_per_encoding: int = Field(6, gt=0, description="As in ``NetworkOptions``.")
    start: Literal["graph", "random"] = Field(
        "graph",
        description="What the embeddings start from: graph = leading singular vectors of the gene-term and "
        "gene-gene links, random = normal noise as in Wu et al. 2025.",
    )
    max_links: int = Field(12, ge=0, description="Partners, and terms, a gene hears from at most; 0 = all.")
    edge_types: bool = Field(
        False,
        description="Whether the attention learns how much each kind of link counts (which source, which "
        "relation, which way round, a node's link to itself); off in Wu et al. 2025.",
    )
