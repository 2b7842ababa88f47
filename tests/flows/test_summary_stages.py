"""The stage of summaries: what failed is asked again, and each round has a progress of its own."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from flows.answer_options import AnswerOptions
from flows.answer_steps import material_of
from flows.label_sets import LabelSet
from flows.language_model import BudgetSpent, LanguageModel, Spent
from flows.options import KnowledgeOptions
from flows.records import Place
from flows.summary_stages import summarise_stage
from storage.manifest import file_digest
from tests.flows.test_answer_command import GENES, tables  # noqa: F401
from tests.language_models import Misdeed, ScriptedServer

ROUNDS = ["from own entries", "with relations"]


def summarise(tables, workspace, url, *, progress=None, spent=None, **options):  # noqa: F811
    options = AnswerOptions(
        engine="openai", model="tiny", base_url=(url,), concurrency=1, max_failed=0.5, **options
    )
    path = tables / "line-de.parquet"
    labels = LabelSet("line", {"de": path}, {"de": file_digest(path)})
    material = material_of("line", tables / "knowledge", options, KnowledgeOptions())
    told = progress or (lambda title: lambda done, total: None)
    with LanguageModel(options, workspace / "answers", lambda: "", spent=spent) as model:
        return summarise_stage(
            Place(workspace), labels, material, model, say=lambda words: None, progress=told
        )


def is_about(gene, role):
    """Whether a prompt asks for the first summary of a gene in a role."""
    beginning = {"pert": "Write what is to be expected downstream", "gene": "Write what sets"}[role]

    def answer(body):
        system, user = (turn["content"] for turn in body["messages"])
        return beginning in system and user.startswith(f"Gene: {gene}\nDatabase entries")

    return answer


def test_summaries_that_failed_are_asked_for_again_next_time(tables, tmp_path):  # noqa: F811
    fails = is_about(GENES[0], "pert")

    def script(body, number):
        return Misdeed("status", 400) if fails(body) and number == 0 else "It drives growth."

    def written(record):
        return json.loads((record.folder / "desc_pert.json").read_text())

    with ScriptedServer(script) as server:
        first = summarise(tables, tmp_path, server.url)
        assert set(written(first)) == set(GENES[1:5])
        sent = len(server.bodies)
        second = summarise(tables, tmp_path, server.url)
        assert set(written(second)) == set(GENES[:5])
        assert second.content != first.content
        # The one that failed, and those whose prompts hold what came of it.
        again = server.bodies[sent:]
        assert fails(again[0])
        assert 1 < len(again) < sent / 2
        sent = len(server.bodies)
        assert summarise(tables, tmp_path, server.url).status == "skipped"
        assert len(server.bodies) == sent


@pytest.mark.parametrize("again", [("error",), ("error", "length")])
def test_what_was_cut_off_is_asked_again_where_that_is_chosen(tables, tmp_path, again):  # noqa: F811
    with ScriptedServer(lambda body, number: Misdeed("length", text="It is one. It")) as server:
        summarise(tables, tmp_path, server.url)
        sent = len(server.bodies)
        summarise(tables, tmp_path, server.url, ask_again=again)
        assert len(server.bodies) == sent * (1 + ("length" in again))


def test_each_round_has_a_progress_of_its_own(tables, tmp_path):  # noqa: F811
    told = []

    def progress(title):
        return lambda done, total: told.append((title, done, total))

    with ScriptedServer(lambda body, number: "It drives growth.") as server:
        summarise(tables, tmp_path, server.url, progress=progress)
    test = pd.read_parquet(tables / "line-de.parquet").query("split == 'test'")
    genes = test["pert"].nunique() + test["gene"].nunique()
    assert told == [(title, done + 1, genes) for title in ROUNDS for done in range(genes)]


@pytest.mark.parametrize("before", [0, 300])
def test_a_budget_is_named_as_it_was_given_with_what_was_spent(tables, tmp_path, before):  # noqa: F811
    with ScriptedServer(lambda body, number: "It drives growth.") as server:
        with pytest.raises(BudgetSpent, match=r"budget of 300 tokens is used up \(3\d\d spent\)"):
            summarise(tables, tmp_path, server.url, token_budget=300, spent=Spent(tokens=before))
        assert (0 < len(server.bodies) < 20) == (before == 0)
