"""What a job's screen is held against before it is read: names, tests, gene sets, first counts."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

from flows import label_stages
from flows.first_checks import check_screen
from flows.label_screen import label_screen
from flows.options import ExpressionOptions, GeneSetOptions, RunOptions, ScreenOptions
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
