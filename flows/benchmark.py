"""The main job: label -> predict -> answer -> compare."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

import tasks.knowledge
import tasks.predictors
import tasks.scoring
import tasks.summer
from flows.answer_questions import Answered, answer_questions
from flows.answer_steps import predictor_name
from flows.compare_stages import compare_stage, leaderboards_of
from flows.configurations import configurations
from flows.enrich_gene_sets import enrich_gene_sets
from flows.enrich_stages import cluster_files
from flows.first_checks import check_inputs
from flows.label_screen import label_screen
from flows.label_stages import EMBEDDED_KEYS
from flows.language_model import HOW_ASKED, Spent
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
from flows.reasons import reason_of
from flows.records import ACROSS, TASK_TITLES, WITHIN, LabelSet, Place, ScreenRecords
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
from storage.manifest import StageRecord, source_digest
from storage.tracking import Tracker, charts_of, local_uri, page_of
from tasks.summer.templates import Prompts


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
    check_inputs(labels, screen, knowledge, answer, predict)
    results, failed = [], {}
    if labels:
        given = [LabelSet.of_stem(stem) for stem in labels]
        others = [*given, *(LabelSet.of_stem(stem) for stem in predict.also)]
        data_sets = [(one, Path(knowledge.knowledge), None) for one in given]
    else:
        made = label_screen(screen, quality, expression, label, sets, run)
        others = [LabelSet.of_stem(stem) for stem in predict.also]
        data_sets = [(_made_labels(made, screen), _knowledge_of(made, knowledge), made)]
    spent, attempted, told = Spent(), 0, []
    for data_set, folder, records in data_sets:
        tracks = _on_tracks(data_set, others, predict)
        try:
            compared, broken = _one(tracks, data_set, folder, records, predict, knowledge, answer, run, spent)
        except LedgerError as error:
            # Nothing to compare on this one; the others have their turn.
            told.append(f"{data_set.name}: {error}")
            continue
        results.append(compared)
        failed |= {f"{name} on {data_set.name}": why for name, why in broken.items()}
        attempted += len(configurations(predict)) * sum(one is not None for one in tracks.values())
        attempted += len(answer.variants) if answer.engine != "none" else 0
    if failed:
        lines = "".join(f"\n  - {unit}: {why}" for unit, why in failed.items())
        told.append(f"{len(failed)} of {attempted} predictors failed, the others are in the report:{lines}")
    if cluster_files(answer):
        state = enrich_gene_sets(data_sets[0][1], answer, knowledge, run, spent, return_state=True)
        if not state.is_completed():
            told.append(f"clusters were not named: {reason_of(state)}")
    if told:
        raise LedgerError("\n".join(told))
    return results


def _on_tracks(
    labels: LabelSet, others: list[LabelSet], predict: PredictorOptions
) -> dict[str, LabelSet | None]:
    """The tables on each track asked for; None where there is no other line to learn from."""
    made = {WITHIN: labels, ACROSS: labels.across(others)}
    return {track: made[track] for track in dict.fromkeys(predict.tracks)}


def _one(
    tracks: dict[str, LabelSet | None],
    labels: LabelSet,
    folder: Path,
    records: ScreenRecords | None,
    predict: PredictorOptions,
    knowledge: KnowledgeOptions,
    answer: AnswerOptions,
    run: RunOptions,
    spent: Spent,
) -> tuple[Compared, dict[str, str]]:
    """Train, answer and compare on one data set."""
    logger = get_run_logger()
    experiment = f"perturbqa-{labels.name}"
    tracker = Tracker(run.mlflow, workspace=run.workspace, experiment=experiment)
    key = _job_key(labels, filter(None, tracks.values()), folder, predict, knowledge, answer)
    parent = tracker.open_run(key, f"benchmark {labels.name}")
    with tracker.failing(parent):
        trained = {
            track: train_predictors(tables, folder, tracker, parent, predict, knowledge, run)
            for track, tables in tracks.items()
            if tables is not None
        }
        answered = Answered()
        if answer.engine != "none":
            given = (labels, folder, tracker, parent, answer, knowledge, predict, run, spent)
            state = answer_questions(*given, return_state=True)
            answered = state.result() if state.is_completed() else _unanswered(answer, reason_of(state))
            trained[WITHIN] = _together(trained.get(WITHIN), answered)
        notes = _notes(labels, trained, answered)
        notes += tuple(
            f"Track {track} left out: no other line's tables." for track, one in tracks.items() if not one
        )
        for note in notes:
            logger.info(note)
        if not any(one.fits for one in trained.values()):
            raise LedgerError("; ".join(notes))
        place = Place(run.workspace, None, run.force)
        comparison = compare(place, labels, trained, (folder, knowledge), predict, records, notes)
        boards = leaderboards_of(comparison)
        pictures = draw_comparison(run.workspace, labels, comparison, boards, records)
        track_comparison(tracker, parent, labels, comparison, records, [one.path for one in pictures])
        models = register_best(tracker, labels, trained)
    for name, board in boards.items():
        leaderboard_artifact(labels.name, name, board)
    figures_artifact(labels.name, pictures)
    compared = Compared(labels.name, comparison, tuple(boards), experiment, parent)
    failed = {name: why for one in trained.values() for name, why in one.failed.items()}
    finished = [record for one in trained.values() for record in one.records]
    ledger_artifact(labels.name, [*finished, comparison], failed)
    where = run.mlflow or local_uri(run.workspace)
    lines = [*notes, f"Report: `{compared.report}`", f"MLflow: `{where}`, run `{parent}`"]
    lines += [f"Registered as best by validation: `{model}`, {row}" for model, row in models.items()]
    if charts := charts_of(run.pages, tracker.experiment):
        lines += [
            f"[Predictors side by side, task {name}, in MLflow]({predictor_charts(charts, name)})"
            for name in labels.tables
        ]
        lines.append(f"[Beside all other runs on this data set, in MLflow]({charts})")
    page = page_of(run.pages, tracker.experiment, parent, compared.report.name)
    report_artifact(labels.name, page or compared.report, lines)
    return compared, failed


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


def _notes(labels: LabelSet, trained: dict[str, Trained], answered: Answered) -> tuple[str, ...]:
    """What a reader has to know: what was skipped, not scored, or failed."""
    notes = list(answered.notes)
    notes += [
        f"Task {name} left out: no labels to learn from, or none to predict."
        for name in TASK_TITLES
        if name not in labels.tables
    ]
    if any(one.fits for one in trained.values()):
        notes += [
            f"Task {name} not scored: the test labels of this table are not known."
            for name in labels.tables
            if not all(one.scored(name) for one in trained.values())
        ]
    failed = [(name, why) for one in trained.values() for name, why in one.failed.items()]
    return (*notes, *(f"{name} failed: {why}" for name, why in failed))


def _made_labels(made: ScreenRecords, screen: ScreenOptions) -> LabelSet:
    """The made tables that can be asked about, and the cells that they were made of."""
    labels = LabelSet.of_stem(str(made.labels.folder))
    file = Path(screen.screen)
    if made.simulated is not None:
        file, screen = made.simulated.folder / "screen.h5ad", screen.model_copy(update=EMBEDDED_KEYS)
    columns = screen.model_dump(include={"perturbation_key", "control", "gene_key", "layer", "only"})
    columns = {name: value for name, value in columns.items() if value is not None}
    return replace(labels, expression=file, screen_columns=columns)


def _knowledge_of(made: ScreenRecords, options: KnowledgeOptions) -> Path:
    if options.knowledge is not None:
        return Path(options.knowledge)
    return made.simulated.folder / "screen.knowledge"


def _job_key(
    labels: LabelSet,
    tracks: Iterable[LabelSet],
    folder: Path,
    predict: PredictorOptions,
    knowledge: KnowledgeOptions,
    answer: AnswerOptions,
) -> str:
    """The same job finds its own run again; another option, input or version of the code is another run."""
    parts = [labels.name, *labels.digests.values(), knowledge_digest(folder, knowledge)]
    parts += [digest for one in tracks for digests in one.also_digests.values() for digest in digests]
    parts += [predict.model_dump_json(), knowledge.model_dump_json()]
    parts += [source_digest(module) for module in (tasks.predictors, tasks.knowledge, tasks.scoring)]
    if answer.engine != "none":
        parts += [answer.model_dump_json(exclude=HOW_ASKED), source_digest(tasks.summer)]
        parts += [Prompts.load(answer.prompts).digest]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def run_benchmark(options: BenchmarkOptions) -> list[Compared]:
    """Run the flow with an options model."""
    return benchmark(**{name: getattr(options, name) for name in BenchmarkOptions.model_fields})
