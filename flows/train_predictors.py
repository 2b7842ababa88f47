"""Flow: label tables in, every predictor fitted, scored and tracked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from flows import predict_stages as stages
from flows.dask_cluster import dask_client
from flows.options import KnowledgeOptions, PredictorOptions, RunOptions
from flows.records import LabelSet, Place
from flows.task_progress import task_progress
from flows.track import track_predictor
from storage.manifest import StageRecord
from storage.tracking import Tracker


@dataclass(frozen=True)
class Trained:
    """What came of a fan-out: predictions and scores by predictor, and why any predictor failed."""

    predictions: dict[str, StageRecord]
    scores: dict[str, dict[str, StageRecord]]
    failed: dict[str, str]

    @property
    def records(self) -> list[StageRecord]:
        """All finished stages."""
        return [
            *self.predictions.values(),
            *(r for by_task in self.scores.values() for r in by_task.values()),
        ]


@task(name="fit predictor", task_run_name="fit {predictor} on {labels.name}", cache_policy=NO_CACHE)
def fit_predictor(
    place: Place,
    labels: LabelSet,
    predictor: str,
    knowledge: Path,
    options: PredictorOptions,
    knowledge_options: KnowledgeOptions,
) -> tuple[StageRecord, dict[str, StageRecord]]:
    """Fit, predict the test pairs, score them where their labels are known."""
    reports = {}

    def report(unit: str, done: int, total: int) -> None:
        if unit not in reports:
            reports[unit] = task_progress(predictor, unit)
        reports[unit](done, total)

    record = stages.predict_stage(place, labels, predictor, knowledge, options, knowledge_options, report)
    scores = {
        name: stages.score_stage(place, labels, name, record, options)
        for name in labels.tables
        if stages.scorable(labels, name)
    }
    return record, scores


# The tracking server may be across a network, and writing a run again replaces it: a retry helps here.
@task(
    name="log to MLflow",
    task_run_name="log {predictor} on {labels.name}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[2, 10],
)
def log_predictor(
    tracker: Tracker,
    labels: LabelSet,
    predictor: str,
    record: StageRecord,
    scores: dict[str, StageRecord],
    parent: str,
) -> None:
    """Write the predictor's child runs."""
    track_predictor(tracker, labels, predictor, record, scores, parent=parent)


@flow(
    name="train-predictors",
    flow_run_name="train on {labels.name}",
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
    """Fit the predictors side by side; one that fails fails alone."""
    with dask_client(run.dask, workers=run.workers) as client:
        place = Place(run.workspace, client, run.force)
        futures = {
            name: fit_predictor.submit(place, labels, name, knowledge, options, knowledge_options)
            for name in options.predictors
        }
        predictions, scores, failed = {}, {}, {}
        for name, future in futures.items():
            future.wait()
            if future.state.is_completed():
                predictions[name], scores[name] = future.result()
                log_predictor(tracker, labels, name, predictions[name], scores[name], parent)
            else:
                failed[name] = future.state.message or "failed"
    return Trained(predictions, scores, failed)
