"""Features of the stack: what other lines say together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.predictors.stacking.stack_features import features_of_lines

NAMES = ("ridge", "ridge_strength", "rate", "response", "outcome", "seen")


@pytest.mark.parametrize("n_lines", [1, 3])
def test_other_lines_are_summed_up_over_those_that_observed_a_pair(n_lines):
    rng = np.random.default_rng(n_lines)
    lines = [{name: rng.normal(size=200) for name in NAMES} for _ in range(n_lines)]
    for line in lines:
        for name in ("rate", "response", "outcome"):
            line[name][rng.random(200) < 0.6] = np.nan
        line["outcome"][np.isnan(line["rate"])] = np.nan
    own = rng.normal(size=200)
    found = features_of_lines(own, lines)
    tables = {name: pd.DataFrame([line[name] for line in lines]).T for name in NAMES}
    expected = {f"line{at}_{name}": line[name] for at, line in enumerate(lines) for name in NAMES}
    expected |= {f"lines_{name}": tables[name].mean(axis=1) for name in NAMES if name != "seen"}
    for name in ("response", "outcome"):
        expected[f"lines_{name}_count"] = tables[name].notna().sum(axis=1)
        expected[f"lines_{name}_sum"] = tables[name].sum(axis=1)
    expected |= {"lines_ridge_least": tables["ridge"].min(axis=1)}
    expected |= {"lines_ridge_most": tables["ridge"].max(axis=1)}
    expected |= {"ridge_of_all": own + tables["ridge"].sum(axis=1)}
    expected |= {"lines_residual": (tables["outcome"] - tables["rate"]).sum(axis=1)}
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-12, err_msg=name)
