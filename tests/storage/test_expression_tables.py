from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import InputError
from storage.expression_tables import read_by_perturbation, read_perturbations


def table_of(sizes, seed=0):
    rng = np.random.default_rng(seed)
    pert = np.repeat([f"P{i}" for i in range(len(sizes))], sizes)
    gene = np.concatenate([[f"G{i}" for i in range(size)] for size in sizes])
    return pd.DataFrame(
        {"pert": pd.Categorical(pert), "gene": pd.Categorical(gene), "a": rng.random(len(pert)), "b": 1}
    )


@pytest.mark.parametrize("rows_a_group", [1, 7, 20, 1000])
def test_perturbations_come_back_whole_however_the_file_is_cut(tmp_path, rows_a_group):
    frame = table_of([3, 20, 1, 40, 7])
    path = tmp_path / "tests.parquet"
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, row_group_size=rows_a_group)
    plain = frame.astype({"pert": str, "gene": str})
    read = list(read_by_perturbation(path, ("gene", "a")))
    assert [name for name, _ in read] == ["P0", "P1", "P2", "P3", "P4"]
    for name, rows in read:
        expected = plain.loc[plain["pert"] == name, ["gene", "a"]].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, expected)
    some = read_perturbations(path, ["P3", "P1", "elsewhere"])
    pd.testing.assert_frame_equal(some, plain[plain["pert"].isin(["P1", "P3"])].reset_index(drop=True))


def test_an_empty_table_has_no_perturbations(tmp_path):
    pq.write_table(pa.Table.from_pandas(table_of([3]).head(0), preserve_index=False), tmp_path / "t.parquet")
    assert list(read_by_perturbation(tmp_path / "t.parquet", ("a",))) == []


def test_rows_that_are_not_next_to_each_other_are_refused(tmp_path):
    frame = table_of([3, 3]).iloc[[0, 3, 4, 1, 2, 5]]
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="rows of P0 are not next to each other; sort by pert"):
        list(read_by_perturbation(tmp_path / "t.parquet", ("a",)))


def test_missing_columns_and_unreadable_files_are_named(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(InputError, match="no such file"):
        list(read_by_perturbation(path, ("a",)))
    path.write_text("text")
    with pytest.raises(InputError, match="not a readable Parquet table"):
        read_perturbations(path, ["P0"])
    pq.write_table(pa.Table.from_pandas(table_of([3]), preserve_index=False), path)
    with pytest.raises(InputError, match="columns c, d are missing; found pert, gene, a, b"):
        list(read_by_perturbation(path, ("c", "a", "d")))
