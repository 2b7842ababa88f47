"""The base of all options models."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic_core.core_schema import ValidationInfo


class Options(BaseModel):
    """Base of the options models: unchangeable, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any, info: ValidationInfo) -> Any:
        """An empty box of a form, or an empty word of a file, is no value where there may be none."""
        if value == "" and _may_be_none(cls.model_fields[info.field_name].annotation):
            return None
        return value


def _may_be_none(annotation: Any) -> bool:
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    return union and type(None) in typing.get_args(annotation)
