"""The form of a deployment: its flow's parameters as a JSON schema, with what there is to choose from."""

from __future__ import annotations

import re
import typing
from typing import Any

from prefect import Flow
from prefect.utilities.callables import ParameterSchema, parameter_schema
from pydantic.fields import FieldInfo

from deployments.catalog import Catalog

#: Parameters that are names, by flow parameter or by options model and field, and what they name.
CHOICES = {
    "screen": "screens",
    "data_set": "data_sets",
    "data_sets": "data_sets",
    "KnowledgeOptions.knowledge": "knowledge",
    "KnowledgeOptions.set_members": "gene_lists",
    "PredictorOptions.also": "data_sets",
    "GeneSetOptions.gene_sets": "gene_lists",
    "AnswerOptions.pert_clusters": "gene_lists",
    "AnswerOptions.gene_clusters": "gene_lists",
}


def form_of(flow: Flow, catalog: Catalog) -> ParameterSchema:
    """The schema that Prefect shows as a form and holds every run's parameters against.

    Titles and descriptions of a flow's own parameters come from their annotations; names may only be those
    of the catalog.
    """
    schema = parameter_schema(flow).model_dump(exclude_unset=True)
    hints = typing.get_type_hints(flow.fn, include_extras=True)
    for name, entry in schema["properties"].items():
        for field in typing.get_args(hints[name])[1:]:
            if isinstance(field, FieldInfo):
                entry["title"] = field.title
                if field.description:
                    entry["description"] = field.description
    for place, kind in CHOICES.items():
        _offer(schema, place, list(getattr(catalog, kind)))
    _leave_empty(schema)
    _name_boxes(schema)
    return ParameterSchema(**schema)


def _offer(schema: dict[str, Any], place: str, names: list[str]) -> None:
    """Allow only ``names`` at ``place``, where the schema has it."""
    model, _, field = place.rpartition(".")
    fields = schema["definitions"].get(model, {}).get("properties", {}) if model else schema["properties"]
    if field not in fields:
        return
    entry = fields[field]
    for kind in _texts(entry):
        # An empty list of choices would be no valid schema: then there is nothing that may be chosen.
        kind["enum"] = names or ["(none in the data folder)"]


def _leave_empty(schema: dict[str, Any]) -> None:
    """Make "a value or null" a plain box that may be left empty, in place of a switch between types."""
    groups = [group.get("properties", {}) for group in schema["definitions"].values()]
    for fields in [schema["properties"], *groups]:
        for name, entry in fields.items():
            kinds = [kind for kind in entry.get("anyOf", ()) if kind.get("type") != "null"]
            if len(kinds) == 1 and len(entry["anyOf"]) == 2:
                kept = {key: value for key, value in entry.items() if key not in ("anyOf", "default")}
                fields[name] = kinds[0] | kept
            if isinstance(entry.get("default"), dict):
                given = entry["default"]
                fields[name]["default"] = {key: given[key] for key in given if given[key] is not None}


def _name_boxes(schema: dict[str, Any]) -> None:
    """Call other options by the title of their box where a description names them by their flag."""
    groups = [
        schema["properties"],
        *(group.get("properties", {}) for group in schema["definitions"].values()),
    ]
    titles = {name: entry.get("title", name) for fields in groups for name, entry in fields.items()}

    def titled(flag: re.Match) -> str:
        name = flag[1].replace("-", "_")
        return f"'{titles[name]}'" if name in titles else flag[0]

    for fields in groups:
        for entry in fields.values():
            if "description" in entry:
                entry["description"] = re.sub(r"--([a-z][a-z-]+)", titled, entry["description"])


def _texts(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a field's schema that are a text: itself, one of its alternatives, or its items."""
    if entry.get("type") == "array":
        return _texts(entry["items"])
    if "anyOf" in entry:
        return [kind for option in entry["anyOf"] for kind in _texts(option)]
    return [entry] if entry.get("type") == "string" else []
