"""`pqa answer`: questions to a language model, answers to votes, votes to predictions."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from flows.answer_steps import (
    Listed,
    ask_listed,
    list_requests,
    material_of,
    predictor_name,
    retrieve_for,
    scores_by_counting,
    with_summaries,
    write_votes,
)
from flows.arguments import read_options
from flows.commands.outputs import refuse, say
from flows.commands.predict import task_of
from flows.commands.printing import print_json
from flows.language_model import LanguageModel, engine_problems, key_from_secret, knowledge_problems
from flows.options import AnswerCommandOptions, AnswerOptions
from flows.progress import Progress, progress_of
from flows.summary_stages import genes_by_role, summarise
from storage.atomic import copy_or_remove, write_json
from storage.errors import problems_of
from storage.tables import read_frame, read_labels, read_pairs
from tasks.predictors.fitting import training_rows
from tasks.summer.material import Material, ordered_pairs


def run(arguments: Namespace) -> None:
    """Answer the questions of one table; what an earlier run has asked is not asked again."""
    options = read_options(AnswerCommandOptions, arguments)
    problems = engine_problems(options.answer) + knowledge_problems(options.knowledge)
    problems += problems_of(read_labels, options.labels) + problems_of(read_pairs, options.pairs)
    refuse(problems + _cluster_problems(options.answer))
    task = options.task or task_of(options.labels)
    folder = Path(arguments.out)
    knowledge = Path(options.knowledge.knowledge)
    pairs, training = ordered_pairs(read_pairs(options.pairs)), training_rows(str(options.labels))
    name = options.labels.stem.removesuffix(f"-{task}")
    material = material_of(name, knowledge, options.answer, options.knowledge)
    retrieved = retrieve_for(pairs, training, material, options.answer)
    results = {}
    key = key_from_secret(options.answer)
    with LanguageModel(options.answer, folder / "ledger", key) as model, model.ledger(say) as ledger:
        if options.answer.summaries == "engine":
            material = _summarised(folder, pairs, material, model, ledger)
        for variant in options.answer.variants:
            target, title = folder / variant, f"{predictor_name(variant)} {task}"
            questions = material.questions(task, variant, pairs=pairs, retrieved=retrieved)
            listed = list_requests(target, questions, model)
            progress = progress_of(title, "questions x votes")
            counted = ask_listed(listed, ledger, model, title=title, say=say, progress=progress)
            results[variant] = {"requests": counted} | _finish(target, task, listed, model, options)
    first = folder / options.answer.variants[0] / f"{task}.parquet"
    copy_or_remove(first, folder / "predictions.parquet")
    _print(arguments, folder, results)


def _summarised(folder: Path, pairs, material: Material, model: LanguageModel, ledger) -> Material:
    target, genes = folder / "summaries", genes_by_role(pairs, material)

    def progress(title: str) -> Progress:
        return progress_of(f"summaries {title}", "genes")

    summarise(target, genes, material, model, ledger, say=say, progress=progress)
    return with_summaries(material, target)


def _finish(
    target: Path, task: str, listed: Listed, model: LanguageModel, options: AnswerCommandOptions
) -> dict[str, object]:
    """Write votes and predictions; score them where the label table knows the answers."""
    labels = read_labels(options.labels)
    ledger, seed = model.ledger_folder, model.sampling.seed
    figures = write_votes(target, task, listed, ledger, seed=seed, truth=labels)
    votes = read_frame(target / f"votes-{task}.parquet")
    asked = set(zip(votes["pert"], votes["gene"], strict=True))
    rows = zip(labels["pert"], labels["gene"], strict=True)
    scores = scores_by_counting(labels[[pair in asked for pair in rows]], votes)
    content = {
        "figures": figures,
        "scores": scores,
        "texts of genes": listed.questions.texts.source,
        "prompts": listed.questions.prompts.digest,
        "options": options.model_dump(mode="json"),
    }
    write_json(target / "run.json", content)
    return {"predictions": str(target / f"{task}.parquet"), "figures": figures, "scores": scores}


def _print(arguments: Namespace, folder: Path, results: dict[str, dict]) -> None:
    if arguments.json:
        print_json({"out": str(folder), "variants": results})
        return
    for variant, result in results.items():
        figures = result["figures"]
        print(
            f"{predictor_name(variant)}: {result['requests']['done']:,} requests answered, "
            f"{result['requests']['failed']:,} failed; {result['predictions']}"
        )
        shares = ("yes", "no", "insufficient", "unparsed", "missing")
        print("  votes  " + ", ".join(f"{share} {figures[f'rate_{share}']:.1%}" for share in shares))
        for name, value in result["scores"].items():
            print(f"  {name.replace('_', ' ')}  {value:.4g}")


def _cluster_problems(options: AnswerOptions) -> list[str]:
    given = [name for name in ("pert_clusters", "gene_clusters") if getattr(options, name)]
    return [f"--{name.replace('_', '-')}: `pqa enrich` names clusters" for name in given]
