"""Why a stage failed, as a run says it."""

from __future__ import annotations

import asyncio

import pytest
from prefect.states import State, exception_to_failed_state

from flows.reasons import reason_of
from storage.errors import InputError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("genept", ["no embedding model"]), "genept: no embedding model"),
        (InputError("x.h5ad", ["one", "two"]), "x.h5ad: 2 problems\n  - one\n  - two"),
        (ValueError("out of range"), "ValueError: out of range"),
    ],
)
def test_the_error_speaks_for_itself(error, reason):
    # As Prefect's engine makes the state of a task that raised.
    made = exception_to_failed_state(error, message="Task run encountered an exception")
    assert reason_of(asyncio.run(made)) == reason


def test_a_state_without_words_is_said_to_have_failed():
    assert reason_of(State(type="FAILED")) == "failed"
