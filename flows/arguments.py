"""Options models as command-line arguments, and values from a YAML file below them."""

from __future__ import annotations

import argparse
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from storage.errors import InputError


def add_arguments(parser: argparse.ArgumentParser, model: type[BaseModel]) -> None:
    """Add one ``--option`` for every field of ``model`` and of the models in it; nothing has a default.

    Defaults stay with the model, so that what was typed can be told from what was not.
    """
    for group, name, field in _leaves(model):
        section = parser if group is None else _section(parser, group)
        kind, choices, many = _kind(field.annotation)
        words = {"help": _help(field), "default": argparse.SUPPRESS, "dest": name}
        if kind is bool:
            section.add_argument(_flag(name), action=argparse.BooleanOptionalAction, **words)
        else:
            many_words = {"nargs": "*" if _alone(field) else "+"} if many else {}
            metavar = None if choices else name.split("_")[-1].upper()
            section.add_argument(
                _flag(name),
                choices=choices,
                metavar=metavar,
                required=group is None and field.is_required(),
                **many_words,
                **words,
            )


def read_options(
    model: type[BaseModel], arguments: argparse.Namespace, *, config: Path | None = None
) -> BaseModel:
    """Build ``model`` from a YAML file (nested by section) and, over it, from arguments.

    A value of the file means what it means as an argument; a list of one may be written without brackets.

    Raises
    ------
    InputError
        Listing every value that is not allowed, with the option's name.
    """
    values: dict = _read_config(config) if config else {}
    for group, name, field in _leaves(model):
        if group is not None and values.get(group) is None:
            values[group] = {}
        section = values if group is None else values[group]
        if not isinstance(section, dict):
            # Left for the model to refuse.
            continue
        if hasattr(arguments, name):
            typed = getattr(arguments, name)
            section[name] = [_alone(field)] if typed == [] else typed
        elif isinstance(section.get(name), str) and _kind(field.annotation)[2]:
            section[name] = [section[name]]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError("options", [_sentence(problem) for problem in error.errors()]) from error


def _leaves(model: type[BaseModel]) -> Iterator[tuple[str | None, str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for inner, inner_field in field.annotation.model_fields.items():
                yield name, inner, inner_field
        else:
            yield None, name, field


def _kind(annotation) -> tuple[type, list | None, bool]:
    """The plain type of a field, its choices, and whether it takes several values."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return _kind(next(kind for kind in inside if kind is not type(None)))
    if origin is tuple:
        return (*_kind(inside[0])[:2], True)
    if origin is typing.Literal:
        return str, list(inside), False
    return annotation, None, False


def _alone(field: FieldInfo) -> str | None:
    """What an option of several values means when it is given without any."""
    return field.json_schema_extra.get("alone") if isinstance(field.json_schema_extra, dict) else None


def _section(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    found = [group for group in parser._action_groups if group.title == title]
    return found[0] if found else parser.add_argument_group(title)


def _help(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if isinstance(default, tuple):
        default = " ".join(default)
    if field.is_required():
        shown = " (needed)"
    else:
        shown = "" if default in (None, "", False) else f" (default: {default})"
    return f"{field.description or field.title}{shown}".replace("%", "%%")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class _Words(yaml.SafeLoader):
    """YAML whose values stay the words they are: models take them as they take a command line's.

    Otherwise 8 would be no choice among words, and a revision 1.10 would be 1.1.
    """


_Words.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read_config(path: Path) -> dict:
    try:
        values = yaml.load(Path(path).read_text(), Loader=_Words)
    except FileNotFoundError as error:
        raise InputError(str(path), ["no such file"]) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), [f"cannot be read as text ({error})"]) from error
    except yaml.YAMLError as error:
        raise InputError(str(path), [f"not YAML: {error}"]) from error
    if not isinstance(values, Mapping):
        raise InputError(
            str(path), ["a YAML mapping of options is needed, as `pqa benchmark --help` lists them"]
        )
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _sentence(problem: Mapping) -> str:
    """One pydantic error as a sentence that names the option."""
    place = [str(part) for part in problem["loc"]]
    name = next((part for part in reversed(place) if not part.isdigit()), "options")
    if problem["type"] == "extra_forbidden":
        return f"unknown option '{'.'.join(place)}'"
    return f"{_flag(name)}: {problem['msg'].lower()} (got {problem['input']!r})"
