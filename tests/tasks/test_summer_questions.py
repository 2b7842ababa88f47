"""Questions as prompts and requests: what they hold, their order, seeds, keys and tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.summer.engines.protocol import Generation, ModelName
from tasks.summer.questions import CHOICES, VARIANTS, Questions, cell_line_sentence
from tasks.summer.retrieval import retrieve
from tasks.summer.tokens import four_characters, report_tokens
from tasks.summer.votes import parse_vote
from tests.summer_world import SAMPLING, asked_pairs, linked_groups, observed_pairs, questions_about


@pytest.fixture(scope="module")
def questions() -> Questions:
    graph, pairs = linked_groups(), asked_pairs()
    return questions_about(pairs, retrieve(pairs, observed_pairs(), graph), graph)


@pytest.mark.parametrize("task", ["de", "dir"])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_prompt_holds_what_its_variant_says_and_no_answer_of_its_own(questions, task, variant):
    asked = replace(questions, task=task, variant=variant)
    system, user = (turn["content"] for turn in asked.messages(0))
    assert ("a few sentences each" in system) == (variant != "no-reasoning")
    assert ("knock-down of" in user) == (variant != "no-retrieval")
    assert all(choice in system for choice in CHOICES[task])
    assert "ALIAS" in user
    assert "by rule" in user
    # A model that only repeats what it is told has not voted.
    assert parse_vote(system, task) == parse_vote(user, task) == "unparsed"
    assert "{{" not in system + user
    assert "\n\n\n" not in system + user


def test_questions_come_by_perturbation_and_votes_after_all_of_its_questions(questions):
    order = [(questions.pairs["pert"][q], request.vote) for q, request in questions.requests(SAMPLING)]
    assert order == sorted(order, key=lambda item: (["ALIAS", "G35", "NOBODY"].index(item[0]), item[1]))
    keys = [request.key for _, request in questions.requests(SAMPLING)]
    assert len(set(keys)) == 27
    wanted = np.zeros((9, 3), dtype=bool)
    wanted[4, [0, 2]] = wanted[8, 1] = True
    some = [(q, request.vote) for q, request in questions.requests(SAMPLING, wanted)]
    assert some == [(4, 0), (4, 2), (8, 1)]


def test_seeds_differ_by_vote_and_by_run_and_keys_by_model(questions):
    messages = questions.messages(0)
    first = SAMPLING.requests(messages)
    assert len({request.seed for request in first}) == 3
    assert [r.key for r in first] == [r.key for r in SAMPLING.requests(messages)]
    for other in (
        replace(SAMPLING, seed=1),
        replace(SAMPLING, model=ModelName("m", "v2")),
        replace(SAMPLING, generation=Generation(top_p=1.0)),
    ):
        assert not {r.key for r in first} & {r.key for r in other.requests(messages)}


def test_tokens_that_need_not_be_computed_are_counted_as_a_brute_force_would():
    def tokenize(conversations):
        return [[ord(letter) for letter in turns[0]["content"]] for turns in conversations]

    texts = ["aaaabbbbcc", "aaaabbbbdd", "aaaaeeee", "zz"]
    report = report_tokens(([{"content": text}] for text in texts), tokenize, votes=2, block=4)
    assert (report.questions, report.requests, report.longest_prompt) == (4, 8, 10)
    assert report.prompt_tokens == 2 * (10 + 10 + 8 + 2)
    # First votes: 10 whole, 8 shared, 4 shared, nothing; second votes: all whole blocks but the last token.
    assert report.prefilled_tokens == (10 + 2 + 4 + 2) + (2 + 2 + 4 + 2)
    assert report.saved == pytest.approx(1 - 28 / 60)
    assert report_tokens([], tokenize, votes=3).saved == 0


def test_the_layout_lets_questions_of_a_perturbation_share_their_beginning(questions):
    ours = report_tokens((questions.messages(n) for n in range(9)), four_characters, votes=1, block=1)
    mixed = [questions.messages(n) for n in (0, 3, 6, 1, 4, 7, 2, 5, 8)]
    shuffled = report_tokens(mixed, four_characters, votes=1, block=1)
    assert ours.prompt_tokens == shuffled.prompt_tokens
    assert ours.prefilled_tokens < shuffled.prefilled_tokens


def test_cell_lines_are_told_by_data_set_unless_given():
    assert cell_line_sentence("k562_set", "").startswith("K562")
    assert cell_line_sentence("k562", "mine") == "mine"
    assert cell_line_sentence("other", "") == "not stated."
