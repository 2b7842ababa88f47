"""What a job trains: configurations, tracks, and which other tables may be learnt from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from flows.configurations import configurations, parsed_settings
from flows.label_sets import LabelSet
from flows.options import PredictorName, PredictorOptions
from storage.errors import InputError
from tasks.predictors import PREDICTORS, make_predictor


def label_set(name: str, *tasks: str) -> LabelSet:
    tables = {task: Path(f"{name}-{task}.parquet") for task in tasks or ("de", "dir")}
    return LabelSet(name, tables, {task: f"digest of {path}" for task, path in tables.items()})


def test_each_predictor_is_one_configuration_and_those_that_draw_one_a_seed():
    made = configurations(PredictorOptions(predictors=("prior", "gat"), seed=4, seeds=3))
    assert [(one.predictor, one.seed) for one in made] == [("prior", 4), ("gat", 4), ("gat", 5), ("gat", 6)]
    assert {one.row for one in made} == {"prior", "gat"}
    assert len({one.slug for one in made}) == 4


def test_the_form_of_retrieval_that_draws_has_seeds_too():
    options = {"predictors": ("retrieval",), "seeds": 3}
    assert len(configurations(PredictorOptions(**options))) == 1
    assert len(configurations(PredictorOptions(**options, settings=("retrieval.form=sampled",)))) == 3


def test_the_whole_grid_is_twelve_sizes_of_each_network():
    made = configurations(PredictorOptions(predictors=("mlp", "gat", "kernel"), grid=True, seeds=3))
    assert len(made) == 2 * 12 * 3 + 1
    assert len({one.row for one in made}) == 25
    assert "gat layers=4 hidden=128" in {one.row for one in made}
    sizes = {
        (dict(one.options)["layers"], dict(one.options)["hidden"]) for one in made if one.predictor == "mlp"
    }
    assert sizes == {(layers, hidden) for layers in (1, 2, 4, 8) for hidden in (64, 128, 256)}


def test_the_form_offers_every_predictor():
    assert get_args(PredictorName) == tuple(PREDICTORS)


def test_settings_reach_their_predictor_only():
    options = PredictorOptions(
        predictors=("gat", "kernel"), settings=("gat.max_epochs=3", "gat.start=random")
    )
    made = {one.predictor: dict(one.options) for one in configurations(options)}
    assert made == {"gat": {"max_epochs": 3, "start": "random"}, "kernel": {}}


def test_all_wrong_settings_are_told_at_once():
    wrong = ("gat", "nobody.x=1", "gat.nothing=1", "gat.layers=0", "prior.layers=2")
    with pytest.raises(InputError) as caught:
        configurations(PredictorOptions(settings=wrong))
    told = " ".join(caught.value.problems)
    for word in ("'gat'", "nobody", "nothing", "layers must be greater than 0", "prior"):
        assert word in told


def test_across_takes_other_lines_rows_and_never_the_same_line_s():
    k562 = label_set("k562")
    others = [k562, label_set("rpe1"), label_set("jurkat", "de"), label_set("k562_set")]
    across = k562.across(others)
    assert across.track == "across"
    assert k562.track == "within"
    assert across.also["de"] == {"rpe1": Path("rpe1-de.parquet"), "jurkat": Path("jurkat-de.parquet")}
    assert across.also["dir"] == {"rpe1": Path("rpe1-dir.parquet")}
    assert across.also_digests["dir"] == {"rpe1": "digest of rpe1-dir.parquet"}


def write_labels(path: Path, rows: list[tuple[str, str, int, str]]) -> None:
    pd.DataFrame(rows, columns=["pert", "gene", "label", "split"]).to_parquet(path)


def test_a_folder_of_pqa_label_is_a_data_set_less_what_cannot_be_asked_about(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(InputError, match=r"neither .*mine-de\.parquet nor .*mine/dir\.parquet is there"):
        LabelSet.of_stem(str(folder))
    write_labels(folder / "dir.parquet", [])
    with pytest.raises(InputError, match="no perturbation with labels on both sides"):
        LabelSet.of_stem(str(folder))
    write_labels(folder / "de.parquet", [("A", "X", 1, "train"), ("B", "X", 0, "test")])
    labels = LabelSet.of_stem(f"{folder}/")
    assert labels.name == "mine"
    assert labels.tables == {"de": folder / "de.parquet"}
    write_labels(folder / "set-de.parquet", [("A", "S", 1, "train"), ("B", "S", 0, "test")])
    assert LabelSet.of_stem(str(folder / "set")).name == "mine_set"


def test_published_tables_without_pairs_to_predict_can_only_be_learnt_from(tmp_path):
    write_labels(tmp_path / "line-de.parquet", [("A", "X", 1, "train"), ("B", "X", 0, "train")])
    write_labels(tmp_path / "line-dir.parquet", [("A", "X", 1, "train"), ("B", "X", 0, "test")])
    stem = str(tmp_path / "line")
    assert list(LabelSet.of_stem(stem).tables) == ["dir"]
    assert list(LabelSet.of_stem(stem, to_learn_from=True).tables) == ["de", "dir"]


def test_sets_and_genes_do_not_teach_each_other():
    assert label_set("k562_set").across([label_set("rpe1"), label_set("k562")]) is None
    assert label_set("rpe1").across([label_set("k562_set")]) is None
    assert label_set("k562_set").across([label_set("rpe1_set")]).also["de"] == {
        "rpe1": Path("rpe1_set-de.parquet")
    }


def test_tables_of_the_same_counts_are_of_the_same_line_whatever_their_name():
    mine, again, other = (
        replace(label_set(name), screen=digest)
        for name, digest in (("mine", "a"), ("again", "a"), ("other", "b"))
    )
    assert mine.across([again]) is None
    assert list(mine.across([again, other, other]).also["de"]) == ["other"]


def test_two_other_lines_of_one_name_are_refused():
    same = replace(label_set("jurkat"), digests={"de": "x", "dir": "y"}, tables={"de": Path("b/jurkat-de")})
    with pytest.raises(InputError, match=r"jurkat-de\.parquet and b/jurkat-de: called jurkat"):
        label_set("k562").across([label_set("jurkat"), same])


def test_a_line_alone_has_no_track_across():
    assert label_set("k562").across([label_set("k562")]) is None


def test_a_whole_number_is_one_however_it_is_written():
    settings = ("stack.folds=5.0", "gat.max_epochs=1e2")
    by_predictor = {name: make_predictor(name, **own) for name, own in parsed_settings(settings).items()}
    assert by_predictor["stack"].parameters()["folds"] == 5
    assert by_predictor["gat"].parameters()["max_epochs"] == 100
    assert make_predictor("mlp", hidden=np.int64(64)).parameters()["hidden"] == 64
    with pytest.raises(InputError, match="folds must be a whole number"):
        parsed_settings(["stack.folds=5.5"])
