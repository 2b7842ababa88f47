"""One data set of the main job: train, answer, compare, show."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

import tasks.predictors
import tasks.scoring
import tasks.summer
from flows.answer_questions import Answered, answer_questions
from flows.answer_steps import predictor_name
from flows.compare_stages import compare_stage, leaderboards_of
from flows.label_sets import WITHIN, LabelSet
from flows.language_model import HOW_ASKED, Spent
from flows.options import (
    AnswerOptions,
    KnowledgeOptions,
    PredictorOptions,
    RunOptions,
)
from flows.predict_stages import knowledge_digest
from flows.reasons import reason_of
from flows.records import Place, ScreenRecords
from flows.register import register_best
from flows.reporting import (
    draw_comparison,
    figures_artifact,
    leaderboard_artifact,
    ledger_artifact,
    predictor_charts,
    report_artifact,
)
from flows.track import track_comparison
from flows.train_predictors import Fitted, Trained, train_predictors
from storage.errors import LedgerError
from storage.manifest import StageRecord
from storage.source_code import source_digest
from storage.tracking import Tracker, charts_of, local_uri, page_of
from tasks.scoring.task_names import TASK_TITLES
from tasks.summer.templates import Prompts


@dataclass(frozen=True)
class DataSetJob:
    """One data set: its tables, the same on each track (None: no other line), knowledge, screen's records."""

    labels: LabelSet
    tracks: dict[str, LabelSet | None]
    knowledge: Path
    records: ScreenRecords | None = None


@dataclass(frozen=True)
class JobOptions:
    """The options that are the same for all data sets."""

    predict: PredictorOptions
    knowledge: KnowledgeOptions
    answer: AnswerOptions
    run: RunOptions


@dataclass(frozen=True)
class Compared:
    """One data set's result: where its comparison is, which tasks were scored, its MLflow run."""

    data_set: str
    comparison: StageRecord
    scored: tuple[str, ...]
    experiment: str
    run_id: str

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.comparison.folder / "report.html"


@task(name="compare and report", cache_policy=NO_CACHE)
def compare(
    place: Place,
    labels: LabelSet,
    trained: dict[str, Trained],
    knowledge: tuple[Path, KnowledgeOptions],
    options: PredictorOptions,
    screen: ScreenRecords | None,
    notes: tuple[str, ...],
) -> StageRecord:
    """Put the predictors side by side, each track for itself."""
    scored = tuple(name for name in labels.tables if all(one.scored(name) for one in trained.values()))
    tracks = {track: one.predictions for track, one in trained.items() if one.fits}
    return compare_stage(place, labels, tracks, scored, knowledge, options, screen, notes)


def run_data_set(job: DataSetJob, options: JobOptions, spent: Spent) -> tuple[Compared, dict[str, str]]:
    """Train, answer and compare on one data set; beside the result, why any predictor failed.

    Raises
    ------
    LedgerError
        If no predictor has a prediction.
    """
    labels, run = job.labels, options.run
    experiment = f"perturbqa-{labels.name}"
    tracker = Tracker(run.mlflow, workspace=run.workspace, experiment=experiment)
    parent = tracker.open_run(_job_key(job, options), f"benchmark {labels.name}")
    with tracker.failing(parent):
        trained, answered = _train_and_answer(job, options, tracker, parent, spent)
        notes = _notes(job, trained, answered)
        logger = get_run_logger()
        for note in notes:
            logger.info(note)
        if not any(on_track.fits for on_track in trained.values()):
            raise LedgerError("; ".join(notes))
        place = Place(run.workspace, None, run.force)
        knowledge = (job.knowledge, options.knowledge)
        comparison = compare(place, labels, trained, knowledge, options.predict, job.records, notes)
        boards = leaderboards_of(comparison)
        pictures = draw_comparison(run.workspace, labels, comparison, boards, job.records)
        track_comparison(tracker, parent, labels, comparison, job.records, [file.path for file in pictures])
        models = register_best(tracker, labels, trained)
    failed = {name: why for on_track in trained.values() for name, why in on_track.failed.items()}
    finished = [record for on_track in trained.values() for record in on_track.records]
    for name, board in boards.items():
        leaderboard_artifact(labels.name, name, board)
    figures_artifact(labels.name, pictures)
    ledger_artifact(labels.name, [*finished, comparison], failed)
    compared = Compared(labels.name, comparison, tuple(boards), experiment, parent)
    _show_report(compared, labels, tracker, run, notes, models)
    return compared, failed


def _train_and_answer(
    job: DataSetJob, options: JobOptions, tracker: Tracker, parent: str, spent: Spent
) -> tuple[dict[str, Trained], Answered]:
    """Fit the predictors of each track, and ask the language model where there is one (within the line)."""
    predict, knowledge, answer, run = options.predict, options.knowledge, options.answer, options.run
    trained = {
        track: train_predictors(tables, job.knowledge, tracker, parent, predict, knowledge, run)
        for track, tables in job.tracks.items()
        if tables is not None
    }
    if answer.engine == "none":
        return trained, Answered()
    state = answer_questions(
        job.labels,
        job.knowledge,
        tracker,
        parent,
        options=answer,
        knowledge_options=knowledge,
        predict=predict,
        run=run,
        spent=spent,
        return_state=True,
    )
    answered = state.result() if state.is_completed() else _unanswered(answer, reason_of(state))
    return trained | {WITHIN: _together(trained.get(WITHIN), answered)}, answered


def _show_report(
    compared: Compared,
    labels: LabelSet,
    tracker: Tracker,
    run: RunOptions,
    notes: tuple[str, ...],
    models: dict[str, str],
) -> None:
    """Leave the run a link to its report, in MLflow where its pages can be reached, and the notes."""
    lines = [*notes, f"Report: `{compared.report}`"]
    lines.append(f"MLflow: `{run.mlflow or local_uri(run.workspace)}`, run `{compared.run_id}`")
    lines += [f"Registered as best by validation: `{model}`, {row}" for model, row in models.items()]
    if charts := charts_of(run.pages, tracker.experiment):
        lines += [
            f"[Predictors side by side, task {name}, in MLflow]({predictor_charts(charts, name)})"
            for name in labels.tables
        ]
        lines.append(f"[Beside all other runs on this data set, in MLflow]({charts})")
    page = page_of(run.pages, tracker.experiment, compared.run_id, compared.report.name)
    report_artifact(labels.name, page or compared.report, lines)


def _unanswered(answer: AnswerOptions, why: str) -> Answered:
    """All variants failed before one of them was asked: in summaries, or in retrieval."""
    return Answered(failed={predictor_name(variant): why for variant in answer.variants}, notes=())


def _together(trained: Trained | None, answered: Answered) -> Trained:
    """Predictors and language model in one leaderboard."""
    asked = {
        name: (Fitted(record, answered.scores[name], {}),) for name, record in answered.predictions.items()
    }
    before = trained or Trained({}, {})
    return Trained(before.fits | asked, before.failed | answered.failed)


def _notes(job: DataSetJob, trained: dict[str, Trained], answered: Answered) -> tuple[str, ...]:
    """What a reader has to know: what was skipped, not scored, or failed."""
    tables = job.labels.tables
    notes = list(answered.notes)
    notes += [
        f"Task {name} left out: no labels to learn from, or none to predict."
        for name in TASK_TITLES
        if name not in tables
    ]
    if any(on_track.fits for on_track in trained.values()):
        notes += [
            f"Task {name} not scored: the test labels of this table are not known."
            for name in tables
            if not all(on_track.scored(name) for on_track in trained.values())
        ]
    failed = [(name, why) for on_track in trained.values() for name, why in on_track.failed.items()]
    notes += [f"{name} failed: {why}" for name, why in failed]
    notes += [
        f"Track {track} left out: no other line's tables." for track, lines in job.tracks.items() if not lines
    ]
    return tuple(notes)


def _job_key(job: DataSetJob, options: JobOptions) -> str:
    """The same job finds its own run again; another option, input or version of the code is another run."""
    answer = options.answer
    parts = [
        job.labels.name,
        *job.labels.digests.values(),
        knowledge_digest(job.knowledge, options.knowledge),
    ]
    parts += [
        digest
        for tables in filter(None, job.tracks.values())
        for digests in tables.also_digests.values()
        for digest in digests
    ]
    parts += [options.predict.model_dump_json(), options.knowledge.model_dump_json()]
    parts += [source_digest(tasks.predictors, tasks.scoring)]
    if answer.engine != "none":
        parts += [answer.model_dump_json(exclude=HOW_ASKED), source_digest(tasks.summer)]
        parts += [Prompts.load(answer.prompts).digest]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()
