"""Options that every trained network has."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tasks.predictors.options import TrainingOptions


class NetworkOptions(TrainingOptions):
    """Options of a network and its training."""

    #: What form ``paper`` has in place of the defaults; the most epochs (200) are ours, Wu et al. name none.
    published: ClassVar[dict[str, str | int | float | bool]] = {
        "max_epochs": 200,
        "min_epochs": 50,
        "patience": 10,
        "batch_size": 5000,
        "batches_per_encoding": 1,
        "learning_rate": 1e-4,
    }

    form: Literal["default", "paper"] = Field(
        "default", description="paper = what is not given is as in Wu et al. 2025, not at its default."
    )
    hidden: int = Field(128, gt=0, description="Units of the encoder.")
    layers: int = Field(2, gt=0, description="Layers of the encoder.")
    max_epochs: int = Field(60, gt=0, description="Epochs at most.")
    min_epochs: int = Field(20, gt=0, description="Epochs before training may end.")
    patience: int = Field(5, gt=0, description="Epochs without better validation after which training ends.")
    batch_size: int = Field(5000, gt=0, description="Pairs a step of the head.")
    batches_per_encoding: int = Field(
        1,
        gt=0,
        description="The nodes are encoded once for so many batches: the head steps at each, the encoder at "
        "the last with the sum of their gradients.",
    )
    learning_rate: float = Field(5e-4, gt=0, description="Of AdamW.")

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, given: Any) -> Any:
        """Form ``paper`` puts the published values in place of what is not given."""
        return cls.published | given if given.get("form") == "paper" else given
