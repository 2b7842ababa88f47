"""Observations shown with a question: drawn by nearness, each once, called by their class."""

from __future__ import annotations

import pandas as pd
import pytest

from tasks.knowledge.graph import KnowledgeGraph
from tasks.summer.retrieval import Retrieved, retrieve
from tests.summer_world import asked_pairs, linked_groups, observed_pairs


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return linked_groups()


@pytest.fixture(scope="module")
def training() -> pd.DataFrame:
    return observed_pairs()


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    return asked_pairs()


@pytest.fixture(scope="module")
def retrieved(pairs, training, graph) -> Retrieved:
    return retrieve(pairs, training, graph)


def test_observations_are_training_pairs_with_their_labels_each_once_a_question(retrieved, pairs, training):
    table = retrieved.table(pairs)
    known = training.set_index(["pert", "gene"])["label"]
    seen = list(zip(table["seen_pert"], table["seen_gene"], strict=True))
    assert known.loc[seen].tolist() == table["outcome"].tolist()
    assert not table.duplicated(["pert", "gene", "seen_pert", "seen_gene"]).any()
    assert len(table) > 40


def test_each_observation_is_of_the_class_it_is_called(retrieved, pairs):
    def group(name):
        return {"ALIAS": 0}.get(name, int(name[1:]) // 10 if name[1:].isdigit() and name != "X1" else None)

    for row in retrieved.table(pairs).itertuples():
        near_pert, near_gene = (
            group(row.pert) == group(row.seen_pert),
            group(row.gene) == group(row.seen_gene),
        )
        same_gene, same_pert = row.gene == row.seen_gene, row.pert == row.seen_pert
        assert {
            0: near_pert and same_gene,
            1: same_pert and near_gene,
            2: near_pert and near_gene,
            3: same_gene,
            4: same_pert,
            5: near_pert,
            6: near_gene,
        }[row.kind]


def test_no_class_has_more_than_its_budget_and_draws_do_not_depend_on_other_questions(
    pairs, training, graph, retrieved
):
    for budget in (0, 2):
        table = retrieve(pairs, training, graph, budget=budget).table(pairs)
        sizes = table.groupby(["pert", "gene", table["kind"].map({0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3})])
        assert (sizes.size() <= budget).all()
    alone = pd.concat(
        [retrieve(pairs.iloc[[i]], training, graph).table(pairs.iloc[[i]]) for i in range(len(pairs))]
    )
    pd.testing.assert_frame_equal(alone.reset_index(drop=True), retrieved.table(pairs))
    other = retrieve(pairs, training, graph, seed=1).table(pairs)
    assert not other.equals(retrieved.table(pairs))


def test_observations_of_the_perturbation_are_the_same_for_all_its_questions(pairs, training, graph):
    shared = retrieve(pairs, training, graph, draw_for="perturbation")
    first = [shared.of_perturbation(number) for number in range(9)]
    assert first[0] == first[1] == first[2] != first[3]
    assert len(first[0]) > 0
    assert not (shared.kinds[shared.drawn >= 0] == 5).any()
    table = shared.table(pairs)
    assert not table.duplicated(["pert", "gene", "seen_pert", "seen_gene"]).any()


def test_observations_are_the_same_after_a_file(retrieved, pairs, tmp_path):
    retrieved.save(tmp_path / "r.npz")
    loaded = Retrieved.load(tmp_path / "r.npz")
    pd.testing.assert_frame_equal(loaded.table(pairs), retrieved.table(pairs))
    assert loaded.groups(0, "P", "G") == retrieved.groups(0, "P", "G")


@pytest.mark.parametrize("draw_for", ["question", "perturbation"])
def test_a_question_about_a_training_pair_is_not_shown_its_own_answer(training, graph, draw_for):
    asked = training[["pert", "gene"]]
    table = retrieve(asked, training, graph, budget=40, draw_for=draw_for).table(asked)
    assert len(table) > 5 * len(asked)
    same = (table["pert"] == table["seen_pert"]) & (table["gene"] == table["seen_gene"])
    assert not same.any()
