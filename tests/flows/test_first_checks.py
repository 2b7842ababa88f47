"""What a job's screen is held against before it is read: names, tests, gene sets, first counts."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from flows import benchmark, label_stages
from flows.first_checks import check_inputs, check_screen
from flows.label_screen import label_screen
from flows.options import (
    BenchmarkOptions,
    ExpressionOptions,
    GeneSetOptions,
    KnowledgeOptions,
    PredictorOptions,
    RunOptions,
    ScreenOptions,
)
from storage.errors import InputError
from storage.h5ad import H5adFile
from tests.flows.test_commands import refused, toy  # noqa: F401


@pytest.mark.parametrize("command", ["label", "test-expression", "benchmark"])
def test_names_tests_and_counts_are_judged_together_before_the_file_is_read(
    tmp_path,
    capfd,
    toy,  # noqa: F811
    command,
    monkeypatch,
):
    screen = tmp_path / "log.h5ad"
    table = anndata.read_h5ad(toy)
    table.X = np.log1p(table.X.toarray())
    table.write_h5ad(screen)
    monkeypatch.setattr(label_stages, "file_digest", lambda path: pytest.fail(f"{path} was read"))
    place = {
        "label": [screen, "--out", tmp_path / "out"],
        "test-expression": [screen, "--out", tmp_path / "t.parquet"],
        "benchmark": ["--screen", screen, "--workspace", tmp_path / "w", "--knowledge", tmp_path / "no"],
    }
    words = ["--perturbation-key", "gene", "--test", "stratified"]
    told = refused(capfd, command, *place[command], *words)
    said = ["no column 'gene'", "--test stratified: batches are not known", "log-transformed"]
    for part in [*said, *([str(tmp_path / "no")] if command == "benchmark" else [])]:
        assert part in told
    assert told.count(f"pqa {command}: ") == 1


def test_a_flow_judges_names_before_its_first_stage(tmp_path, toy, monkeypatch):  # noqa: F811
    monkeypatch.setattr(label_stages, "file_digest", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(InputError, match="2 problems") as error:
        label_screen.fn(
            ScreenOptions(screen=str(toy), guide_key="sg"),
            expression=ExpressionOptions(test="stratified"),
            run=RunOptions(workspace=tmp_path / "w"),
        )
    assert "obs has no column 'sg'" in str(error.value)
    assert "batches are not known" in str(error.value)


def test_a_matrix_laid_out_by_gene_is_not_read_for_its_first_cells(tmp_path, toy, monkeypatch):  # noqa: F811
    screen = tmp_path / "by-gene.h5ad"
    table = anndata.read_h5ad(toy)
    table.X = table.X.tocsc()
    table.write_h5ad(screen)
    monkeypatch.setattr(H5adFile, "row_blocks", lambda *_, **__: pytest.fail("it was read"))
    check_screen(ScreenOptions(screen=str(screen)), ExpressionOptions(), GeneSetOptions())


def write_labels(stem) -> None:
    rows = [(f"p{i}", f"g{j}", (i + j) % 2, "test" if i < 2 else "train") for i in range(6) for j in range(3)]
    pd.DataFrame(rows, columns=["pert", "gene", "label", "split"]).to_parquet(f"{stem}-de.parquet")


def problems_with(tmp_path, **sections) -> str:
    write_labels(tmp_path / "one")
    write_labels(tmp_path / "two")
    links = {"source_gene": ["g0"], "target_gene": ["g1"], "relation": "x"}
    pd.DataFrame(links).to_parquet(tmp_path / "edges_string_v1.parquet")
    sections = {"labels": (str(tmp_path / "one"),), "knowledge": {"knowledge": str(tmp_path)}} | sections
    try:
        check_inputs(BenchmarkOptions.model_validate(sections))
    except InputError as error:
        return str(error)
    return ""


def test_options_that_a_job_would_not_use_are_refused_together(tmp_path, toy):  # noqa: F811
    told = problems_with(
        tmp_path,
        screen={"screen": str(toy), "perturbation_key": "nothing"},
        label={"fdr": 0.2},
        expression={"test": "stratified"},
        predict={"also": (str(tmp_path / "two"),)},
        answer={"model": "llama"},
    )
    for part in (
        "nothing is to be labelled, --test, --fdr would do nothing",
        "no predictor asked for reads cells",
        "no column 'nothing'",
        "--also is learnt from with --tracks across only",
        "--model without --engine",
    ):
        assert part in told


def test_what_a_job_would_use_is_not_refused(tmp_path, toy):  # noqa: F811
    assert problems_with(tmp_path) == ""
    across = {"also": (str(tmp_path / "two"),), "tracks": ("within", "across")}
    assert problems_with(tmp_path, predict=across) == ""
    cells = {"screen": str(toy)}
    assert problems_with(tmp_path, screen=cells, predict={"predictors": ("gears",)}) == ""
    both = (str(tmp_path / "one"), str(tmp_path / "two"))
    told = problems_with(tmp_path, labels=both, screen=cells, predict={"predictors": ("gears",)})
    assert "whose cells these are cannot be told" in told


def test_across_needs_another_line(tmp_path):
    alone = {"predict": {"tracks": ("across",)}}
    assert "no other line's tables" in problems_with(tmp_path, **alone)
    same = {"predict": {"tracks": ("across",), "also": (str(tmp_path / "one"),)}}
    assert "no other line's tables" in problems_with(tmp_path, **same)


def test_given_tables_are_fitted_on_the_cells_of_the_screen_beside_them(tmp_path, monkeypatch, toy):  # noqa: F811
    jobs = []
    monkeypatch.setattr(benchmark, "check_inputs", lambda options: None)
    monkeypatch.setattr(benchmark, "run_data_set", lambda job, *_: jobs.append(job) or (None, {}))
    write_labels(tmp_path / "one")
    screen = ScreenOptions(screen=str(toy), gene_key="symbol")
    how = {"knowledge": KnowledgeOptions(knowledge=str(tmp_path)), "predict": PredictorOptions()}
    benchmark.benchmark.fn(labels=(str(tmp_path / "one"),), screen=screen, **how)
    benchmark.benchmark.fn(labels=(str(tmp_path / "one"),), **how)
    beside, alone = (job.labels for job in jobs)
    assert (beside.expression, beside.screen_columns["gene_key"]) == (toy, "symbol")
    assert (alone.expression, alone.screen_columns) == (None, {})
    assert jobs[0].tracks["within"] is beside
