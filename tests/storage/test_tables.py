from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from storage.errors import InputError
from storage.tables import (
    read_frame,
    read_labels,
    read_pairs,
    read_predictions,
    read_recipe,
    write_table,
)

LABELS = pd.DataFrame(
    {
        "pert": ["A", "A", "B", "C"],
        "gene": ["x", "y", "x", "y"],
        "label": pd.array([1, 0, 1, None], dtype="Int8"),
        "split": ["train", "train", "train", "test"],
    }
)


def write(tmp_path, frame, kind):
    path = tmp_path / f"labels.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    "label", ["Int8", "int64 without missing", "float64", "bool", "absent", "categorical names"]
)
def test_label_tables_are_read_alike_whatever_their_types(tmp_path, kind, label):
    frame, expected = LABELS.copy(), LABELS.copy()
    if label == "float64":
        frame["label"] = frame["label"].astype("Float64").to_numpy(np.float64, na_value=np.nan)
    elif label == "absent":
        frame, expected["label"] = frame.drop(columns="label"), pd.array([pd.NA] * 4, dtype="Int8")
    elif label == "categorical names":
        frame = frame.astype({"pert": "category", "gene": "category", "split": "category"})
    elif label != "Int8":
        expected["label"] = pd.array([1, 0, 1, 0], dtype="Int8")
        plain = [True, False, True, False]
        frame["label"] = plain if label == "bool" else np.array(plain).astype(np.int64)
    pd.testing.assert_frame_equal(read_labels(write(tmp_path, frame, kind)), expected)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_names_stay_names_even_if_they_look_like_numbers_or_like_nothing(tmp_path, kind):
    frame = LABELS.assign(pert=["1", "1", "007", "3"], gene=["NA", "nan", "None", "1"])
    if kind == "parquet":
        numbers = LABELS.assign(pert=[1, 1, 7, 3])
        assert read_labels(write(tmp_path, numbers, kind))["pert"].tolist() == ["1", "1", "7", "3"]
    path = write(tmp_path, frame, kind)
    for table in (read_labels(path), read_pairs(path)):
        assert table["pert"].tolist() == ["1", "1", "007", "3"]
        assert table["gene"].tolist() == ["NA", "nan", "None", "1"]
    scored = write(tmp_path, frame.assign(score=[0.1, 0.2, 0.3, 0.4]), kind)
    assert read_predictions(scored)["pert"].tolist() == ["1", "1", "007", "3"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": [1, 0, 2, 1]}, "labels must be 0, 1 or missing; 1 rows have others: 2"),
        ({"label": [1, 0, -1, 0.5]}, "2 rows have others: -1.0, 0.5"),
        ({"label": ["up", "down", "1", "0"]}, "2 rows have others: up, down"),
        ({"split": ["train", "train", "val", "test"]}, "found val"),
        ({"pert": ["A", "A", "C", "C"]}, "1 perturbations are on both sides of the split: C"),
        ({"pert": ["A", "A", "", "C"]}, "1 rows have an empty pert"),
        ({"gene": ["x", "x", "x", "y"]}, "1 pairs are listed more than once, for example A, x"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_each_fault_of_a_label_table_is_named(tmp_path, change, said, kind):
    path = write(tmp_path, LABELS.assign(**change), kind)
    with pytest.raises(InputError) as error:
        read_labels(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_all_faults_of_a_label_table_are_listed_at_once(tmp_path):
    frame = LABELS.assign(
        label=[1, 0, 7, 1], pert=["A", "A", None, "A"], gene=["x", "x", "x", "y"], split=list("aabb")
    )
    with pytest.raises(InputError) as error:
        read_labels(write(tmp_path, frame, "parquet"))
    problems = " | ".join(error.value.problems)
    for said in ("others: 7", "empty pert", "more than once", "split must be"):
        assert said in problems


def test_missing_columns_are_named_with_those_that_are_there(tmp_path):
    path = write(tmp_path, LABELS.rename(columns={"pert": "perturbation", "split": "fold"}), "csv")
    with pytest.raises(InputError, match="columns pert, split are missing; found perturbation, gene, label"):
        read_labels(path)
    with pytest.raises(InputError, match="score are missing"):
        read_predictions(write(tmp_path, LABELS, "csv"))
    with pytest.raises(InputError, match="no rows"):
        read_labels(write(tmp_path, LABELS.iloc[:0], "parquet"))


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe not a table \x80", b"PAR1PAR1"])
def test_a_file_that_is_no_table_is_said_to_be_none(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not a readable|are missing"):
        read_labels(path)


def test_a_table_that_is_not_there_is_said_not_to_be(tmp_path):
    for path in (tmp_path / "none.parquet", tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_frame(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "high"])
def test_scores_must_be_finite_numbers(tmp_path, bad):
    frame = LABELS[["pert", "gene"]].assign(score=pd.Series([0.1, 0.2, bad, 1], dtype=object))
    with pytest.raises(InputError, match="1 scores are missing, infinite or not numbers"):
        read_predictions(write(tmp_path, frame, "csv"))


def test_a_written_table_keeps_its_recipe_and_the_same_table_gives_the_same_bytes(tmp_path):
    recipe = {"seed": 3, "test": "wilcoxon", "nothing": None}
    turned = dict(reversed(recipe.items()))
    a, b = (write_table(tmp_path / name, LABELS, content) for name, content in (("a", recipe), ("b", turned)))
    assert a.read_bytes() == b.read_bytes()
    assert read_recipe(a) == recipe
    pd.testing.assert_frame_equal(read_labels(a), LABELS)
    assert read_recipe(write(tmp_path, LABELS, "parquet")) == {}


@pytest.mark.shared_data
def test_the_published_tables_are_read_and_ours_have_their_columns_and_types(tmp_path, shared_data):
    for name in ("hepg2-de", "k562_set-dir", "rpe1-dir"):
        path = shared_data / "labels" / f"{name}.parquet"
        published = pd.read_parquet(path)
        ours = read_labels(path)
        assert list(ours) == list(published)
        pd.testing.assert_frame_equal(ours, published, check_dtype=False)
        assert ours["label"].dtype == published["label"].dtype
        again = write_table(tmp_path / path.name, ours)
        assert pq.read_schema(again).field("label").type == pq.read_schema(path).field("label").type
        pd.testing.assert_frame_equal(pd.read_parquet(again), published, check_dtype=False)
        pd.testing.assert_frame_equal(read_labels(again), ours)
