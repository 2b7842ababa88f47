"""Names of what lies in a data folder, in the workspace and in the inbox."""

from __future__ import annotations

import pandas as pd

from deployments.catalog import read_catalog
from flows.label_sets import LabelSet
from storage.manifest import Stage, run_stage


def test_everything_is_found_under_a_name_that_leads_back_to_it(tmp_path):
    data, workspace, inbox = tmp_path / "data", tmp_path / "w", tmp_path / "w" / "inbox"
    far = tmp_path / "elsewhere"
    for folder in (data / "labels", data / ".hidden", inbox, far):
        folder.mkdir(parents=True)
    (far / "linked.h5ad").touch()
    (data / "link").symlink_to(far)
    (data / ".hidden" / "not.h5ad").touch()
    (data / "one.h5ad").touch()
    (data / "labels" / "k562-de.parquet").touch()
    (data / "labels" / "k562-dir.parquet").touch()
    (data / "edges_string.parquet").touch()
    (data / "sets.json").touch()
    (inbox / "new.h5ad").touch()
    found = read_catalog(data, workspace, str(inbox))
    assert list(found.screens) == ["embedded", "one", "link/linked", "inbox/new"]
    assert found.path_of("screens", "one") == str(data / "one.h5ad")
    assert found.data_sets == {"labels/k562": str(data / "labels" / "k562")}
    assert found.knowledge == {"data": str(data)}
    assert list(found.gene_lists) == ["sets.json"]


def test_tables_made_here_are_offered_when_they_are_whole(tmp_path):
    def work(folder):
        rows = [("A", "X", 1, "train"), ("B", "X", 0, "test")]
        table = pd.DataFrame(rows, columns=["pert", "gene", "label", "split"])
        table.to_parquet(folder / "de.parquet")
        # Nothing has a direction: a table that nobody can be asked about.
        table.head(0).to_parquet(folder / "dir.parquet")

    record = run_stage(tmp_path, Stage("labels", "mine", {}, {}), work)
    (tmp_path / "labels" / "half-0123456789ab").mkdir()
    (tmp_path / "data").mkdir()
    found = read_catalog(tmp_path / "data", tmp_path)
    assert list(found.data_sets) == [f"made/{record.folder.name}"]
    labels = LabelSet.of_stem(found.path_of("data_sets", f"made/{record.folder.name}"))
    assert (labels.name, list(labels.tables)) == ("mine", ["de"])


def test_a_bucket_is_not_looked_into_for_names(tmp_path):
    assert list(read_catalog(tmp_path, tmp_path, "s3://bucket/new").screens) == ["embedded"]
