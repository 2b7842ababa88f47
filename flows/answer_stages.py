"""The stages of SUMMER on one data set: observations, list of requests, votes."""

from __future__ import annotations

import json
from pathlib import Path

import tasks.predictors.fitting
import tasks.summer
from flows.answer_steps import SAMPLED, Listed, list_requests, predictor_name, retrieve_for, write_votes
from flows.label_sets import LabelSet
from flows.language_model import LanguageModel
from flows.options import AnswerOptions
from flows.records import Place
from storage.atomic import write_json
from storage.manifest import Stage, StageRecord, run_stage
from storage.tables import read_labels, write_table
from tasks.predictors.fitting import test_pairs, training_rows
from tasks.summer.answering import outcomes_digest, read_outcomes
from tasks.summer.material import Material, ordered_pairs
from tasks.summer.questions import Questions, Variant
from tasks.summer.retrieval import Retrieved
from tasks.summer.tokens import TokenReport


def retrieve_stage(
    place: Place, labels: LabelSet, task: str, material: Material, options: AnswerOptions
) -> StageRecord:
    """Draw every test question's observations."""
    inputs = {"labels": labels.digests[task], "knowledge": material.digests["knowledge"]}
    settings = {
        "task": task,
        "neighbours": options.near_genes,
        "budget": options.observations,
        "seed": options.question_seed,
        "nearness": options.nearness,
        "draw_for": options.draw_for,
    }
    code = (tasks.predictors.fitting, tasks.summer)
    stage = Stage("observations", f"{labels.name}-{task}", inputs, settings, code)

    def work(folder: Path) -> dict[str, int]:
        path = str(labels.tables[task])
        pairs = ordered_pairs(test_pairs(path))
        drawn = retrieve_for(pairs, training_rows(path), material, options)
        drawn.save(folder / "retrieved.npz")
        table = drawn.table(pairs)
        write_table(folder / "observations.parquet", table, settings)
        return {"observations.parquet": len(table), "questions": len(pairs)}

    return run_stage(place.workspace, stage, work, force=place.force)


def list_stage(
    place: Place,
    labels: LabelSet,
    task: str,
    variant: Variant,
    observations: StageRecord,
    material: Material,
    model: LanguageModel,
) -> tuple[StageRecord, Listed]:
    """List the requests of one task and variant."""
    inputs = dict(material.digests) | {"labels": labels.digests[task], "observations": observations.content}
    sampling = model.sampling
    settings = {
        "task": task,
        "variant": variant,
        "model": vars(sampling.model),
        "generation": vars(sampling.generation),
        "votes": sampling.votes,
        "seed": sampling.seed,
        "tokenizer": model.options.tokenizer,
    }
    stage = Stage("questions", f"{labels.name}-{task}-{variant}", inputs, settings, (tasks.summer,))
    questions = questions_of(labels, task, variant, observations, material)

    def work(folder: Path) -> dict[str, int]:
        listed = list_requests(folder, questions, model)
        return {"questions": len(questions), "requests.parquet": listed.tokens.requests}

    record = run_stage(place.workspace, stage, work, force=place.force)
    written = json.loads((record.folder / "tokens.json").read_text())
    report = TokenReport(**written["report"])
    return record, Listed(questions, record.folder / "requests.parquet", report, written["counted_by"])


def questions_of(
    labels: LabelSet, task: str, variant: Variant, observations: StageRecord, material: Material
) -> Questions:
    """The test questions of a data set's task."""
    pairs = ordered_pairs(test_pairs(str(labels.tables[task])))
    retrieved = Retrieved.load(observations.folder / "retrieved.npz")
    return material.questions(task, variant, pairs=pairs, retrieved=retrieved)


def vote_stage(
    place: Place, labels: LabelSet, variant: Variant, listed: dict[str, Listed], model: LanguageModel
) -> StageRecord:
    """Count the votes of all tasks of a variant: predictions like those of any predictor."""
    folder, seed = model.ledger_folder, model.sampling.seed
    inputs = {}
    for task, which in listed.items():
        outcomes = read_outcomes(which.requests, folder, pairs=which.questions.pairs, task=task)
        inputs |= {f"{task} labels": labels.digests[task], f"{task} answers": outcomes_digest(outcomes)}
    name = f"{labels.name}-{predictor_name(variant)}"
    settings = {"variant": variant, "seed": seed, "model": vars(model.model), "sampled": SAMPLED}
    stage = Stage("predictions", name, inputs, settings, (tasks.summer,))

    def work(target: Path) -> dict[str, int]:
        figures = {
            task: write_votes(target, task, which, folder, seed=seed, truth=read_labels(labels.tables[task]))
            for task, which in listed.items()
        }
        write_json(target / "rates.json", figures)
        return {f"{task}.parquet": len(which.questions) for task, which in listed.items()}

    return run_stage(place.workspace, stage, work, force=place.force)
