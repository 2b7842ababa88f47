"""The main job: label -> predict -> answer -> compare."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

import tasks.comparison
import tasks.knowledge
import tasks.predictors
import tasks.summer
from flows.answer_questions import Answered, answer_questions
from flows.compare_stages import compare_stage, leaderboard_of
from flows.enrich_gene_sets import enrich_gene_sets
from flows.enrich_stages import check_clusters, cluster_files
from flows.label_screen import label_screen
from flows.language_model import HOW_ASKED, check_answer_options
from flows.options import (
    AnswerOptions,
    BenchmarkOptions,
    ExpressionOptions,
    GeneSetOptions,
    KnowledgeOptions,
    LabelOptions,
    PredictorOptions,
    QualityOptions,
    RunOptions,
    ScreenOptions,
)
from flows.predict_stages import knowledge_digest
from flows.records import TASK_TITLES, LabelSet, Place, ScreenRecords
from flows.reporting import leaderboard_artifact, ledger_artifact, report_artifact
from flows.track import track_comparison
from flows.train_predictors import Trained, train_predictors
from storage.errors import InputError, LedgerError
from storage.manifest import StageRecord, source_digest
from storage.tables import read_labels
from storage.tracking import Tracker, charts_of, local_uri, page_of
from tasks.knowledge.read import knowledge_files


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
    trained: Trained,
    options: PredictorOptions,
    screen: ScreenRecords | None,
    notes: tuple[str, ...],
) -> StageRecord:
    """Put the predictors side by side."""
    scored = tuple(
        name for name in labels.tables if all(name in by_task for by_task in trained.scores.values())
    )
    return compare_stage(place, labels, trained.predictions, scored, options, screen, notes)


def _run_name() -> str:
    given = flow_run.parameters["labels"] or (flow_run.parameters["screen"].screen,)
    return f"benchmark {', '.join(Path(name).stem for name in given)}"


@flow(name="benchmark", flow_run_name=_run_name)
def benchmark(
    labels: tuple[str, ...] = (),
    screen: ScreenOptions = ScreenOptions(),
    quality: QualityOptions = QualityOptions(),
    expression: ExpressionOptions = ExpressionOptions(),
    label: LabelOptions = LabelOptions(),
    sets: GeneSetOptions = GeneSetOptions(),
    knowledge: KnowledgeOptions = KnowledgeOptions(),
    predict: PredictorOptions = PredictorOptions(),
    answer: AnswerOptions = AnswerOptions(),
    run: RunOptions = RunOptions(),
) -> list[Compared]:
    """Label a screen, or take given label tables, and compare predictors on perturbations never seen."""
    check_inputs(labels, screen, knowledge, answer)
    results, failed = [], {}
    if labels:
        data_sets = [(LabelSet.of_stem(stem), Path(knowledge.knowledge), None) for stem in labels]
    else:
        made = label_screen(screen, quality, expression, label, sets, run)
        data_sets = [(_made_labels(made), _knowledge_of(made, knowledge), made)]
    for data_set, folder, records in data_sets:
        compared, broken = _one(data_set, folder, records, predict, knowledge, answer, run)
        results.append(compared)
        failed |= {f"{name} on {data_set.name}": why for name, why in broken.items()}
    if cluster_files(answer):
        state = enrich_gene_sets(data_sets[0][1], answer, knowledge, run, return_state=True)
        if not state.is_completed():
            failed["names of clusters"] = state.message or "failed"
    if failed:
        lines = "".join(f"\n  - {unit}: {why}" for unit, why in failed.items())
        each = len(predict.predictors) + (len(answer.variants) if answer.engine != "none" else 0)
        asked = each * len(data_sets)
        raise LedgerError(f"{len(failed)} of {asked} predictors failed, the others are in the report:{lines}")
    return results


def check_inputs(
    labels: tuple[str, ...],
    screen: ScreenOptions,
    knowledge: KnowledgeOptions,
    answer: AnswerOptions = AnswerOptions(),
) -> None:
    """Find what is wrong with the inputs before anything is computed, all of it in one message."""
    problems = check_answer_options(answer) + check_clusters(answer)
    for stem in labels:
        try:
            LabelSet.of_stem(stem)
        except InputError as error:
            problems += [f"{error.subject}: {problem}" for problem in error.problems]
    if knowledge.knowledge is not None:
        try:
            knowledge_files(Path(knowledge.knowledge), noncommercial=knowledge.noncommercial)
        except InputError as error:
            problems += [f"{error.subject}: {problem}" for problem in error.problems]
    elif labels or screen.screen != "embedded":
        problems.append("--knowledge is needed: a folder with edges_*.parquet and gene_*.parquet")
    if not labels and screen.screen != "embedded" and not Path(screen.screen).is_file():
        problems.append(f"{screen.screen}: no such file")
    if problems:
        raise InputError("benchmark", problems)


def _one(
    labels: LabelSet,
    folder: Path,
    records: ScreenRecords | None,
    predict: PredictorOptions,
    knowledge: KnowledgeOptions,
    answer: AnswerOptions,
    run: RunOptions,
) -> tuple[Compared, dict[str, str]]:
    """Train, answer and compare on one data set."""
    logger = get_run_logger()
    experiment = f"perturbqa-{labels.name}"
    tracker = Tracker(run.mlflow, workspace=run.workspace, experiment=experiment)
    key = _job_key(labels, folder, predict, knowledge, answer)
    parent = tracker.open_run(key, f"benchmark {labels.name}")
    with tracker.failing(parent):
        trained = train_predictors(labels, folder, tracker, parent, predict, knowledge, run)
        answered = Answered()
        if answer.engine != "none":
            answered = answer_questions(labels, folder, tracker, parent, answer, knowledge, predict, run)
        trained = _together(trained, answered)
        notes = _notes(labels, trained, answered)
        for note in notes:
            logger.info(note)
        if not trained.predictions:
            raise LedgerError("; ".join(notes))
        place = Place(run.workspace, None, run.force)
        comparison = compare(place, labels, trained, predict, records, notes)
        track_comparison(tracker, parent, labels, comparison, records)
    boards = {name: leaderboard_of(comparison, name) for name in labels.tables}
    scored = tuple(name for name, board in boards.items() if board is not None)
    for name in scored:
        leaderboard_artifact(labels.name, name, boards[name])
    compared = Compared(labels.name, comparison, scored, experiment, parent)
    ledger_artifact(labels.name, [*trained.records, comparison], trained.failed)
    where = run.mlflow or local_uri(run.workspace)
    lines = [*notes, f"Report: `{compared.report}`", f"MLflow: `{where}`, run `{parent}`"]
    if charts := charts_of(run.mlflow, tracker.experiment):
        lines.append(f"[Beside all other runs on this data set, in MLflow]({charts})")
    page = page_of(run.mlflow, tracker.experiment, parent, compared.report.name)
    report_artifact(labels.name, page or compared.report, lines)
    return compared, trained.failed


def _together(trained: Trained, answered: Answered) -> Trained:
    """Predictors and language model in one leaderboard."""
    return Trained(
        trained.predictions | answered.predictions,
        trained.scores | answered.scores,
        trained.failed | answered.failed,
    )


def _notes(labels: LabelSet, trained: Trained, answered: Answered) -> tuple[str, ...]:
    """What a reader has to know: what was skipped, not scored, or failed."""
    notes = list(answered.notes)
    notes += [
        f"Task {name} left out: no labels to learn from, or none to predict."
        for name in TASK_TITLES
        if name not in labels.tables
    ]
    if trained.scores:
        notes += [
            f"Task {name} not scored: the test labels of this table are not known."
            for name in labels.tables
            if not any(name in by_task for by_task in trained.scores.values())
        ]
    return (*notes, *(f"{name} failed: {why}" for name, why in trained.failed.items()))


def _made_labels(made: ScreenRecords) -> LabelSet:
    """The made tables that can be asked about: with something to learn from and something to predict.

    A screen with next to no DE genes may leave no direction to learn.
    """
    tables = {name: made.labels.folder / f"{name}.parquet" for name in TASK_TITLES}
    usable = {
        name: path
        for name, path in tables.items()
        if made.labels.rows[path.name] and read_labels(path)["split"].nunique() == 2
    }
    if not usable:
        raise InputError(made.labels.name, ["no perturbation with labels on both sides of the split"])
    return LabelSet.of_files(made.labels.name, usable)


def _knowledge_of(made: ScreenRecords, options: KnowledgeOptions) -> Path:
    if options.knowledge is not None:
        return Path(options.knowledge)
    return made.simulated.folder / "screen.knowledge"


def _job_key(
    labels: LabelSet,
    folder: Path,
    predict: PredictorOptions,
    knowledge: KnowledgeOptions,
    answer: AnswerOptions,
) -> str:
    """The same job finds its own run again; another option, input or version of the code is another run."""
    parts = [labels.name, *labels.digests.values(), knowledge_digest(folder, knowledge)]
    parts += [predict.model_dump_json(), knowledge.model_dump_json()]
    parts += [source_digest(module) for module in (tasks.predictors, tasks.knowledge, tasks.comparison)]
    if answer.engine != "none":
        parts += [answer.model_dump_json(exclude=HOW_ASKED), source_digest(tasks.summer)]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def run_benchmark(options: BenchmarkOptions) -> list[Compared]:
    """Run the flow with an options model."""
    return benchmark(**{name: getattr(options, name) for name in BenchmarkOptions.model_fields})
