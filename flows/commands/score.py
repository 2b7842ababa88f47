"""`pqa score`: predictions against the test rows of a label table."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from flows.commands.outputs import refuse
from flows.commands.printing import print_json
from storage.atomic import write_json
from storage.errors import problems_of
from storage.tables import read_labels, read_predictions, read_recipe
from tasks.scoring.intervals import bootstrap_auroc
from tasks.scoring.metrics import join_predictions, score_summary


def run(arguments: Namespace) -> None:
    """Score predictions on the test rows of a label table."""
    problems = problems_of(read_labels, arguments.labels)
    problems += problems_of(read_predictions, arguments.predictions)
    refuse(problems or _other_task(arguments.labels, arguments.predictions))
    scored = join_predictions(read_labels(arguments.labels), read_predictions(arguments.predictions))
    low, high = bootstrap_auroc(scored, draws=arguments.draws, seed=arguments.seed)
    figures = score_summary(scored).as_dict() | {"auroc_low": low, "auroc_high": high}
    if arguments.json == "-":
        print_json(figures)
        return
    if arguments.json:
        write_json(arguments.json, figures)
    print(f"AUROC per gene  {figures['auroc']:.4f}  (95 % interval {low:.4f} to {high:.4f})")
    dropped = f"{figures['n_genes_dropped']:,} with one class only left out"
    print(f"genes           {figures['n_genes']:,} scored, {dropped}")
    print(f"pooled          AUROC {figures['pooled_auroc']:.4f}, AUPRC {figures['pooled_auprc']:.4f}")
    print(f"pairs           {figures['n_pairs']:,} of {figures['n_perturbations']:,} perturbations")


def _other_task(labels: Path, predictions: Path) -> list[str]:
    """That the two files say they are of different tasks; files from elsewhere say nothing."""
    asked, answered = (read_recipe(path).get("task") for path in (labels, predictions))
    if asked is None or answered is None or asked == answered:
        return []
    return [f"{labels} is of task {asked}, {predictions} of task {answered}"]
