"""Predictors by name."""

from __future__ import annotations

from collections.abc import Mapping

from storage.errors import InputError
from tasks.predictors.ensemble import EnsemblePredictor
from tasks.predictors.gat import GATPredictor
from tasks.predictors.gears import GEARSPredictor
from tasks.predictors.genept import GenePTPredictor
from tasks.predictors.kernel import KernelPredictor
from tasks.predictors.mlp import MLPPredictor
from tasks.predictors.options import Value
from tasks.predictors.physical import PhysicalPredictor
from tasks.predictors.prior import PriorPredictor
from tasks.predictors.protocol import Predictor
from tasks.predictors.retrieval import RetrievalPredictor
from tasks.predictors.stack import StackPredictor

PREDICTORS: dict[str, type[Predictor]] = {
    predictor.name: predictor
    for predictor in (
        PriorPredictor,
        PhysicalPredictor,
        RetrievalPredictor,
        KernelPredictor,
        StackPredictor,
        EnsemblePredictor,
        MLPPredictor,
        GATPredictor,
        GenePTPredictor,
        GEARSPredictor,
    )
}

#: Networks of the published grid.
NETWORKS = ("mlp", "gat")
#: Predictors that can be trained on a GPU.
ON_DEVICE = frozenset({"mlp", "gat", "gears"})
#: Predictors that learn from the cells of a screen.
ON_EXPRESSION = frozenset({"gears"})
_SEEDED = frozenset({"stack", "ensemble", "mlp", "gat", "gears"})


def is_seeded(name: str, options: Mapping[str, object]) -> bool:
    """Whether a predictor's outcome depends on the seed; the others are fitted once."""
    return name in _SEEDED or (name == "retrieval" and options.get("form") == "sampled")


def make_predictor(name: str, /, **options: Value) -> Predictor:
    """Build an unfitted predictor.

    Raises
    ------
    InputError
        If no predictor has that name; if options are unknown or not allowed, listing all of them.
    """
    if name not in PREDICTORS:
        raise InputError("predictor", [f"no predictor {name!r}; allowed are {', '.join(PREDICTORS)}"])
    return PREDICTORS[name](**options)
