"""`pqa knowledge` on the command line, and the other commands on what it makes."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from flows.__main__ import main
from tests.knowledge_files import FILES, write_symbols


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    for name, lines in FILES.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    write_symbols(folder)
    return folder


def test_a_table_of_sources(sources, tmp_path, capsys):
    assert main(["knowledge", str(sources), "--out", str(tmp_path / "store"), "--max-links", "0"]) == 0
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in shown.splitlines()}
    assert lines["9606.protein.links.v12.0.txt"][1:5] == ["1", "2", "0", "1"]
    assert lines["goa_human.gaf"][-3:] == ["CC", "BY", "4.0"]
    assert "left out: allComplexes.txt (CC BY-NC 4.0; --noncommercial reads it)" in shown
    assert "2 genes, 1 links between them and 5 to 4 terms" in shown
    assert "read with --max-links 0, links of 2 hubs and 4 terms are left out" in shown


def test_json_and_options(sources, tmp_path, capsys):
    words = ["knowledge", str(sources), "--out", str(tmp_path / "store"), "--json"]
    assert main([*words, "--noncommercial", "--min-string-score", "600"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["graph"]["genes"] == 3
    assert result["options"] == {"min_string_score": 600, "noncommercial": True}
    assert {entry["database"] for entry in result["sources"]} == {
        "biogrid",
        "bioplex",
        "corum",
        "go",
        "reactome",
        "string",
    }


def test_bad_input_is_one_message(tmp_path, capsys):
    (tmp_path / "x.gaf").write_text("")
    words = ["knowledge", str(tmp_path / "x.gaf"), str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "x.gaf: the file is empty" in captured.err
    assert "nothing: no such file or folder" in captured.err
    assert not (tmp_path / "out").exists()


def test_predictions_from_a_store_are_those_from_the_tables(tmp_path, capsys):
    tables = tmp_path / "tables"
    tables.mkdir()
    genes = [f"G{i}" for i in range(12)]
    ring = [(a, b, "r") for a, b in zip(genes, genes[1:] + genes[:1], strict=True)]
    pd.DataFrame(ring, columns=["source_gene", "target_gene", "relation"]).to_parquet(
        tables / "edges_ring.parquet"
    )
    rows = [
        (p, g, (i + j) % 2, "train" if i < 8 else "test")
        for i, p in enumerate(genes)
        for j, g in enumerate(genes[:5])
        if p != g
    ]
    labels = pd.DataFrame(rows, columns=["pert", "gene", "label", "split"])
    labels.to_parquet(tmp_path / "toy-de.parquet")
    labels[labels["split"] == "test"].to_parquet(tmp_path / "pairs.parquet")
    assert main(["knowledge", str(tables), "--out", str(tmp_path / "store")]) == 0
    scores = []
    for folder in ("tables", "store"):
        out = tmp_path / f"{folder}.parquet"
        words = ["predict", "--labels", tmp_path / "toy-de.parquet", "--pairs", tmp_path / "pairs.parquet"]
        words += ["--knowledge", tmp_path / folder, "--predictor", "physical", "--out", out, "--json"]
        assert main([str(word) for word in words]) == 0
        scores.append(pd.read_parquet(out))
    pd.testing.assert_frame_equal(*scores)
    capsys.readouterr()
