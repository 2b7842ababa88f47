"""`pqa enrich` against a scripted server: names, and clusters that got none."""

from __future__ import annotations

import json

import pandas as pd

from flows.__main__ import main
from tests.flows.test_answer_command import tables  # noqa: F401
from tests.language_models import ScriptedServer


def test_clusters_whose_answer_holds_no_name_are_counted(tables, tmp_path, capsys):  # noqa: F811
    clusters = tmp_path / "clusters.json"
    clusters.write_text(json.dumps({"first genes": ["G00", "G01"], "last genes": ["G28", "G29"]}))

    def script(body, number):
        told = "genes: G00" in body["messages"][-1]["content"]
        return "## Name\nfirst genes" if told else "<think>Name: a thought that was not ended"

    with ScriptedServer(script) as server:
        command = ["enrich", "--pert-clusters", clusters, "--knowledge", tables / "knowledge"]
        command += ["--engine", "openai", "--model", "tiny", "--base-url", server.url]
        assert main([*map(str, command), "--out", str(tmp_path / "out"), "--json"]) == 0
    said = capsys.readouterr()
    figures = json.loads(said.out)["means"]["clusters: summer"]
    assert figures == {"clusters": 2, "labelled": 2, "without_a_name": 1, "rouge1_recall": 0.5}
    assert "clusters.json: summer gives 1 of 2 clusters no name" in said.err
    table = pd.read_parquet(tmp_path / "out" / "clusters-names.parquet")
    assert table.loc[table["method"] == "summer", "name"].tolist() == ["first genes", ""]
