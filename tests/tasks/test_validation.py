"""Measuring a predictor on training perturbations held out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tasks.predictors.prior import PriorPredictor
from tasks.predictors.protocol import Context
from tasks.predictors.splits import held_out_perturbations
from tasks.predictors.validation import validation_figures, validation_scores


class Remembering(PriorPredictor):
    """Knows which perturbations it was shown."""

    def fit(self, tables, context):
        self.seen = {task: set(table.loc[table["source"] == "own", "pert"]) for task, table in tables.items()}
        self.other = {
            task: set(table.loc[table["source"] != "own", "pert"]) for task, table in tables.items()
        }
        return super().fit(tables, context)


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(1)
    made = {}
    for task, perts in (("de", 30), ("dir", 20)):
        rows = [(f"P{p}", f"G{g}") for p in range(perts) for g in range(8)]
        own = pd.DataFrame(rows, columns=["pert", "gene"]).assign(source="own")
        both = pd.concat([own, own.assign(source="rpe1")], ignore_index=True)
        made[task] = both.assign(label=rng.integers(0, 2, len(both)))
    return made


def test_the_fit_that_is_measured_has_not_seen_what_is_held_out(tables):
    fits = []

    def make():
        fits.append(Remembering())
        return fits[-1]

    context = Context(None, seed=3)
    held = held_out_perturbations(tables)
    scores = validation_scores(Remembering().fit(tables, context), make, tables, context)
    assert len(held) == 3
    assert len(fits) == 1
    assert not fits[0].seen["de"] & set(held)
    assert set(held) <= fits[0].other["de"], "other lines may have them"
    assert set(scores["de"]["pert"]) == set(held)
    assert len(scores["de"]) == 3 * 8


def test_the_second_fit_says_how_far_it_is_in_units_of_its_own(tables):
    told = []
    context = Context(None, progress=lambda unit, done, total: told.append(unit))
    fitted = PriorPredictor().fit(tables, context)
    assert set(told) == {"tables"}
    validation_scores(fitted, PriorPredictor, tables, context)
    assert told == ["tables", "tables", "tables for validation", "tables for validation"]


def test_the_same_perturbations_are_held_out_for_everyone(tables):
    turned = {task: table.iloc[::-1] for task, table in reversed(tables.items())}
    assert list(held_out_perturbations(tables)) == list(held_out_perturbations(turned))
    assert 0 < len(held_out_perturbations({"dir": tables["dir"]})) < 20


def test_a_network_s_own_figures_are_taken(tables):
    fitted = PriorPredictor().fit(tables, Context(None))
    fitted.validation_scores = {"de": pd.DataFrame()}
    assert validation_scores(fitted, pytest.fail, tables, Context(None)) is fitted.validation_scores


def test_one_perturbation_leaves_nothing_to_measure_on(tables):
    few = {"de": tables["de"].query("pert == 'P1'")}
    context = Context(None)
    assert validation_scores(PriorPredictor().fit(few, context), PriorPredictor, few, context) == {}


def test_figures_are_the_mean_over_genes():
    rng = np.random.default_rng(2)
    rows = pd.DataFrame([(f"P{p}", f"G{g}") for p in range(20) for g in range(3)], columns=["pert", "gene"])
    rows["label"], rows["score"] = rng.integers(0, 2, len(rows)), rng.random(len(rows))
    expected = np.mean([roc_auc_score(part["label"], part["score"]) for _, part in rows.groupby("gene")])
    figures = validation_figures({"de": rows, "dir": rows.assign(label=1)})
    assert figures["de"]["auroc"] == pytest.approx(expected)
    assert figures["de"]["n_perturbations"] == 20
    assert "auroc" not in figures["dir"]
