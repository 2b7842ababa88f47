"""Flow: SUMMER on one data set: summarise, retrieve, ask, count votes, score."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.answer_stages import list_stage, vote_stage
from flows.answer_steps import ask_listed, material_of, predictor_name, with_summaries
from flows.label_sets import LabelSet
from flows.language_model import LanguageModel, Spent, key_from_secret
from flows.options import AnswerOptions, KnowledgeOptions, PredictorOptions, RunOptions
from flows.predict_stages import scorable, score_stage
from flows.reasons import reason_of
from flows.records import Place
from flows.retrieve_observations import retrieve_observations
from flows.summarise_genes import summarise_genes
from flows.task_progress import task_progress
from flows.track_answers import track_answers
from storage.manifest import StageRecord
from storage.tracking import Tracker
from tasks.summer.material import Material
from tasks.summer.questions import VARIANTS, Variant

SKIPPED = (
    "SUMMER skipped: no language model is given (--engine openai or lmdeploy, and --model; see the README)."
)


@dataclass(frozen=True)
class Answered:
    """What came of a data set's questions: predictions and scores by variant, and why any failed."""

    predictions: dict[str, StageRecord] = field(default_factory=dict)
    scores: dict[str, dict[str, StageRecord]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = (SKIPPED,)


@task(name="ask and count votes", task_run_name="{variant} on {labels.name}", cache_policy=NO_CACHE)
def ask_variant(
    place: Place,
    labels: LabelSet,
    variant: Variant,
    material: Material,
    observations: dict[str, StageRecord],
    model: LanguageModel,
    predict: PredictorOptions,
) -> tuple[StageRecord, dict[str, StageRecord], dict[str, dict[str, int]]]:
    """Ask all tasks' questions of one variant, count their votes, score where labels are known."""
    listed, counted = {}, {}
    logger = get_run_logger()
    with model.ledger(logger.info) as ledger:
        for name in labels.tables:
            _, listed[name] = list_stage(place, labels, name, variant, observations[name], material, model)
            title = f"{predictor_name(variant)} {name} on {labels.name}"
            progress = task_progress(title, "questions x votes")
            counted[name] = ask_listed(
                listed[name], ledger, model, title=title, say=logger.info, progress=progress
            )
    record = vote_stage(place, labels, variant, listed, model)
    scores = {
        name: score_stage(place, labels, name, record, predict)
        for name in labels.tables
        if scorable(labels, name)
    }
    return record, scores, counted


# As for a predictor's runs: the server may be across a network, and writing a run again replaces it.
@task(
    name="log answers to MLflow",
    task_run_name="log {variant} on {labels.name}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[2, 10],
)
def log_variant(
    tracker: Tracker,
    labels: LabelSet,
    variant: Variant,
    record: StageRecord,
    scores: dict[str, StageRecord],
    counted: dict[str, dict[str, int]],
    options: AnswerOptions,
    parent: str,
) -> None:
    """Write a variant's child runs."""
    track_answers(tracker, labels, variant, record, scores, counted, options, parent=parent)


@flow(name="answer-questions", flow_run_name="answer {labels.name}", validate_parameters=False)
def answer_questions(
    labels: LabelSet,
    knowledge: Path,
    tracker: Tracker,
    parent: str,
    options: AnswerOptions = AnswerOptions(),
    knowledge_options: KnowledgeOptions = KnowledgeOptions(),
    predict: PredictorOptions = PredictorOptions(),
    run: RunOptions = RunOptions(),
    spent: Spent | None = None,
) -> Answered:
    """Answer the test questions of a data set in every variant asked for; one that fails fails alone.

    ``spent`` is what the job has used of its budget; counted in.
    """
    place = Place(run.workspace, None, run.force)
    material = material_of(labels.name, knowledge, options, knowledge_options)
    ledger = Path(run.workspace).resolve() / "answers"
    predictions, scores, failed = {}, {}, {}
    key = key_from_secret(options)
    with LanguageModel(options, ledger, key, spent=spent, waits=True) as model:
        observations = retrieve_observations(place, labels, material, options)
        if options.summaries == "engine":
            material = with_summaries(material, summarise_genes(place, labels, material, model).folder)
        for variant in options.variants:
            name = predictor_name(variant)
            state = ask_variant(
                place, labels, variant, material, observations, model, predict, return_state=True
            )
            if not state.is_completed():
                failed[name] = reason_of(state)
                continue
            record, scored, counted = state.result()
            how = (tracker, labels, variant, record, scored, counted, options, parent)
            logged = log_variant(*how, return_state=True)
            if not logged.is_completed():
                failed[name] = reason_of(logged)
                continue
            predictions[name], scores[name] = record, scored
    return Answered(predictions, scores, failed, (_note(options, material),))


def _note(options: AnswerOptions, material: Material) -> str:
    """What was asked of which model, and with which texts, for the report."""
    texts = {"entries": "database entries condensed by rule in place of summaries"}
    told = ", ".join(f"{predictor_name(variant)} ({VARIANTS[variant]})" for variant in options.variants)
    return f"SUMMER with {options.model}: {told}; {texts.get(material.texts.source, 'summaries')}."
