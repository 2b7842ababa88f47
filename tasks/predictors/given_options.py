"""Options given by name to a predictor whose defaults are a dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TypeVar

from storage.errors import InputError

Kind = TypeVar("Kind")


def unknown_options(given: Mapping[str, object], defaults: object) -> list[str]:
    """The problem that some of ``given`` are no fields of ``defaults``, as a list of one sentence or none."""
    allowed = asdict(defaults)
    unknown = sorted(set(given) - set(allowed))
    return [f"unknown options {', '.join(unknown)}; allowed are {', '.join(allowed)}"] if unknown else []


def with_options(predictor: str, given: Mapping[str, object], defaults: Kind) -> Kind:
    """``defaults`` with the fields given.

    Raises
    ------
    InputError
        If one is unknown, listing those that are allowed.
    """
    if problems := unknown_options(given, defaults):
        raise InputError(predictor, problems)
    return replace(defaults, **given)
