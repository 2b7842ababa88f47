"""SUMMER's own parts: texts of genes, observations, prompts, order, tokens, the way back from the ledger."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from storage.answers import Answer, AnswerLedger
from storage.errors import InputError
from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.symbols import SymbolIndex
from tasks.summer.answering import (
    account,
    missing_requests,
    outcomes_digest,
    read_outcomes,
    sampled_questions,
    write_requests,
)
from tasks.summer.engines.protocol import Generation, ModelName, Sampling
from tasks.summer.entries import MOST_ENTRIES, EntryIndex, first_sentences
from tasks.summer.gene_texts import texts_from_entries, texts_from_files
from tasks.summer.questions import CHOICES, VARIANTS, Questions, cell_line_sentence, sample
from tasks.summer.retrieval import Retrieved, retrieve
from tasks.summer.summaries import SummaryWriter, read_summaries, summary_requests, write_summaries
from tasks.summer.templates import TEMPLATES, Prompts
from tasks.summer.tokens import four_characters, report_tokens
from tasks.summer.votes import parse_vote

GENES = [f"G{number:02}" for number in range(40)]
SAMPLING = Sampling(ModelName("m"), Generation(), votes=3)


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    """Forty genes in four groups of ten: every two of a group are linked and share a pathway."""
    group = np.arange(40) // 10
    links = (group[:, None] == group) & ~np.eye(40, dtype=bool)
    return KnowledgeGraph(
        symbols=SymbolIndex.build(GENES, {"ALIAS": "G03"}),
        adjacency=sparse.csr_array(links.astype(np.float32)),
        incidence=sparse.csr_array((group[:, None] == np.arange(4)).astype(np.float32)),
        terms=np.array(["P0", "P1", "P2", "P3"]),
        term_relations=np.array(["go_bp", "go_bp", "reactome_member", "go_bp"]),
    )


@pytest.fixture(scope="module")
def training() -> pd.DataFrame:
    """Perturbations G00 to G29 observed on every fourth gene; a label says whether both are of one group."""
    rows = [
        (pert, gene, int(i // 10 == j // 10))
        for i, pert in enumerate(GENES[:30])
        for j, gene in enumerate(GENES)
        if (i + j) % 4 == 0 and i != j
    ]
    return pd.DataFrame(rows, columns=["pert", "gene", "label"])


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    return pd.DataFrame(
        [(p, g) for p in ("ALIAS", "G35", "NOBODY") for g in ("G01", "G22", "X1")], columns=["pert", "gene"]
    )


@pytest.fixture(scope="module")
def retrieved(pairs, training, graph) -> Retrieved:
    return retrieve(pairs, training, graph)


@pytest.fixture(scope="module")
def questions(pairs, retrieved, graph) -> Questions:
    texts = texts_from_entries(EntryIndex(graph, {}, {}, {}), {})
    return Questions("de", "full", pairs, retrieved, texts, Prompts.load(), "a line.")


# Observations


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


# Texts


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


# Templates


def test_every_template_is_there_and_a_change_changes_the_digest():
    prompts = Prompts.load()
    assert set(prompts.sources) == set(TEMPLATES)
    for name, values in TEMPLATES.items():
        assert prompts.fill(name, **values)
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


@pytest.mark.parametrize("draw_for", ["question", "perturbation"])
def test_a_question_about_a_training_pair_is_not_shown_its_own_answer(training, graph, draw_for):
    asked = training[["pert", "gene"]]
    table = retrieve(asked, training, graph, budget=40, draw_for=draw_for).table(asked)
    assert len(table) > 5 * len(asked)
    same = (table["pert"] == table["seen_pert"]) & (table["gene"] == table["seen_gene"])
    assert not same.any()


# Order, tokens, ledger


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


def test_cell_lines_are_told_by_data_set_unless_given():
    assert cell_line_sentence("k562_set", "").startswith("K562")
    assert cell_line_sentence("k562", "mine") == "mine"
    assert cell_line_sentence("other", "") == "not stated."
