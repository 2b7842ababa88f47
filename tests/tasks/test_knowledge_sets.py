"""Gene sets as nodes: the mean over their members, without a change to anything between genes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from storage.errors import InputError
from tasks.knowledge import KnowledgeGraph, SymbolIndex
from tasks.predictors import PREDICTORS, Context, make_predictor
from tasks.predictors.kernels.similarity import GeneSimilarity

N, N_TERMS = 40, 30
GENES = [f"g{i:02d}" for i in range(N)]
#: Names that come before, between and after the genes'.
SETS = {
    "z set": ["g01", "g02", "g03", "g04", "nowhere", "g04"],
    "a set": ["g05", "old00"],
    "g01 and 2": ["g01", "g02"],
    "one": ["g07"],
}
MEMBERS = {"z set": [1, 2, 3, 4], "a set": [5, 0], "g01 and 2": [1, 2], "one": [7]}


@pytest.fixture(scope="module")
def graph():
    rng = np.random.default_rng(0)
    upper = np.triu((rng.random((N, N)) < 0.2) * rng.integers(1, 4, (N, N)), 1)
    links = sparse.csr_array((upper + upper.T).astype(np.float32))
    alone = sparse.csr_array((links > 1).astype(np.float32))
    terms = sparse.csr_array((rng.random((N, N_TERMS)) < 0.15).astype(np.float32))
    return KnowledgeGraph(
        symbols=SymbolIndex.build(GENES, {"old00": "g00"}),
        adjacency=links,
        incidence=terms,
        terms=np.array([f"t{i}" for i in range(N_TERMS)]),
        term_relations=np.array(["in"] * N_TERMS),
        partners={"string": alone},
    )


@pytest.fixture(scope="module")
def with_sets(graph):
    return graph.with_sets(SETS)


def mean_rows(matrix):
    return {name: np.asarray(matrix)[at].mean(axis=0) for name, at in MEMBERS.items()}


def test_rows_and_columns_are_means_over_members(graph, with_sets):
    assert with_sets.genes.tolist() == sorted([*GENES, *SETS])
    genes, sets = with_sets.resolve(GENES), with_sets.resolve(list(SETS))
    dense = with_sets.adjacency.toarray()
    np.testing.assert_array_equal(dense[np.ix_(genes, genes)], graph.adjacency.toarray())
    linked = (graph.adjacency.toarray() > 0).astype(float)
    for name, mean in mean_rows(linked).items():
        np.testing.assert_allclose(dense[with_sets.resolve([name])[0], genes], mean, rtol=1e-6)
        for other, at in MEMBERS.items():
            expected = 0 if other == name else mean[at].mean()
            found = dense[with_sets.resolve([name])[0], with_sets.resolve([other])[0]]
            assert found == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(dense, dense.T)
    assert dense[sets].max() <= 1
    assert not dense.diagonal().any()
    terms = with_sets.incidence.toarray()
    np.testing.assert_array_equal(terms[genes], graph.incidence.toarray())
    for name, mean in mean_rows(graph.incidence.toarray()).items():
        np.testing.assert_allclose(terms[with_sets.resolve([name])[0]], mean, rtol=1e-6)
    partners = with_sets.partners["string"].toarray()
    np.testing.assert_array_equal(partners[np.ix_(genes, genes)], graph.partners["string"].toarray())
    for name, mean in mean_rows(graph.partners["string"].toarray()).items():
        np.testing.assert_allclose(partners[with_sets.resolve([name])[0], genes], mean, rtol=1e-6)
    assert not partners[:, sets].any()


def test_members_are_known_genes_once_and_other_names_still_lead_to_them(graph, with_sets):
    assert with_sets.members == {
        "z set": ("g01", "g02", "g03", "g04"),
        "a set": ("g00", "g05"),
        "g01 and 2": ("g01", "g02"),
        "one": ("g07",),
    }
    assert with_sets.genes[with_sets.resolve(["old00"])].tolist() == ["g00"]
    assert with_sets.is_set.sum() == len(SETS)
    assert graph.members == {}
    assert not graph.is_set.any()


def test_sets_can_be_added_one_after_the_other_but_not_of_sets(graph, with_sets):
    first = graph.with_sets({name: SETS[name] for name in ("z set", "one")})
    second = first.with_sets({name: [*SETS[name], "z set"] for name in ("a set", "g01 and 2")})
    assert dict(sorted(second.members.items())) == dict(sorted(with_sets.members.items()))
    np.testing.assert_allclose(second.adjacency.toarray(), with_sets.adjacency.toarray(), rtol=1e-6)
    np.testing.assert_array_equal(second.incidence.toarray(), with_sets.incidence.toarray())


def test_sets_that_cannot_be_are_listed_together(graph):
    bad = {"g03": ["g01"], "old00": ["g01"], "empty": [], "unknown": ["x", "y"], "fine": ["g01"]}
    with pytest.raises(InputError) as caught:
        graph.with_sets(bad)
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "set 'empty': none of its 0 members is in the graph",
        "set 'g03' has the name of a gene (or none)",
        "set 'old00' has the name of a gene (or none)",
        "set 'unknown': none of its 2 members is in the graph",
    ]
    with pytest.raises(InputError, match="no sets"):
        graph.with_sets({})


@pytest.mark.parametrize("kind", ["cosine", "shared"])
def test_similarity_between_genes_does_not_change(graph, with_sets, kind):
    before = GeneSimilarity.build(graph, kind=kind, n_factors=6)
    after = GeneSimilarity.build(with_sets, kind=kind, n_factors=6)
    names = np.array(GENES)
    np.testing.assert_array_equal(after.between(names, names), before.between(names, names))


def test_similarity_of_a_set_is_that_of_the_mean_of_its_members_features(graph, with_sets):
    similarity = GeneSimilarity.build(with_sets, n_factors=N)
    linked = (graph.adjacency.toarray() > 0).astype(float)
    features = np.hstack([graph.incidence.toarray(), linked + np.eye(N)])
    sizes = (features > 0).sum(axis=0)
    features = (features * np.log(N / np.maximum(sizes, 1)))[:, sizes >= 2]
    mean = features[MEMBERS["z set"]].mean(axis=0)
    expected = features @ mean / np.linalg.norm(features, axis=1) / np.linalg.norm(mean)
    found = similarity.links[with_sets.resolve(GENES)] @ similarity.links[with_sets.resolve(["z set"])].T
    np.testing.assert_allclose(found.toarray().ravel(), expected, rtol=1e-4)
    # With as many factors as genes the singular vectors lose nothing but one direction.
    near = similarity.between(np.array(["z set"]), np.array(GENES))[0]
    assert set(np.argsort(-near)[:4]) == set(MEMBERS["z set"])
    # A set of one gene is that gene.
    one = similarity.between(np.array(["one"]), np.array(GENES))[0]
    same = similarity.between(np.array(["g07"]), np.array(GENES))[0]
    np.testing.assert_allclose(one, same, atol=2e-3)


def test_shared_neighbours_of_a_set_are_the_mean_over_its_members(graph, with_sets):
    before = GeneSimilarity.build(graph, kind="shared")
    after = GeneSimilarity.build(with_sets, kind="shared")
    counts = before.between(np.array(GENES), np.array(GENES))
    for name, at in MEMBERS.items():
        found = after.between(np.array([name]), np.array(GENES))[0]
        np.testing.assert_allclose(found, counts[at].mean(axis=0), rtol=1e-5)


@pytest.fixture(scope="module")
def set_rows():
    rng = np.random.default_rng(3)
    pairs = [(p, s) for p in GENES[8:30] for s in SETS]
    table = pd.DataFrame(pairs, columns=["pert", "gene"])
    return table.assign(label=rng.integers(2, size=len(table)), source="own")


def test_physical_scores_the_share_of_members(graph, with_sets, set_rows):
    predictor = make_predictor("physical").fit({"de": set_rows}, Context(with_sets, seed=0, threads=1))
    pairs = pd.DataFrame([(p, s) for p in GENES for s in SETS] + [("g01", "g02")], columns=["pert", "gene"])
    found = predictor.predict("de", pairs)
    linked = (graph.adjacency.toarray() > 0).astype(float)
    expected = [linked[GENES.index(p)][MEMBERS[s]].mean() for p in GENES for s in SETS] + [linked[1, 2]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    again = PREDICTORS["physical"].from_state(predictor.state())
    np.testing.assert_array_equal(again.predict("de", pairs), found)


def test_physical_keeps_plain_links_for_graphs_without_sets(graph, set_rows):
    predictor = make_predictor("physical").fit({"de": set_rows}, Context(graph, seed=0, threads=1))
    assert predictor.state()["links_data"].dtype == bool


@pytest.mark.parametrize("form", ["weighted", "sampled"])
def test_retrieval_learns_from_near_sets(with_sets, graph, set_rows, form):
    pairs = pd.DataFrame([(p, s) for p in GENES[30:] for s in SETS], columns=["pert", "gene"])
    scores = []
    for knowledge in (graph, with_sets):
        context = Context(knowledge, seed=0, threads=1)
        predictor = make_predictor("retrieval", form=form, n_factors=8).fit({"de": set_rows}, context)
        scores.append(predictor.predict("de", pairs))
    assert np.isfinite(scores).all()
    assert not np.array_equal(*scores)


def test_genes_with_nothing_in_common_are_told_in_a_sentence():
    symbols = SymbolIndex.build(["A", "B", "C"], {})
    with pytest.raises(
        InputError, match=r"no term or partner is that of 2 to 1,500 genes.*raise --max-links"
    ):
        GeneSimilarity.from_features(symbols, sparse.eye_array(3, format="csr"), n_factors=2)
