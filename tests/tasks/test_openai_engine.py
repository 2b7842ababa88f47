"""The OpenAI engine and continuous feeding, against a server that fails on purpose."""

from __future__ import annotations

import asyncio
import logging

import pytest

from storage.answers import AnswerLedger, read_answers
from storage.errors import LedgerError
from tasks.summer.asking import Limits, ask
from tasks.summer.engines.openai import OpenAIEngine, ServerOptions, check_urls
from tasks.summer.engines.protocol import EngineError, Generation, ModelName, Sampling
from tests.language_models import Misdeed, ScriptedServer, count_statuses

SAMPLING = Sampling(ModelName("tiny"), Generation(max_tokens=50), votes=3)
KEY = "sk-very-secret"


def requests_for(count, sampling=SAMPLING):
    for number in range(count):
        messages = ({"role": "system", "content": "s"}, {"role": "user", "content": f"question {number}"})
        yield from sampling.requests(messages)


def engine_for(*servers, concurrency=8, key="", **options):
    urls = tuple(server if isinstance(server, str) else server.url for server in servers)
    settled = {"backoff": 0.01, "longest_backoff": 0.05, "timeout": 5.0} | options
    return OpenAIEngine(
        SAMPLING.model, SAMPLING.generation, ServerOptions(urls, concurrency, **settled), api_key=key
    )


def run(folder, requests, engine, total=9, **limits):
    with AnswerLedger(folder) as ledger:
        return asyncio.run(ask(requests, engine, ledger, total=total, limits=Limits(**limits)))


def rows(folder):
    return [row for batch in read_answers(folder) for row in batch.to_pylist()]


def first_fails(misdeed, times=2):
    return lambda body, number: misdeed if number < times else "Final answer: yes"


@pytest.mark.parametrize(
    "misdeed",
    [
        Misdeed("status", 429, retry_after="0.01"),
        Misdeed("status", 429, retry_after="Sun, 06 Nov 1994 08:49:37 GMT"),
        Misdeed("status", 500),
        Misdeed("status", 503),
        Misdeed("drop"),
        Misdeed("garbage"),
        Misdeed("slow"),
    ],
    ids=lambda misdeed: f"{misdeed.kind} {misdeed.status} {misdeed.retry_after or ''}".strip(),
)
def test_what_passes_is_tried_again(tmp_path, misdeed):
    # Long enough for a busy machine to answer; only who never answers is waited for that long.
    with ScriptedServer(first_fails(misdeed)) as server:
        asked = run(tmp_path, requests_for(3), engine_for(server, timeout=3.0))
    assert (asked.requested, asked.done, asked.failed, asked.left) == (9, 9, 0, 0)
    assert {row["tries"] for row in rows(tmp_path)} == {3}
    assert len(server.bodies) == 27


def test_what_a_server_is_sent(tmp_path):
    with ScriptedServer(lambda body, number: "no") as server:
        run(tmp_path, requests_for(2), engine_for(server))
    seeds = [body["seed"] for body in server.bodies]
    assert len(set(seeds)) == 6
    for body in server.bodies:
        assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == (
            "tiny",
            0.6,
            0.9,
            50,
        )
        assert [turn["role"] for turn in body["messages"]] == ["system", "user"]


def test_servers_that_call_the_limit_otherwise_are_sent_their_name_for_it(tmp_path):
    with ScriptedServer(lambda body, number: "no") as server:
        run(tmp_path, requests_for(1), engine_for(server, limit_field="max_completion_tokens"))
    assert all("max_tokens" not in body and body["max_completion_tokens"] == 50 for body in server.bodies)


def test_every_way_an_answer_can_end_is_kept_apart(tmp_path):
    said = {
        "question 0": "Final answer: yes",
        "question 1": "",
        "question 2": Misdeed("length", text="Final an"),
        "question 3": Misdeed("status", 400),
        "question 4": Misdeed("status", 500),
    }
    with ScriptedServer(lambda body, number: said[body["messages"][-1]["content"]]) as server:
        asked = run(tmp_path, requests_for(5), engine_for(server, tries=3), total=15, most_failed=6)
    assert (asked.done, asked.failed, asked.left) == (9, 6, 0)
    found = {(row["status"], row["finish_reason"], row["tries"]) for row in rows(tmp_path)}
    assert found == {
        ("ok", "stop", 1),
        ("empty", "stop", 1),
        ("length", "length", 1),
        ("error", "", 1),
        ("error", "", 3),
    }
    answered = next(row for row in rows(tmp_path) if row["status"] == "ok")
    assert (answered["prompt_tokens"], answered["output_tokens"], answered["text"]) == (
        3,
        3,
        "Final answer: yes",
    )
    assert answered["seconds"] > 0


@pytest.mark.parametrize(
    ("usage", "prompt_tokens"),
    [
        ("many", -1),
        ([1, 2], -1),
        ({"prompt_tokens": "7", "completion_tokens": None}, -1),
        ({"prompt_tokens": 2**70, "completion_tokens": -5}, -1),
        ({"prompt_tokens": 7, "prompt_tokens_details": [3]}, 7),
        ({"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": {}}}, 7),
    ],
)
def test_tokens_that_a_server_counts_in_another_form_are_unknown(tmp_path, usage, prompt_tokens):
    with ScriptedServer(lambda body, number: "yes", usage=usage) as server:
        assert run(tmp_path, requests_for(1), engine_for(server), total=3).done == 3
    found = {(row["prompt_tokens"], row["output_tokens"], row["cached_tokens"]) for row in rows(tmp_path)}
    assert found == {(prompt_tokens, -1, -1)}


def test_a_rerun_asks_only_what_is_missing_and_identical_prompts_once(tmp_path):
    with ScriptedServer(lambda body, number: Misdeed("status", 400)) as server:
        asked = run(tmp_path, requests_for(1), engine_for(server), total=3, most_failed=3)
        assert (asked.failed, asked.requested) == (3, 3)
    with ScriptedServer(lambda body, number: "yes") as server:
        twice = [*requests_for(4), *requests_for(2)]
        asked = run(tmp_path, iter(twice), engine_for(server), total=12)
        assert (asked.requested, asked.done, asked.repeated, asked.found) == (12, 12, 6, 0)
        assert len(server.bodies) == 12
        again = run(tmp_path, iter(twice), engine_for(server), total=0)
        assert (again.requested, again.found, again.done) == (12, 12, 0)
        assert len(server.bodies) == 12
    assert count_statuses(tmp_path) == {"ok": 12}


def test_several_servers_share_the_work_and_one_that_is_gone_is_left_in_peace(tmp_path):
    script = lambda body, number: "yes"  # noqa: E731
    with ScriptedServer(script, 0.02) as one, ScriptedServer(script, 0.02) as two:
        asked = run(tmp_path, requests_for(30), engine_for(one, two, "http://127.0.0.1:9/v1"), total=90)
    assert (asked.done, asked.failed) == (90, 0)
    assert min(len(one.bodies), len(two.bodies)) > 25


def test_as_many_are_under_way_as_allowed_and_never_more(tmp_path):
    with ScriptedServer(lambda body, number: "yes", 0.05) as server:
        run(tmp_path, requests_for(40), engine_for(server, concurrency=12), total=120)
    assert server.most_at_once == 12


def test_one_slow_answer_holds_up_no_other(tmp_path):
    def script(body, number):
        if body["messages"][-1]["content"] == "question 0":
            return Misdeed("slow") if number == 0 else "yes"
        return "yes"

    with ScriptedServer(script, 0.01) as server, AnswerLedger(tmp_path) as ledger:
        engine = engine_for(server, concurrency=4, timeout=5.0)
        sampling = Sampling(SAMPLING.model, SAMPLING.generation, votes=1)
        asyncio.run(ask(requests_for(60, sampling), engine, ledger, total=60))
    asked = [body["messages"][-1]["content"] for body in server.bodies]
    # With batches of four, only three others would be asked before the first is tried again.
    assert asked.index("question 0", 1) == 60
    assert len(asked) == 61


@pytest.mark.parametrize("status", [401, 404])
def test_what_is_wrong_for_all_ends_the_run_at_once_without_showing_the_key(tmp_path, status, caplog):
    caplog.set_level(logging.DEBUG)
    with ScriptedServer(lambda body, number: Misdeed("status", status), key=KEY) as server:
        engine = engine_for(server, key=KEY)
        with pytest.raises(EngineError) as error:
            run(tmp_path, requests_for(50), engine, total=150)
    assert len(server.bodies) <= 8
    for place in (str(error.value), repr(engine), caplog.text):
        assert KEY not in place
    assert "check" in str(error.value)


def test_the_key_is_sent_and_a_wrong_one_is_said_to_be_wrong(tmp_path):
    with ScriptedServer(lambda body, number: "yes", key=KEY) as server:
        assert run(tmp_path, requests_for(1), engine_for(server, key=KEY), total=3).done == 3
        with pytest.raises(EngineError, match="check the key") as error:
            run(tmp_path, requests_for(2), engine_for(server, key="sk-other-secret"), total=3)
    assert "sk-other-secret" not in str(error.value)


def test_too_many_failures_end_the_run_early_and_keep_what_came(tmp_path):
    def script(body, number):
        return "yes" if int(body["messages"][-1]["content"].split()[1]) < 5 else Misdeed("status", 400)

    with ScriptedServer(script) as server, pytest.raises(LedgerError, match="requests failed, more than"):
        run(tmp_path, requests_for(500), engine_for(server), total=1500)
    assert len(server.bodies) < 100
    assert count_statuses(tmp_path)["ok"] == 15


@pytest.mark.parametrize("counts", [True, False], ids=["server counts", "server does not"])
@pytest.mark.parametrize("limits", [{"max_tokens": 60}, {"max_minutes": 0.005}], ids=["tokens", "time"])
def test_a_budget_stops_the_run_and_the_same_command_goes_on(tmp_path, limits, counts):
    with ScriptedServer(lambda body, number: "yes", 0.02, counts=counts) as server:
        asked = run(tmp_path, requests_for(200), engine_for(server, concurrency=2), total=600, **limits)
        assert "budget" in asked.stopped
        assert (asked.requested, asked.failed) == (600, 0)
        assert 0 < asked.done < 200
        assert asked.left == 600 - asked.done
        asked.check(Limits())
        sent = len(server.bodies)
        assert sent == asked.done
        rest = run(tmp_path, requests_for(200), engine_for(server, concurrency=64), total=asked.left)
        assert (rest.found, rest.done) == (asked.done, asked.left)


def test_a_request_that_is_not_accounted_for_fails_the_run():
    from tasks.summer.asking import Asked

    with pytest.raises(LedgerError, match="neither answered nor failed"):
        Asked(requested=10, done=9).check(Limits())
    with pytest.raises(LedgerError, match="2 requests failed, more than the 1 allowed"):
        Asked(requested=10, done=8, failed=2, error="busy").check(Limits(most_failed=1))
    Asked(requested=10, done=9, failed=1).check(Limits(most_failed=1))


def test_addresses_that_are_none_are_refused():
    assert check_urls(["http://a/v1", "https://b/v1"]) == []
    assert "localhost:8000" in check_urls(["localhost:8000"])[0]
