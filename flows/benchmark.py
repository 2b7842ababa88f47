"""The main job: label -> predict -> answer -> compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.configurations import configurations
from flows.data_set_job import Compared, DataSetJob, JobOptions, run_data_set
from flows.enrich_gene_sets import enrich_gene_sets
from flows.enrich_stages import cluster_files
from flows.first_checks import check_inputs
from flows.label_screen import label_screen
from flows.label_sets import ACROSS, WITHIN, LabelSet
from flows.label_stages import EMBEDDED_KEYS, EMBEDDED_NAME
from flows.language_model import Spent
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
from flows.reasons import reason_of
from flows.records import ScreenRecords
from storage.errors import LedgerError


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
    sections = {"quality": quality, "expression": expression, "label": label, "sets": sets}
    asked = {"knowledge": knowledge, "predict": predict, "answer": answer}
    check_inputs(BenchmarkOptions(labels=labels, screen=screen, **sections, **asked))
    given = [LabelSet.of_stem(stem) for stem in labels]
    others = [*given, *(LabelSet.of_stem(stem, to_learn_from=True) for stem in predict.also)]
    if given:
        if screen.screen != EMBEDDED_NAME:
            given = [replace(given[0], expression=Path(screen.screen), screen_columns=_columns(screen))]
        jobs = [DataSetJob(one, _on_tracks(one, others, predict), Path(knowledge.knowledge)) for one in given]
    else:
        records = label_screen(screen, quality, expression, label, sets, run)
        made = _made_labels(records, screen)
        jobs = [
            DataSetJob(made, _on_tracks(made, others, predict), _knowledge_of(records, knowledge), records)
        ]
    options = JobOptions(predict, knowledge, answer, run)
    spent, results, problems, failed, attempted = Spent(), [], [], {}, 0
    for job in jobs:
        try:
            compared, broken = run_data_set(job, options, spent)
        except LedgerError as error:
            # Nothing to compare on this one; the others have their turn.
            problems.append(f"{job.labels.name}: {error}")
            continue
        results.append(compared)
        failed |= {f"{name} on {job.labels.name}": why for name, why in broken.items()}
        attempted += len(configurations(predict)) * sum(tables is not None for tables in job.tracks.values())
        attempted += len(answer.variants) if answer.engine != "none" else 0
    if failed:
        lines = "".join(f"\n  - {unit}: {why}" for unit, why in failed.items())
        problems.append(
            f"{len(failed)} of {attempted} predictors failed, the others are in the report:{lines}"
        )
    if cluster_files(answer):
        state = enrich_gene_sets(jobs[0].knowledge, answer, knowledge, run, spent, return_state=True)
        if not state.is_completed():
            problems.append(f"clusters were not named: {reason_of(state)}")
    if problems:
        raise LedgerError("\n".join(problems))
    return results


def _on_tracks(
    labels: LabelSet, others: list[LabelSet], predict: PredictorOptions
) -> dict[str, LabelSet | None]:
    """The tables on each track asked for; None where there is no other line to learn from."""
    made = {WITHIN: labels, ACROSS: labels.across(others)}
    return {track: made[track] for track in dict.fromkeys(predict.tracks)}


def _made_labels(made: ScreenRecords, screen: ScreenOptions) -> LabelSet:
    """The made tables that can be asked about, and the cells that they were made of."""
    labels = LabelSet.of_stem(str(made.labels.folder))
    file = Path(screen.screen)
    if made.simulated is not None:
        file, screen = made.simulated.folder / "screen.h5ad", screen.model_copy(update=EMBEDDED_KEYS)
    return replace(labels, expression=file, screen_columns=_columns(screen))


def _columns(screen: ScreenOptions) -> dict[str, str]:
    """What the columns of a screen's cells are called."""
    names = screen.model_dump(include={"perturbation_key", "control", "gene_key", "layer", "only"})
    return {name: value for name, value in names.items() if value is not None}


def _knowledge_of(made: ScreenRecords, options: KnowledgeOptions) -> Path:
    if options.knowledge is not None:
        return Path(options.knowledge)
    return made.simulated.folder / "screen.knowledge"


def run_benchmark(options: BenchmarkOptions) -> list[Compared]:
    """Run the flow with an options model."""
    return benchmark(**{name: getattr(options, name) for name in BenchmarkOptions.model_fields})
