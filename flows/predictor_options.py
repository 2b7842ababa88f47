"""Options of what is known and of what is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.base_options import Options

#: Bounds of bootstrap draws: with fewer there are no limits of a 95 % interval to speak of.
DRAWS = {"ge": 20, "le": 100_000}

PredictorName = Literal[
    "prior", "physical", "retrieval", "kernel", "stack", "ensemble", "mlp", "gat", "genept", "gears"
]


class KnowledgeOptions(Options):
    """What is known of the genes."""

    knowledge: str | None = Field(
        None,
        title="Knowledge folder",
        description="A store of pqa knowledge, or a folder with edges_*.parquet; may be empty only for a "
        "benchmark of the embedded screen, which has a graph of its own.",
    )
    noncommercial: bool = Field(
        False,
        title="Non-commercial sources",
        description="Also read CORUM, whose licence forbids commercial use.",
    )
    max_links: int = Field(
        1000, ge=2, title="Links per term or hub", description="Terms and hubs with more links are dropped."
    )
    set_members: str | None = Field(
        None,
        title="Members of gene sets",
        description="JSON file {name: [symbols]} for label tables about gene sets: a set is then known by "
        "its members; empty: sets are names that no graph knows.",
    )


class PredictorOptions(Options):
    """Which predictors are trained."""

    predictors: tuple[PredictorName, ...] = Field(
        ("prior", "physical", "retrieval", "gat"),
        min_length=1,
        title="Predictors",
        description="Trained side by side; each is a run in MLflow.",
    )
    tracks: tuple[Literal["within", "across"], ...] = Field(
        ("within",),
        min_length=1,
        title="Tracks",
        description="within: learn from the line's own training rows only; across: from other lines' rows "
        "too, where the perturbation itself may have been seen. Each has a leaderboard of its own.",
    )
    also: tuple[str, ...] = Field(
        (),
        title="Other lines' tables",
        description="For the track across: label tables to learn from beside those that are compared.",
    )
    grid: bool = Field(
        False,
        title="Whole grid of networks",
        description="mlp and gat with 1, 2, 4, 8 layers of 64, 128, 256 units in place of one size.",
    )
    seeds: int = Field(
        1,
        ge=1,
        le=20,
        title="Seeds",
        description="Fits of each predictor that draws random numbers; their mean is its score.",
    )
    settings: tuple[str, ...] = Field(
        (),
        title="Settings of predictors",
        description="predictor.option=value, for example gat.edge_types=true; docs/predictors.md lists them.",
    )
    validation: bool = Field(
        True,
        title="Validation",
        description="Measure each predictor on a tenth of the training perturbations as well (all but the "
        "networks are fitted once more for it): the best one is registered as a model.",
    )
    seed: int = Field(0, ge=0, title="Seed", description="Seed of the predictors and of the bootstrap.")
    threads: int = Field(2, ge=1, le=256, title="Threads", description="Threads a predictor may use.")
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", title="Device", description="Where mlp, gat and gears train; auto: cuda where there is one."
    )
    draws: int = Field(
        1000, title="Bootstrap draws", description="Resamples of perturbations for intervals.", **DRAWS
    )
