"""Options that every trained network has."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields
from typing import ClassVar, Literal, Self, get_args, get_type_hints

from storage.errors import InputError


@dataclass(frozen=True)
class NetworkOptions:
    """Options of a network and its training.

    Attributes
    ----------
    form
        ``paper`` = what is not given is as in Wu et al. 2025, not at its default.
    hidden, layers
        Units and layers of the encoder.
    max_epochs, min_epochs, patience
        Training ends when validation has not bettered for ``patience`` epochs, not before ``min_epochs``.
    batch_size
        Pairs a step of the head.
    batches_per_encoding
        The nodes are encoded once for so many batches: the head steps at each, the encoder at the last with
        the sum of their gradients.
    learning_rate
        Of AdamW.
    device
        ``cpu``, ``cuda``, or ``auto`` = cuda where there is one.
    """

    #: The predictor's name, for messages.
    predictor: ClassVar[str]
    #: What form ``paper`` has in place of the defaults; the most epochs (200) are ours, Wu et al. name none.
    published: ClassVar[dict[str, str | int | float | bool]] = {
        "max_epochs": 200,
        "min_epochs": 50,
        "patience": 10,
        "batch_size": 5000,
        "batches_per_encoding": 1,
        "learning_rate": 1e-4,
    }

    form: Literal["default", "paper"] = "default"
    hidden: int = 128
    layers: int = 2
    max_epochs: int = 60
    min_epochs: int = 20
    patience: int = 5
    batch_size: int = 5000
    batches_per_encoding: int = 1
    learning_rate: float = 5e-4
    device: Literal["cpu", "cuda", "auto"] = "cpu"

    @classmethod
    def checked(cls, options: Mapping[str, str | int | float | bool]) -> Self:
        """Build the options; an InputError lists every unknown name and value out of range."""
        known = {field.name: field for field in fields(cls)}
        hints = get_type_hints(cls)
        unknown = sorted(set(options) - set(known))
        problems = [f"no option {name!r}; allowed are {', '.join(known)}" for name in unknown]
        for name, value in options.items():
            if name in known:
                problems += _problems(known[name], hints[name], value)
        if problems:
            raise InputError(cls.predictor, problems)
        return cls(**((cls.published if options.get("form") == "paper" else {}) | dict(options)))

    def as_dict(self) -> dict[str, str | int | float | bool]:
        """Return the options by name."""
        return asdict(self)


def _problems(field: Field, kind: object, value: object) -> list[str]:
    """What is wrong with an option's value, if anything."""
    name, words = field.name, get_args(kind)
    if words:
        return [] if value in words else [f"{name} must be one of {', '.join(words)}; found {value!r}"]
    if kind is bool:
        return [] if isinstance(value, bool) else [f"{name} must be true or false; found {value!r}"]
    number, word = (numbers.Integral, "a whole number") if kind is int else (numbers.Real, "a number")
    if isinstance(value, bool) or not isinstance(value, number):
        return [f"{name} must be {word}; found {value!r}"]
    if value > 0 or (value == 0 and field.metadata.get("zero", False)):
        return []
    least = "0 or greater" if field.metadata.get("zero", False) else "greater than 0"
    return [f"{name} must be {least}; found {value}"]
