"""Random streams have names: a number that is not on the list, or is used twice, is a mistake."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tasks.random_streams import PredictorStream, RandomStream

TASKS = Path(__file__).parents[2] / "tasks"
OURS = ("expression", "knowledge", "labels", "screens", "summer")


def streams_in(*folders):
    """The second entry of every ``default_rng([seed, ...])``."""
    for path in sorted(path for folder in folders for path in (TASKS / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.random.default_rng":
                yield path.name, node.args[0].elts[1]


def test_from_screen_to_labels_every_number_has_a_name_and_one_place():
    used = Counter()
    for name, entry in streams_in(*OURS):
        assert not isinstance(entry, ast.Constant), f"{name}: {ast.unparse(entry)} has no name"
        if ast.unparse(entry).startswith("RandomStream."):
            used[entry.attr] += 1
    assert used == dict.fromkeys(RandomStream.__members__, 1)


def test_predictors_use_numbers_that_are_listed():
    numbers = {
        entry.value for _, entry in streams_in("predictors", "comparison") if isinstance(entry, ast.Constant)
    }
    assert numbers <= set(PredictorStream)


@pytest.mark.parametrize("stream", [*RandomStream, *PredictorStream])
def test_a_name_draws_what_its_number_draws(stream):
    drawn = [np.random.default_rng([7, number]).integers(2**62, size=4) for number in (stream, int(stream))]
    np.testing.assert_array_equal(*drawn)


def test_numbers_never_change():
    assert {stream.name: int(stream) for stream in RandomStream} == {
        "FALSE_PERTURBATIONS": 1,
        "SPLIT": 2,
        "PLANTED_NETWORK": 10,
        "OBSERVED_KNOWLEDGE": 11,
        "SIMULATED_CELLS": 12,
        "SIMULATED_COUNTS": 13,
    }
