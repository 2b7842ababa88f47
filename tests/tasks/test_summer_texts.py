"""What prompts say of genes: entries, published summaries, the model's own; and the templates."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from storage.answers import Answer, AnswerLedger
from storage.errors import InputError
from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.symbols import SymbolIndex
from tasks.summer.entries import MOST_ENTRIES, EntryIndex, first_sentences
from tasks.summer.gene_texts import texts_from_entries, texts_from_files
from tasks.summer.summaries import SummaryWriter, read_summaries, summary_requests, write_summaries
from tasks.summer.templates import TEMPLATES, Prompts, trials
from tests.summer_world import SAMPLING, linked_groups


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return linked_groups()


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_names_and_texts_are_told_apart_by_their_source_in_any_order(tmp_path, graph, order):
    rows = [
        ("G1", "gene one | gene group: Ones", "hgnc_name"),
        ("G1", "Refseq on G1.", "refseq_summary"),
        ("G1", "Another text on G1.", "ncbi_gene_summary_playdata"),
        ("G2", "A text on G2.", "ncbi_gene_summary_playdata"),
    ]
    table = pd.DataFrame(rows[order], columns=["gene", "description", "source"])
    table.to_parquet(tmp_path / "gene_text.parquet")
    index = EntryIndex.read(tmp_path, graph)
    assert index.names == {"G1": "gene one"}
    assert index.texts == {"G1": "Refseq on G1.", "G2": "A text on G2."}


def test_entries_come_by_trust_and_are_capped(graph):
    index = EntryIndex(graph, {"G03": "It does this. And that."}, {"G03": "gene three"}, {"P0": "splicing"})
    entries = index.entries("ALIAS")
    assert entries[:3] == ["ALIAS is gene three", "It does this. And that.", "ALIAS takes part in splicing"]
    assert len(entries) == 3 + 9
    assert index.entries("NOBODY") == []
    dense = replace(graph, adjacency=sparse.csr_array(np.ones((40, 40), np.float32)))
    big = KnowledgeGraph(
        symbols=SymbolIndex.build([f"A{n:03}" for n in range(90)], {}),
        adjacency=sparse.csr_array(np.ones((90, 90), np.float32) - np.eye(90, dtype=np.float32)),
        incidence=sparse.csr_array((90, 0), dtype=np.float32),
        terms=np.empty(0, "<U1"),
        term_relations=np.empty(0, "<U1"),
    )
    assert len(EntryIndex(dense, {}, {}, {}).entries("G00")) <= MOST_ENTRIES
    assert len(EntryIndex(big, {}, {}, {}).entries("A000")) == MOST_ENTRIES


def test_links_that_more_files_list_come_first(graph):
    adjacency = graph.adjacency.toarray()
    adjacency[0, 7] = adjacency[7, 0] = 3
    index = EntryIndex(replace(graph, adjacency=sparse.csr_array(adjacency)), {}, {}, {})
    assert index.partners(0, 3) == ["G07", "G01", "G02"]


def test_a_condensed_text_keeps_whole_sentences_and_says_what_it_is(graph):
    index = EntryIndex(graph, {"G03": "One two. " * 50}, {"G03": "gene three"}, {})
    text = index.condensed("G03")
    assert text.startswith("gene three. One two.")
    assert text.count("One two.") == 30
    texts = texts_from_entries(index, {"set": ["A", "B"]})
    assert "by rule" in texts.title
    assert texts.text("pert", "G03") == texts.text("gene", "ALIAS") == text
    assert (texts.text("gene", "set"), texts.measured("set"), texts.measured("G03")) == (
        "a set of 2 genes: A, B",
        "gene set",
        "gene",
    )
    assert first_sentences("A very long one without an end", 3) == "A very long one without an end"


def test_published_summaries_are_read_from_folder_and_archive_with_relations_first(tmp_path):
    content = {
        "desc_pert.json": {"A": "own pert", "B": "own pert B"},
        "desc_1hop_pert.json": {"A": "hop pert"},
        "desc_gene.json": {"A": "own gene"},
    }
    folder = tmp_path / "published" / "inside"
    folder.mkdir(parents=True)
    for name, texts in content.items():
        (folder / name).write_text(json.dumps(texts))
    with zipfile.ZipFile(tmp_path / "gene_summary.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"gene_summary/{path.name}")
    for place in (tmp_path / "published", tmp_path / "gene_summary.zip"):
        texts = texts_from_files(place, "published", {})
        found = [texts.text(*asked) for asked in (("pert", "A"), ("pert", "B"), ("gene", "A"), ("gene", "B"))]
        assert found == ["hop pert", "own pert B", "own gene", ""]
        assert texts.title == "Summary"
    (folder / "desc_gene.json").write_text("[1]")
    (folder / "desc_pert.json").unlink()
    (folder / "desc_1hop_pert.json").unlink()
    with pytest.raises(InputError) as error:
        texts_from_files(tmp_path / "published", "published", {})
    assert len(error.value.problems) == 2
    with pytest.raises(InputError, match="neither a folder nor a zip"):
        texts_from_files(folder / "desc_gene.json", "published", {})


def test_every_template_is_there_and_a_change_changes_the_digest():
    prompts = Prompts.load()
    assert set(prompts.sources) == set(TEMPLATES)
    for name in TEMPLATES:
        assert all(prompts.fill(name, **values) for values in trials(name))
    other = Prompts(dict(prompts.sources) | {"summary_entries": "x"})
    assert other.digest != prompts.digest == Prompts.load().digest


def test_a_users_templates_come_in_place_and_are_checked_before_use(tmp_path):
    (tmp_path / "summary_entries.jinja").write_text("Tell me about {{ gene }}.")
    prompts = Prompts.load(tmp_path)
    assert prompts.fill("summary_entries", gene="MYC", entries=[]) == "Tell me about MYC."
    assert prompts.sources["answer_system"] == Prompts.load().sources["answer_system"]
    (tmp_path / "answer_system.jinja").write_text("{{ tusk }}")
    (tmp_path / "answer_question.jinja").write_text("{% if %}")
    (tmp_path / "wrong_name.jinja").write_text("")
    with pytest.raises(InputError, match=r"wrong_name\.jinja is no template"):
        Prompts.load(tmp_path)
    (tmp_path / "wrong_name.jinja").unlink()
    with pytest.raises(InputError) as error:
        Prompts.load(tmp_path)
    assert len(error.value.problems) == 2
    assert "'tusk' is undefined" in str(error.value)
    with pytest.raises(InputError, match="no such folder"):
        Prompts.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("answer_system", "{% if task == 'dir' %}{{ tusk }}{% endif %}", "'tusk' is undefined"),
        ("answer_system", "{% if not reasoning %}{{ 1 + 'a' }}{% endif %}", "TypeError"),
        ("answer_question", "{% if not observations %}{{ observations[0] }}{% endif %}", "no element 0"),
        ("answer_question", "{{ 1 / (gene_text | length) }}", "ZeroDivisionError"),
        ("answer_question", "{% if task == 'dir' %}{{ outcomes[2] }}{% endif %}", "no element 2"),
        ("summary_one_hop", "{% if role == 'gene' and not related %}{% include 'x' %}{% endif %}", "x"),
        ("gene_set_question", "{{ members[0].text or nobody }}", "'nobody' is undefined"),
        ("summary_entries", "{{ gene | shout }}", "No filter named 'shout'"),
    ],
)
def test_a_users_template_is_tried_on_all_it_may_be_given(tmp_path, name, content, problem):
    (tmp_path / f"{name}.jinja").write_text(content)
    with pytest.raises(InputError) as error:
        Prompts.load(tmp_path)
    (said,) = error.value.problems
    assert said.startswith(f"{name}.jinja")
    assert problem in said


def test_all_that_is_wrong_with_a_users_templates_is_in_one_message(tmp_path):
    (tmp_path / "answer_system.jinja").write_bytes("é".encode("latin-1"))
    (tmp_path / "summary_system.jinja").mkdir()
    (tmp_path / "summary_entries.jinja").write_text("{{ nothing }}")
    (tmp_path / "gene_set_system.jinja").write_text("{% if kind == 'gene' %}{{ one }}{% endif %}")
    (tmp_path / "wrong_name.jinja").write_text("")
    with pytest.raises(InputError) as error:
        Prompts.load(tmp_path)
    named = ("answer_system", "summary_system", "summary_entries", "gene_set_system", "wrong_name")
    assert all(any(word in problem for problem in error.value.problems) for word in named)


def test_a_users_template_may_be_written_in_any_letters(tmp_path):
    (tmp_path / "summary_entries.jinja").write_text("Qué hace {{ gene }}?", encoding="utf-8")
    assert Prompts.load(tmp_path).fill("summary_entries", gene="MYC", entries=[]) == "Qué hace MYC?"


def test_summaries_are_asked_for_twice_and_written_in_the_published_layout(graph, tmp_path):
    genes = {"pert": ["G00", "G01"], "gene": ["G02"]}
    writer = SummaryWriter(genes, EntryIndex(graph, {}, {}, {}), Prompts.load(), max_words=100)
    keys = {r.key: (role, gene) for role, gene, r in summary_requests(writer.own(), SAMPLING)}
    assert len(keys) == 3
    with AnswerLedger(tmp_path / "ledger") as ledger:
        for number, key in enumerate(keys):
            status = ("ok", "length", "error")[number]
            ledger.add(Answer(key, 0, 0, "m", status, text="It is one.\nIt is two. It is th"))
        own = read_summaries(keys, ledger)
    assert own == {
        "pert": {"G00": "It is one. It is two. It is th", "G01": "It is one. It is two."},
        "gene": {},
    }
    prompts = {(role, gene): turns[1]["content"] for role, gene, turns in writer.one_hop(own)}
    assert "It is one." in prompts["pert", "G00"]
    assert "- G01: It is one. It is two." in prompts["pert", "G00"]
    assert "- G01: Processes: P0." in prompts["gene", "G02"]
    rows = write_summaries(tmp_path / "out", own, {"pert": {"G00": "hop"}, "gene": {"G02": "hop"}})
    assert rows["desc_1hop_gene.json"] == 1
    texts = texts_from_files(tmp_path / "out", "engine", {})
    assert (texts.text("pert", "G00"), texts.text("pert", "G01")[:6]) == ("hop", "It is ")


@pytest.mark.parametrize(
    ("text", "status", "summary"),
    [
        ("<think>Let me see.</think>\nIt drives growth.", "ok", "It drives growth."),
        ("Let me see.\n</think>\nIt drives growth. It is", "length", "It drives growth."),
        ("<think>Let me see. What does it", "length", None),
        ("<|channel|>analysis<|message|>Let me see.", "length", None),
    ],
)
def test_hidden_reasoning_is_no_summary(tmp_path, text, status, summary):
    keys = {"ab" * 32: ("pert", "G00")}
    with AnswerLedger(tmp_path) as ledger:
        ledger.add(Answer("ab" * 32, 0, 0, "m", status, text=text))
        read = read_summaries(keys, ledger)
    assert read["pert"] == ({"G00": summary} if summary else {})
