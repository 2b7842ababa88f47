"""Every option there is: one frozen model a stage, which is the command line, the YAML file and the form.

A field's title, description, bounds and default are written here once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from flows.answer_options import AnswerOptions
from flows.base_options import Options

#: Kinds of stages, in the order they come in a job, for those who want some done again.
Redo = Literal[
    "all",
    "simulated",
    "screens",
    "quality",
    "pseudobulk",
    "tests",
    "agreement",
    "labels",
    "set-tests",
    "set-labels",
    "side-by-side",
    "predictions",
    "observations",
    "summaries",
    "questions",
    "scores",
    "comparisons",
]


class ScreenNames(Options):
    """What a screen's columns and controls are called."""

    perturbation_key: str = Field(
        "perturbation",
        title="Perturbation column",
        description="Column of obs that names each cell's knock-down.",
    )
    control: str = Field(
        "non-targeting",
        title="Control name",
        description="Value of that column in control cells; several or patterns with *, with commas between.",
    )
    guide_key: str | None = Field(
        None, title="Guide column", description="Column of obs that names each cell's guide, if there is one."
    )
    batch_key: str | None = Field(
        None,
        title="Batch column",
        description="Column of obs that names the batch (gem group), if there is one.",
    )
    gene_key: str | None = Field(
        None,
        title="Gene name column",
        description="Column of var with gene symbols; empty: the index of var.",
    )
    layer: str | None = Field(None, title="Layer", description="Layer that holds the raw counts; empty: X.")
    only: str | None = Field(
        None,
        title="Only these cells",
        description="column=value of obs: use these cells only, e.g. one cell line.",
    )


class ScreenOptions(ScreenNames):
    """Where the screen is and what its columns are called."""

    screen: str = Field(
        "embedded",
        title="Screen",
        description="An h5ad file with raw UMI counts, or 'embedded' for the simulated one that comes along.",
    )


class QualityOptions(Options):
    """Which cells and perturbations are good enough to be tested."""

    min_cells: int = Field(
        25, ge=2, title="Cells a perturbation", description="Fewer usable cells: excluded."
    )
    min_cell_umis: int = Field(
        1, ge=1, title="UMIs a cell", description="Cells with fewer UMIs are not used."
    )
    max_target_remaining: float | None = Field(
        None,
        gt=0,
        title="Target expression remaining",
        description="Exclude perturbations whose target keeps more than this share; empty: keep all.",
    )


class ExpressionOptions(Options):
    """How expression is compared with the controls."""

    test: Literal["wilcoxon", "stratified", "pseudobulk"] = Field(
        "wilcoxon",
        title="Test",
        description="wilcoxon: rank-sum test against all controls; stratified: within batches (van Elteren); "
        "pseudobulk: UMIs summed by batch, see --pseudobulk-model.",
    )
    also_test: tuple[Literal["wilcoxon", "stratified", "pseudobulk"], ...] = Field(
        (),
        title="Tests beside it",
        description="Done on the same screen and shown side by side in the report; labels come from --test.",
    )
    pseudobulk_model: Literal["paired", "glm"] = Field(
        "paired",
        title="Pseudobulk model",
        description="paired: moderated t of log2 differences between perturbed and control cells of the same "
        "batch (two batches or more); glm: negative-binomial regression of profiles of single guides and "
        "batches (for few batches and several guides; some 10 ms a test).",
    )
    min_profile_umis: float = Field(
        2.0,
        ge=0,
        title="UMIs a profile",
        description="Pseudobulk: UMIs of a gene to be expected in a profile; a batch with fewer is not used "
        "for the gene.",
    )
    min_mean_umis: float = Field(
        0.0,
        ge=0,
        title="Mean UMIs a gene",
        description="Genes with fewer UMIs a cell, over a perturbation's and the control cells, are not "
        "tested; 0: all are.",
    )
    min_expressing_cells: int = Field(
        0,
        ge=0,
        title="Cells expressing a gene",
        description="Genes with any UMI in fewer of a perturbation's and the control cells are not tested; "
        "0: all are.",
    )
    fdr_scope: Literal["within", "all"] = Field(
        "within",
        title="FDR over",
        description="Benjamini-Hochberg within each perturbation, or over all tests of the screen.",
    )
    normalise: Literal["library", "none"] = Field(
        "library",
        title="Normalisation",
        description="library: count / UMIs of the cell, in float64; none: the count itself.",
    )
    pseudocount: float = Field(
        0.1,
        gt=0,
        title="Pseudocount",
        description="Added to both means before the fold change, in their unit.",
    )

    def for_one_test(self) -> dict[str, object]:
        """What the result of ``test`` depends on, as plain values."""
        others = (
            {"also_test"}
            if self.test == "pseudobulk"
            else {"also_test", "pseudobulk_model", "min_profile_umis"}
        )
        return self.model_dump(exclude=others)

    def others(self) -> list[ExpressionOptions]:
        """The same options for each other test asked for, in the order given."""
        names = [name for name in dict.fromkeys(self.also_test) if name != self.test]
        return [self.model_copy(update={"test": name, "also_test": ()}) for name in names]


class LabelOptions(Options):
    """Which pairs become labels, and how they are split."""

    fdr: float = Field(0.05, gt=0, lt=1, title="FDR", description="A pair is 1 below this adjusted p-value.")
    min_log2_fold_change: float = Field(
        0.1, ge=0, title="Fold change", description="Smallest absolute log2 fold change of a positive."
    )
    negative_min_p: float = Field(
        0.1, ge=0, le=1, title="Negatives' p-value", description="A pair may be 0 from this unadjusted p on."
    )
    detectable: float = Field(
        1.0,
        ge=0,
        title="Detectable fold change",
        description="A pair may be 0 only where the test finds an absolute log2 fold change of this size in "
        "four of five cases; 0: do not ask.",
    )
    max_positives: int = Field(20, ge=1, title="Positives a perturbation", description="At most so many.")
    positives_by: Literal["strongest", "random"] = Field(
        "strongest", title="Positives kept", description="Which positives are kept where there are more."
    )
    negatives: int = Field(
        75, ge=1, title="Negatives a perturbation", description="Drawn from the not-DE genes."
    )
    max_without_de: int = Field(
        100, ge=0, title="Perturbations without DE genes", description="At most so many are kept."
    )
    test_share: float = Field(
        0.25, gt=0, lt=1, title="Test share", description="Share of perturbations in the test split."
    )
    guide_cells: int = Field(
        10,
        ge=1,
        title="Cells a guide",
        description="Guides with fewer usable cells have no say in agreement.",
    )
    label_seed: int = Field(
        0, ge=0, title="Seed of the draws", description="For negatives, caps and the split."
    )


class GeneSetOptions(Options):
    """Gene sets to be tested and labelled beside the genes."""

    gene_sets: str | None = Field(
        None,
        title="Gene sets",
        description="JSON file of sets, {name: [symbols]}; their scores are tested and labelled too.",
    )
    min_set_genes: int = Field(
        5, ge=1, title="Genes a set", description="Sets with fewer measured genes are excluded, by name."
    )


class KnowledgeOptions(Options):
    """What is known of the genes."""

    knowledge: str | None = Field(
        None,
        title="Knowledge folder",
        description="Folder with edges_*.parquet and gene_*.parquet; empty: the embedded screen's own graph.",
    )
    noncommercial: bool = Field(
        False,
        title="Non-commercial sources",
        description="Also read CORUM, whose licence forbids commercial use.",
    )
    max_links: int = Field(
        1000, ge=2, title="Links a term or hub", description="Terms and hubs with more links are dropped."
    )


class PredictorOptions(Options):
    """Which predictors are trained."""

    predictors: tuple[
        Literal["prior", "physical", "retrieval", "kernel", "stack", "ensemble", "gat"], ...
    ] = Field(
        ("prior", "physical", "retrieval", "gat"),
        min_length=1,
        title="Predictors",
        description="Trained side by side; each is a run in MLflow.",
    )
    seed: int = Field(0, ge=0, title="Seed", description="Seed of the predictors and of the bootstrap.")
    threads: int = Field(2, ge=1, le=256, title="Threads", description="Threads a predictor may use.")
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", title="Device", description="Where the GAT is trained; auto: cuda where there is one."
    )
    draws: int = Field(
        1000,
        ge=20,
        le=100_000,
        title="Bootstrap draws",
        description="Resamples of perturbations for intervals.",
    )


class ComputeOptions(Options):
    """What computes, and whether finished stages are done again."""

    workers: int = Field(
        2, ge=1, le=256, title="Workers", description="Threads of the in-process Dask cluster."
    )
    dask: str | None = Field(
        None, title="Dask scheduler", description="Address such as tcp://host:8786; empty: in this process."
    )
    force: tuple[Redo, ...] = Field(
        (),
        title="Do again",
        description="Stages to be done again although they are done, and then whatever comes out otherwise "
        "after them; all: everything.",
        json_schema_extra={"alone": "all"},
    )


class RunOptions(ComputeOptions):
    """Where results go and what computes them."""

    workspace: Path = Field(
        Path("workspace"), title="Workspace", description="Folder that holds all results."
    )
    mlflow: str | None = Field(
        None, title="MLflow", description="Tracking server's address; empty: SQLite in the workspace."
    )


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
    knowledge: Path = Field(title="Knowledge", description="Folder with edges_*.parquet and gene_*.parquet.")
    predictor: str = Field(
        title="Predictor", description="prior, physical, retrieval, kernel, stack, ensemble or gat."
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
        "cpu", title="Device", description="Where the GAT is trained; auto: cuda where there is one."
    )
    noncommercial: bool = Field(
        False,
        title="Non-commercial sources",
        description="Also read CORUM, whose licence forbids commercial use.",
    )
    max_links: int = Field(
        1000, ge=2, title="Links a term or hub", description="Terms and hubs with more links are dropped."
    )
