"""What every form shows and refuses, read off the schema that Prefect makes it from."""

from __future__ import annotations

import pytest
from prefect.utilities.callables import ParameterSchema
from prefect.utilities.schema_tools import validate

from deployments.catalog import Catalog
from deployments.factory import DEPLOYMENTS, ExistingDeployment, make_deployments, schedules_of
from flows.options import BenchmarkOptions, ScreenNames
from flows.up_options import UpOptions
from storage.errors import InputError

CATALOG = Catalog(
    screens={"embedded": "embedded", "thp1": "/data/thp1.h5ad"},
    data_sets={"labels/k562": "/data/labels/k562"},
    knowledge={"knowledge": "/data/knowledge"},
    gene_lists={"sets.json": "/data/sets.json"},
)


def flattened(schema: ParameterSchema) -> dict[str, dict]:
    """Every field of a form by its path, with groups opened."""
    fields = {}
    for name, entry in schema.properties.items():
        reference = entry.get("$ref") or next((part["$ref"] for part in entry.get("allOf", ())), None)
        if reference is None:
            fields[name] = entry
            continue
        group = schema.definitions[reference.rpartition("/")[2]]
        fields |= {f"{name}.{field}": inner for field, inner in group["properties"].items()}
    return fields


MADE = {made.name: made for made in make_deployments(UpOptions(), CATALOG, {})}
FORMS = {name: made._parameter_openapi_schema for name, made in MADE.items()}
FIELDS = [(name, path, entry) for name, form in FORMS.items() for path, entry in flattened(form).items()]
IDS = [f"{name}: {path}" for name, path, _ in FIELDS]


def test_there_is_a_form_for_every_job():
    assert FORMS.keys() == {served.name for served in DEPLOYMENTS}
    assert all(made.enforce_parameter_schema for made in MADE.values())


@pytest.mark.parametrize(("name", "path", "entry"), FIELDS, ids=IDS)
def test_every_box_says_what_it_is(name, path, entry):
    assert entry["title"][0].isupper()
    assert len(entry["description"]) > 8
    assert "--" not in entry["description"], "a form has no flags"
    # One kind of value each: no switches between types, no free mappings, at most one group deep.
    assert entry["type"] in {"string", "integer", "number", "boolean", "array"}
    if entry["type"] == "array":
        assert entry["items"]["type"] == "string"
    assert path.count(".") <= 1


@pytest.mark.parametrize("name", FORMS)
def test_what_is_filled_in_from_the_start_is_allowed(name):
    form = FORMS[name].model_dump(exclude_unset=True)
    given = {path: entry["default"] for path, entry in form["properties"].items() if "default" in entry}
    validate(given, form, raise_on_error=True, ignore_required=True)
    # Nothing but a data set has to be filled in.
    assert set(form.get("required", ())) <= {"data_set"}


@pytest.mark.parametrize(
    ("name", "path", "offered"),
    [
        ("label a screen", "screen", ["embedded", "thp1"]),
        ("benchmark", "screen", ["embedded", "thp1"]),
        ("benchmark", "knowledge.knowledge", ["knowledge"]),
        ("label a screen", "sets.gene_sets", ["sets.json"]),
        ("train predictors", "data_set", ["labels/k562"]),
        ("answer questions", "data_set", ["labels/k562"]),
        ("label a screen", "expression.test", ["wilcoxon", "stratified", "pseudobulk"]),
        ("answer questions", "answer.engine", ["none", "openai", "lmdeploy"]),
    ],
)
def test_names_are_picked_and_not_typed(name, path, offered):
    assert flattened(FORMS[name])[path]["enum"] == offered


def test_several_names_may_be_picked_where_several_are_done():
    assert flattened(FORMS["benchmark"])["data_sets"]["items"]["enum"] == ["labels/k562"]
    assert "all" in flattened(FORMS["label a screen"])["again"]["items"]["enum"]


def test_bounds_and_defaults_are_those_of_the_options():
    fields = flattened(FORMS["benchmark"])
    assert fields["quality.min_cells"]["minimum"] == 2
    assert (fields["label.fdr"]["exclusiveMinimum"], fields["label.fdr"]["exclusiveMaximum"]) == (0, 1)
    for group in ("quality", "expression", "label", "predict"):
        model = BenchmarkOptions.model_fields[group].default
        for name, value in model.model_dump(mode="json").items():
            if value is not None:
                assert fields[f"{group}.{name}"]["default"] == value


def test_where_a_job_computes_and_files_is_not_asked():
    asked = {path.rpartition(".")[2] for _, path, _ in FIELDS}
    assert not asked & {"workspace", "mlflow", "dask", "workers"}


def test_an_empty_box_is_no_value():
    assert ScreenNames(guide_key="", batch_key="batch").guide_key is None
    assert ScreenNames(control="").control == ""


def test_an_empty_data_folder_offers_nothing_and_says_so():
    bare = make_deployments(UpOptions(), Catalog(screens={"embedded": "embedded"}), {})
    form = next(made for made in bare if made.name == "train predictors")._parameter_openapi_schema
    assert flattened(form)["data_set"]["enum"] == ["(none in the data folder)"]
    with pytest.raises(InputError, match="nothing is called 'nowhere'; there are: embedded, thp1"):
        CATALOG.path_of("screens", "nowhere")


def test_the_night_is_switched_on_by_an_option():
    (nightly,) = schedules_of("benchmark", UpOptions(nightly="23:30", timezone="Europe/Berlin"))
    assert (nightly.active, nightly.schedule.cron, nightly.schedule.timezone) == (
        True,
        "30 23 * * *",
        "Europe/Berlin",
    )
    (usual,) = schedules_of("benchmark", UpOptions())
    assert (usual.active, usual.schedule.cron, usual.schedule.timezone) == (False, "0 2 * * *", "UTC")


def remade(options: UpOptions, known: dict[str, ExistingDeployment]) -> dict:
    return {made.name: made for made in make_deployments(options, CATALOG, known)}


def test_what_was_set_in_prefect_is_kept():
    (nightly,) = schedules_of("benchmark", UpOptions(nightly="23:30", timezone="Europe/Berlin"))
    known = {
        "benchmark": ExistingDeployment(
            [nightly], parameters={"predict": {"draws": 50}}, concurrency_limit=3
        ),
        "new screens": ExistingDeployment([], paused=True, concurrency_limit=None),
    }
    made = remade(UpOptions(), known)
    (kept,) = made["benchmark"].schedules
    assert (kept.active, kept.schedule) == (True, nightly.schedule)
    assert made["benchmark"].parameters == {"predict": {"draws": 50}}
    assert made["benchmark"].concurrency_limit == 3
    assert (made["new screens"].schedules, made["new screens"].paused) == ([], True)
    assert made["new screens"].concurrency_limit is None
    # What nobody has set is as it comes.
    assert not made["label a screen"].paused
    assert made["label a screen"].concurrency_limit == 2


def test_a_night_and_a_time_zone_that_are_asked_for_are_set():
    (nightly,) = schedules_of("benchmark", UpOptions())
    (hourly,) = schedules_of("new screens", UpOptions())
    known = {"benchmark": ExistingDeployment([nightly]), "new screens": ExistingDeployment([hourly])}
    made = remade(UpOptions(nightly="03:15", timezone="Europe/Berlin"), known)
    (asked,), (other,) = made["benchmark"].schedules, made["new screens"].schedules
    assert (asked.active, asked.schedule.cron, asked.schedule.timezone) == (
        True,
        "15 3 * * *",
        "Europe/Berlin",
    )
    assert (other.schedule.cron, other.schedule.timezone) == (hourly.schedule.cron, "Europe/Berlin")
