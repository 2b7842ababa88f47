from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from pydantic import BaseModel

from flows import options
from flows.arguments import add_arguments, read_options
from flows.options import BenchmarkOptions, LabelScreenOptions, PredictCommandOptions
from storage.errors import InputError

MODELS = [BenchmarkOptions, LabelScreenOptions, options.TestExpressionOptions, PredictCommandOptions]


def parsed(model, *arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser, model)
    return parser.parse_args(arguments)


def read(model, *arguments, config=None):
    return read_options(model, parsed(model, *arguments), config=config)


@pytest.mark.parametrize("model", MODELS[:3], ids=lambda model: model.__name__)
def test_nothing_typed_gives_the_models_own_defaults(model):
    assert vars(parsed(model)) == {}
    assert read(model) == model()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_is_an_option_with_help(model, capsys):
    with pytest.raises(SystemExit):
        parsed(model, "--help")
    shown = capsys.readouterr().out
    for field in model.model_fields.values():
        inner = field.annotation
        nested = isinstance(inner, type) and issubclass(inner, BaseModel)
        for name in inner.model_fields if nested else ():
            assert f"--{name.replace('_', '-')}" in shown


def test_values_of_every_kind_find_their_field():
    got = read(
        BenchmarkOptions,
        *("--fdr", "0.01", "--max-positives", "7", "--positives-by", "random", "--guide-key", "sg"),
        *("--predictors", "prior", "gat", "--force", "--no-noncommercial", "--workspace", "elsewhere"),
        *("--labels", "a/k562", "a/rpe1", "--max-target-remaining", "0.3"),
    )
    assert (got.label.fdr, got.label.max_positives, got.label.positives_by) == (0.01, 7, "random")
    assert (got.screen.guide_key, got.quality.max_target_remaining) == ("sg", 0.3)
    assert got.predict.predictors == ("prior", "gat")
    assert (got.run.force, got.knowledge.noncommercial) == (("all",), False)
    assert got.run.workspace == Path("elsewhere")
    assert got.labels == ("a/k562", "a/rpe1")


def test_what_is_typed_comes_over_the_file_and_the_file_over_the_defaults(tmp_path):
    config = tmp_path / "job.yaml"
    config.write_text("label:\n  fdr: 0.2\n  negatives: 9\nrun:\n  workspace: from-file\n")
    got = read(BenchmarkOptions, "--fdr", "0.01", config=config)
    assert (got.label.fdr, got.label.negatives, got.label.max_positives) == (0.01, 9, 20)
    assert got.run.workspace == Path("from-file")


def test_a_value_of_the_file_means_what_it_means_as_an_argument(tmp_path):
    config = tmp_path / "job.yaml"
    config.write_text(
        "labels: tables\n"
        "answer: {quant_policy: 8, revision: 1.10, base_url: http://127.0.0.1:1/v1, token_budget: 900}\n"
        "predict: {predictors: prior, grid: yes, draws: 20}\n"
        "screen: {control: no, guide_key: ~, batch_key: }\n"
        "label: {fdr: 1e-3}\n"
        "run: {force: tests}\n"
    )
    got = read(BenchmarkOptions, config=config)
    typed = read(
        BenchmarkOptions,
        *("--labels", "tables", "--quant-policy", "8", "--revision", "1.10", "--token-budget", "900"),
        *("--base-url", "http://127.0.0.1:1/v1", "--predictors", "prior", "--grid", "--draws", "20"),
        *("--control", "no", "--fdr", "1e-3", "--force", "tests"),
    )
    assert got == typed
    assert (got.answer.quant_policy, got.predict.predictors) == ("8", ("prior",))


def test_an_empty_section_of_the_file_changes_nothing(tmp_path):
    config = tmp_path / "job.yaml"
    config.write_text("label:\nrun:\n  workers: 3\n")
    assert read(BenchmarkOptions, config=config).label == BenchmarkOptions().label
    assert read(BenchmarkOptions, "--fdr", "0.01", config=config).label.fdr == 0.01


def test_every_wrong_value_is_named_with_its_option():
    with pytest.raises(InputError) as error:
        read(LabelScreenOptions, "--fdr", "2", "--min-cells", "many", "--label-seed", "-1", "--workers", "0")
    said = " | ".join(error.value.problems)
    for option in ("--fdr: ", "--min-cells: ", "--label-seed: ", "--workers: "):
        assert option in said
    assert "(got '2')" in said
    assert len(error.value.problems) == 4


def test_a_value_out_of_a_list_is_refused_with_the_list(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed(LabelScreenOptions, "--test", "magic")
    assert stop.value.code == 2
    assert "wilcoxon" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("label: {fdrr: 0.1}", "unknown option 'label.fdrr'"),
        ("labels_: x", "unknown option 'labels_'"),
        ("label: 5", "label"),
        ("- a\n- b", "a YAML mapping of options is needed"),
        ("", "a YAML mapping of options is needed"),
        ("just words", "a YAML mapping of options is needed"),
        ("label: [unclosed", "not YAML"),
        ("predict: {predictors: []}", "--predictors"),
        ("predict: {predictors: [magic]}", "--predictors"),
    ],
)
@pytest.mark.parametrize("typed", [(), ("--fdr", "0.01")])
def test_a_file_that_cannot_be_used_is_said_to_be(tmp_path, text, said, typed):
    config = tmp_path / "job.yaml"
    config.write_text(text)
    with pytest.raises(InputError) as error:
        read(BenchmarkOptions, *typed, config=config)
    assert said in str(error.value)


@pytest.mark.parametrize("what", ["missing", "folder", "binary"])
def test_a_file_that_cannot_be_read_is_said_to_be(tmp_path, what):
    config = tmp_path / "job.yaml"
    if what == "folder":
        config.mkdir()
    elif what == "binary":
        config.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"no such file|cannot be read as text"):
        read(BenchmarkOptions, config=config)


def test_options_cannot_be_changed_and_unknown_names_are_refused():
    models = [
        model
        for model in vars(options).values()
        if isinstance(model, type) and issubclass(model, BaseModel) and model is not BaseModel
    ]
    assert len(models) > 10
    for model in models:
        assert model.model_config["frozen"]
        assert model.model_config["extra"] == "forbid"
        for name, field in model.model_fields.items():
            assert field.title, f"{model.__name__}.{name} has no title"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_models_schema_is_a_form_without_free_mappings(model):
    text = str(model.model_json_schema())
    assert "'additionalProperties': True" not in text
    assert "'additionalProperties': {" not in text
