"""Every predictor keeps the protocol; each plain one equals an independent computation."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

from storage.errors import InputError
from tasks.knowledge import KnowledgeGraph, SymbolIndex, read_knowledge
from tasks.predictors import PREDICTORS, Context, Predictor, make_predictor
from tasks.predictors.kernels.observations import Observations
from tasks.predictors.kernels.sampled_retrieval import ObservedPairs, sampled_scores
from tasks.predictors.kernels.similarity import GeneSimilarity
from tasks.predictors.kernels.weighted_retrieval import Weights, weighted_scores
from tasks.predictors.protocol import checked_tables

OPTIONS = {
    "ensemble": {"members": "kernel,retrieval,retrieval"},
    "gat": {"hidden": 16, "max_epochs": 3, "min_epochs": 1},
    "kernel": {"n_factors": 8},
    "mlp": {"hidden": 16, "max_epochs": 3, "min_epochs": 1},
    "retrieval": {"n_factors": 8, "near_perts": 6, "near_genes": 4},
    "stack": {"n_factors": 8, "folds": 3, "models": 2, "rounds": 5},
}
# GenePT needs texts and GEARS observed: they are held to the same in tests of their own.
NAMES = sorted(set(PREDICTORS) - {"genept", "gears"})


def small_graph(n=40, seed=0):
    """Random links and terms among g00, g01, ...; old00 is another name of g00."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) < 0.15, 1)
    links = sparse.csr_array((upper | upper.T).astype(np.float32))
    members = sparse.csr_array((rng.random((n, 12)) < 0.2).astype(np.float32))
    return KnowledgeGraph(
        symbols=SymbolIndex.build([f"g{i:02d}" for i in range(n)], {"old00": "g00"}),
        adjacency=links,
        incidence=members,
        terms=np.array([f"t{i}" for i in range(12)]),
        term_relations=np.array(["in"] * 12),
    )


def small_tables(seed=1):
    """Rows of 20 perturbations x 15 genes, some of them of another line, one gene unknown to the graph."""
    rng = np.random.default_rng(seed)
    perts = [f"g{i:02d}" for i in range(20)]
    genes = [f"g{i:02d}" for i in range(15, 29)] + ["not in the graph"]
    pairs = [(p, g) for p in perts for g in genes if p != g]
    de = pd.DataFrame(pairs, columns=["pert", "gene"])
    de["label"] = rng.integers(2, size=len(de))
    de["source"] = np.where(rng.random(len(de)) < 0.8, "own", "other line")
    up = de[de["label"] == 1].copy()
    up["label"] = rng.integers(2, size=len(up))
    return {"de": de.reset_index(drop=True), "dir": up.reset_index(drop=True)}


PAIRS = pd.DataFrame(
    {
        "pert": ["g30", "g31", "old00", "never seen", "g02", "g33", "g34"],
        "gene": ["g16", "not in the graph", "g18", "g17", "nor this", "g35", "g20"],
    }
)


@pytest.fixture(scope="module")
def graph():
    return small_graph()


def fitted(name, tables, graph, **options):
    predictor = make_predictor(name, **{**OPTIONS.get(name, {}), **options})
    return predictor.fit(tables, Context(graph, seed=3, threads=1))


def saved(predictor):
    """The predictor after its state has gone to disk and back, pickle forbidden."""
    file = io.BytesIO()
    np.savez(file, **predictor.state())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return type(predictor).from_state({name: arrays[name] for name in arrays.files})


@pytest.mark.parametrize("name", NAMES)
def test_protocol_and_finite_scores(name, graph):
    predictor = fitted(name, small_tables(), graph)
    assert isinstance(predictor, Predictor)
    assert type(predictor).name == name
    assert type(predictor).title
    for task in ("de", "dir"):
        scores = predictor.predict(task, PAIRS)
        assert scores.dtype == np.float64
        assert scores.shape == (len(PAIRS),)
        assert np.isfinite(scores).all()
        assert predictor.predict(task, PAIRS.iloc[:0]).shape == (0,)
    for value in predictor.parameters().values():
        assert value is None or isinstance(value, str | int | float | bool)


def test_the_options_that_are_told_are_those_that_there_are():
    page = (Path(__file__).parents[2] / "docs" / "predictors.md").read_text()
    for name, kind in PREDICTORS.items():
        (line,) = re.findall(rf"^\| `{name}` \| (.*) \|$", page, re.M)
        options = {option: value for option, value in kind().parameters().items() if option != "device"}
        told = {option: str(value).lower() for option, value in options.items()}
        assert dict(re.findall(r"`(\w+)=([^`]*)`", line.lower())) == told


@pytest.mark.parametrize("name", NAMES)
def test_same_bytes_whatever_the_row_order(name, graph):
    tables = small_tables()
    shuffled = {task: table.sample(frac=1, random_state=5) for task, table in tables.items()}
    one, two = fitted(name, tables, graph), fitted(name, dict(reversed(shuffled.items())), graph)
    for task in tables:
        assert one.predict(task, PAIRS).tobytes() == two.predict(task, PAIRS).tobytes()
        # The order of the pairs asked about does not matter either.
        turned = two.predict(task, PAIRS.iloc[::-1])[::-1]
        np.testing.assert_allclose(one.predict(task, PAIRS), turned, rtol=1e-6)
    first, second = one.state(), two.state()
    assert sorted(first) == sorted(second)
    for key in first:
        assert np.asarray(first[key]).tobytes() == np.asarray(second[key]).tobytes(), key


@pytest.mark.parametrize("name", NAMES)
def test_state_round_trip(name, graph):
    predictor = fitted(name, small_tables(), graph)
    again = saved(predictor)
    assert again.parameters() == predictor.parameters()
    assert len(again.history) == len(predictor.history)
    for task in ("de", "dir"):
        assert again.predict(task, PAIRS).tobytes() == predictor.predict(task, PAIRS).tobytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ["de", "dir"])
def test_single_task(name, task, graph):
    predictor = fitted(name, {task: small_tables()[task]}, graph)
    assert np.isfinite(predictor.predict(task, PAIRS)).all()
    other = "dir" if task == "de" else "de"
    for asked in (predictor, saved(predictor)):
        with pytest.raises(InputError, match=f"'{other}' was not fitted; fitted are: {task}"):
            asked.predict(other, PAIRS)


@pytest.mark.parametrize("name", NAMES)
def test_only_the_training_rows_given_are_used(name, graph):
    """Fitting and predicting must work without labels beside the pairs, and ignore any that are there."""
    tables = small_tables()
    predictor = fitted(name, tables, graph)
    with_labels = PAIRS.assign(label=[0, 1, 0, 1, 0, 1, 0])
    turned = PAIRS.assign(label=[1, 0, 1, 0, 1, 0, 1])
    for task in tables:
        scores = [predictor.predict(task, pairs).tobytes() for pairs in (PAIRS, with_labels, turned)]
        assert len(set(scores)) == 1
    before = {task: table.copy() for task, table in small_tables().items()}
    for task, table in tables.items():
        pd.testing.assert_frame_equal(table, before[task])


@pytest.mark.parametrize("name", NAMES)
def test_bad_tables_are_refused_with_every_problem(name, graph):
    de = small_tables()["de"]
    bad = {"de": de.assign(label=2), "dir": de.drop(columns="source"), "up": de}
    with pytest.raises(InputError) as caught:
        fitted(name, bad, graph)
    assert len(caught.value.problems) == 3
    with pytest.raises(InputError, match="no table"):
        fitted(name, {}, graph)


def test_unknown_names_and_options():
    with pytest.raises(InputError, match="allowed are prior, physical, retrieval"):
        make_predictor("oracle")
    with pytest.raises(InputError, match="prior: no option 'depth'; allowed are strength"):
        make_predictor("prior", depth=3)
    with pytest.raises(InputError, match="physical: no option 'name'; there are none"):
        make_predictor("physical", name="x")
    for name in PREDICTORS:
        with pytest.raises(InputError, match="no option 'self'"):
            make_predictor(name, self=3)
    with pytest.raises(InputError) as caught:
        make_predictor("retrieval", form="guess", depth=3, budget=2.5, shrinkage=float("nan"))
    assert sorted(caught.value.problems) == [
        "budget must be a whole number; found 2.5",
        "form must be one of weighted, sampled; found 'guess'",
        f"no option 'depth'; allowed are {', '.join(PREDICTORS['retrieval']().parameters())}",
        "shrinkage must be finite; found nan",
    ]


@pytest.mark.parametrize(
    ("name", "option", "value", "told"),
    [
        ("prior", "strength", -1, "must be greater than 0; found -1"),
        ("prior", "strength", True, "must be a number; found True"),
        ("retrieval", "neighbours", "abc", "must be a whole number; found 'abc'"),
        ("retrieval", "near_perts", "abc", "must be a whole number; found 'abc'"),
        ("retrieval", "same_pert", -0.5, "must be 0 or greater; found -0.5"),
        ("kernel", "power", "abc", "must be a number; found 'abc'"),
        ("kernel", "n_factors", -3, "must be greater than 0; found -3"),
        ("kernel", "sources", "", "must not be empty; found ''"),
        ("stack", "folds", "x", "must be a whole number; found 'x'"),
        ("stack", "folds", 0, "must be greater than 1; found 0"),
        ("stack", "row_share", 1.5, "must be 1 or less; found 1.5"),
        ("ensemble", "members", 5, "must be text; found 5"),
        ("ensemble", "members", "kernel,", "no member ''"),
        ("mlp", "learning_rate", float("inf"), "must be finite; found inf"),
        ("gat", "edge_types", 1, "must be true or false; found 1"),
        ("gat", "max_links", -1, "must be 0 or greater; found -1"),
        ("genept", "product", "maybe", "must be true or false; found 'maybe'"),
        ("gears", "cells", 1, "must be greater than 1; found 1"),
        ("gears", "epochs", "many", "must be a whole number; found 'many'"),
    ],
)
def test_values_that_are_not_allowed_are_refused(name, option, value, told):
    with pytest.raises(InputError) as caught:
        make_predictor(name, **{option: value})
    (problem,) = caught.value.problems
    assert problem.startswith(option)
    assert told in problem


@pytest.mark.parametrize("name", sorted(PREDICTORS))
def test_every_option_is_described_and_unchangeable(name):
    options = make_predictor(name).options
    for field in type(options).model_fields.values():
        assert field.description
        assert field.description.endswith(".")
    with pytest.raises(ValueError, match=r"frozen|no field"):
        options.strength = 2


def test_prior_is_the_smoothed_rate(graph):
    table = small_tables()["de"]
    scores = fitted("prior", {"de": table}, graph, strength=4).predict("de", PAIRS)
    for gene, score in zip(PAIRS["gene"], scores, strict=True):
        rows = table[table["gene"] == gene]["label"]
        expected = (rows.sum() + 4 * table["label"].mean()) / (len(rows) + 4)
        assert score == pytest.approx(expected)


def test_physical_is_symmetric_and_reads_the_links(graph):
    names = graph.genes.tolist()
    pairs = pd.DataFrame([(a, b) for a in names for b in names], columns=["pert", "gene"])
    predictor = fitted("physical", small_tables(), graph)
    scores = predictor.predict("de", pairs)
    np.testing.assert_array_equal(scores.reshape(len(names), -1), graph.adjacency.toarray() > 0)
    swapped = predictor.predict("dir", pairs.rename(columns={"pert": "gene", "gene": "pert"}))
    np.testing.assert_array_equal(scores, swapped)


def test_cosine_similarity_equals_plain_tf_idf(graph):
    features = np.hstack([graph.incidence.toarray(), graph.adjacency.toarray() + np.eye(graph.n_genes)])
    size = features.sum(axis=0)
    features = (features * np.log(graph.n_genes / np.maximum(size, 1)))[:, size >= 2]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(unit)
    # With every factor kept, the factors' cosine is the vectors' own.
    similarity = GeneSimilarity.build(graph, n_factors=graph.n_genes - 1)
    names = graph.genes
    factors = (left * values)[:, : graph.n_genes - 1]
    factors /= np.linalg.norm(factors, axis=1, keepdims=True)
    expected = np.maximum((unit @ unit.T + factors @ factors.T) / 2, 0)
    np.testing.assert_allclose(similarity.between(names, names), expected, atol=1e-4)
    unknown = similarity.between(np.array(["g00", "what"]), np.array(["old00", "what"]))
    np.testing.assert_allclose(unknown, [[1, 0], [0, 1]], atol=1e-5)


def slow_weighted(pert, gene, table, similarity, weights, strength):
    """The weighted score of one pair, row by row."""

    def rate_of(rows, name):
        mine = rows[rows["gene"] == name]["label"]
        return (mine.sum() + strength * rows["label"].mean()) / (len(mine) + strength)

    def kernel(name, others, near, power, same):
        values = dict(zip(others, similarity.between(np.array([name]), np.array(others))[0], strict=True))
        cut = sorted(values.values())[-min(near, len(values))]
        return {o: v**power * (same if o == name else 1) if v >= cut else 0 for o, v in values.items()}

    perts, genes = sorted(table["pert"].unique()), sorted(table["gene"].unique())
    of_pert = kernel(pert, perts, weights.near_perts, weights.pert_power, weights.same_pert)
    of_gene = kernel(gene, genes, weights.near_genes, weights.gene_power, weights.same_gene)
    total = weight = response = response_weight = 0.0
    for (source, name), rows in table.groupby(["source", "pert"]):
        line_rows = table[table["source"] == source]
        factor = of_pert[name] * (1 if source == "own" else weights.other_line)
        differences = [row.label - rate_of(line_rows, row.gene) for row in rows.itertuples()]
        total += factor * sum(of_gene[g] * d for g, d in zip(rows["gene"], differences, strict=True))
        weight += factor * sum(of_gene[g] for g in rows["gene"])
        response += factor * sum(differences) / (len(rows) + weights.response_rows)
        response_weight += factor
    own = table[table["source"] == "own"]
    base = rate_of(own, gene) if gene in genes else own["label"].mean()
    offset = response / response_weight if response_weight else 0
    return base + total / (weight + weights.shrinkage) + weights.response * offset


def test_weighted_retrieval_equals_the_slow_form(graph):
    weights = Weights(near_perts=6, near_genes=4, same_pert=3, same_gene=2, other_line=0.5, shrinkage=0.7)
    table = checked_tables(small_tables())["de"]
    similarity = GeneSimilarity.build(graph, n_factors=8)
    observations = Observations.build(table, gene_strength=5)
    perts, genes = np.unique(PAIRS["pert"].to_numpy(str)), np.unique(PAIRS["gene"].to_numpy(str))
    fast = weighted_scores(perts, genes, observations, similarity, weights)
    slow = [[slow_weighted(p, g, table, similarity, weights, 5) for g in genes] for p in perts]
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-6)


def shared_neighbours(graph):
    pattern = np.hstack([graph.incidence.toarray(), graph.adjacency.toarray()]) > 0
    return pattern.astype(int) @ pattern.T.astype(int)


def test_sampled_retrieval_with_a_budget_for_all_is_the_mean_of_each_category(graph):
    """With room for every candidate the first two categories are exhaustive: the mean is exact."""
    table = checked_tables(small_tables())["de"]
    table = table[table["source"] == "own"]
    observed = ObservedPairs.build(Observations.build(table, gene_strength=1))
    similarity = GeneSimilarity.build(graph, kind="shared")
    shared, names = shared_neighbours(graph), graph.genes.tolist()
    outcome = {(r.pert, r.gene): r.label for r in table.itertuples()}

    def near(name, known):
        ranked = sorted((k for k in known if k in names and k != name), key=lambda k: (-count(name, k), k))
        return [k for k in ranked if count(name, k) > 0][:3]

    def count(a, b):
        return shared[names.index(a), names.index(b)]

    from tasks.predictors.kernels import sampled_retrieval

    for pert, gene in [("g30", "g16"), ("g05", "g20"), ("g31", "g28")]:
        near_perts = near(pert, sorted(table["pert"].unique()))
        near_genes = near(gene, sorted(table["gene"].unique()))
        wanted = [(pert, g) for g in near_genes] + [(p, gene) for p in near_perts]
        wanted += [(p, g) for p in near_perts for g in near_genes]
        found = [outcome[pair] for pair in wanted if pair in outcome]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampled_retrieval, "CATEGORIES", sampled_retrieval.CATEGORIES[:2])
            score = sampled_scores(
                np.array([pert]), np.array([gene]), observed, similarity, neighbours=3, budget=100, seed=0
            )
        assert score[0] == pytest.approx(np.mean(found))


def test_no_pairs_have_no_sampled_scores(graph):
    table = checked_tables(small_tables())["de"]
    observed = ObservedPairs.build(Observations.build(table, gene_strength=1))
    similarity, none = GeneSimilarity.build(graph, kind="shared"), np.array([], dtype=object)
    assert sampled_scores(none, none, observed, similarity, neighbours=3, budget=5, seed=0).shape == (0,)


def test_sampled_draws_come_from_the_right_cells(graph):
    """A pair's draws must not depend on the other pairs, and must reach all of a gene's observations."""
    table = checked_tables(small_tables())["de"]
    observed = ObservedPairs.build(Observations.build(table, gene_strength=1))
    similarity = GeneSimilarity.build(graph, kind="shared")
    perts, genes = np.repeat(["g30", "g31", "g32"], 14), np.tile([f"g{i}" for i in range(15, 29)], 3)
    options = {"neighbours": 3, "budget": 5, "seed": 7}
    together = sampled_scores(perts, genes, observed, similarity, **options)
    alone = [
        sampled_scores(perts[[i]], genes[[i]], observed, similarity, **options)[0] for i in range(len(perts))
    ]
    np.testing.assert_array_equal(together, alone)
    # A perturbation without neighbours and a gene seen once: its one observation, or near genes', is all.
    lone = table[(table["gene"] == "not in the graph") & (table["source"] == "own")]
    observed = ObservedPairs.build(Observations.build(lone, gene_strength=1))
    many = sampled_scores(
        np.array(["never seen"]),
        np.array(["not in the graph"]),
        observed,
        similarity,
        **{**options, "budget": 4000},
    )
    assert many[0] == pytest.approx(lone["label"].mean(), abs=0.05)


def gene_mean_auroc(pairs, scores):
    """AUROC of each gene with both classes, averaged over genes."""
    values = []
    frame = pairs.assign(score=scores)
    for _, rows in frame.groupby("gene"):
        if rows["label"].nunique() == 2:
            values.append(roc_auc_score(rows["label"].astype(int), rows["score"]))
    return np.mean(values)


@pytest.mark.shared_data
def test_retrieval_reaches_the_published_figures(shared_data):
    knowledge = read_knowledge(shared_data / "knowledge")
    tables, test = {}, {}
    for task in ("de", "dir"):
        labels = pd.read_parquet(shared_data / "labels" / f"k562-{task}.parquet")
        train = labels[labels["split"] == "train"]
        tables[task] = train[["pert", "gene", "label"]].assign(source="own")
        test[task] = labels[labels["split"] == "test"]
    predictor = make_predictor("retrieval").fit(tables, Context(knowledge, seed=0, threads=1))
    for task, published in (("de", 0.58), ("dir", 0.69)):
        asked = test[task][["pert", "gene"]]
        assert gene_mean_auroc(test[task], predictor.predict(task, asked)) >= published
