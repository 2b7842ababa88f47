"""Predictors by name."""

from __future__ import annotations

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


def predictor_class(name: str) -> type[Predictor]:
    """The predictor of that name.

    Raises
    ------
    InputError
        If there is none, listing those that there are.
    """
    if name not in PREDICTORS:
        raise InputError("predictor", [f"no predictor {name!r}; allowed are {', '.join(PREDICTORS)}"])
    return PREDICTORS[name]


def make_predictor(name: str, /, **options: Value) -> Predictor:
    """Build an unfitted predictor.

    Raises
    ------
    InputError
        If no predictor has that name; if options are unknown or not allowed, listing all of them.
    """
    return predictor_class(name)(**options)
