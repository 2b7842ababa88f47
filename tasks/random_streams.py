"""The numbered random streams, by name: what is drawn is drawn by ``default_rng([seed, NUMBER, ...])``.

Two draws with the same seed and the same numbers draw alike (missing numbers at the end count as 0), so a new
one takes a number of its own. A number in use never changes: all results made with it would.

Three draws have no number here. Labels of a perturbation are drawn after the bytes of its name, all of them
above these numbers (`tasks.labels.label_tables`); resampled intervals after the number of the draw
(`tasks.scoring.intervals`) and the questions to be read after how many there are
(`tasks.summer.questions`), which may be any number, and decide nothing else.
"""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class RandomStream(IntEnum):
    """Draws on the way from a screen to its label tables; each has one place in the code."""

    #: Control cells held out as false perturbations.
    FALSE_PERTURBATIONS = 1
    #: Sides of the perturbations.
    SPLIT = 2
    #: Modules and regulation of a simulated screen.
    PLANTED_NETWORK = 10
    #: What databases know of these.
    OBSERVED_KNOWLEDGE = 11
    #: Targets, effects, cells and expression of a simulated screen.
    SIMULATED_CELLS = 12
    #: Its counts; the number of the block of cells follows.
    SIMULATED_COUNTS = 13


@unique
class PredictorStream(IntEnum):
    """Numbers in use by predictors, which draw for themselves alone: several have the same.

    1 and 2 are also in use above, for draws of other things from other data.
    """

    #: First vectors of the decomposition of the graph.
    GRAPH_VECTORS = 1
    #: The state torch starts from; of another line's decomposition, its number following.
    TRAINING = 2
    #: Perturbations held out for validation (seed 0), and folds of the stack.
    HELD_OUT = 3
    #: Perturbations that the ensemble is weighed on; order of the pairs, the epoch following.
    ORDER = 4
    #: First embeddings; trees of boosting and cells shown to GEARS, a number or a name following.
    START = 5
    #: The perturbation that GEARS stops by.
    GEARS_VALIDATION = 6
