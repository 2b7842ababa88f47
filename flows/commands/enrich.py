"""`pqa enrich`: describe and name clusters of genes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from flows.answer_steps import material_of
from flows.arguments import read_options
from flows.commands.outputs import refuse, say
from flows.commands.printing import print_json
from flows.enrich_stages import enrichment_problems, name_clusters
from flows.language_model import LanguageModel, key_from_secret, knowledge_problems
from flows.options import EnrichOptions
from flows.progress import progress_of


def run(arguments: Namespace) -> None:
    """Name clusters by over-representation and, with an engine, by the model."""
    options = read_options(EnrichOptions, arguments)
    answer, folder = options.answer, Path(arguments.out)
    problems = enrichment_problems(answer) + knowledge_problems(options.knowledge)
    refuse(problems)
    material = material_of("", Path(options.knowledge.knowledge), answer, options.knowledge)
    with LanguageModel(answer, folder / "ledger", key_from_secret(answer)) as model:
        asked = model if answer.engine != "none" else None
        means = name_clusters(
            folder, material, answer, asked, say=say, progress=progress_of("clusters of genes", "clusters")
        )
    if arguments.json:
        print_json({"out": str(folder), "means": means})
        return
    for name, figures in means.items():
        print(
            f"{name}: "
            + ", ".join(f"{word.replace('_', ' ')} {value:.3g}" for word, value in figures.items())
        )
