"""Options of a screen: its columns and controls, quality control, tests of expression."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.base_options import Options


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
        description="Value of that column in control cells; several names or patterns with *, separated by "
        "commas.",
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
        description="An h5ad file with raw UMI counts, or 'embedded' for the built-in simulated one.",
    )


class QualityOptions(Options):
    """Which cells and perturbations are good enough to be tested."""

    min_cells: int = Field(
        25, ge=2, title="Cells per perturbation", description="With fewer usable cells it is excluded."
    )
    min_cell_umis: int = Field(
        1, ge=1, title="UMIs per cell", description="Cells with fewer UMIs are not used."
    )
    max_target_remaining: float | None = Field(
        None,
        gt=0,
        title="Target expression remaining",
        description="Exclude perturbations whose target gene keeps more than this share of its expression; "
        "empty: keep all.",
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
        title="Further tests",
        description="Done on the same screen and shown side by side in the report; labels come from --test.",
    )
    pseudobulk_model: Literal["paired", "glm"] = Field(
        "paired",
        title="Pseudobulk model",
        description="paired: moderated t of log2 differences between perturbed and control cells of the same "
        "batch (two batches or more); glm: negative-binomial regression of profiles of single guides and "
        "batches (for few batches and several guides; some 10 ms per test).",
    )
    min_profile_umis: float = Field(
        2.0,
        ge=0,
        title="UMIs per profile",
        description="Pseudobulk: UMIs of a gene to be expected in a profile; a batch with fewer is not used "
        "for the gene.",
    )
    min_mean_umis: float = Field(
        0.0,
        ge=0,
        title="Mean UMIs per gene",
        description="Genes with fewer UMIs per cell, over a perturbation's and the control cells, are not "
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
