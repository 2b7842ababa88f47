"""MLflow: one parent run a job, one child a predictor and task, each found again by its key."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import pandas as pd
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.models import infer_signature
from mlflow.tracking import MlflowClient

KEY_TAG = "pqa.key"
CONTENT_TAG = "pqa.content"
#: Alias of the version that a job found best.
BEST = "best"
REGISTERED = (
    "Scores pairs of perturbation and gene (columns pert, gene, task), higher = more likely 1. The alias "
    "best is the predictor with the highest AUROC per gene on training perturbations held out."
)
#: Metrics sent in one request; the server takes at most 1000.
BATCH = 500

logging.getLogger("mlflow").setLevel(logging.ERROR)
logging.getLogger("alembic").setLevel(logging.ERROR)


@dataclass(frozen=True)
class TableInput:
    """A table a run has read: its name, digest, place and role (``training``, ``test``)."""

    name: str
    digest: str
    source: str
    role: str
    n_rows: int


@dataclass(frozen=True)
class RunContent:
    """All that one run says; written in one go, so that a run is whole or is written again.

    Attributes
    ----------
    history
        One mapping an epoch, logged with the epoch as step.
    files
        Artifact folder ('' = top) to local files.
    tables
        File name ending in .json to a table that the run's page shows.
    description
        Markdown shown on the run's page.
    """

    parameters: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    inputs: Sequence[TableInput] = ()
    files: Sequence[tuple[str, Path]] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True)
class ModelFiles:
    """A fitted predictor as an MLflow model: state folder, module that loads it, sources, example pairs."""

    folder: Path
    loader_module: str
    code: Sequence[Path]
    example: pd.DataFrame
    requirements: Sequence[str]


def local_uri(workspace: Path | str) -> str:
    """Address of the SQLite store in a workspace."""
    return f"sqlite:///{Path(workspace).resolve() / 'mlflow.db'}"


def page_of(server: str | None, experiment: str, run_id: str, file: str = "") -> str:
    """Address of a run's page, or of the page of one of its files; '' where there is no server."""
    if not server:
        return ""
    page = f"{server}/#/experiments/{experiment}/runs/{run_id}{'/artifacts/' + file if file else ''}"
    # Without this MLflow shows its pages for language models.
    return f"{page}?workflowType=machine_learning"


def charts_of(server: str | None, experiment: str) -> str:
    """Address of an experiment's page with every metric of every run as a bar; '' without a server."""
    page = f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    return f"{page}&compareRunsMode=CHART" if server else ""


class Tracker:
    """One experiment in one tracking store.

    Parameters
    ----------
    uri
        A tracking server's address; None for SQLite in the workspace.
    workspace
        Holds SQLite, artifacts and locks.
    experiment
        Name of the experiment, made if it is not there.
    """

    def __init__(self, uri: str | None, *, workspace: Path | str, experiment: str):
        self._workspace = Path(workspace).resolve()
        self._uri = uri or local_uri(self._workspace)
        self._workspace.mkdir(parents=True, exist_ok=True)
        # SQLite is migrated when first opened; two processes at once would both try.
        with FileLock(self._workspace / ".mlflow.lock"):
            self._client = MlflowClient(self._uri)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = found.experiment_id if found else self._create(experiment, local=uri is None)

    def _create(self, name: str, *, local: bool) -> str:
        place = (self._workspace / "mlflow-artifacts" / name).as_uri() if local else None
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return self._client.create_experiment(name, artifact_location=place, tags=kind)

    @property
    def experiment(self) -> str:
        """The experiment's id."""
        return self._experiment

    def open_run(self, key: str, name: str, *, parent: str | None = None) -> str:
        """Id of the run with this key; made and set running if it is not there yet."""
        with FileLock(self._workspace / ".mlflow.lock"):
            run = self._find(key)
            if run is not None:
                if run.info.status != "FINISHED":
                    self._client.update_run(run.info.run_id, status="RUNNING")
                return run.info.run_id
            tags = {KEY_TAG: key} | ({"mlflow.parentRunId": parent} if parent else {})
            run = self._client.create_run(self._experiment, run_name=name, tags=tags)
            return run.info.run_id

    def is_finished(self, run_id: str, content: str) -> bool:
        """Whether a run has been written to its end, with this as its content's digest."""
        run = self._client.get_run(run_id)
        return run.info.status == "FINISHED" and run.data.tags.get(CONTENT_TAG) == content

    def write_run(
        self,
        key: str,
        name: str,
        content: RunContent,
        *,
        parent: str | None = None,
        model: ModelFiles | None = None,
    ) -> str:
        """Write a run whole unless it is finished; one that was interrupted is deleted and written anew."""
        # Held to the end: another job must not take a run in the making for an interrupted one.
        with FileLock(self._workspace / ".mlflow-write.lock"):
            if (found := self._find(key)) is not None:
                if found.info.status == "FINISHED":
                    return found.info.run_id
                self._client.delete_run(found.info.run_id)
            run_id = self.open_run(key, name, parent=parent)
            with self.ending(run_id):
                self.log(run_id, content)
                if model is not None:
                    self._log_model(run_id, model)
            return run_id

    @contextlib.contextmanager
    def failing(self, run_id: str) -> Iterator[None]:
        """Set the run failed if the block raises."""
        try:
            yield
        except BaseException:
            self._client.set_terminated(run_id, "FAILED")
            raise

    @contextlib.contextmanager
    def ending(self, run_id: str) -> Iterator[None]:
        """Set the run finished at the end of the block, or failed if it raises."""
        with self.failing(run_id):
            yield
        self._client.set_terminated(run_id, "FINISHED")

    def log(self, run_id: str, content: RunContent) -> None:
        """Send a run's content, in as few requests as there can be."""
        now = int(time.time() * 1000)
        metrics = [Metric(key, float(value), now, 0) for key, value in content.metrics.items()]
        for epoch, values in enumerate(content.history):
            metrics += [Metric(f"epoch/{key}", float(value), now, epoch) for key, value in values.items()]
        tags = dict(content.tags) | (
            {"mlflow.note.content": content.description} if content.description else {}
        )
        parameters = [Param(key, str(value)) for key, value in content.parameters.items()]
        self._client.log_batch(run_id, params=parameters, tags=[RunTag(k, str(v)) for k, v in tags.items()])
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + BATCH])
        if content.inputs:
            self._client.log_inputs(run_id, datasets=[_dataset(table) for table in content.inputs])
        for folder, path in content.files:
            self._client.log_artifact(run_id, str(path), folder or None)
        for name, table in content.tables.items():
            self._client.log_table(run_id, data=table, artifact_file=name)

    def register(self, name: str, run_id: str, tags: Mapping[str, str]) -> str:
        """Make a run's model the newest version of a registered model, alias ``best``; gives the version.

        A run whose model is a version already keeps it, and gets the alias.
        """
        # Making a version looks the model up by way of the process's own setting, not the client's.
        mlflow.set_tracking_uri(self._uri)
        with FileLock(self._workspace / ".mlflow-write.lock"):
            if not self._client.search_registered_models(f"name = '{name}'"):
                self._client.create_registered_model(name, description=REGISTERED)
            versions = self._client.search_model_versions(f"name = '{name}'")
            version = next((one.version for one in versions if one.run_id == run_id), None)
            if version is None:
                source = self._client.get_run(run_id).outputs.model_outputs[0].model_id
                made = self._client.create_model_version(
                    name, f"models:/{source}", run_id=run_id, tags=dict(tags), model_id=source
                )
                version = made.version
            self._client.set_registered_model_alias(name, BEST, version)
        return str(version)

    def _find(self, key: str):
        runs = self._client.search_runs([self._experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        return runs[0] if runs else None

    def _log_model(self, run_id: str, model: ModelFiles) -> None:
        mlflow.set_tracking_uri(self._uri)
        columns = model.example.assign(score=0.0)
        with mlflow.start_run(run_id=run_id):
            mlflow.pyfunc.log_model(
                name="model",
                loader_module=model.loader_module,
                data_path=str(model.folder),
                code_paths=[str(path) for path in model.code],
                signature=infer_signature(model.example, columns[["score"]]),
                input_example=model.example,
                pip_requirements=list(model.requirements),
            )


def _dataset(table: TableInput) -> DatasetInput:
    source, profile = json.dumps({"uri": table.source}), json.dumps({"num_rows": table.n_rows})
    dataset = Dataset(table.name, table.digest[:36], "local", source, profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", table.role)])
