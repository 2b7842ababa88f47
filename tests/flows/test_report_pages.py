"""The genes that were called, as a table for a spreadsheet."""

from __future__ import annotations

import pandas as pd

from flows.options import LabelOptions
from flows.report_pages import write_called_genes

COLUMNS = ["pert", "gene", "mean_pert", "mean_control", "log2_fold_change", "p_value", "p_adj"]


def write_tests(path, rows) -> None:
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"pert": "category", "gene": "category"})
    frame.to_parquet(path, index=False)


def test_calls_are_written_by_perturbation_smallest_p_first(tmp_path):
    rows = [
        ("A", "x", 1.0, 2.0, -1.0, 0.01, 0.04),
        ("A", "y", 9.0, 3.0, 1.585, 0.001, 0.01),
        ("A", "z", 2.0, 2.01, -0.007, 0.0, 0.0),
        ("B", "x", 2.0, 2.0, 0.0, 0.9, 0.95),
        ("C", "y", 0.0, 1.0, -3.46, None, None),
        ("D", "x", 4.0, 1.0, 2.0, 1e-300, 1e-298),
    ]
    write_tests(tmp_path / "tests.parquet", rows)
    write_called_genes(tmp_path / "calls.csv", tmp_path / "tests.parquet", LabelOptions())
    calls = pd.read_csv(tmp_path / "calls.csv")
    assert calls.columns.tolist() == ["perturbation", *COLUMNS[1:]]
    # z changes by less than the least fold change that counts; C's gene was not tested.
    assert list(zip(calls["perturbation"], calls["gene"], strict=True)) == [
        ("A", "y"),
        ("A", "x"),
        ("D", "x"),
    ]
    assert calls["p_value"].tolist() == [0.001, 0.01, 1e-300]


def test_a_screen_without_a_call_gives_a_table_without_rows(tmp_path):
    write_tests(tmp_path / "tests.parquet", [("B", "x", 2.0, 2.0, 0.0, 0.9, 0.95)])
    write_called_genes(tmp_path / "calls.csv", tmp_path / "tests.parquet", LabelOptions())
    assert pd.read_csv(tmp_path / "calls.csv").columns.tolist() == ["perturbation", *COLUMNS[1:]]
