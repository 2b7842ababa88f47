"""Time and memory that a fit takes."""

from __future__ import annotations

import time

import numpy as np
import psutil
import pytest

from tasks.predictors.resources import resources


def in_use() -> float:
    """Megabytes in use, after what other tests have freed is given back."""
    with resources():
        pass
    return psutil.Process().memory_info().rss / 1e6


def test_time_and_peak_memory_of_the_block():
    before = in_use()
    with resources() as used:
        held = np.ones(40_000_000)
        time.sleep(0.5)
        del held
        time.sleep(0.3)
    assert used["fit_seconds"] >= 0.8
    assert before + 250 < used["peak_memory_mb"] < before + 500


def test_what_earlier_work_has_freed_does_not_count():
    # Pieces too small to be mapped one by one, and one behind them that keeps them from being handed back.
    pieces = [np.ones(8_000) for _ in range(5_000)]
    last = np.ones(8_000)
    held = in_use()
    del pieces
    with resources() as used:
        time.sleep(0.3)
    assert last.sum() == 8_000
    assert used["peak_memory_mb"] < held - 200


def test_a_block_that_fails_is_measured_too():
    with pytest.raises(KeyError), resources() as used:
        raise KeyError
    assert set(used) == {"fit_seconds", "peak_memory_mb"}
