"""Cutting scored pairs by what makes them easy or hard."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.symbols import SymbolIndex
from tasks.report.error_analysis import PairTraits, auroc_by_trait, error_section
from tasks.report.page import Report, report_html
from tasks.scoring.metrics import auroc_per_gene


def graph(n: int = 12) -> KnowledgeGraph:
    """Genes G00 to G11 in a chain; two terms, one for each half of it."""
    names = [f"G{at:02d}" for at in range(n)]
    chain = sparse.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[-1, 1], dtype=np.float32)
    halves = sparse.csr_array((np.ones(n, np.float32), (np.arange(n), np.arange(n) * 2 // n)), shape=(n, 2))
    terms, relations = np.array(["first", "second"]), np.array(["go", "go"])
    return KnowledgeGraph(SymbolIndex.build(names, {}), sparse.csr_array(chain), halves, terms, relations)


@pytest.fixture
def labels() -> pd.DataFrame:
    rows = [(f"G{at:02d}", "train" if at < 3 else "test") for at in range(12)]
    rows.append(("UNKNOWN", "test"))
    genes = [f"M{at}" for at in range(6)]
    return pd.DataFrame(
        [(pert, gene, split) for pert, split in rows for gene in genes], columns=["pert", "gene", "split"]
    )


@pytest.fixture
def scored() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    pairs = [(f"P{p}", f"M{g}") for p in range(40) for g in range(20)]
    frame = pd.DataFrame(pairs, columns=["pert", "gene"])
    frame["label"] = rng.integers(0, 2, len(frame))
    near = frame["pert"].str[1:].astype(int) < 10
    # Perturbations near to training are known perfectly, the others are guessed.
    frame["score"] = np.where(near, frame["label"], rng.random(len(frame)))
    return frame


def traits(scored: pd.DataFrame) -> PairTraits:
    perts, genes = pd.unique(scored["pert"]), pd.unique(scored["gene"])
    distance = pd.Series([int(name[1:]) / 40 for name in perts], index=perts)
    return PairTraits(pd.Series(np.arange(len(genes)), index=genes), pd.Series(3, index=perts), distance)


def test_traits_come_from_the_graph_and_the_training_split(labels):
    made = PairTraits.of(labels, graph())
    assert made.pert_degree["G11"] == 1
    assert made.pert_degree["G05"] == 2
    assert made.pert_degree["UNKNOWN"] == 0
    assert set(made.gene_degree.index) == {f"M{at}" for at in range(6)}
    assert (made.gene_degree == 0).all()
    assert made.distance["UNKNOWN"] == 1
    assert made.distance["G03"] < made.distance["G10"] <= 1
    assert "G00" not in made.distance


def test_near_perturbations_show_as_easy(scored):
    table = auroc_by_trait(scored, traits(scored))
    distance = table[table["trait"] == "distance"]
    assert len(distance) == 4
    assert distance["auroc"].iloc[0] == 1
    assert distance["auroc"].iloc[1:].max() < 0.7
    nearest = scored[scored["pert"].str[1:].astype(int) < 10]
    assert distance["n_genes"].iloc[0] == auroc_per_gene(nearest)["auroc"].notna().sum()


def test_parts_of_a_gene_trait_average_to_the_score(scored):
    table = auroc_by_trait(scored, traits(scored)).query("trait == 'gene_degree'")
    whole = auroc_per_gene(scored)["auroc"].mean()
    assert np.average(table["auroc"], weights=table["n_genes"]) == pytest.approx(whole)


def test_equal_values_are_one_part(scored):
    table = auroc_by_trait(scored, traits(scored)).query("trait == 'pert_degree'")
    assert len(table) == 1
    assert table["auroc"].iloc[0] == pytest.approx(auroc_per_gene(scored)["auroc"].mean())


def test_the_section_has_a_figure_and_a_row_for_every_part(scored):
    other = scored.assign(score=-scored["score"])
    section = error_section("de", {"good": scored, "bad": other}, traits(scored), name="Within the line")
    assert section.title == "Within the line, DE or not"
    table = section.tables[0][1]
    assert len(table) == len(auroc_by_trait(scored, traits(scored)))
    assert (table["good"] + table["bad"]).tolist() == pytest.approx([1] * len(table))
    page = report_html(Report("errors", sections=[section]))
    assert "Distance from the nearest training perturbation" in page
