"""The comparison of predictors: what its report depends on."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

import flows.compare_stages
import flows.reporting
from flows.compare_stages import compare_stage, leaderboards_of
from flows.label_sets import WITHIN, LabelSet
from flows.options import KnowledgeOptions, PredictorOptions
from flows.records import Place
from flows.reporting import draw_comparison
from storage.manifest import Stage, run_stage
from storage.tables import read_labels, write_table
from tests.flows.screen_records import labelled, simulated


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("screen"))


@pytest.fixture(scope="module")
def records(screen):
    return labelled(screen, screen.parent / "out")


@pytest.fixture
def compare(screen, tmp_path, monkeypatch):
    """Run the comparison of one made-up predictor; pages are the titles of sections and tables."""

    def titles(path, report):
        shown = [title for s in report.sections for title in (s.title, *(table[0] for table in s.tables))]
        path.write_text("\n".join(shown))

    monkeypatch.setattr(flows.compare_stages, "write_report", titles)

    def run(labels, records, **knowledge):
        place = Place(tmp_path / "w")

        def predict(folder):
            for task, path in labels.tables.items():
                pairs = read_labels(path).query("split == 'test'").reset_index(drop=True)
                score = (pairs.index % 7).astype(float)
                write_table(folder / f"{task}.parquet", pairs[["pert", "gene"]].assign(score=score))

        made = run_stage(place.workspace, Stage("predictions", "p", labels.digests, {}), predict)
        options = KnowledgeOptions(knowledge=str(screen.with_suffix(".knowledge")), **knowledge)
        return compare_stage(
            place,
            labels,
            {WITHIN: {"p": (made,)}},
            ("de",),
            (screen.with_suffix(".knowledge"), options),
            PredictorOptions(draws=20),
            records,
            (),
        )

    return run


def test_gene_sets_added_to_the_same_job_are_in_a_new_report(screen, records, compare):
    labels = LabelSet.of_stem(str(records.labels.folder))
    first = compare(labels, records)
    assert compare(labels, records).status == "skipped"
    genes = sorted(read_labels(labels.tables["de"])["gene"].unique())
    sets = screen.parent / "sets.json"
    sets.write_text(json.dumps({"first ten": genes[:10], "next ten": genes[10:20]}))
    more = labelled(screen, screen.parent / "out", "--gene-sets", str(sets))
    assert more.labels.content == records.labels.content
    second = compare(labels, more)
    assert second.status == "done"
    pages = [(one.folder / "report.html").read_text().splitlines() for one in (first, second)]
    assert ["Gene sets" in page for page in pages] == [False, True]


def test_links_of_the_graph_that_are_left_out_are_another_comparison(records, compare):
    labels = LabelSet.of_stem(str(records.labels.folder))
    stages = [compare(labels, None, **more) for more in ({}, {"max_links": 100}, {"noncommercial": True})]
    assert len({stage.digest for stage in stages}) == 3


def test_tables_made_here_are_not_held_against_published_figures_whatever_they_are_called(
    records, compare, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(flows.reporting, "write_png", lambda figure, path: path)
    monkeypatch.setattr(flows.reporting, "leaderboard_figure", lambda _, published: drawn.append(published))
    for folder in ("made", "published"):
        (tmp_path / folder / "k562").mkdir(parents=True)
        for task in ("de", "dir"):
            table = records.labels.folder / f"{task}.parquet"
            target = tmp_path / folder / "k562" / table.name
            if folder == "made":
                shutil.copy(table, target)
            else:
                pd.read_parquet(table).to_parquet(target)
        labels = LabelSet.of_stem(str(target.parent))
        assert labels.name == "k562"
        comparison = compare(labels, None)
        shown = (comparison.folder / "report.html").read_text().splitlines()
        assert ("Against published figures" in shown) == (folder == "published")
        draw_comparison(tmp_path, labels, comparison, leaderboards_of(comparison), None)
    made, published = drawn
    assert made is None
    assert published["SUMMER"] == 0.62
