"""Pages made of finished stages, and the genes that were called as a table for a spreadsheet."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flows.options import LabelOptions
from flows.report_pages import screen_sections, write_called_genes
from storage.tables import read_frame
from tasks.report.page import Report, report_html
from tests.flows.screen_records import labelled, simulated

COLUMNS = ["pert", "gene", "mean_pert", "mean_control", "log2_fold_change", "p_value", "p_adj"]


def write_tests(path, rows) -> None:
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"pert": "category", "gene": "category"})
    frame.assign(direction=np.sign(frame["log2_fold_change"])).to_parquet(path, index=False)


def test_calls_are_written_by_perturbation_smallest_p_first(tmp_path):
    rows = [
        ("A", "A", 1.0, 9.0, -3.17, 0.0, 0.0),
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
    # A is perturbed itself; z changes too little; C's gene was not tested.
    assert list(zip(calls["perturbation"], calls["gene"], strict=True)) == [
        ("A", "y"),
        ("A", "x"),
        ("D", "x"),
    ]
    assert calls["p_value"].tolist() == [0.001, 0.01, 1e-300]


def test_the_page_follows_the_rule_of_the_run(tmp_path):
    rule = ("--fdr", "0.2", "--min-log2-fold-change", "0.3", "--max-positives", "1000", "--detectable", "0")
    records = labelled(simulated(tmp_path), tmp_path / "out", *rule)
    page = " ".join(report_html(Report("t", sections=screen_sections(records))).split())
    assert "adjusted p-value is below 0.2 and their log2 fold change is at least 0.3" in page
    counts = read_frame(records.labels.folder / "perturbations.parquet")
    counts = counts[counts["status"] == "kept"].assign(n_de=lambda t: t["n_up"] + t["n_down"])
    most = counts.sort_values(["n_de", "perturbation"], ascending=[False, True]).head(6)
    assert most["n_de"].min() > 0
    for row in most.itertuples():
        assert f"{row.perturbation}: {row.n_up:.0f} up, {row.n_down:.0f} down" in page


def test_a_screen_without_a_call_gives_a_table_without_rows(tmp_path):
    write_tests(tmp_path / "tests.parquet", [("B", "x", 2.0, 2.0, 0.0, 0.9, 0.95)])
    write_called_genes(tmp_path / "calls.csv", tmp_path / "tests.parquet", LabelOptions())
    assert pd.read_csv(tmp_path / "calls.csv").columns.tolist() == ["perturbation", *COLUMNS[1:]]
