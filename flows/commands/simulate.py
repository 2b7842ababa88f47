"""`pqa simulate`: a simulated screen with its truth and its knowledge graph."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from flows.commands.outputs import refuse
from flows.commands.printing import print_json
from flows.progress import progress_of
from storage.errors import problems_of
from storage.tables import read_recipe
from tasks.screens.simulate import simulate_screen


def run(arguments: Namespace) -> None:
    """Make a simulated screen."""
    names = ("cells", "genes", "perturbations", "seed", "controls", "batches", "batch_imbalance", "mean_umis")
    out: Path = arguments.out
    refuse(_problems(out))
    settings = {name: getattr(arguments, name) for name in names}
    made = simulate_screen(arguments.out, **settings, progress=progress_of("simulating", "cells"))
    if arguments.json:
        print_json({"screen": str(made.screen), "knowledge": str(made.knowledge), "truth": str(made.truth)})
    else:
        print(f"{made.n_cells:,} cells with {made.n_values:,} non-zero counts in {made.screen}")
        print(f"knowledge graph in {made.knowledge}, {made.n_effects:,} planted effects in {made.truth}")


def _problems(out: Path) -> list[str]:
    """Which of the files to be written are there already and were not simulated, in sentences."""
    truth = out.with_suffix(".truth.parquet")
    if not problems_of(read_recipe, truth) and read_recipe(truth).get("simulated"):
        return []
    there = [path for path in (out, truth, out.with_suffix(".knowledge")) if path.exists()]
    return [f"{path}: is there and was not simulated here; choose another name" for path in there]
