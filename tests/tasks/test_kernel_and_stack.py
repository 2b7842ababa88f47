"""Kernel, stack and ensemble: against dense algebra, on planted programmes, and what they must not see."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from storage.errors import InputError
from tasks.knowledge import KnowledgeGraph, SymbolIndex, read_knowledge
from tasks.predictors import PREDICTORS, Context, make_predictor
from tasks.predictors.fitting import FitRequest, fit
from tasks.predictors.kernels.gene_kernels import GeneKernels
from tasks.predictors.kernels.kernel_ridge import KernelRidge, RidgeOptions, pert_kernel
from tasks.predictors.kernels.lines import Programmes
from tasks.predictors.kernels.observations import Observations
from tasks.predictors.stacking.ensemble_weights import PENALTY, Blend

N_GROUPS = 4
OPTIONS = {
    "kernel": {"n_factors": 8},
    "stack": {"n_factors": 8, "folds": 3, "models": 1, "rounds": 60, "min_rows": 10},
    "ensemble": {"members": "kernel,kernel"},
}
NAMES = sorted(OPTIONS)
QUICK = {
    "mlp": {"hidden": 8, "max_epochs": 2, "min_epochs": 1},
    "gat": {"hidden": 8, "max_epochs": 2, "min_epochs": 1},
    "genept": {"embedding_model": "tfidf", "n_factors": 4},
}

EACH_WITHOUT_CELLS = pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in PREDICTORS if name != "gears"), ("retrieval", {"form": "sampled"})],
)


def grouped_graph(n=64):
    """Genes of group i % 4 share terms and partners; g60 and on are known by name only."""
    group = np.arange(n) % N_GROUPS
    known = np.arange(n) < 60
    rng = np.random.default_rng(0)
    members = (rng.random((n, 24)) < np.where(group[:, None] == np.arange(24) % N_GROUPS, 0.5, 0.03)) & (
        known[:, None]
    )
    upper = np.triu(rng.random((n, n)) < np.where(group[:, None] == group, 0.3, 0.02), 1)
    links = (upper | upper.T) & known & known[:, None]
    adjacency = sparse.csr_array(links.astype(np.float32))
    return KnowledgeGraph(
        symbols=SymbolIndex.build([f"g{i:02d}" for i in range(n)], {}),
        adjacency=adjacency,
        incidence=sparse.csr_array(members.astype(np.float32)),
        terms=np.array([f"t{i:02d}" for i in range(24)]),
        term_relations=np.array(["in"] * 24),
        partners={"string": adjacency},
    )


def planted(source="own", *, perts=range(64), seed=1, turned=()):
    """A perturbation of group k moves genes of group k (and, for ``turned`` ones, of group k + 1)."""
    rng = np.random.default_rng(seed)
    rows = []
    for p in perts:
        group = (p + (p in turned)) % N_GROUPS
        for g in range(24):
            chance = 0.85 if g % N_GROUPS == group else 0.1
            rows.append((f"g{p:02d}", f"m{g:02d}", int(rng.random() < chance), source))
    return pd.DataFrame(rows, columns=["pert", "gene", "label", "source"])


def gene_mean_auroc(rows, scores):
    values = [
        roc_auc_score(part["label"], scores[part.index])
        for _, part in rows.reset_index(drop=True).groupby("gene")
        if part["label"].nunique() == 2
    ]
    return np.mean(values)


def fitted(name, tables, graph, *, threads=1, **options):
    return make_predictor(name, **(OPTIONS[name] | options)).fit(
        tables, Context(graph, seed=3, threads=threads)
    )


@pytest.fixture(scope="module")
def graph():
    return grouped_graph()


def test_ridge_solves_the_dense_system(graph):
    table = planted(perts=range(10)).sample(frac=0.5, random_state=0)
    observations = Observations.build(table, gene_strength=5)
    rng, options = np.random.default_rng(0), RidgeOptions(steps=200, ridge=0.7, gene_factors=3)
    vectors = rng.normal(size=(len(observations.genes), 3)).astype(np.float32)
    root = rng.normal(size=(len(observations.perts), 12))
    near = np.abs(root @ root.T / 12).astype(np.float32)
    kernel = pert_kernel(near, observations.perts, observations.perts, options)
    np.testing.assert_allclose(kernel, near**2 + 0.5 * np.eye(len(near)), rtol=1e-5)
    cells = observations.residuals.tocoo()
    by_gene = np.eye(len(vectors)) + 0.5 * vectors @ vectors.T + 0.03
    pairs = kernel[np.ix_(cells.row, cells.row)] * by_gene[np.ix_(cells.col, cells.col)]
    weights = np.linalg.solve(pairs + 0.7 * np.eye(len(pairs)), cells.data)
    expected = np.zeros(cells.shape)
    for row, column, weight in zip(cells.row, cells.col, weights, strict=True):
        expected += weight * np.outer(kernel[:, row], by_gene[:, column])
    ridge = KernelRidge.fit(observations, kernel, vectors, options)
    found = ridge.scores(kernel, observations.genes, vectors)
    np.testing.assert_allclose(found, expected, atol=3e-3)
    np.testing.assert_allclose(ridge.strengths(kernel), (kernel @ ridge.weights.toarray()).sum(1), rtol=1e-3)


def test_kernels_of_sources_that_are_not_there_are_left_out(graph):
    kernels = GeneKernels.build(graph, n_factors=8, n_source_factors=8)
    assert kernels.sources == ("all", "string", "in")
    names = graph.genes[:5]
    both = kernels.mixed(names, names, ("all", "string", "no such source"))
    with pytest.raises(InputError, match="none of the sources corum, go is in it; there are all, string, in"):
        kernels.mixed(names, names, ("corum", "go"))
    single = [kernels.by_source[name].between(names, names) for name in ("all", "string")]
    np.testing.assert_allclose(both, sum(single) / 2, atol=1e-6)
    state = {name: np.asarray(values) for name, values in kernels.state().items()}
    again = GeneKernels.from_state(state)
    assert again.sources == kernels.sources
    np.testing.assert_array_equal(again.mixed(names, names, ("in",)), kernels.mixed(names, names, ("in",)))


def test_programmes_tell_like_from_unlike():
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=(2, 30)).astype(np.float32)
    first = pattern[[0, 0, 1, 1]] * np.array([[1], [3], [1], [2]], dtype=np.float32)
    responses = [first, 100 * first[:, :20]]
    vectors = Programmes.fit(responses).vectors(responses)
    cosine = vectors @ vectors.T
    np.testing.assert_allclose(np.diag(cosine), 1, atol=1e-5)
    assert min(cosine[0, 1], cosine[2, 3]) > 0.99
    assert abs(cosine[0, 2]) < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_planted_programmes_are_found_for_new_perturbations(name, graph):
    rows = planted(perts=range(60))
    new = rows["pert"].isin([f"g{i:02d}" for i in range(44, 60)])
    model = fitted(name, {"de": rows[~new]}, graph)
    asked = rows[new].reset_index(drop=True)
    assert gene_mean_auroc(asked, model.predict("de", asked)) > 0.75


@pytest.mark.parametrize("name", ["kernel", "stack"])
def test_other_lines_help_where_the_graph_knows_nothing(name, graph):
    """g60 to g63 have neither terms nor partners; another line has seen them."""
    own, other = planted(perts=range(60)), planted("line b", seed=2)
    asked = planted(perts=range(60, 64), seed=5)
    within = fitted(name, {"de": own}, graph).predict("de", asked)
    across = fitted(name, {"de": pd.concat([own, other])}, graph).predict("de", asked)
    assert gene_mean_auroc(asked, within) < 0.65
    assert gene_mean_auroc(asked, across) > 0.75


def write_tables(folder, graph, test_labels):
    """Label tables whose test labels are as given, and a small knowledge folder; gives the one of de."""
    tables = {}
    for seed, task in enumerate(("de", "dir")):
        rows = planted(perts=range(24), seed=seed).drop(columns="source")
        rows["split"] = np.where(rows["pert"] < "g18", "train", "test")
        test = rows["split"] == "test"
        rows.loc[test, "label"] = test_labels(rows.loc[test, "label"])
        rows.to_parquet(folder / f"line-{task}.parquet")
        tables[task] = rows
    links = graph.adjacency.tocoo()
    names = graph.genes
    edges = {"source_gene": names[links.row], "target_gene": names[links.col], "relation": "link"}
    pd.DataFrame(edges).to_parquet(folder / "edges_string_v1.parquet")
    member = graph.incidence.tocoo()
    terms = {"source_gene": names[member.row], "target": graph.terms[member.col], "relation": "in"}
    pd.DataFrame(terms).to_parquet(folder / "gene_terms.parquet")
    texts = [
        f"group{at % N_GROUPS} kind{at % 7} sort{at * at % 13} class{at % 11}" for at in range(len(names))
    ]
    told = pd.DataFrame({"gene": names, "description": texts, "source": "refseq_summary"})
    told.to_parquet(folder / "gene_text.parquet")
    return tables["de"]


def request_for(name, folder, *, seed=0, **options):
    """To fit on the folder's tables; the same tables again stand for another line."""
    tables = {task: str(folder / f"line-{task}.parquet") for task in ("de", "dir")}
    return FitRequest(
        predictor=name,
        tables=tables,
        knowledge=str(folder),
        also={task: {"other": table} for task, table in tables.items()},
        noncommercial=False,
        max_links=1000,
        seed=seed,
        threads=1,
        device="cpu",
        options=OPTIONS.get(name, {}) | QUICK.get(name, {}) | options,
    )


@EACH_WITHOUT_CELLS
def test_who_says_that_it_has_no_seed_has_none(name, options, graph, tmp_path):
    """Without a seed two of them give the same bytes; with one they do not."""
    rows, outcomes = write_tables(tmp_path, graph, lambda y: y), []
    for seed in (0, 7):
        model, _ = fit(request_for(name, tmp_path, seed=seed, **options), lambda *_: None)
        seeded = model.seeded
        state = {key: np.asarray(values).tobytes() for key, values in model.state().items()}
        outcomes.append((state, model.predict("de", rows[["pert", "gene"]]).tobytes()))
    assert (outcomes[0] != outcomes[1]) == seeded


@EACH_WITHOUT_CELLS
def test_poisoned_test_labels_change_nothing(name, options, graph, tmp_path):
    """Fits from files must come out the same whatever stands in the test rows, own and other lines'.

    GEARS learns from cells: tests/tasks/test_gears.py poisons those too.
    """
    found = []
    for at, poison in enumerate([lambda y: y, lambda y: 1 - y, lambda y: 1]):
        folder = tmp_path / f"case{at}"
        folder.mkdir()
        rows = write_tables(folder, graph, poison)
        # Test rows of the other line, which is the same tables again, must be as untouched.
        model, _ = fit(request_for(name, folder, **options), lambda *_: None)
        asked = rows.loc[rows["split"] == "test", ["pert", "gene"]]
        state = {key: np.asarray(values).tobytes() for key, values in model.state().items()}
        found.append((*(model.predict(task, asked).tobytes() for task in ("de", "dir")), state))
    assert found[0] == found[1] == found[2]


def test_a_pair_is_scored_alike_in_any_company(graph):
    """Features must not depend on which other genes and perturbations are asked about."""
    own, other = planted(perts=range(40)), planted("line b", seed=2)
    for name in NAMES:
        model = fitted(name, {"de": pd.concat([own, other])}, graph)
        asked = planted(perts=range(50, 60))
        together = model.predict("de", asked)
        few = asked.iloc[[3, 100, 230]]
        np.testing.assert_allclose(model.predict("de", few), together[[3, 100, 230]], rtol=1e-4, atol=1e-5)


def test_stack_is_the_same_with_any_number_of_threads(graph):
    rows = planted(perts=range(50))
    one, two = (fitted("stack", {"de": rows}, graph, threads=threads) for threads in (1, 2))
    asked = planted(perts=range(50, 60))
    assert one.predict("de", asked).tobytes() == two.predict("de", asked).tobytes()
    first, second = one.state(), two.state()
    differ = [key for key in first if np.asarray(first[key]).tobytes() != np.asarray(second[key]).tobytes()]
    assert differ == ["threads"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only(name, label, graph):
    model = fitted(name, {"dir": planted(perts=range(20)).assign(label=label)}, graph)
    asked = planted(perts=range(18, 24))
    assert np.isfinite(model.predict("dir", asked)).all()


@pytest.mark.parametrize("name", ["kernel", "stack"])
def test_rows_of_other_lines_only_are_refused(name, graph):
    with pytest.raises(InputError, match="rows of other lines only"):
        fitted(name, {"de": planted("line b")}, graph)


@pytest.mark.parametrize("name", ["kernel", "stack"])
def test_a_similarity_that_is_not_there_is_refused_if_it_was_asked_for(name, graph):
    rows = planted(perts=range(12))
    with pytest.raises(InputError, match="no similarity 'strnig' in the knowledge: all, string, in"):
        fitted(name, {"de": rows}, graph, sources="all,strnig")
    spaced, plain = (fitted(name, {"de": rows}, graph, sources=told) for told in ("all, in", "all,in"))
    assert spaced.predict("de", rows).tobytes() == plain.predict("de", rows).tobytes()


def test_too_few_perturbations_are_refused(graph):
    with pytest.raises(InputError, match="three perturbations"):
        fitted("ensemble", {"de": planted(perts=[1, 2])}, graph)


def test_members_of_an_ensemble_are_checked():
    with pytest.raises(InputError) as caught:
        make_predictor("ensemble", members="oracle,ensemble", held_out=1.5)
    members, held_out = caught.value.problems
    assert members.startswith("members: no member 'oracle' or 'ensemble'; allowed are prior, physical")
    assert held_out == "held_out must be less than 1; found 1.5"


def test_blend_equals_penalised_logistic_regression():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(500, 3)) * [1, 10, 0.1] + [0, 5, -1]
    odds = (scores - [0, 5, -1]) @ [0.8, 0.05, 6] - 0.3
    labels = (rng.random(500) < 1 / (1 + np.exp(-odds))).astype(int)
    blend = Blend.fit(scores, labels)
    unit = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    oracle = LogisticRegression(C=1 / (2 * PENALTY * 500), tol=1e-8).fit(unit, labels)
    np.testing.assert_allclose(blend.weights, oracle.coef_[0], atol=2e-3)
    np.testing.assert_allclose(blend.log_odds(scores), oracle.decision_function(unit), atol=5e-3)
    # A member that points the wrong way is left out, not turned round.
    assert Blend.fit(-scores, labels).weights.max() < 0.05


@pytest.mark.parametrize("seed", range(4))
def test_ensemble_weighs_alike_where_no_row_of_a_task_is_held_out(graph, seed):
    rows = planted(perts=range(20))
    few = rows[rows["pert"].isin(rows["pert"].unique()[:3])]
    model = make_predictor("ensemble", members="prior,physical")
    model = model.fit({"de": rows, "dir": few}, Context(graph, seed=seed, threads=1))
    assert np.isfinite(model.predict("dir", rows)).all()


@pytest.mark.parametrize("name", ["stack", "ensemble"])
def test_a_task_of_one_perturbation_costs_the_other_task_nothing(graph, name):
    rows = planted(perts=range(20))
    alone = rows[rows["pert"] == "g01"]
    model = fitted(name, {"de": rows, "dir": alone}, graph)
    np.testing.assert_array_equal(
        model.predict("de", rows), fitted(name, {"de": rows}, graph).predict("de", rows)
    )
    assert np.isfinite(model.predict("dir", rows)).all()
    if name == "stack":
        rate = make_predictor("prior", strength=20.0).fit({"dir": alone}, Context(graph)).predict("dir", rows)
        np.testing.assert_allclose(model.predict("dir", rows), np.log(rate / (1 - rate)), rtol=1e-6)


def test_an_even_blend_weighs_scores_of_any_scale_alike():
    scores = np.random.default_rng(0).normal(size=(4000, 2)) * [5.0, 0.1] + [3, 0]
    blended = Blend.fit(scores, np.ones(4000, int)).log_odds(scores)
    for member in scores.T:
        assert np.corrcoef(blended, member)[0, 1] == pytest.approx(np.sqrt(0.5), abs=0.02)


def test_an_ensemble_needs_what_its_members_need(graph):
    ensemble = make_predictor("ensemble", members="prior,gears")
    assert ensemble.reads_cells
    assert ensemble.uses_device
    assert not make_predictor("ensemble").uses_device
    model = make_predictor("ensemble", members="prior,mlp", device="cuda")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="cuda but there is none"):
            model.fit({"de": planted()}, Context(graph))


def test_no_two_members_of_an_ensemble_s_seeds_share_a_seed(graph, monkeypatch):
    seeds = []
    fit_one = PREDICTORS["physical"].fit

    def noted(self, tables, context):
        seeds.append(context.seed)
        return fit_one(self, tables, context)

    monkeypatch.setattr(PREDICTORS["physical"], "fit", noted)
    for seed in range(3):
        model = make_predictor("ensemble", members="physical,physical")
        model.fit({"de": planted(perts=range(20))}, Context(graph, seed=seed))
    # Each member is fitted twice: for its weight, and on all rows.
    assert sorted(seeds) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_ensemble_leaves_out_a_member_without_information(graph):
    rows = planted(perts=range(60))
    model = fitted("ensemble", {"de": rows}, graph, members="kernel,physical", held_out=0.3)
    weights = model.weights("de")
    assert weights["kernel"] > 5 * weights["physical"]
    file = io.BytesIO()
    np.savez(file, **model.state())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        again = type(model).from_state(dict(arrays))
    assert again.predict("de", rows).tobytes() == model.predict("de", rows).tobytes()


@pytest.mark.shared_data
def test_kernel_beats_the_published_direction_figures(shared_data):
    """Direction on k562, seconds to fit: SUMMER has .64, Retrieval .69 (Table 1 of the paper)."""
    labels = pd.read_parquet(shared_data / "labels" / "k562-dir.parquet")
    train, test = (labels[labels["split"] == part].reset_index(drop=True) for part in ("train", "test"))
    graph = read_knowledge(shared_data / "knowledge")
    tables = {"dir": train[["pert", "gene", "label"]].assign(source="own")}
    model = make_predictor("kernel", sources="all").fit(tables, Context(graph, seed=0, threads=1))
    assert gene_mean_auroc(test.assign(label=test["label"].astype(int)), model.predict("dir", test)) > 0.8
