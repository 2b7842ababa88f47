"""What the options of all predictors have in common: names, types and bounds are checked here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from storage.errors import InputError

Value = str | int | float | bool | None

#: How a problem that pydantic finds is told, by its type; other types come with a sentence of their own.
SENTENCES = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be {ge:g} or greater",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be {le:g} or less",
    "finite_number": "must be finite",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
}


class Options(BaseModel):
    """Options of a predictor: unchangeable, strict about names and types. Without fields: it has none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _plain_number(cls, value: object, info: ValidationInfo) -> object:
        """A whole number is one however it is written: 5.0, or as NumPy has it."""
        if isinstance(value, np.generic):
            value = value.item()
        if cls.model_fields[info.field_name].annotation is int and isinstance(value, float):
            return int(value) if value.is_integer() else value
        return value

    @classmethod
    def checked(cls, predictor: str, given: Mapping[str, object]) -> Self:
        """Build the options from those given.

        Raises
        ------
        InputError
            Named after ``predictor``, listing every unknown name and every value that is not allowed.
        """
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            problems = [cls._sentence(problem) for problem in error.errors()]
            raise InputError(predictor, problems) from error

    def as_dict(self) -> dict[str, Value]:
        """Return the options by name."""
        return self.model_dump()

    @classmethod
    def _sentence(cls, problem: Mapping[str, Any]) -> str:
        """What is wrong with one option, and what is allowed."""
        name, kind, context = problem["loc"][0], problem["type"], problem.get("ctx", {})
        if kind == "extra_forbidden":
            allowed = ", ".join(cls.model_fields)
            return f"no option {name!r}; " + (f"allowed are {allowed}" if allowed else "there are none")
        if kind == "literal_error":
            wanted = f"must be one of {', '.join(cls.model_fields[name].annotation.__args__)}"
        elif kind == "value_error":
            return f"{name}: {context['error']}"
        else:
            wanted = SENTENCES[kind].format(**context) if kind in SENTENCES else problem["msg"]
        return f"{name} {wanted}; found {problem['input']!r}"


class TrainingOptions(Options):
    """Options of what may be trained on a GPU."""

    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", description="Where it is trained; auto = cuda where there is one."
    )

    def training_device(self) -> Literal["cpu", "cuda"]:
        """Settle where to train.

        Raises
        ------
        InputError
            If cuda was asked for by name and is not there.
        """
        # torch takes seconds to import: only those who train wait for it.
        import torch

        is_there = torch.cuda.is_available()
        if self.device == "cuda" and not is_there:
            raise InputError("device", ["it is cuda but there is none here; use cpu or auto"])
        return "cuda" if is_there and self.device != "cpu" else "cpu"
