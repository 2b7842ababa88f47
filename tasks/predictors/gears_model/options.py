"""Options of GEARS."""

from __future__ import annotations

from pydantic import Field

from tasks.predictors.options import TrainingOptions


class GEARSOptions(TrainingOptions):
    """Options of cells, network and training; the defaults are for a computer without a GPU."""

    epochs: int = Field(5, gt=0, description="Epochs; the package's own default is 20.")
    hidden: int = Field(32, gt=0, description="Units; the package's own default is 64.")
    batch_size: int = Field(32, gt=0, description="As the package calls it.")
    learning_rate: float = Field(1e-3, gt=0, description="As the package calls it.")
    cells: int = Field(8, gt=1, description="Cells learnt from of each perturbation, at most.")
    controls: int = Field(500, gt=1, description="Control cells learnt from, at most.")
    genes: int = Field(
        5000,
        gt=1,
        description="Genes whose expression is predicted, at most: those of the training rows first.",
    )
