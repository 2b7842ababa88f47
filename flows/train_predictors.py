"""Flow: label tables in, every predictor fitted, scored and tracked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows import predict_stages as stages
from flows.configurations import Configuration, configurations
from flows.dask_cluster import dask_client
from flows.label_sets import LabelSet
from flows.options import KnowledgeOptions, PredictorOptions, RunOptions
from flows.reasons import reason_of
from flows.records import Place
from flows.task_progress import task_progress
from flows.track import track_predictor
from storage.manifest import StageRecord
from storage.tracking import Tracker


@dataclass(frozen=True)
class Fitted:
    """One fit of one row of the leaderboard: predictions, scores by task, run in MLflow by task."""

    predictions: StageRecord
    scores: dict[str, StageRecord]
    runs: dict[str, str]


@dataclass(frozen=True)
class Trained:
    """What came of a fan-out: the fits by row of the leaderboard, one a seed, and why any failed."""

    fits: dict[str, tuple[Fitted, ...]]
    failed: dict[str, str]

    @property
    def records(self) -> list[StageRecord]:
        """All finished stages."""
        fits = [fit for row in self.fits.values() for fit in row]
        return [*(fit.predictions for fit in fits), *(r for fit in fits for r in fit.scores.values())]

    @property
    def predictions(self) -> dict[str, tuple[StageRecord, ...]]:
        """Predictions by row."""
        return {row: tuple(fit.predictions for fit in fits) for row, fits in self.fits.items()}

    def scored(self, task: str) -> bool:
        """Whether every fit was scored on a task."""
        return all(task in fit.scores for fits in self.fits.values() for fit in fits)


@task(name="fit predictor", task_run_name="fit {configuration.slug} on {labels.name}", cache_policy=NO_CACHE)
def fit_predictor(
    place: Place,
    labels: LabelSet,
    configuration: Configuration,
    knowledge: Path,
    options: PredictorOptions,
    knowledge_options: KnowledgeOptions,
) -> tuple[StageRecord, dict[str, StageRecord]]:
    """Fit, predict the test pairs, score them where their labels are known."""
    reports = {}

    def report(unit: str, done: int, total: int) -> None:
        if unit not in reports:
            reports[unit] = task_progress(configuration.slug, unit)
        reports[unit](done, total)

    record = stages.predict_stage(place, labels, configuration, knowledge, options, knowledge_options, report)
    scores = {
        name: stages.score_stage(place, labels, name, record, options)
        for name in labels.tables
        if stages.scorable(labels, name)
    }
    return record, scores


# The tracking server may be across a network, and writing a run again replaces it: a retry helps here.
@task(
    name="log to MLflow",
    task_run_name="log {configuration.slug} on {labels.name}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[2, 10],
)
def log_predictor(
    tracker: Tracker,
    labels: LabelSet,
    configuration: Configuration,
    record: StageRecord,
    scores: dict[str, StageRecord],
    parent: str,
) -> dict[str, str]:
    """Write the predictor's child runs."""
    return track_predictor(tracker, labels, configuration, record, scores, parent=parent)


def _run_name() -> str:
    labels = flow_run.parameters["labels"]
    return f"train on {labels.name}{' across' if labels.also else ''}"


@flow(
    name="train-predictors",
    flow_run_name=_run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=8),
    validate_parameters=False,
)
def train_predictors(
    labels: LabelSet,
    knowledge: Path,
    tracker: Tracker,
    parent: str,
    options: PredictorOptions = PredictorOptions(),
    knowledge_options: KnowledgeOptions = KnowledgeOptions(),
    run: RunOptions = RunOptions(),
) -> Trained:
    """Fit every configuration on one track; one that fails fails alone."""
    with dask_client(run.dask, workers=run.workers) as client:
        place = Place(run.workspace, client, run.force)
        futures = {
            one: fit_predictor.submit(place, labels, one, knowledge, options, knowledge_options)
            for one in configurations(options)
        }
        fits: dict[str, tuple[Fitted, ...]] = {}
        failed = {}
        for one, future in futures.items():
            future.wait()
            if future.state.is_completed():
                record, scores = future.result()
                runs = log_predictor(tracker, labels, one, record, scores, parent)
                fits[one.row] = (*fits.get(one.row, ()), Fitted(record, scores, runs))
            else:
                failed[f"{one.slug}{' across' if labels.also else ''}"] = reason_of(future.state)
    return Trained(fits, failed)
