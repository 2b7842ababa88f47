"""What is wrong with arguments is told before anything is computed, and nothing is overwritten."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from flows.__main__ import main
from flows.commands import label_folder
from storage.atomic import copy_or_remove
from storage.tables import write_table
from tests.flows.jobs import start_pqa
from tests.waiting import LONG


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """A small simulated screen with its knowledge."""
    path = tmp_path_factory.mktemp("toy") / "toy.h5ad"
    sizes = ["--cells", "900", "--genes", "60", "--perturbations", "12", "--batches", "2"]
    assert main(["simulate", str(path), *sizes]) == 0
    return path


@pytest.fixture
def labels(tmp_path) -> Path:
    rows = [(f"P{i}", f"G{j}", (i + j) % 2, "test" if i > 5 else "train") for i in range(8) for j in range(4)]
    table = pd.DataFrame(rows, columns=["pert", "gene", "label", "split"])
    return write_table(tmp_path / "line-de.parquet", table, {"task": "de"})


def refused(capfd, *arguments: object) -> str:
    """What a command says that refuses its arguments."""
    assert main([str(word) for word in arguments]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    return printed.err


def test_a_mistyped_option_is_told_by_the_command_itself(capfd):
    with pytest.raises(SystemExit):
        main(["label", "x.h5ad", "--out", "out", "--contrl", "NT"])
    told = capfd.readouterr().err
    assert "usage: pqa label" in told
    assert "unrecognized arguments: --contrl NT; meant: --control?" in told


def test_all_needed_options_are_named_at_once(capfd):
    with pytest.raises(SystemExit):
        main(["predict"])
    assert "--labels, --pairs, --knowledge, --predictor, --out" in capfd.readouterr().err


def test_predict_lists_everything_wrong_before_it_fits(tmp_path, capfd, labels):
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(labels.read_bytes()[:200])
    told = refused(
        capfd,
        *("predict", "--predictor", "prior", "--labels", broken, "--pairs", tmp_path / "no.csv"),
        *("--knowledge", tmp_path / "nothing", "--settings", "gat.layers=4", "--out", tmp_path / "p.csv"),
    )
    for part in (
        "broken.parquet: not a readable Parquet table",
        "no.csv: no such file",
        "nothing: no such folder",
        "--settings of gat, but --predictor is prior",
        "p.csv: a Parquet table is written; choose a name that ends in .parquet",
    ):
        assert part in told


def test_a_folder_in_the_place_of_a_table_is_refused_before_the_work(tmp_path, capfd, toy):
    for words in (
        ["test-expression", toy, "--out", tmp_path],
        [
            "predict",
            "--predictor",
            "prior",
            "--labels",
            "l",
            "--pairs",
            "p",
            "--knowledge",
            "k",
            "--out",
            tmp_path,
        ],
    ):
        assert f"--out {tmp_path}: a folder of this name is there" in refused(capfd, *words)
    assert list(tmp_path.iterdir()) == []


def test_predictions_of_the_other_task_are_not_scored(tmp_path, capfd, labels):
    table = pd.read_parquet(labels)
    pairs = table[["pert", "gene"]].assign(score=1.0)
    predictions = write_table(tmp_path / "said.parquet", pairs, {"task": "dir"})
    told = refused(capfd, "score", "--labels", labels, "--predictions", predictions)
    assert "line-de.parquet is of task de" in told
    assert "said.parquet of task dir" in told
    told = refused(
        capfd, "score", "--labels", tmp_path / "a.parquet", "--predictions", tmp_path / "b.parquet"
    )
    assert "a.parquet: no such file" in told
    assert "b.parquet: no such file" in told


def test_what_was_not_made_here_is_not_overwritten(tmp_path, capfd, toy):
    screen, folder = tmp_path / "mine.h5ad", tmp_path / "out"
    screen.write_bytes(b"precious")
    folder.mkdir()
    (folder / "report.html").write_text("precious")
    assert "was not simulated here" in refused(capfd, "simulate", screen, "--cells", "100")
    assert "holds report.html, which `pqa label` has not made" in refused(
        capfd, "label", toy, "--out", folder
    )
    assert screen.read_bytes() == b"precious"
    assert [path.name for path in folder.iterdir()] == ["report.html"]


def test_each_file_of_a_folder_is_judged_by_itself(tmp_path, capfd, toy):
    out = tmp_path / "out"
    assert main(["test-expression", str(toy), "--out", str(tmp_path / "elsewhere.parquet")]) == 0
    assert main(["label", str(toy), "--out", str(out)]) == 0
    # One is no table of ours, one comes from another command, one was changed by hand.
    (out / "side-by-side.parquet").write_text("precious")
    shutil.copy(tmp_path / "elsewhere.parquet", out / "tests-stratified.parquet")
    (out / "calibration.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    capfd.readouterr()
    told = refused(capfd, "label", toy, "--out", out)
    assert "holds calibration.json, side-by-side.parquet, tests-stratified.parquet, which" in told
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_a_run_stopped_while_results_are_put_into_the_folder_goes_on(tmp_path, toy, monkeypatch):
    out, put = tmp_path / "out", []

    def stop(source, target):
        if len(put) == 3:
            raise KeyboardInterrupt
        put.append(target)
        copy_or_remove(source, target)

    also = ["--batch-key", "batch", "--also-test", "stratified"]
    assert main(["label", str(toy), "--out", str(out), *also]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(label_folder, "copy_or_remove", stop)
        assert main(["label", str(toy), "--out", str(out), "--min-cells", "30"]) == 130
    # Some files are the stopped run's, the others those of the first.
    assert main(["label", str(toy), "--out", str(out), "--force"]) == 0
    assert not (out / "tests-stratified.parquet").exists()
    assert not (out / "side-by-side.parquet").exists()


def test_what_was_made_here_is_made_again(tmp_path, toy):
    out = tmp_path / "out"
    for _ in range(2):
        assert main(["label", str(toy), "--out", str(out)]) == 0
        # Stages may be removed to save room: what was put into the folder is recorded beside them.
        shutil.rmtree(out / ".work")
    again = tmp_path / "again.h5ad"
    for words in (["--cells", "300"], ["--cells", "200"]):
        assert main(["simulate", str(again), "--genes", "20", "--perturbations", "4", *words]) == 0


def test_no_part_of_a_simulated_screen_takes_the_place_of_something_else(tmp_path, capfd):
    out = tmp_path / "new.h5ad"
    table = pd.DataFrame({"pert": ["A"]})
    write_table(out.with_suffix(".truth.parquet"), table)
    out.with_suffix(".knowledge").mkdir()
    told = refused(capfd, "simulate", out, "--cells", "100")
    assert "new.truth.parquet: is there and was not simulated here" in told
    assert "new.knowledge: is there and was not simulated here" in told
    assert not out.exists()


def test_a_wrong_layer_hides_no_wrong_name(tmp_path, capfd, toy):
    told = refused(
        capfd,
        *("label", toy, "--out", tmp_path / "out", "--layer", "counts", "--perturbation-key", "gene"),
        *("--batch-key", "gem", "--gene-sets", tmp_path / "no.json"),
    )
    for part in ("no layer 'counts'", "'gene'", "'gem'", "no.json: cannot be read"):
        assert part in told


def test_perturbations_without_tests_are_named_with_the_reason(tmp_path, capfd, toy):
    out = tmp_path / "tests.parquet"
    assert main(["test-expression", str(toy), "--out", str(out), "--min-cells", "66"]) == 0
    printed = capfd.readouterr().out
    tested = pd.read_parquet(out)["pert"].nunique()
    assert 0 < tested < 12
    assert f"of {tested} perturbations in" in printed
    assert f"{12 - tested} of 12 perturbations left out" in printed
    assert "usable cells, fewer than 66" in printed
    told = refused(capfd, "test-expression", toy, "--out", out, "--min-cells", "5000")
    assert "no perturbation can be tested" in told
    assert "fewer than 5000" in told


def test_options_without_effect_are_refused(tmp_path, capfd, toy, labels):
    told = refused(
        capfd, "test-expression", toy, "--out", tmp_path / "t.parquet", "--also-test", "pseudobulk"
    )
    assert "--also-test: one table is made here" in told
    told = refused(
        capfd,
        *("answer", "--labels", labels, "--pairs", tmp_path / "no.csv", "--out", tmp_path / "answers"),
        *("--pert-clusters", "clusters.json"),
    )
    for part in ("--engine is needed", "--knowledge is needed", "no.csv: no such file", "`pqa enrich` names"):
        assert part in told


@pytest.mark.parametrize("command", ["label", "test-expression"])
def test_two_at_once_in_one_place_end_one_after_the_other(tmp_path, toy, command):
    out = tmp_path / ("tests.parquet" if command == "test-expression" else "out")
    both = [start_pqa(command, toy, "--out", out, "--fdr-scope", scope) for scope in ("within", "all")]
    errors = [process.communicate(timeout=LONG)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert any(f"another process writes {out}; waiting for it" in error for error in errors)
    table = out if command == "test-expression" else out / "tests.parquet"
    assert len(pd.read_parquet(table)) > 0


def test_ctrl_c_while_the_program_starts_is_one_line(tmp_path, toy):
    process = start_pqa("label", toy, "--out", tmp_path / "out", alone=True)
    # The interpreter itself is up by then, and seconds of imports lie ahead.
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LONG)
    assert process.returncode in {130, -signal.SIGINT}
    if process.returncode == 130:
        assert "Traceback" not in err
        assert "stopped; the same command goes on where it was" in err
