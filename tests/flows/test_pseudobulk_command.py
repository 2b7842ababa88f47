"""`pqa label` with pseudobulk tests, filters, and tests side by side."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pytest

import flows.commands.label
from flows.__main__ import main
from flows.report_pages import screen_sections
from flows.side_by_side import side_by_side_metrics
from storage.atomic import write_json
from storage.tables import read_frame, read_labels, read_recipe
from tasks.report.page import Report, report_html

KEYS = ["--guide-key", "guide_id", "--batch-key", "batch"]
SIZES = ["--cells", "2500", "--genes", "120", "--perturbations", "16", "--seed", "4", "--mean-umis", "400"]


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    path = tmp_path_factory.mktemp("screen") / "small.h5ad"
    assert main(["simulate", str(path), *SIZES, "--json"]) == 0
    return path


@pytest.fixture
def no_report(monkeypatch):
    """Most of a small run's time is the drawing of its report."""
    monkeypatch.setattr(flows.commands.label, "label_report", lambda path, _: write_json(path, {}))


def label(screen, out, *more, keys=KEYS):
    return main(["label", str(screen), "--out", str(out), *keys, *more])


def test_tests_side_by_side_are_tables_metrics_and_a_section_and_go_when_not_asked_for(
    screen, tmp_path, monkeypatch, capsys
):
    out, reported = tmp_path / "out", []
    monkeypatch.setattr(flows.commands.label, "label_report", lambda _, records: reported.append(records))
    assert label(screen, out, "--also-test", "stratified", "pseudobulk", "wilcoxon", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows["tests"]["tests.parquet"] == 16 * 120
    assert set(rows["side-by-side"]) == {f"DE calls by {t}" for t in ("wilcoxon", "stratified", "pseudobulk")}
    summary = read_frame(out / "side-by-side.parquet").set_index("test")
    assert list(summary.index) == ["wilcoxon", "stratified", "pseudobulk"]
    for test, name in (("wilcoxon", "tests"), ("pseudobulk", "tests-pseudobulk")):
        table = read_frame(out / f"{name}.parquet")
        table = table[table["pert"].astype(str) != table["gene"].astype(str)]
        called = (table["p_adj"] < 0.05) & (table["log2_fold_change"].abs() >= 0.1)
        called &= np.sign(table["log2_fold_change"]) == table["direction"]
        assert summary.loc[test, "de_calls"] == called.sum() > 20
        assert summary.loc[test, "tests"] == table["p_value"].notna().sum()
    calibration = json.loads((out / "calibration.json").read_text())
    metrics = side_by_side_metrics(reported[0].side_by_side)
    for name in ("null_de_calls", "null_share_p_below_05", "null_tests"):
        assert metrics[f"wilcoxon_{name}"] == pytest.approx(calibration[name])
        assert f"pseudobulk_{name}" in metrics
    assert [section.title for section in screen_sections(reported[0])].count("Tests side by side") == 1
    assert label(screen, out) == 0
    assert reported[1].side_by_side is None
    assert not list(out.glob("tests-*.parquet"))
    assert not (out / "side-by-side.parquet").exists()


@pytest.mark.usefixtures("no_report")
def test_labels_come_from_the_pseudobulk_test_and_filters_are_in_the_recipe(screen, tmp_path):
    filters = ["--min-mean-umis", "1", "--min-expressing-cells", "50", "--fdr-scope", "all"]
    assert label(screen, tmp_path, "--test", "pseudobulk", "--min-profile-umis", "5", *filters) == 0
    recipe = read_recipe(tmp_path / "tests.parquet")
    assert (recipe["test"], recipe["pseudobulk_model"], recipe["min_profile_umis"]) == (
        "pseudobulk",
        "paired",
        5,
    )
    assert (recipe["min_mean_umis"], recipe["min_expressing_cells"]) == (1, 50)
    assert recipe["fdr"] == "Benjamini-Hochberg over all tests of the table"
    assert (recipe["ties"], recipe["continuity"]) == ("not ranked", False)
    tests = read_frame(tmp_path / "tests.parquet").astype({"pert": str, "gene": str})
    left = tests[tests["p_value"].isna()]
    assert 0 < len(left) < len(tests)
    de = read_labels(tmp_path / "de.parquet")
    assert de.merge(left, on=["pert", "gene"]).empty
    positives = de[de["label"] == 1].merge(tests, on=["pert", "gene"])
    assert len(positives) > 20
    assert (np.sign(positives["u_statistic"]) == np.sign(positives["log2_fold_change"])).mean() > 0.95


@pytest.mark.usefixtures("no_report")
def test_a_perturbation_of_one_batch_is_excluded_with_the_reason(screen, tmp_path):
    table = anndata.read_h5ad(screen)
    name = sorted(set(table.obs["perturbation"].astype(str)) - {"non-targeting"})[0]
    table = table[(table.obs["perturbation"] != name) | (table.obs["batch"] == "batch_2")].copy()
    table.write_h5ad(tmp_path / "one.h5ad")
    out = tmp_path / "out"
    assert label(tmp_path / "one.h5ad", out, "--test", "pseudobulk", "--min-cells", "10") == 0
    judged = read_frame(out / "perturbations.parquet").set_index("perturbation")
    assert judged.loc[name, "status"] == "excluded"
    assert "share 1 of the batches, the paired test needs 2" in judged.loc[name, "reason"]
    assert (judged["status"] == "excluded").sum() == 1
    assert name not in set(read_frame(out / "tests.parquet")["pert"].astype(str))


def test_what_pseudobulk_needs_is_said_before_anything_is_read(screen, tmp_path, capsys):
    for more, said in (
        (["--test", "pseudobulk"], "--pseudobulk-model glm with --guide-key"),
        (["--also-test", "stratified", "pseudobulk"], "stratified: batches are not known"),
        (["--test", "pseudobulk", "--pseudobulk-model", "glm"], "needs replicates"),
    ):
        assert label(screen, tmp_path / "out", *more, keys=[]) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.zarr"))


def test_if_nothing_can_be_tested_the_reasons_are_listed(screen, tmp_path, capsys):
    table = anndata.read_h5ad(screen)
    table.obs["batch"] = "the only one"
    table.write_h5ad(tmp_path / "one.h5ad")
    assert label(tmp_path / "one.h5ad", tmp_path / "out", "--test", "pseudobulk") == 1
    said = capsys.readouterr().err
    assert "no perturbation can be tested" in said
    assert "the paired test needs 2" in said
    assert "and 11 more" in said


def test_a_further_test_that_can_be_done_on_nothing_is_reported_and_costs_no_labels(
    screen, tmp_path, monkeypatch, capsys
):
    one_batch = anndata.read_h5ad(screen)
    one_batch.obs["batch"] = "only"
    one_batch.write_h5ad(tmp_path / "one.h5ad")
    out, reported = tmp_path / "out", []
    monkeypatch.setattr(flows.commands.label, "label_report", lambda _, records: reported.append(records))
    assert label(tmp_path / "one.h5ad", out, "--also-test", "pseudobulk") == 0
    assert "--also-test pseudobulk is left out: no perturbation can be tested" in capsys.readouterr().err
    assert len(read_labels(out / "de.parquet")) > 0
    assert not (out / "tests-pseudobulk.parquet").exists()
    assert read_frame(out / "side-by-side.parquet")["test"].tolist() == ["wilcoxon"]
    section = next(one for one in screen_sections(reported[0]) if one.title == "Tests side by side")
    page = " ".join(report_html(Report("t", sections=[section])).split())
    assert "compared by one test." in page
    assert "Tests that cannot be done on this screen" in page
    assert "share 1 of the batches, the paired test needs 2" in page
    # As the test that labels come from, it is an error.
    assert label(tmp_path / "one.h5ad", tmp_path / "other", "--test", "pseudobulk") == 1
