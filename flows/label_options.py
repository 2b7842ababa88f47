"""Options of the label rule, for genes and for gene sets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.base_options import Options


class LabelOptions(Options):
    """Which pairs become labels, and how they are split."""

    fdr: float = Field(0.05, gt=0, lt=1, title="FDR", description="A pair is 1 below this adjusted p-value.")
    min_log2_fold_change: float = Field(
        0.1, ge=0, title="Fold change", description="Smallest absolute log2 fold change of a positive."
    )
    negative_min_p: float = Field(
        0.1,
        ge=0,
        le=1,
        title="Negatives' p-value",
        description="A pair may be 0 from this unadjusted p-value on.",
    )
    detectable: float = Field(
        1.0,
        ge=0,
        title="Detectable fold change",
        description="A pair may be 0 only where the test finds an absolute log2 fold change of this size in "
        "four of five cases; 0: do not ask.",
    )
    max_positives: int = Field(
        20, ge=1, title="Positives per perturbation", description="At most so many are kept."
    )
    positives_by: Literal["strongest", "random"] = Field(
        "strongest", title="Positives kept", description="Which positives are kept where there are more."
    )
    negatives: int = Field(
        75, ge=1, title="Negatives per perturbation", description="Drawn from the not-DE genes."
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
        title="Cells per guide",
        description="Guides with fewer usable cells do not count in guide agreement.",
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
        5, ge=1, title="Genes per set", description="Sets with fewer measured genes are excluded, by name."
    )
