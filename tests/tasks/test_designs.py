"""Which false perturbations a test can be done on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.expression.designs import ComparisonPlan, null_design
from tasks.expression.groups import RANDOM_PART


def controls_of_one_guide_a_batch(n=4, per_guide=100):
    guide = np.repeat(np.arange(n), per_guide)
    return pd.DataFrame(
        {
            "control": True,
            "perturbation": pd.Categorical(["control"] * len(guide)),
            "guide": pd.Categorical([f"nt_{i}" for i in guide]),
            "batch": pd.Categorical([f"b{i}" for i in guide]),
            "library_size": 50,
        }
    )


@pytest.mark.parametrize("test", ["stratified", "pseudobulk"])
def test_with_one_control_guide_a_batch_every_false_perturbation_is_compared_with_controls(test):
    cells = controls_of_one_guide_a_batch()
    plan = ComparisonPlan(test, "paired", 25, 2.0, "library")
    for seed in range(5):
        design = null_design(cells, plan, usable=np.ones(len(cells), bool), seed=seed)
        sizes = design.groups.sizes_by_stratum()
        beside_controls = sizes[:, -1] > 0
        assert (sizes[beside_controls, :-1].sum(axis=0) >= 25).all()
        assert sizes[~beside_controls].sum() == 0


def test_guides_on_which_the_test_cannot_be_done_give_way_to_random_parts():
    # Each batch has four guides, so that whole ones can be held out, but none is in two batches.
    cells = controls_of_one_guide_a_batch(16)
    cells["batch"] = pd.Categorical([f"b{int(name[3:]) % 4}" for name in cells["guide"]])
    usable = np.ones(len(cells), bool)
    whole = null_design(cells, ComparisonPlan("stratified", "", 25, 2.0, "library"), usable=usable, seed=0)
    assert all(name.startswith("nt_") for name in whole.groups.names)
    paired = ComparisonPlan("pseudobulk", "paired", 25, 2.0, "library")
    parts = null_design(cells, paired, usable=usable, seed=0)
    assert len(parts.groups.names) > 3
    assert all(name.startswith(RANDOM_PART) for name in parts.groups.names)
