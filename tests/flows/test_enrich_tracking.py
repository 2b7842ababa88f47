"""What naming clusters of genes tells MLflow."""

from __future__ import annotations

import pandas as pd

from flows.enrich_gene_sets import _track
from storage.tables import write_table
from storage.tracking import Tracker
from tests.flows.jobs import mlflow_runs


def test_names_that_come_out_otherwise_have_figures_of_their_own(tmp_path):
    tracker = Tracker(None, workspace=tmp_path, experiment="gene-set-enrichment")
    # Asked again with the same options: at first an answer was missing, then it came, then nothing changed.
    for named in (0.5, 1.0, 1.0):
        names = pd.DataFrame({"cluster": [1, 2], "name": ["ring", "" if named < 1 else "other ring"]})
        write_table(tmp_path / "clusters-names.parquet", names)
        _track(tracker, "the same options", tmp_path, {"clusters: summer": {"named": named}})
    runs = [run for run in mlflow_runs(tmp_path) if run.info.run_name == "clusters: summer"]
    newest, earlier = sorted(runs, key=lambda run: -run.info.start_time)
    assert (newest.data.metrics["named"], earlier.data.metrics["named"]) == (1.0, 0.5)
