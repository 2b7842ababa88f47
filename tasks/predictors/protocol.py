"""What every predictor offers, and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from storage.errors import InputError
from tasks.knowledge.graph import KnowledgeGraph
from tasks.predictors.options import Options, Value

TASKS = ("de", "dir")
# Marks the rows of the cell line that is predicted; other rows carry their own line's name.
OWN = "own"
TRAINING_COLUMNS = ("pert", "gene", "label", "source")


def no_progress(unit: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Context:
    """What a predictor may use besides the training rows.

    Attributes
    ----------
    knowledge
        The graph of genes and terms.
    seed
        Seed of every random choice: same rows, seed and threads give the same bytes.
    threads
        Threads the predictor may use, at least 1.
    progress
        Called with the unit's name, the number done and the total.
    folder
        Where the knowledge was read from, for those who need the texts in it.
    sets
        Members of the gene sets that stand in place of genes, by the set's name; empty where genes are asked
        about.
    expression
        The line's screen as h5ad with raw counts, where it is at hand.
    screen_columns
        What the screen's columns are called and which of its cells count: ``perturbation_key``, ``control``,
        ``gene_key``, ``layer``, ``only``, as in the options of a screen.
    """

    knowledge: KnowledgeGraph
    seed: int = 0
    threads: int = 1
    progress: Callable[[str, int, int], None] = field(default=no_progress)
    folder: Path | None = None
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    expression: Path | None = None
    screen_columns: Mapping[str, str] = field(default_factory=dict)


class Predictor(ABC):
    """Learns from labelled pairs, scores others.

    Parameters
    ----------
    **options
        Fields of ``options_type``.

    Attributes
    ----------
    name, title
        Name in the registry, and one line of what the method is.
    options_type, options
        The model of its options, and those in force.
    seeded
        Whether the outcome depends on the seed; the others are fitted once.
    uses_device
        Whether it can be trained on a GPU, by its option ``device``.
    reads_cells
        Whether it learns from the cells of a screen.
    is_sized
        Whether it is one of the networks of the published grid, by its options ``layers`` and ``hidden``.
    history
        One mapping of metrics per epoch; empty for methods without epochs.
    counts
        After ``fit``: what was read and what was missing, by name; empty for those who have nothing to say.
    validation_scores
        After ``fit``, for those who hold out training perturbations to choose by: task to ``pert``, ``gene``,
        ``label``, ``score`` of the predicted line's rows that were held out, as ``predict`` scores them;
        without tasks that have no such rows. None for the others. Not part of the state.

    Raises
    ------
    InputError
        Listing every option that is unknown or not allowed.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    options_type: ClassVar[type[Options]] = Options
    seeded: bool = False
    uses_device: bool = False
    reads_cells: bool = False
    is_sized: ClassVar[bool] = False

    def __init__(self, /, **options: Value):
        self.options = self.options_type.checked(self.name, options)
        self.history: list[dict[str, float]] = []
        self.counts: dict[str, int] = {}
        self.validation_scores: dict[str, pd.DataFrame] | None = None

    @abstractmethod
    def fit(self, tables: Mapping[str, pd.DataFrame], context: Context) -> Self:
        """Learn from training rows.

        Parameters
        ----------
        tables
            Task (``de``, ``dir`` or both) to its training rows: ``pert``, ``gene``, ``label`` (0 or 1)
            and ``source`` (``own``, or the name of the other cell line the row is from).
        """

    @abstractmethod
    def predict(self, task: str, pairs: pd.DataFrame) -> np.ndarray:
        """Score ``pairs`` (``pert``, ``gene``), float64 [n], finite; higher = more likely 1."""

    def parameters(self) -> dict[str, Value]:
        """Return the options in force."""
        return self.options.as_dict()

    def further_inputs(self, knowledge: Path) -> dict[str, str]:
        """Digests, by role, of what it reads beside the tables, the graph and the cells.

        ``knowledge`` is the folder that the graph is read from.
        """
        return {}

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Return all that ``predict`` needs, as arrays that ``np.savez`` takes without pickle."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Build the fitted predictor whose ``state`` this is; it predicts the same."""


def checked_tables(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Check the training rows and sort them, so that their order in the file can never matter.

    Returns
    -------
    dict
        Task to a frame with fresh index, own rows first, then by source, perturbation, gene and label.

    Raises
    ------
    InputError
        Listing every problem: no or unknown tasks, missing columns, no rows, labels other than 0 or 1.
    """
    problems = [
        f"unknown task {task!r}; allowed are {', '.join(TASKS)}" for task in tables if task not in TASKS
    ]
    if not tables:
        problems.append(f"no table; give the training rows of {' or '.join(TASKS)}")
    for task, frame in tables.items():
        missing = [column for column in TRAINING_COLUMNS if column not in frame]
        if missing:
            problems.append(f"{task}: columns {', '.join(missing)} are missing")
        elif frame.empty:
            problems.append(f"{task}: no training rows")
        elif not frame["label"].isin([0, 1]).all():
            problems.append(f"{task}: labels must be 0 or 1; rows with unknown labels cannot be learnt from")
    if problems:
        raise InputError("training tables", problems)
    return {task: _sorted(tables[task]) for task in TASKS if task in tables}


def checked_task(task: str, fitted: Sequence[str]) -> str:
    """Return ``task`` if it was fitted.

    Raises
    ------
    InputError
        If it was not, naming the tasks that were.
    """
    if task not in fitted:
        known = ", ".join(fitted) or "none"
        raise InputError("predict", [f"task {task!r} was not fitted; fitted are: {known}"])
    return task


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "pert": frame["pert"].astype(str).astype(object),
            "gene": frame["gene"].astype(str).astype(object),
            "label": frame["label"].astype(np.int8),
            "source": frame["source"].astype(str).astype(object),
        }
    )
    frame["other"] = frame["source"] != OWN
    frame = frame.sort_values(["other", "source", "pert", "gene", "label"], kind="stable")
    return frame.drop(columns="other").reset_index(drop=True)
