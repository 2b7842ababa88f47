"""`pqa predict`: fit one predictor on a label table and score pairs."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from pathlib import Path

from flows.arguments import read_options
from flows.commands.outputs import refuse, table_problems
from flows.commands.printing import print_json
from flows.configurations import parsed_settings
from flows.label_sets import LabelSet
from flows.options import PredictCommandOptions
from flows.progress import progress_of
from storage.errors import InputError, problems_of
from storage.tables import read_labels, read_pairs, read_recipe, write_table
from tasks.knowledge.read import knowledge_files
from tasks.predictors.fitting import FitRequest, fit, n_unknown
from tasks.predictors.protocol import OWN


def run(arguments: Namespace) -> None:
    """Fit one predictor on a table's training rows and score pairs."""
    options = read_options(PredictCommandOptions, arguments)
    problems = table_problems(arguments.out) + problems_of(read_pairs, options.pairs)
    problems += problems_of(read_labels, options.labels) or problems_of(other_lines, options)
    problems += problems_of(knowledge_files, options.knowledge, noncommercial=options.noncommercial)
    problems += _setting_problems(options)
    if options.screen is not None and not options.screen.is_file():
        problems.append(f"{options.screen}: no such file")
    refuse(problems)
    task, pairs = _task(options), read_pairs(options.pairs)
    request = FitRequest(
        predictor=options.predictor,
        tables={task: str(options.labels)},
        also={task: {line: str(path) for line, path in other_lines(options).items()}},
        knowledge=str(options.knowledge),
        noncommercial=options.noncommercial,
        max_links=options.max_links,
        seed=options.seed,
        threads=options.threads,
        device=options.device,
        options=parsed_settings(options.settings).get(options.predictor, {}),
        set_members=None if options.set_members is None else str(options.set_members),
        expression=None if options.screen is None else str(options.screen),
        screen_columns=_columns(options),
    )
    progress = progress_of(options.predictor, "steps")
    model, graph = fit(request, lambda _unit, done, total: progress(done, total))
    scored, unknown = pairs.assign(score=model.predict(task, pairs)), n_unknown(graph, pairs)
    write_table(arguments.out, scored, options.model_dump(mode="json") | {"task": task})
    if arguments.json:
        print_json({"out": str(arguments.out), "pairs": len(scored), "genes_unknown_to_graph": unknown})
    else:
        print(f"{len(scored):,} pairs scored in {arguments.out}; {unknown:,} genes unknown to the graph")


def other_lines(options: PredictCommandOptions) -> dict[str, Path]:
    """Tables of ``--also`` by line; where a file's name does not tell them apart, by their path.

    Raises
    ------
    InputError
        If one is no label table, or of the very counts of the predicted one.
    """
    task, problems, others = _task(options), [], []
    own = LabelSet.of_table(options.labels, task)
    for path in dict.fromkeys(path.resolve() for path in options.also):
        problems += problems_of(LabelSet.of_table, path, task)
        if not problems:
            others.append(LabelSet.of_table(path, task))
            if others[-1].digests == own.digests or others[-1].screen == own.screen is not None:
                problems.append(f"{path}: made of the same cells as {options.labels}, so no other line's")
    if problems:
        raise InputError("--also", problems)
    names = Counter([OWN, *(other.line for other in others)])
    return {
        other.line if names[other.line] == 1 else str(other.tables[task]): other.tables[task]
        for other in others
    }


def _task(options: PredictCommandOptions) -> str:
    return options.task or task_of(options.labels)


def _setting_problems(options: PredictCommandOptions) -> list[str]:
    try:
        others = parsed_settings(options.settings).keys() - {options.predictor}
    except InputError as error:
        return list(error.problems)
    return [f"--settings of {name}, but --predictor is {options.predictor}" for name in sorted(others)]


def _columns(options: PredictCommandOptions) -> dict[str, str]:
    names = options.model_dump(include={"perturbation_key", "control", "gene_key", "layer", "only"})
    return {name: value for name, value in names.items() if value is not None}


def task_of(labels: Path) -> str:
    """The task a label table says it is for, in its recipe or its name; de where it does not say."""
    return read_recipe(labels).get("task") or ("dir" if labels.stem.split("-")[-1] == "dir" else "de")
