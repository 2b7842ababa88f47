from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import flows.commands.label
from flows.__main__ import main
from storage.atomic import write_json
from storage.manifest import file_digest
from tests.screens import CONTROL, gene_names, random_counts, random_names, write_screen

ROOT = Path(__file__).parents[2]
N_CELLS, N_GENES, N_PERT = 400, 20, 8


def arrays():
    return random_counts(N_CELLS, N_GENES, seed=1).astype(np.float64), random_names(N_CELLS, N_PERT, seed=1)


def changed(change):
    """A maker of a screen with one thing wrong with its counts."""

    def make(path):
        counts, names = arrays()
        write_screen(path, sparse.csr_matrix(change(counts)), names)

    return make


def named(change):
    """A maker of a screen with one thing wrong with its names."""

    def make(path):
        counts, names = arrays()
        write_screen(path, sparse.csr_matrix(counts), change(names))

    return make


def put(value, row=399, column=3):
    def change(counts):
        counts[row, column] = value
        return counts

    return change


def truncated(path):
    changed(lambda counts: counts)(path)
    path.write_bytes(path.read_bytes()[:-5000])


def duplicated(path):
    counts, names = arrays()
    write_screen(path, sparse.csr_matrix(counts), names, genes=["twice", "twice", *gene_names(N_GENES)[2:]])


def without_parts(path):
    with h5py.File(path, "w") as file:
        file["something"] = 1


#: What is wrong -> how to make it, what the message must say, more arguments.
SCREENS = {
    "no such file": (lambda path: None, ["no such file"], []),
    "text": (lambda path: path.write_text("hello"), ["not an h5ad file (it is not HDF5)"], []),
    "a folder": (lambda path: path.mkdir(), ["no such file"], []),
    "another HDF5 file": (without_parts, ["not an h5ad file: X, obs, var missing"], []),
    "cut off": (truncated, ["the file is cut off"], []),
    "missing key": (
        changed(lambda counts: counts),
        ["obs has no column 'perturbations'; did you mean perturbation?"],
        ["--perturbation-key", "perturbations"],
    ),
    "missing guide, batch and gene key": (
        changed(lambda counts: counts),
        ["3 problems", "obs has no column 'sg'", "obs has no column 'gem'", "var has no column 'symbol'"],
        ["--guide-key", "sg", "--batch-key", "gem", "--gene-key", "symbol"],
    ),
    "missing layer": (changed(lambda counts: counts), ["no layer 'umis'"], ["--layer", "umis"]),
    "nothing selected": (
        changed(lambda counts: counts),
        ["no cell has perturbation=P77", f"most frequent: {CONTROL}"],
        ["--only", "perturbation=P77"],
    ),
    "no control cells": (
        changed(lambda counts: counts),
        ["no control cells: no 'perturbation' is 'ctrl'", f"{CONTROL} (", "P0 ("],
        ["--control", "ctrl"],
    ),
    "all cells control": (named(lambda names: np.full(N_CELLS, CONTROL)), ["every cell is a control"], []),
    "empty name": (
        named(lambda names: np.where(names == "P3", "", names)),
        ["cells have an empty perturbation name"],
        [],
    ),
    "one perturbation only": (
        named(lambda names: np.where(names == CONTROL, CONTROL, "P1")),
        ["1 perturbations are too few to split 75% to 25%", "at least 4"],
        [],
    ),
    "not whole numbers": (changed(put(2.5)), ["1 values are not whole numbers in cells"], []),
    "negative": (changed(put(-3)), ["1 values are negative"], []),
    "NaN": (changed(put(np.nan)), ["1 values are NaN or infinite"], []),
    "infinite": (changed(put(np.inf)), ["1 values are NaN or infinite"], []),
    "larger than any count": (changed(put(1e12)), ["a value of 1,000,000,000,000"], []),
    "log-transformed": (changed(np.log1p), ["not whole numbers", "log-transformed"], []),
    "normalised": (changed(lambda counts: counts * 777.7), ["normalised or corrected"], []),
    "duplicated genes": (duplicated, ["1 gene names in the index of var are duplicated (twice)"], []),
    "too few UMIs": (
        changed(lambda counts: counts),
        ["no control cell has 99,999 UMIs"],
        ["--min-cell-umis", "99999"],
    ),
    "too few cells": (
        changed(lambda counts: counts),
        ["no perturbation can be tested", "fewer than 999"],
        ["--min-cells", "999"],
    ),
    "wrong options": (
        changed(lambda counts: counts),
        ["2 problems", "--fdr: ", "--negatives: "],
        ["--fdr", "7", "--negatives", "none"],
    ),
    "no Dask scheduler": (
        changed(lambda counts: counts),
        ["--dask: no Dask scheduler answers at tcp://127.0.0.1:9"],
        ["--dask", "tcp://127.0.0.1:9"],
    ),
    "neither an address nor a preset": (
        changed(lambda counts: counts),
        ["--dask: 'nonsense' is no address", "presets: "],
        ["--dask", "nonsense"],
    ),
}


@pytest.fixture(autouse=True)
def no_report(request, monkeypatch):
    """Most of a small run's time is the drawing of its report; only the full disk is to meet it."""
    if "undisturbed" not in request.fixturenames:
        monkeypatch.setattr(flows.commands.label, "label_report", lambda path, _: write_json(path, {}))


def message_of(err: str, command: str = "label") -> str:
    """The one message on standard error, progress left out; fails where there is anything else."""
    assert "Traceback" not in err
    assert len(re.findall(rf"^pqa {command}: ", err, re.MULTILINE)) == 1
    before, _, message = err.partition(f"pqa {command}: ")
    for line in before.splitlines():
        assert re.match(r"(reading|testing|summing): [\d,]+ of [\d,]+ ", line), line
    return message


def tables_of(folder):
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return {path.name: file_digest(path) for path in files}


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_that_cannot_be_used_is_one_message_and_no_table(tmp_path, capfd, name):
    make, said, more = SCREENS[name]
    path, out = tmp_path / "screen.h5ad", tmp_path / "out"
    make(path)
    assert main(["label", str(path), "--out", str(out), *more]) == 1
    printed = capfd.readouterr()
    message = message_of(printed.err)
    for part in said:
        assert part in message
    assert printed.out == ""
    assert not out.exists() or tables_of(out) == {}
    assert [path.name for path in out.rglob("screen.zarr")] == [] or name in {
        "one perturbation only",
        "too few UMIs",
        "too few cells",
    }


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_everything_wrong_is_in_one_message(tmp_path, capfd):
    counts, names = arrays()
    counts[0, 0], counts[1, 0], counts[2, 1] = np.nan, -2, 0.5
    path = tmp_path / "screen.h5ad"
    write_screen(
        path, counts, np.where(names == CONTROL, "", names), genes=["a"] * 3 + gene_names(N_GENES)[3:]
    )
    arguments = ["label", str(path), "--out", str(tmp_path / "out"), "--guide-key", "guide"]
    assert main(arguments) == 1
    message = message_of(capfd.readouterr().err)
    assert "7 problems" in message
    for said in (
        "no column 'guide'",
        "duplicated (a)",
        "no control cells",
        "empty perturbation name",
        "NaN",
        "negative",
        "whole numbers",
    ):
        assert said in message


def test_what_an_earlier_run_wrote_is_left_as_it_was(tmp_path, capfd):
    good, bad, out = tmp_path / "good.h5ad", tmp_path / "bad.h5ad", tmp_path / "out"
    changed(lambda counts: counts)(good)
    changed(put(0.5))(bad)
    assert main(["label", str(good), "--out", str(out), "--detectable", "0"]) == 0
    before = tables_of(out)
    assert len(before) > 5
    for arguments in ([str(bad)], [str(good), "--min-cells", "999"], [str(good), "--control", "ctrl"]):
        assert main(["label", *arguments, "--out", str(out)]) == 1
        assert tables_of(out) == before
    table = tmp_path / "tests.parquet"
    table.write_text("earlier")
    assert main(["test-expression", str(bad), "--out", str(table)]) == 1
    assert table.read_text() == "earlier"
    assert "Traceback" not in capfd.readouterr().err


def test_a_process_of_its_own_ends_with_exit_code_1_and_one_line(tmp_path):
    path = tmp_path / "screen.h5ad"
    path.write_text("hello")
    command = [sys.executable, "-m", "flows", "label", str(path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert message_of(done.stderr).count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["label"], ["label", "x.h5ad"], ["labels"], ["label", "--nonsense"]]
)
def test_a_command_line_that_says_too_little_is_shown_how_to_go_on(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: pqa" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["label", "test-expression", "score", "predict", "simulate", "benchmark", "data"]
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "usage: pqa" in capsys.readouterr().out


def test_a_read_only_place_is_one_message(tmp_path, read_only_folder, capfd):
    path = tmp_path / "screen.h5ad"
    changed(lambda counts: counts)(path)
    for command, out in (("label", read_only_folder), ("label", read_only_folder / "new")):
        assert main([command, str(path), "--out", str(out)]) == 1
        assert "the disk is read-only; choose another folder" in message_of(capfd.readouterr().err, command)
    assert main(["test-expression", str(path), "--out", str(read_only_folder / "t.parquet")]) == 1
    assert "read-only" in message_of(capfd.readouterr().err, "test-expression")
    sizes = ["--cells", "50", "--genes", "10", "--perturbations", "4"]
    assert main(["simulate", str(read_only_folder / "x.h5ad"), *sizes]) == 1
    assert "read-only" in capfd.readouterr().err
    assert tables_of(read_only_folder).keys() == {"there before.txt"}


@pytest.mark.parametrize("place", ["file", "file/out"])
def test_a_place_under_a_file_is_one_message(tmp_path, capfd, place):
    path = tmp_path / "screen.h5ad"
    changed(lambda counts: counts)(path)
    (tmp_path / "file").write_text("untouched")
    assert main(["label", str(path), "--out", str(tmp_path / place)]) == 1
    assert "a part of this path is a file; choose another folder" in message_of(capfd.readouterr().err)
    assert (tmp_path / "file").read_text() == "untouched"


def test_a_table_that_would_replace_a_folder_is_one_message(tmp_path, capfd):
    path, out = tmp_path / "screen.h5ad", tmp_path / "out"
    changed(lambda counts: counts)(path)
    out.mkdir()
    assert main(["test-expression", str(path), "--out", str(out)]) == 1
    assert "a folder of this name is there" in message_of(capfd.readouterr().err, "test-expression")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A screen, and the folder that `pqa label` wrote with room enough."""
    folder = tmp_path_factory.mktemp("undisturbed")
    counts = random_counts(2_000, 200, seed=1, density=1.0)
    path = write_screen(folder / "screen.h5ad", sparse.csr_matrix(counts), random_names(2_000, 12))
    assert main(["label", str(path), "--out", str(folder / "out")]) == 0
    return path, folder / "out"


@pytest.mark.parametrize("share", [0.1, 0.6, 0.9])
def test_a_full_disk_is_one_message_and_room_lets_the_run_finish(undisturbed, tiny_disk, capfd, share):
    path, apart = undisturbed
    files = {f.stat().st_ino: -(-f.stat().st_size // 4096) * 4 for f in apart.rglob("*") if f.is_file()}
    disk = tiny_disk(4 * sum(files.values()))
    filler = disk / "filler"
    filler.write_bytes(b"x" * 1024 * int((4 - share) * sum(files.values())))
    capfd.readouterr()
    arguments = ["label", str(path), "--out", str(disk / "out")]
    assert main(arguments) == 1
    assert "the disk is full; free some space and run the same command again" in message_of(
        capfd.readouterr().err
    )
    filler.unlink()
    assert main(arguments) == 0
    tables = {"report.html": ""}
    assert tables_of(disk / "out") | tables == tables_of(apart) | tables


LABELS = pd.DataFrame(
    {
        "pert": list("AABBCCDD"),
        "gene": list("xyxyxyxy"),
        "label": [1, 0, 0, 1, 1, 0, 0, 1],
        "split": ["train"] * 4 + ["test"] * 4,
    }
)
SCORES = LABELS[["pert", "gene"]].assign(score=np.arange(8) / 8)
#: What is wrong -> labels, predictions, what the message must say.
TABLES = {
    "missing column": (LABELS.drop(columns="split"), SCORES, ["columns split are missing"]),
    "other labels": (LABELS.assign(label=[1, 0, 2, 1] * 2), SCORES, ["labels must be 0, 1 or missing"]),
    "test labels missing": (
        LABELS.assign(label=[1.0, 0, 0, 1] + [np.nan] * 4),
        SCORES,
        ["label"],
    ),
    "no test rows": (LABELS.assign(split="train"), SCORES, ["test"]),
    "no scores": (LABELS, SCORES.drop(columns="score"), ["columns score are missing"]),
    "NaN score": (LABELS, SCORES.assign(score=np.nan), ["8 scores are missing"]),
    "pairs without a score": (LABELS, SCORES.iloc[:6], ["2"]),
    "several": (
        LABELS.assign(label=[7] * 8, gene=list("xxxyxyxy"), split=["a"] * 8),
        SCORES,
        ["3 problems", "others: 7", "more than once", "split must be"],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_cannot_be_scored_are_one_message_and_no_file(tmp_path, capfd, name):
    labels, predictions, said = TABLES[name]
    labels.to_parquet(tmp_path / "labels.parquet")
    predictions.to_csv(tmp_path / "scores.csv", index=False)
    result = tmp_path / "result.json"
    result.write_text("earlier")
    arguments = ["--labels", str(tmp_path / "labels.parquet"), "--predictions", str(tmp_path / "scores.csv")]
    assert main(["score", *arguments, "--json", str(result)]) == 1
    printed = capfd.readouterr()
    message = message_of(printed.err, "score")
    for part in said:
        assert part in message
    assert printed.out == ""
    assert result.read_text() == "earlier"


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (["--cells", "0"], ["cells must be at least 1"]),
        (["--genes", "5", "--perturbations", "6"], ["perturbations must be 1 to the number of genes"]),
        (["--seed", "-1", "--batches", "0"], ["2 problems", "seed", "batches"]),
        (["--controls", "999999999"], ["control cells must be"]),
        (["--mean-umis", "-5"], ["mean UMIs must be above 0"]),
        (["--batch-imbalance", "3"], ["imbalance"]),
    ],
)
def test_a_screen_that_cannot_be_simulated_is_one_message(tmp_path, capfd, sizes, said):
    assert main(["simulate", str(tmp_path / "x.h5ad"), *sizes]) == 1
    message = capfd.readouterr().err
    assert "Traceback" not in message
    for part in said:
        assert part in message
    assert list(tmp_path.iterdir()) == []
