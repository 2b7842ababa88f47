"""Options of GEARS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from storage.errors import InputError


@dataclass(frozen=True)
class GEARSOptions:
    """Options of cells, network and training; the defaults are for a computer without a GPU.

    Attributes
    ----------
    epochs, hidden, batch_size, learning_rate
        As the package calls them; its own defaults are 20 epochs and 64 units.
    cells, controls
        Cells learnt from of each perturbation, and control cells, at most.
    genes
        Genes whose expression is predicted, at most: those of the training rows first.
    device
        ``cpu``, ``cuda``, or ``auto`` = cuda where there is one; for training.
    """

    epochs: int = 5
    hidden: int = 32
    batch_size: int = 32
    learning_rate: float = 1e-3
    cells: int = 8
    controls: int = 500
    genes: int = 5000
    device: Literal["cpu", "cuda", "auto"] = "cpu"

    @classmethod
    def checked(cls, options: Mapping[str, str | int | float]) -> GEARSOptions:
        """Build the options; an InputError lists every unknown name and value out of range."""
        allowed = asdict(cls())
        unknown = sorted(set(options) - set(allowed))
        problems = [f"no option {name!r}; allowed are {', '.join(allowed)}" for name in unknown]
        least = {name: 0 for name in allowed if name != "device"} | {"cells": 1, "controls": 1, "genes": 1}
        for name, bound in least.items():
            if name in options and not options[name] > bound:
                problems.append(f"{name} must be greater than {bound}; found {options[name]}")
        if options.get("device", "cpu") not in ("cpu", "cuda", "auto"):
            problems.append(f"device must be one of cpu, cuda, auto; found {options['device']!r}")
        if problems:
            raise InputError("gears", problems)
        return cls(**options)

    def as_dict(self) -> dict[str, str | int | float]:
        """Return the options by name."""
        return asdict(self)

    def training_device(self) -> str:
        """``cpu`` or ``cuda``.

        Raises
        ------
        InputError
            If cuda was asked for and is not there.
        """
        import torch

        there = torch.cuda.is_available()
        if self.device == "cuda" and not there:
            raise InputError("gears", ["no cuda device is there; use device=cpu or auto"])
        return "cuda" if there and self.device != "cpu" else "cpu"
