"""What a predictor is worth on training perturbations held out: the figure that choices are made by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from tasks.predictors.protocol import OWN, Context, Predictor, checked_tables
from tasks.predictors.splits import held_out_perturbations, rows_of_perturbations
from tasks.scoring.metrics import score_summary


def validation_scores(
    fitted: Predictor, make: Callable[[], Predictor], tables: Mapping[str, pd.DataFrame], context: Context
) -> dict[str, pd.DataFrame]:
    """Score the rows of a tenth of the line's training perturbations, by a fit that has not seen them.

    Networks hold that tenth out to stop by, and what they said of it is taken (a little optimistic: the best
    epoch was chosen by it). Other predictors are fitted once more, on the other rows.

    Parameters
    ----------
    fitted
        The predictor, fitted on ``tables``.
    make
        Makes another one with the same options.
    tables, context
        As `Predictor.fit` takes them.

    Returns
    -------
    dict
        Task to ``pert``, ``gene``, ``label``, ``score``; without tasks that have no rows on either side.
    """
    if fitted.validation_scores is not None:
        return fitted.validation_scores
    tables = checked_tables(tables)
    held = held_out_perturbations(tables)
    asked = {task: rows[rows_of_perturbations(rows, held)] for task, rows in tables.items()}
    asked = {task: rows for task, rows in asked.items() if len(rows)}
    learnt = {task: rows[~rows_of_perturbations(rows, held)] for task, rows in tables.items()}
    learnt = {task: rows for task, rows in learnt.items() if (rows["source"] == OWN).any()}
    if not learnt:
        return {}
    again = make().fit(learnt, replace(context, progress=_marked(context.progress)))
    columns = ["pert", "gene", "label"]
    return {
        task: rows[columns].assign(score=again.predict(task, rows[["pert", "gene"]]))
        for task, rows in asked.items()
        if task in learnt
    }


def _marked(progress: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """Progress in units of its own, so that the second fit is not taken for the first beginning again."""
    return lambda unit, done, total: progress(f"{unit} for validation", done, total)


def validation_figures(scores: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, float]]:
    """AUROC per gene, averaged, and number of genes and perturbations of each task; NaN becomes absent."""
    figures = {}
    for task, rows in scores.items():
        summary = score_summary(rows)
        numbers = {
            "auroc": summary.auroc,
            "pooled_auprc": summary.pooled_auprc,
            "n_genes": summary.n_genes,
            "n_perturbations": summary.n_perturbations,
        }
        figures[task] = {name: float(value) for name, value in numbers.items() if not np.isnan(value)}
    return figures
