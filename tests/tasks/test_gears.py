"""GEARS: what is made for the package, and what comes of it. Most need the extra ``gears``."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

from storage.errors import InputError
from tasks.knowledge import KnowledgeGraph, SymbolIndex
from tasks.predictors import gears
from tasks.predictors.gears import GEARSPredictor
from tasks.predictors.gears_model.cells import read_training_cells
from tasks.predictors.gears_model.graph import GOGraph
from tasks.predictors.gears_model.package import package_is_installed
from tasks.predictors.protocol import Context
from tests.screens import CONTROL, write_screen

needs_package = pytest.mark.skipif(
    not package_is_installed(), reason="cell-gears is not installed: pip install '.[gears]'"
)
N_GENES, CELLS = 40, 14
#: g00-g47 have GO terms, those of one parity the same ones; g48 and g49 have none.
PERTS = [f"g{i:02d}" for i in range(50)]
TRAIN = [*PERTS[:32], "g48"]
MEASURED = [f"m{i:02d}" for i in range(N_GENES)]
SETS = {"first": ("m00", "m01", "nowhere"), "one": ("m12",), "strangers": ("nowhere",)}
OPTIONS = {"epochs": 6, "hidden": 16, "batch_size": 8, "learning_rate": 1e-2, "cells": 8, "controls": 40}


def knowledge():
    rng = np.random.default_rng(0)
    carried = np.zeros((50, 24), dtype=np.float32)
    for gene in range(48):
        own = np.arange(4) + 4 * (gene % 2)
        carried[gene, own] = 1
        carried[gene, 8 + rng.choice(8, 2, replace=False)] = 1
    # Terms that are not GO's must not matter.
    carried[:, 16:] = rng.random((50, 8)) < 0.5
    return KnowledgeGraph(
        symbols=SymbolIndex.build(PERTS, {"older": "g40"}),
        adjacency=sparse.csr_array((50, 50), dtype=np.float32),
        incidence=sparse.csr_array(carried),
        terms=np.array([f"t{i:02d}" for i in range(24)]),
        term_relations=np.array(["go_bp"] * 8 + ["go_mf"] * 8 + ["reactome_member"] * 8),
    )


def direction(pert, gene):
    """Even perturbations raise m00-m04 and lower m05-m09, odd ones the other way round, and move ten more."""
    odd, block = int(pert[1:]) % 2, int(gene[1:]) // 5
    return {(0, 0): 1, (0, 1): -1, (1, 0): -1, (1, 1): 1, (1, 2): 1, (1, 3): -1}.get((odd, block), 0)


def cells_of_all(seed=0):
    rng = np.random.default_rng(seed)
    names = np.array([CONTROL] * 80 + PERTS * CELLS)
    rng.shuffle(names)
    level = rng.gamma(4, 3, N_GENES)
    change = np.array([[0 if n == CONTROL else direction(n, g) for g in MEASURED] for n in names])
    return rng.poisson(level * np.exp(1.0 * change) * rng.gamma(8, 1 / 8, (len(names), 1))), names


def tables():
    pairs = [(p, g, direction(p, g)) for p in TRAIN for g in MEASURED[:25]]
    rows = pd.DataFrame(pairs, columns=["pert", "gene", "effect"]).assign(source="own")
    rows.loc[len(rows)] = ["g03", "nowhere", 0, "own"]
    # A training perturbation of another line, not of this one: its cells here are not to be read.
    rows.loc[len(rows)] = ["g41", "m00", 0, "other line"]
    up = rows[rows["effect"] != 0]
    return {
        "de": rows.assign(label=(rows["effect"] != 0).astype(int)).drop(columns="effect"),
        "dir": up.assign(label=(up["effect"] > 0).astype(int)).drop(columns="effect"),
    }


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    counts, names = cells_of_all()
    path = tmp_path_factory.mktemp("screen") / "screen.h5ad"
    return write_screen(path, sparse.csr_matrix(counts), names, genes=MEASURED)


def context_of(path, **more):
    return Context(knowledge(), seed=2, threads=1, expression=path, **more)


def read(path, columns=None, **more):
    options = {"most_cells": 5, "most_controls": 20, "most_genes": 12, "seed": 4} | more
    columns = {"perturbation_key": "perturbation", "control": CONTROL} | (columns or {})
    return read_training_cells(path, columns, ["g01", "g02", "absent"], ["m20", "m21", "nowhere"], **options)


def test_the_graph_is_the_jaccard_index_of_go_terms():
    graph = GOGraph.build(knowledge())
    assert graph.genes.tolist() == list(range(48))
    carried = knowledge().incidence.toarray()[:48, :16] > 0
    terms = [set(np.flatnonzero(row)) for row in carried]
    assert graph.terms_of(7) == {f"t{i:02d}" for i in terms[7]}
    links = set()
    for target in range(48):
        near = [(len(terms[s] & terms[target]) / len(terms[s] | terms[target]), s) for s in range(48)]
        near = sorted([(j, s) for j, s in near if j > 0.1], key=lambda pair: (-pair[0], pair[1]))[:21]
        assert near[0][0] == 1
        links |= {(s, target, round(j, 5)) for j, s in near}
    found = zip(graph.source.tolist(), graph.target.tolist(), graph.importance.tolist(), strict=True)
    assert {(s, t, round(j, 5)) for s, t, j in found} == links
    assert graph.node_of(np.array([3, 48, -1, 47])).tolist() == [3, -1, -1, 47]


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_cells_are_those_of_the_training_perturbations(form, tmp_path):
    counts, names = cells_of_all()
    path = write_screen(tmp_path / "screen.h5ad", form(counts), names, genes=MEASURED)
    cells = read(path)
    assert pd.Series(cells.perts).value_counts().to_dict() == {"": 20, "g01": 5, "g02": 5}
    assert len(cells.genes) == 12
    assert {"m20", "m21"} <= set(cells.genes)
    assert (np.sort(cells.genes) == cells.genes).all()
    everything = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 10_000)[
        :, [int(g[1:]) for g in cells.genes]
    ]
    for pert in ("", "g01", "g02"):
        mine = everything[names == (pert or CONTROL)]
        for row in cells.expression[cells.perts == pert].toarray():
            # Each chosen cell is one of that perturbation's cells.
            assert np.abs(mine - row).max(axis=1).min() < 1e-5
    others = sorted(set(MEASURED) - {"m20", "m21"} - set(cells.genes))
    wide = read(path, most_genes=100)
    variance = pd.Series(wide.expression.toarray().var(axis=0), wide.genes)
    assert variance[sorted(set(cells.genes) - {"m20", "m21"})].min() >= variance[others].max()


def test_cells_of_other_perturbations_change_nothing(tmp_path):
    counts, names = cells_of_all()
    before = read(write_screen(tmp_path / "a.h5ad", counts, names, genes=MEASURED))
    poisoned = counts.copy()
    poisoned[~np.isin(names, ["g01", "g02", CONTROL])] = 10_000
    after = read(write_screen(tmp_path / "b.h5ad", poisoned, names, genes=MEASURED))
    assert after.expression.toarray().tobytes() == before.expression.toarray().tobytes()
    assert after.genes.tolist() == before.genes.tolist()
    poisoned[names == "g01"] += 1
    changed = read(write_screen(tmp_path / "c.h5ad", poisoned, names, genes=MEASURED))
    assert changed.expression.toarray().tobytes() != before.expression.toarray().tobytes()


def test_cells_drawn_of_a_perturbation_do_not_depend_on_which_others_there_are(tmp_path):
    counts, names = cells_of_all()
    path = write_screen(tmp_path / "x.h5ad", counts, names, genes=MEASURED)
    columns = {"perturbation_key": "perturbation", "control": CONTROL}
    limits = {"most_cells": 3, "most_controls": 20, "most_genes": 100}
    drawn = []
    for perts in (["g02"], ["g01", "g02"]):
        cells = read_training_cells(path, columns, perts, MEASURED, seed=4, **limits)
        drawn.append(cells.expression[cells.perts == "g02"].toarray())
    assert len(drawn[0]) == 3
    assert drawn[0].tobytes() == drawn[1].tobytes()


def test_layer_and_cells_are_those_that_the_labels_were_made_of(tmp_path):
    counts, names = cells_of_all()
    before = read(write_screen(tmp_path / "a.h5ad", counts, names, genes=MEASURED))
    # The same screen with normalised values as X, and as many cells again of another library.
    path = write_screen(
        tmp_path / "b.h5ad",
        np.log1p(np.vstack([counts, counts])),
        [*names, *names],
        genes=MEASURED,
        layers={"counts": np.vstack([counts, counts + 1])},
        library=["one"] * len(names) + ["two"] * len(names),
    )
    after = read(path, {"layer": "counts", "only": "library=one"})
    assert after.expression.toarray().tobytes() == before.expression.toarray().tobytes()
    assert after.perts.tolist() == before.perts.tolist()


def test_screens_that_do_not_fit_are_refused(tmp_path):
    counts, names = cells_of_all()
    path = write_screen(tmp_path / "other.h5ad", counts, ["x" if n != CONTROL else n for n in names])
    with pytest.raises(InputError) as caught:
        read(path)
    assert [problem.split(" training")[0] for problem in caught.value.problems] == [
        "none of the 3",
        "none of the 3 genes asked about is measured in this screen",
    ]
    path = write_screen(tmp_path / "log.h5ad", np.log1p(counts), names, genes=MEASURED)
    with pytest.raises(InputError, match="not whole"):
        read(path)


def test_why_it_cannot_run_is_said_at_once(monkeypatch):
    monkeypatch.setattr(gears, "package_is_installed", lambda: False)
    with pytest.raises(InputError, match="gears cannot run here") as caught:
        GEARSPredictor().fit(tables(), context_of(None))
    assert len(caught.value.problems) == 2
    assert "no screen was given" in caught.value.problems[0]
    assert "cell-gears is not installed" in caught.value.problems[1]
    with pytest.raises(InputError) as caught:
        GEARSPredictor(epochs=0, depth=3, device="tpu")
    assert len(caught.value.problems) == 3


@pytest.fixture(scope="module")
def fitted(screen):
    return GEARSPredictor(**OPTIONS).fit(tables(), context_of(screen, sets=SETS))


@needs_package
def test_it_learns_what_perturbations_with_like_terms_do(fitted):
    asked = [(p, g, direction(p, g)) for p in PERTS[32:48] for g in MEASURED[:20]]
    frame = pd.DataFrame(asked, columns=["pert", "gene", "effect"])
    score = fitted.predict("dir", frame)
    assert np.isfinite(score).all()
    moved = frame["effect"] != 0
    assert roc_auc_score(frame["effect"][moved] > 0, score[moved]) > 0.9
    per_gene = frame.assign(de=frame["effect"] != 0, score=fitted.predict("de", frame)).query("gene >= 'm10'")
    assert np.mean([roc_auc_score(rows["de"], rows["score"]) for _, rows in per_gene.groupby("gene")]) > 0.8
    assert [row["val_mse"] for row in fitted.history][-1] < fitted.history[0]["val_mse"]
    assert len(fitted.history) == OPTIONS["epochs"]
    assert set(fitted.validation_scores) == {"de", "dir"}
    assert fitted.validation_scores["de"]["pert"].nunique() == 3


@needs_package
def test_what_cannot_be_encoded_is_neutral_and_counted(fitted):
    assert fitted.counts == {
        "cells": 40 + 32 * 8,
        "perturbations": 32,
        "without_cells": 0,
        "without_go_terms": 1,
        "genes": N_GENES,
        "genes_not_measured": 1,
    }
    held = set(fitted.validation_scores["de"]["pert"])
    learnt = [p for p in TRAIN if p not in held and p != "g48"]
    for task in ("de", "dir"):
        pairs = pd.DataFrame({"pert": ["g48", "g49", "never seen"], "gene": "m03"})
        of_learnt = fitted.predict(task, pd.DataFrame({"pert": learnt, "gene": "m03"}))
        np.testing.assert_allclose(fitted.predict(task, pairs), np.mean(of_learnt), rtol=1e-5)
        assert (fitted.predict(task, pairs.assign(gene="nowhere")) == 0).all()
    older = fitted.predict("dir", pd.DataFrame({"pert": ["older", "g40"], "gene": "m03"}))
    assert older[0] == older[1]
    assert older[0] != 0


@needs_package
def test_sets_are_the_mean_of_their_measured_members(fitted):
    perts = ["g40", "g41", "g49"]
    for task in ("de", "dir"):

        def of(gene, task=task):
            return fitted.predict(task, pd.DataFrame({"pert": perts, "gene": gene}))

        np.testing.assert_allclose(of("first"), (of("m00") + of("m01")) / 2, rtol=1e-6)
        np.testing.assert_array_equal(of("one"), of("m12"))
        assert (of("strangers") == 0).all()


@needs_package
def test_the_change_is_what_the_package_predicts_for_real_control_cells(fitted, screen):
    """Its prediction for a cell, less that cell, is our change; not so for the first cell of a batch."""
    import torch
    from gears.utils import create_cell_graph_for_prediction
    from torch_geometric.loader import DataLoader

    from tasks.predictors.gears_model.prediction import loaded_network, predicted_change

    scores = fitted._scores
    cells = read(screen, most_genes=100).controls[:6].toarray()
    network = loaded_network(__import__("gears"), scores.trained, scores.hidden)
    graphs = [create_cell_graph_for_prediction(cell[None], [17], ["a name"]) for cell in cells]
    with torch.no_grad():
        predicted = network(next(iter(DataLoader(graphs, 6)))).numpy()
    change = predicted_change(scores.trained, np.array([3, 17]), hidden=scores.hidden)
    np.testing.assert_allclose((predicted - cells)[1:], np.repeat(change[1:], 5, axis=0), atol=1e-5)
    spread = (
        read(screen, most_genes=100, most_controls=OPTIONS["controls"], seed=2).controls.toarray().std(axis=0)
    )
    signed = fitted.predict("dir", pd.DataFrame({"pert": "g17", "gene": MEASURED}))
    np.testing.assert_allclose(signed, change[1] / spread, rtol=1e-3)
    size = fitted.predict("de", pd.DataFrame({"pert": "g17", "gene": MEASURED}))
    np.testing.assert_allclose(size, np.abs(signed), rtol=1e-5)


@needs_package
def test_cells_of_test_perturbations_are_never_seen(fitted, screen, tmp_path, monkeypatch):
    """Their counts poisoned: the same bytes. Nothing is downloaded, and the process is left as it was."""
    import requests
    import scanpy

    def refused(*_args, **_kwargs):
        raise AssertionError("the package asked for the network")

    monkeypatch.setattr(requests, "get", refused)
    counts, names = cells_of_all()
    counts[~np.isin(names, [*TRAIN, CONTROL])] = 5_000
    path = write_screen(tmp_path / "poisoned.h5ad", sparse.csr_matrix(counts), names, genes=MEASURED)
    before = np.random.get_state()[1].tobytes(), scanpy.settings.verbosity, list(warnings.filters)
    turned = {task: rows.sample(frac=1, random_state=1) for task, rows in tables().items()}
    again = GEARSPredictor(**OPTIONS).fit(dict(reversed(turned.items())), context_of(path, sets=SETS))
    assert (np.random.get_state()[1].tobytes(), scanpy.settings.verbosity, list(warnings.filters)) == before
    first, second = fitted.state(), again.state()
    assert sorted(first) == sorted(second)
    for key in first:
        assert np.asarray(first[key]).tobytes() == np.asarray(second[key]).tobytes(), key


@needs_package
def test_state_keeps_all_that_predict_needs(fitted):
    file = io.BytesIO()
    np.savez(file, **fitted.state())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        loaded = GEARSPredictor.from_state(dict(arrays))
    assert loaded.parameters() == fitted.parameters()
    assert loaded.history == fitted.history
    pairs = pd.DataFrame({"pert": ["g33", "g49", "older", "g02"], "gene": ["m01", "m02", "first", "nowhere"]})
    for task in ("de", "dir"):
        assert loaded.predict(task, pairs).tobytes() == fitted.predict(task, pairs).tobytes()


@needs_package
def test_one_task_and_too_few_cells(screen):
    rows = tables()["dir"]
    rows = rows[rows["pert"].isin(TRAIN[:6])]
    predictor = GEARSPredictor(**{**OPTIONS, "epochs": 1}).fit({"dir": rows}, context_of(screen))
    with pytest.raises(InputError, match="'de' was not fitted"):
        predictor.predict("de", rows)
    with pytest.raises(InputError, match="two training perturbations with cells and GO terms are needed"):
        GEARSPredictor(**OPTIONS).fit({"dir": rows[rows["pert"] == "g00"]}, context_of(screen))
