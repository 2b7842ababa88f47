"""`pqa answer` as its users see it: against a scripted server, a tiny real model, and kill -9."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.__main__ import main
from flows.answer_options import AnswerOptions
from flows.language_model import key_from_secret
from storage.answers import AnswerLedger
from storage.tables import read_predictions
from tasks.summer.engines.protocol import EngineError
from tests.flows.jobs import run_pqa, start_pqa
from tests.language_models import Misdeed, ScriptedServer, count_statuses, make_tiny_llama, transformers_serve
from tests.waiting import LONG

GENES = [f"G{number:02}" for number in range(30)]


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """Labels of 20 perturbations on 10 genes each, 5 of them test, and a ring of links as knowledge."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    rows = [
        (GENES[pert], GENES[gene], int(rng.random() < 0.4), "test" if pert < 5 else "train")
        for pert in range(20)
        for gene in rng.choice([g for g in range(30) if g != pert], 10, replace=False)
    ]
    labels = pd.DataFrame(rows, columns=["pert", "gene", "label", "split"])
    labels.to_parquet(folder / "line-de.parquet")
    labels[labels["split"] == "test"][["pert", "gene"]].to_parquet(folder / "pairs.parquet")
    knowledge = folder / "knowledge"
    knowledge.mkdir()
    ring = [(GENES[i], GENES[(i + step) % 30], "links") for i in range(30) for step in (1, 2)]
    pd.DataFrame(ring, columns=["source_gene", "target_gene", "relation"]).to_parquet(
        knowledge / "edges_ring.parquet"
    )
    return folder


def arguments(tables, out, *urls, model="tiny", **options) -> list[str]:
    given = ["answer", "--labels", tables / "line-de.parquet", "--pairs", tables / "pairs.parquet"]
    given += ["--knowledge", tables / "knowledge", "--engine", "openai", "--model", model, "--out", out]
    given += ["--base-url", *urls, *options.pop("more", ())]
    return [*map(str, given), "--json"]


def drawn(body, number):
    """A server that says what its seed says."""
    return ("Final answer: yes", "**Final answer:** no", "no idea", "")[
        random.Random(body["seed"]).randrange(4)
    ]


def test_answers_become_votes_predictions_and_scores_and_a_rerun_asks_nothing(tables, tmp_path, capsys):
    with ScriptedServer(drawn) as server:
        command = arguments(tables, tmp_path, server.url, more=["--variants", "full", "no-retrieval"])
        assert main(command) == 0
        result = json.loads(capsys.readouterr().out)["variants"]
        sent = len(server.bodies)
        assert main(command) == 0
        assert json.loads(capsys.readouterr().out)["variants"] == result
        assert len(server.bodies) == sent == 300
    for variant in ("full", "no-retrieval"):
        folder = tmp_path / variant
        votes = pd.read_parquet(folder / "votes-de.parquet")
        predictions = read_predictions(folder / "de.parquet")
        assert len(predictions) == 50
        counted = votes["n_yes"] + votes["n_no"]
        expected = np.where(counted > 0, votes["n_yes"] / counted.clip(lower=1), 0.5)
        np.testing.assert_allclose(predictions["score"], expected)
        assert (votes[[c for c in votes if c.startswith("n_")]].sum(axis=1) == 3).all()
        assert result[variant]["requests"] == {"requested": 150, "done": 150, "failed": 0, "missing": 0}
        assert {"auroc_votes_that_count", "auroc_all_votes", "auroc_answered_only"} <= set(
            result[variant]["scores"]
        )
    sample = pd.read_parquet(tmp_path / "full" / "sample-de.parquet")
    assert {"prompt", "answer_1", "vote_3", "truth"} <= set(sample)
    assert set(sample["vote_1"]) <= {"yes", "no", "unparsed"}
    # The same predictions, through the scorer of every other predictor.
    score = ["score", "--labels", str(tables / "line-de.parquet")]
    assert main([*score, "--predictions", str(tmp_path / "predictions.parquet"), "--json"]) == 0
    auroc = json.loads(capsys.readouterr().out)["auroc"]
    assert auroc == pytest.approx(result["full"]["scores"]["auroc_votes_that_count"])


def test_a_killed_run_goes_on_where_it_was(tables, tmp_path):
    with ScriptedServer(drawn, 0.05) as server:
        more = ["--concurrency", "4"]
        process = start_pqa(*arguments(tables, tmp_path, server.url, more=more))
        deadline = time.monotonic() + LONG
        while len(server.bodies) < 40 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        first = len(server.bodies)
        assert 40 <= first < 150
        run_pqa(*arguments(tables, tmp_path, server.url, more=more))
        # At most the four under way are asked twice.
        assert 150 <= len(server.bodies) <= 154
    assert sum(count_statuses(tmp_path / "ledger").values()) == 150


def test_the_key_goes_to_the_server_and_nowhere_else(tables, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    more = ["--api-key-variable", "MY_KEY"]
    with ScriptedServer(lambda body, number: Misdeed("status", 400), key="sk-very-secret") as server:
        assert main(arguments(tables, tmp_path, server.url, more=more)) == 1
    said = capsys.readouterr()
    assert "requests failed" in said.err
    assert "sk-very-secret" not in said.out + said.err
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"sk-very-secret" in content for content in kept)


def test_the_key_can_be_a_prefect_secret(monkeypatch):
    from prefect.blocks.system import Secret

    options = AnswerOptions(engine="openai", model="m", api_key_secret="my-key")
    monkeypatch.setattr(Secret, "load", lambda name: Secret(value=f"sk-of-{name}"))
    assert key_from_secret(options)() == "sk-of-my-key"

    def missing(name):
        raise ValueError("Unable to find block document")

    monkeypatch.setattr(Secret, "load", missing)
    with pytest.raises(EngineError, match="no Secret block 'my-key'"):
        key_from_secret(options)()


def test_a_budget_stops_with_a_sentence(tables, tmp_path, capsys):
    with ScriptedServer(drawn, 0.02) as server:
        more = ["--token-budget", "4000", "--concurrency", "2"]
        assert main(arguments(tables, tmp_path, server.url, more=more)) == 1
        assert "the budget of 4,000 tokens is used up" in capsys.readouterr().err
        assert 2 <= len(server.bodies) < 100
        assert main(arguments(tables, tmp_path, server.url)) == 0
        assert len(server.bodies) == 150


def test_a_second_command_on_the_same_folder_stops_with_a_sentence(tables, tmp_path, capsys):
    with ScriptedServer(drawn) as server, AnswerLedger(tmp_path / "ledger"):
        assert main(arguments(tables, tmp_path, server.url)) == 1
        assert server.bodies == []
    assert "another process writes answers to" in capsys.readouterr().err


def test_before_it_starts_a_run_says_what_it_will_cost(tables, tmp_path, capsys):
    with ScriptedServer(drawn) as server:
        main(arguments(tables, tmp_path, server.url, more=["--max-new-tokens", "10"]))
    lines = capsys.readouterr().err.splitlines()
    assert "50 questions, 150 requests, 150 of them not answered yet" in lines[0]
    assert "at most 1,500 output tokens" in lines[0]
    assert any("a second, about" in line for line in lines)


def test_all_that_is_wrong_with_the_options_is_in_one_message(tables, tmp_path, capsys):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "summary_entries.jinja").write_text("{{ nothing }}")
    more = ["--prompts", tmp_path / "prompts", "--summaries", "nowhere", "--set-members", "no.json"]
    assert main(arguments(tables, tmp_path / "out", "localhost:8000", model="", more=more)) == 1
    err = capsys.readouterr().err
    for words in ("needs --model", "--base-url", "'nothing' is undefined", "nowhere", "no.json"):
        assert words in err
    without = [word for word in arguments(tables, tmp_path / "out", "http://a/v1") if word != "--engine"]
    without.remove("openai")
    at = without.index("--knowledge")
    del without[at : at + 2]
    assert main(without) == 1
    err = capsys.readouterr().err
    assert "--engine is needed" in err
    assert "--knowledge is needed" in err
    assert not (tmp_path / "out").exists()


def test_the_model_can_write_the_summaries_itself(tables, tmp_path, capsys):
    def script(body, number):
        return "It drives growth." if "note" in body["messages"][0]["content"] else "Final answer: no"

    with ScriptedServer(script) as server:
        assert main(arguments(tables, tmp_path, server.url, more=["--summaries", "engine"])) == 0
        written = json.loads((tmp_path / "summaries" / "desc_1hop_pert.json").read_text())
        assert written == dict.fromkeys(GENES[:5], "It drives growth.")
        asked = [body["messages"][-1]["content"] for body in server.bodies]
    assert sum("Summary: It drives growth." in text for text in asked) == 150
    assert json.loads((tmp_path / "full" / "run.json").read_text())["texts of genes"] == "engine"


def test_a_tiny_real_model_is_asked_through_transformers_serve(tables, tmp_path, capsys):
    model = make_tiny_llama(tmp_path / "llama")
    few = tmp_path / "pairs.parquet"
    pd.read_parquet(tables / "pairs.parquet").head(4).to_parquet(few)
    with transformers_serve(model) as url:
        more = ["--max-new-tokens", "6", "--concurrency", "2", "--tokenizer", model, "--pairs", few]
        command = arguments(tables, tmp_path / "out", url, model=str(model), more=more)
        assert main(command) == 0
    result = json.loads(capsys.readouterr().out)["variants"]["full"]
    assert result["requests"] == {"requested": 12, "done": 12, "failed": 0, "missing": 0}
    figures = result["figures"]
    # Its own tokenizer counts before the start what the server counts afterwards.
    assert figures["listed_prompt_tokens"] == figures["prompt_tokens"] > 1000
    assert figures["output_tokens"] <= 12 * 6
    assert figures["rate_unparsed"] + figures["rate_yes"] + figures["rate_no"] + figures[
        "rate_insufficient"
    ] == pytest.approx(1)
    assert main(command) == 0, "everything is in the ledger; the server is gone"
