"""Every option there is: one frozen model a stage, which is the command line, the YAML file and the form.

A field's title, description, bounds and default are written once, in the module of its stage; here are the
options of whole commands, and all names for those who import them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from flows.answer_options import AnswerOptions
from flows.base_options import Options
from flows.label_options import GeneSetOptions, LabelOptions
from flows.predictor_options import KnowledgeOptions, PredictorName, PredictorOptions
from flows.run_options import ComputeOptions, Redo, RunOptions
from flows.screen_options import ExpressionOptions, QualityOptions, ScreenNames, ScreenOptions

__all__ = [
    "AnswerCommandOptions",
    "AnswerOptions",
    "BenchmarkOptions",
    "ComputeOptions",
    "EnrichOptions",
    "ExpressionOptions",
    "GeneSetOptions",
    "KnowledgeOptions",
    "LabelOptions",
    "LabelScreenOptions",
    "PredictCommandOptions",
    "PredictorName",
    "PredictorOptions",
    "QualityOptions",
    "Redo",
    "RunOptions",
    "ScreenNames",
    "ScreenOptions",
    "TestExpressionOptions",
]


class BenchmarkOptions(Options):
    """The main job: counts or label tables in, leaderboard out."""

    labels: tuple[str, ...] = Field(
        (),
        title="Label tables",
        description="Given instead of a screen: path stems such as tables/k562 for k562-de.parquet and "
        "k562-dir.parquet.",
    )
    screen: ScreenOptions = Field(ScreenOptions(), title="Screen")
    quality: QualityOptions = Field(QualityOptions(), title="Quality control")
    expression: ExpressionOptions = Field(ExpressionOptions(), title="Tests")
    label: LabelOptions = Field(LabelOptions(), title="Labels")
    sets: GeneSetOptions = Field(GeneSetOptions(), title="Gene sets")
    knowledge: KnowledgeOptions = Field(KnowledgeOptions(), title="Knowledge")
    predict: PredictorOptions = Field(PredictorOptions(), title="Predictors")
    answer: AnswerOptions = Field(AnswerOptions(), title="SUMMER")
    run: RunOptions = Field(RunOptions(), title="Run")


class LabelScreenOptions(Options):
    """Options of `pqa label`."""

    names: ScreenNames = Field(ScreenNames(), title="Screen")
    quality: QualityOptions = Field(QualityOptions(), title="Quality control")
    expression: ExpressionOptions = Field(ExpressionOptions(), title="Tests")
    label: LabelOptions = Field(LabelOptions(), title="Labels")
    sets: GeneSetOptions = Field(GeneSetOptions(), title="Gene sets")
    compute: ComputeOptions = Field(ComputeOptions(), title="Run")


class TestExpressionOptions(Options):
    """Options of `pqa test-expression`."""

    names: ScreenNames = Field(ScreenNames(), title="Screen")
    quality: QualityOptions = Field(QualityOptions(), title="Quality control")
    expression: ExpressionOptions = Field(ExpressionOptions(), title="Tests")
    compute: ComputeOptions = Field(ComputeOptions(), title="Run")


class AnswerCommandOptions(Options):
    """Options of `pqa answer`."""

    labels: Path = Field(title="Labels", description="Label table; its train rows are what was observed.")
    pairs: Path = Field(title="Pairs", description="Table of pert, gene to be asked about.")
    task: Literal["de", "dir"] | None = Field(
        None,
        title="Task",
        description="What label 1 means: de (changed) or dir (up); default: as the table says.",
    )
    knowledge: KnowledgeOptions = Field(KnowledgeOptions(), title="Knowledge")
    answer: AnswerOptions = Field(AnswerOptions(), title="SUMMER")


class EnrichOptions(Options):
    """Options of `pqa enrich`."""

    knowledge: KnowledgeOptions = Field(KnowledgeOptions(), title="Knowledge")
    answer: AnswerOptions = Field(AnswerOptions(), title="SUMMER")


class PredictCommandOptions(Options):
    """Options of `pqa predict`."""

    labels: Path = Field(title="Labels", description="Label table; its train rows are learnt from.")
    pairs: Path = Field(title="Pairs", description="Table of pert, gene to be scored.")
    knowledge: Path = Field(
        title="Knowledge",
        description="A store of pqa knowledge, or a folder with edges_*.parquet and gene_*.parquet.",
    )
    predictor: PredictorName = Field(title="Predictor", description="What is to learn and to score.")
    settings: tuple[str, ...] = Field(
        (), title="Settings", description="predictor.option=value, for example gat.layers=4."
    )
    set_members: Path | None = Field(
        None, title="Members of gene sets", description="JSON file {name: [symbols]}, where genes are sets."
    )
    screen: Path | None = Field(
        None,
        title="Screen",
        description="The line's h5ad of raw counts, for predictors that learn from cells.",
    )
    perturbation_key: str = Field(
        "perturbation", title="Perturbation column", description="Of the screen's obs."
    )
    control: str = Field("non-targeting", title="Control name", description="In that column.")
    gene_key: str | None = Field(None, title="Gene name column", description="Of the screen's var.")
    layer: str | None = Field(None, title="Layer", description="Of the screen, with raw counts; empty: X.")
    only: str | None = Field(
        None,
        title="Only these cells",
        description="column=value of the screen's obs: learn from these cells.",
    )
    also: tuple[Path, ...] = Field((), title="Also", description="Other lines' label tables to learn from.")
    task: Literal["de", "dir"] | None = Field(
        None,
        title="Task",
        description="What label 1 means: de (changed) or dir (up); default: as the table says.",
    )
    seed: int = Field(0, ge=0, title="Seed", description="Seed of the predictor.")
    threads: int = Field(2, ge=1, le=256, title="Threads", description="Threads the predictor may use.")
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", title="Device", description="Where mlp, gat and gears train; auto: cuda where there is one."
    )
    noncommercial: bool = Field(
        False,
        title="Non-commercial sources",
        description="Also read CORUM, whose licence forbids commercial use.",
    )
    max_links: int = Field(
        1000,
        ge=2,
        title="Links per term or hub",
        description="Terms and hubs with more links are dropped: hubs by their links of all sources in the "
        "graph, and of one source where single sources are looked at.",
    )
