"""The best predictor by validation, registered as a model."""

from __future__ import annotations

from flows.label_sets import LabelSet
from flows.track import fit_of
from flows.train_predictors import Fitted, Trained
from storage.tracking import Tracker

#: What is averaged over genes on the held-out training perturbations; test figures choose nothing.
METRIC = "validation_auroc"
#: Scored beside the others as the yardstick of knowing nothing of the perturbation; nobody's model.
YARDSTICK = "prior"


def register_best(tracker: Tracker, labels: LabelSet, trained: dict[str, Trained]) -> dict[str, str]:
    """Register, for each task and track, the predictor with the highest validation figure; gives who it is.

    Models are called ``perturbqa-<data set>-<task>``, and ``-across`` where other lines were learnt from. A
    fit that is registered already is not registered again. The gene prior is never registered: a job that
    fits nothing else leaves the model that is there.
    """
    chosen = {}
    for track, one in trained.items():
        for task in labels.tables:
            best = _best(one, task)
            if best is None:
                continue
            row, fit, figure = best
            name = "-".join(["perturbqa", labels.name, task, *([track] if track == "across" else [])])
            tags = {METRIC: f"{figure:.4f}", "configuration": row, "data_set": labels.name, "task": task}
            version = tracker.register(name, fit.runs[task], tags | {"track": track})
            chosen[f"{name} version {version}"] = f"{row}, {figure:.3f}"
    return chosen


def _best(trained: Trained, task: str) -> tuple[str, Fitted, float] | None:
    """Row, its first fit, and the mean of all its fits' figures; of equal rows the first asked for.

    A row is chosen by its mean: the luckiest seed of many would say little of the next perturbation.
    """
    found = []
    for row, fits in trained.fits.items():
        if row == YARDSTICK or task not in fits[0].runs:
            # A language model's answers have no run of this kind: they are no fitted model.
            continue
        figures = [fit_of(fit.predictions).get("validation", {}).get(task, {}).get("auroc") for fit in fits]
        if None not in figures:
            found.append((row, fits[0], sum(figures) / len(figures)))
    return max(found, key=lambda entry: entry[2], default=None)
