"""From requests to the ledger and back to votes, without a model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from storage.answers import Answer, AnswerLedger
from storage.tables import read_frame, write_table
from tasks.summer.answering import (
    account,
    missing_requests,
    outcomes_digest,
    read_outcomes,
    sampled_questions,
    usage,
    write_requests,
)
from tasks.summer.questions import Questions, sample
from tasks.summer.retrieval import retrieve
from tasks.summer.tokens import TokenCounter, four_characters
from tasks.summer.votes import count_votes, vote_rates
from tests.summer_world import SAMPLING, asked_pairs, linked_groups, observed_pairs, questions_about


@pytest.fixture(scope="module")
def questions() -> Questions:
    graph, pairs = linked_groups(), asked_pairs()
    return questions_about(pairs, retrieve(pairs, observed_pairs(), graph), graph)


def answers_for(questions, text_of):
    for question, request in questions.requests(SAMPLING):
        text = text_of(question, request.vote)
        if text is not None:
            status = "error" if text == "!" else "empty" if not text else "ok"
            yield Answer(request.key, request.vote, request.seed, "m", status, text=text, prompt_tokens=10)


def test_the_way_from_requests_to_the_ledger_and_back(questions, tmp_path):
    path = tmp_path / "requests.parquet"
    assert write_requests(path, questions, sampling=SAMPLING) == 27
    said = {0: "Final answer: yes", 1: "!", 2: "", 3: "no idea"}
    with AnswerLedger(tmp_path / "ledger") as ledger:
        for answer in answers_for(
            questions, lambda q, vote: said.get(q, "Final answer: no") if q < 8 else None
        ):
            ledger.add(answer)
        assert account(path, ledger).as_dict() == {"requested": 27, "done": 21, "failed": 3, "missing": 3}
        missing = missing_requests(path, questions, sampling=SAMPLING, ledger=ledger, ask_again=("error",))
        assert missing.count == 6
        assert {request.key for request in missing.requests()} == {
            request.key for q, request in questions.requests(SAMPLING) if q in (1, 8)
        }
    outcomes = read_outcomes(path, tmp_path / "ledger", pairs=questions.pairs, task="de")
    by_question = outcomes.groupby("question")["outcome"].agg(list)
    assert by_question[0] == ["yes"] * 3
    assert by_question[1] == by_question[8] == [None] * 3
    assert by_question[2] == by_question[3] == ["unparsed"] * 3
    assert by_question[4] == ["no"] * 3
    before = outcomes_digest(outcomes)
    with AnswerLedger(tmp_path / "ledger") as ledger:
        for answer in answers_for(questions, lambda q, vote: "Final answer: yes" if q == 1 else None):
            ledger.add(answer)
    again = read_outcomes(path, tmp_path / "ledger", pairs=questions.pairs, task="de")
    assert again.groupby("question")["outcome"].agg(list)[1] == ["yes"] * 3
    assert outcomes_digest(again) != before


def test_asking_again_for_what_was_cut_off_loses_nothing_where_it_fails(questions, tmp_path):
    path = tmp_path / "requests.parquet"
    write_requests(path, questions, sampling=SAMPLING)
    text = "Final answer: yes\nNote: it"
    with AnswerLedger(tmp_path / "ledger") as ledger:
        for _, request in questions.requests(SAMPLING):
            name = (request.key, request.vote, request.seed, "m")
            ledger.add(Answer(*name, "length", text=text))
            ledger.add(Answer(*name, "error", error="the server is gone"))
        asked = {"sampling": SAMPLING, "ledger": ledger}
        assert account(path, ledger).as_dict()["done"] == 27
        assert missing_requests(path, questions, ask_again=("error",), **asked).count == 0
        assert missing_requests(path, questions, ask_again=("length",), **asked).count == 27
    outcomes = read_outcomes(path, tmp_path / "ledger", pairs=questions.pairs, task="de")
    assert set(outcomes["outcome"]) == {"yes"}
    table = sampled_questions(questions, outcomes, tmp_path / "ledger", count=9, seed=0, truth={})
    assert set(table["answer_1"]) == {text}


def test_identical_prompts_are_one_request_and_every_pair_gets_its_votes(questions, tmp_path):
    same = SimpleNamespace(messages=lambda _: questions.messages(0))
    twin = replace(questions, prompts=questions.prompts)
    object.__setattr__(twin, "messages", same.messages)
    write_requests(tmp_path / "r.parquet", twin, sampling=SAMPLING)
    with AnswerLedger(tmp_path / "ledger") as ledger:
        asked = {"sampling": SAMPLING, "ledger": ledger, "ask_again": ()}
        assert missing_requests(tmp_path / "r.parquet", twin, **asked).count == 3
        for request in SAMPLING.requests(questions.messages(0)):
            ledger.add(Answer(request.key, request.vote, request.seed, "m", "ok", text="yes"))
        assert account(tmp_path / "r.parquet", ledger).as_dict()["requested"] == 3
    outcomes = read_outcomes(tmp_path / "r.parquet", tmp_path / "ledger", pairs=twin.pairs, task="de")
    assert outcomes["outcome"].tolist() == ["yes"] * 27


def test_sampled_questions_can_be_read(questions, tmp_path):
    write_requests(tmp_path / "r.parquet", questions, sampling=SAMPLING)
    with AnswerLedger(tmp_path / "ledger") as ledger:
        for answer in answers_for(questions, lambda q, vote: f"Final answer: yes ({q}, {vote})"):
            ledger.add(answer)
    outcomes = read_outcomes(tmp_path / "r.parquet", tmp_path / "ledger", pairs=questions.pairs, task="de")
    truth = {("ALIAS", "G01"): 1}
    table = sampled_questions(questions, outcomes, tmp_path / "ledger", count=9, seed=0, truth=truth)
    assert table["answer_2"].tolist() == [f"Final answer: yes ({q}, 1)" for q in range(9)]
    assert table["truth"].isna().tolist() == [False] + [True] * 8
    assert table["prompt"].iat[0].endswith("when ALIAS is knocked down?")
    assert len(sample(questions, 4, 0)) == 4


@pytest.mark.parametrize("draw_for", ["question", "perturbation"])
def test_no_questions_are_no_answers_and_empty_tables(tmp_path, draw_for):
    graph, pairs = linked_groups(), asked_pairs().iloc[:0]
    nothing = questions_about(pairs, retrieve(pairs, observed_pairs(), graph, draw_for=draw_for), graph)
    counter = TokenCounter(four_characters, votes=SAMPLING.votes)
    path, ledger = tmp_path / "r.parquet", tmp_path / "ledger"
    assert write_requests(path, nothing, sampling=SAMPLING, counter=counter) == 0
    AnswerLedger(ledger).__enter__().__exit__()
    outcomes = read_outcomes(path, ledger, pairs=pairs, task="de")
    votes = count_votes(outcomes)
    assert (len(votes), vote_rates(votes)["rate_answered"], usage(outcomes)["prompt_tokens"]) == (0, 0, 0)
    table = sampled_questions(nothing, outcomes, ledger, count=9, seed=0, truth={})
    write_table(tmp_path / "sample.parquet", table, {})
    assert list(read_frame(tmp_path / "sample.parquet")) == ["pert", "gene", "prompt", "truth"]
    assert {"pert", "gene", "score"} <= set(votes)
