"""A feed-forward network on learnt embeddings of perturbation and gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tasks.predictors.networks.options import NetworkOptions
from tasks.predictors.networks.predictor import NetworkPredictor
from tasks.predictors.networks.rows import NamedNodes, PairRows
from tasks.predictors.protocol import Context

if TYPE_CHECKING:
    from tasks.predictors.networks.mlp_encoding import TableEncoding


class MLPPredictor(NetworkPredictor):
    """Feed-forward network on embeddings, with three classes: none, down, up (Wu et al. 2025).

    It is the graph attention network without the graph: of a gene it knows what the training rows say of
    it, as perturbation or as measured gene, which share one embedding. A perturbation of the test split that
    is nowhere measured in training has no trained embedding; all such names are scored with one vector,
    which starts at 0 and is never trained, so that their order within a gene is left open.

    Parameters
    ----------
    **options
        Fields of ``NetworkOptions``; ``form="paper"`` is the published form.

    Raises
    ------
    InputError
        If an option is unknown or out of range; from ``fit``, if the device is not there.
    """

    name: ClassVar[str] = "mlp"
    title: ClassVar[str] = "feed-forward network on learnt embeddings of perturbation and gene"
    options_type: ClassVar[type[NetworkOptions]] = NetworkOptions

    def encoding(self, rows: PairRows, context: Context) -> TableEncoding:
        """Encode nodes by their embedding and feed-forward layers."""
        from tasks.predictors.networks.mlp_encoding import TableEncoding

        # Of the knowledge only the other names of genes are used.
        named = NamedNodes.build_seen(rows.names, context.knowledge.symbols)
        return TableEncoding(named, self.options, seed=context.seed)
