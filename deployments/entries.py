"""The flows behind the forms: names picked there become paths, service settings become run options.

Prefect loads these by their module path; a deployment's parameters are a function's, a group of fields each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from prefect import flow
from prefect.concurrency.sync import concurrency
from prefect.runtime import flow_run
from pydantic import Field

from deployments.catalog import Catalog, read_catalog
from deployments.settings import ServiceSettings
from flows.benchmark import benchmark
from flows.enrich_gene_sets import enrich_gene_sets
from flows.enrich_stages import enrichment_problems
from flows.first_checks import check_inputs
from flows.label_alone import label_and_track
from flows.new_screens import NewScreenOptions, new_screens
from flows.options import (
    AnswerOptions,
    BenchmarkOptions,
    ExpressionOptions,
    GeneSetOptions,
    KnowledgeOptions,
    LabelOptions,
    PredictorOptions,
    QualityOptions,
    Redo,
    ScreenNames,
    ScreenOptions,
)
from flows.reporting import places_artifact
from storage.errors import InputError

#: One run at a time may use the GPU; `pqa up` makes the limit.
GPU_LIMIT = "pqa-gpu"

Screen = Annotated[
    str, Field(title="Screen", description="h5ad file of raw counts, by name; embedded: a simulated one.")
]
DataSets = Annotated[
    tuple[str, ...],
    Field(title="Label tables", description="Given instead of a screen; several are done one after another."),
]
DataSet = Annotated[str, Field(title="Data set", description="Label tables, by name; made/...: made here.")]
Columns = Annotated[ScreenNames, Field(title="Columns and controls")]
Quality = Annotated[QualityOptions, Field(title="Quality control")]
Expression = Annotated[ExpressionOptions, Field(title="Tests")]
Labels = Annotated[LabelOptions, Field(title="Labels")]
Sets = Annotated[GeneSetOptions, Field(title="Gene sets")]
Knowledge = Annotated[KnowledgeOptions, Field(title="Knowledge")]
Predict = Annotated[PredictorOptions, Field(title="Predictors")]
Answer = Annotated[AnswerOptions, Field(title="Language model")]
New = Annotated[NewScreenOptions, Field(title="Files")]
Again = Annotated[
    tuple[Redo, ...],
    Field(
        title="Do again",
        description="Stages to be done again although they are done, and whatever then comes out otherwise "
        "after them; empty: only what is not done yet.",
    ),
]


@flow(name="label-a-screen", flow_run_name="label {screen}")
def label_a_screen(
    screen: Screen = "embedded",
    columns: Columns = ScreenNames(),
    quality: Quality = QualityOptions(),
    expression: Expression = ExpressionOptions(),
    label: Labels = LabelOptions(),
    sets: Sets = GeneSetOptions(),
    again: Again = (),
) -> None:
    """Counts of one screen to DE tests, label tables, pseudobulk profiles and a report."""
    settings = ServiceSettings.from_environment()
    catalog = _catalog(settings)
    given = ScreenOptions(screen=catalog.path_of("screens", screen), **columns.model_dump())
    places_artifact(settings.mlflow_pages, settings.dashboard)
    label_and_track(
        screen=given,
        quality=quality,
        expression=expression,
        label=label,
        sets=_sets(sets, catalog),
        run=settings.run_options(again),
    )


def _benchmark_name() -> str:
    given = flow_run.parameters
    return f"benchmark {', '.join(given['data_sets'] or (given['screen'],))}"


@flow(name="benchmark-predictors", flow_run_name=_benchmark_name)
def benchmark_predictors(
    screen: Screen = "embedded",
    data_sets: DataSets = (),
    columns: Columns = ScreenNames(),
    knowledge: Knowledge = KnowledgeOptions(),
    predict: Predict = PredictorOptions(),
    quality: Quality = QualityOptions(),
    expression: Expression = ExpressionOptions(),
    label: Labels = LabelOptions(),
    sets: Sets = GeneSetOptions(),
    answer: Answer = AnswerOptions(),
    again: Again = (),
) -> None:
    """Label a screen, or take label tables, and compare predictors on perturbations they have never seen."""
    settings = ServiceSettings.from_environment()
    catalog = _catalog(settings)
    stems = tuple(catalog.path_of("data_sets", name) for name in data_sets)
    given = ScreenOptions(screen=catalog.path_of("screens", screen), **columns.model_dump())
    known = _knowledge(knowledge, catalog)
    predict, answer, sets = _predict(predict, catalog), _answer(answer, catalog), _sets(sets, catalog)
    options = BenchmarkOptions(
        labels=stems,
        screen=given,
        quality=quality,
        expression=expression,
        label=label,
        sets=sets,
        knowledge=known,
        predict=predict,
        answer=answer,
        run=settings.run_options(again),
    )
    check_inputs(options)
    places_artifact(settings.mlflow_pages, settings.dashboard)
    with _gpu_slot(predict, answer):
        benchmark.fn(**dict(options))


@flow(name="train-predictors-on-labels", flow_run_name="train on {data_set}")
def train_on_labels(
    data_set: DataSet,
    knowledge: Knowledge = KnowledgeOptions(),
    predict: Predict = PredictorOptions(),
    again: Again = (),
) -> None:
    """Fit predictors on the training rows of label tables, score the test rows, log the models to MLflow."""
    _on_labels(data_set, knowledge, predict, AnswerOptions(), again)


@flow(name="answer-with-a-model", flow_run_name="answer {data_set}")
def answer_with_a_model(
    data_set: DataSet,
    knowledge: Knowledge = KnowledgeOptions(),
    answer: Answer = AnswerOptions(),
    again: Again = (),
) -> None:
    """Ask a language model the test questions of label tables (SUMMER), count and score its votes.

    The gene prior is scored beside it, as the yardstick of knowing nothing of the perturbation.
    """
    if answer.engine == "none":
        raise InputError("language model", ["no engine is chosen: choose openai or lmdeploy, name a model"])
    _on_labels(data_set, knowledge, PredictorOptions(predictors=("prior",)), answer, again)


def _on_labels(
    data_set: str,
    knowledge: KnowledgeOptions,
    predict: PredictorOptions,
    answer: AnswerOptions,
    again: tuple[str, ...],
) -> None:
    """The main job on the label tables of one data set."""
    settings = ServiceSettings.from_environment()
    catalog = _catalog(settings)
    stem, options = catalog.path_of("data_sets", data_set), _needed(knowledge, catalog)
    predict, answer = _predict(predict, catalog), _answer(answer, catalog)
    run = settings.run_options(again)
    job = BenchmarkOptions(labels=(stem,), knowledge=options, predict=predict, answer=answer, run=run)
    check_inputs(job)
    places_artifact(settings.mlflow_pages, settings.dashboard)
    with _gpu_slot(predict, answer):
        benchmark.fn(**dict(job))


@flow(name="name-gene-sets", flow_run_name="name clusters of genes")
def name_gene_sets(
    knowledge: Knowledge = KnowledgeOptions(),
    answer: Answer = AnswerOptions(),
) -> None:
    """Describe and name clusters of genes, and hold the names against those given by hand.

    Done anew each time; only a model's answers are looked up.
    """
    settings = ServiceSettings.from_environment()
    catalog = _catalog(settings)
    options, answer = _needed(knowledge, catalog), _answer(answer, catalog)
    problems = enrichment_problems(answer)
    if problems:
        raise InputError("enrich gene sets", problems)
    places_artifact(settings.mlflow_pages, settings.dashboard)
    with _gpu_slot(PredictorOptions(), answer):
        enrich_gene_sets.fn(Path(options.knowledge), answer, options, settings.run_options())


@flow(name="label-new-screens", flow_run_name="look for new screens")
def label_new_screens(
    files: New = NewScreenOptions(),
    columns: Columns = ScreenNames(),
    quality: Quality = QualityOptions(),
    expression: Expression = ExpressionOptions(),
    label: Labels = LabelOptions(),
) -> None:
    """Label every screen that has come or changed in the watched folder since the last look, each once."""
    settings = ServiceSettings.from_environment()
    new_screens.fn(
        address=settings.watch,
        files=files,
        columns=columns,
        quality=quality,
        expression=expression,
        label=label,
        run=settings.run_options(),
    )


def _catalog(settings: ServiceSettings) -> Catalog:
    return read_catalog(settings.data, settings.workspace, settings.watch)


def _sets(options: GeneSetOptions, catalog: Catalog) -> GeneSetOptions:
    if options.gene_sets is None:
        return options
    return options.model_copy(update={"gene_sets": catalog.path_of("gene_lists", options.gene_sets)})


def _answer(options: AnswerOptions, catalog: Catalog) -> AnswerOptions:
    lists = {
        name: tuple(Path(catalog.path_of("gene_lists", str(given))) for given in getattr(options, name))
        for name in ("pert_clusters", "gene_clusters")
    }
    return options.model_copy(update=lists)


def _predict(options: PredictorOptions, catalog: Catalog) -> PredictorOptions:
    also = tuple(catalog.path_of("data_sets", name) for name in options.also)
    return options.model_copy(update={"also": also})


def _knowledge(options: KnowledgeOptions, catalog: Catalog) -> KnowledgeOptions:
    places = {"knowledge": "knowledge", "set_members": "gene_lists"}
    given = {name: getattr(options, name) for name in places}
    found = {name: catalog.path_of(places[name], value) for name, value in given.items() if value is not None}
    return options.model_copy(update=found)


def _needed(options: KnowledgeOptions, catalog: Catalog) -> KnowledgeOptions:
    if options.knowledge is None:
        listed = ", ".join(catalog.knowledge) or "none; put one into the data folder"
        raise InputError("knowledge", [f"a knowledge folder is needed; there are: {listed}"])
    return _knowledge(options, catalog)


@contextlib.contextmanager
def _gpu_slot(predict: PredictorOptions, answer: AnswerOptions) -> Iterator[None]:
    """Hold the GPU's slot, waited for, where a run may use the GPU."""
    if predict.device == "cpu" and answer.engine != "lmdeploy":
        yield
        return
    with concurrency(GPU_LIMIT, occupy=1, strict=True):
        yield
