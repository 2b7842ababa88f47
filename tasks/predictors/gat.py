"""A graph attention network over the knowledge graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tasks.predictors.networks.gat_options import GATOptions
from tasks.predictors.networks.predictor import NetworkPredictor
from tasks.predictors.networks.rows import NamedNodes, PairRows
from tasks.predictors.protocol import Context

if TYPE_CHECKING:
    from tasks.predictors.networks.gat_encoding import GraphEncoding


class GATPredictor(NetworkPredictor):
    """Graph attention network with three classes: none, down, up (Wu et al. 2025).

    Nodes are the graph's genes and terms, and the names that only the training rows have, linked to nothing.
    Any other name is scored with one vector that was not trained.

    Parameters
    ----------
    **options
        Fields of ``GATOptions``; ``form="paper"`` is the published form.

    Raises
    ------
    InputError
        If an option is unknown or out of range; from ``fit``, if the device is not there.
    """

    name: ClassVar[str] = "gat"
    title: ClassVar[str] = "graph attention network on the knowledge graph"
    options_type: ClassVar[type[GATOptions]] = GATOptions

    def encoding(self, rows: PairRows, context: Context) -> GraphEncoding:
        """Encode nodes by attention over the graph's links."""
        from tasks.predictors.networks.gat_encoding import GraphEncoding

        named = NamedNodes.build(rows.names, context.knowledge.symbols)
        return GraphEncoding(context.knowledge, named, self.options, seed=context.seed)
