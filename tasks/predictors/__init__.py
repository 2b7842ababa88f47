"""Predictors of a pair's outcome, one a file, behind one protocol."""

from tasks.predictors.protocol import OWN, TASKS, Context, Predictor
from tasks.predictors.registry import PREDICTORS, make_predictor

__all__ = ["OWN", "PREDICTORS", "TASKS", "Context", "Predictor", "make_predictor"]
