"""Names of clusters: over-representation against SciPy, a model's answer, ROUGE-1 by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import hypergeom

from storage.errors import InputError
from tasks.knowledge.graph import KnowledgeGraph
from tasks.knowledge.symbols import SymbolIndex
from tasks.summer.enrichment import (
    Cluster,
    bert_score_f1,
    cluster_messages,
    over_represented,
    parse_naming,
    read_clusters,
    rouge1_recall,
    score_names,
    term_sets,
)
from tasks.summer.entries import EntryIndex
from tasks.summer.gene_texts import GeneTexts
from tasks.summer.templates import Prompts

GENES = [f"G{number:02}" for number in range(50)]


@pytest.fixture(scope="module")
def index() -> EntryIndex:
    """Four terms over 40 of 50 genes, one of them of a source that names no cluster."""
    members = np.zeros((50, 4))
    members[:8, 0], members[5:25, 1], members[20:40, 2], members[:, 3] = 1, 1, 1, 1
    graph = KnowledgeGraph(
        symbols=SymbolIndex.build(GENES, {"OLD": "G02"}),
        adjacency=sparse.csr_array((50, 50), dtype=np.float32),
        incidence=sparse.csr_array(members.astype(np.float32)),
        terms=np.array(["GO:1", "GO:2", "R-1", "KW"]),
        term_relations=np.array(["go_bp", "go_cc", "reactome_member", "uniprot_keyword"]),
    )
    return EntryIndex(graph, {}, {}, {"GO:1": "ribosome assembly", "R-1": "splicing"})


def test_over_representation_is_the_hypergeometric_test(index):
    assert set(term_sets(index)) == {"GO:1", "GO:2", "R-1"}
    clusters = [
        Cluster(0, ("G00", "G01", "OLD", "G06", "G30", "UNKNOWN", "G45"), "ribosome"),
        Cluster(1, ("G45", "UNKNOWN"), ""),
    ]
    named = over_represented(clusters, index)
    top = named.iloc[0]
    assert (top["name"], top["term"], top["overlap"]) == ("ribosome assembly", "GO:1", "4/8")
    # Five of the cluster's genes are among the 40 with any term; four of them carry the best one.
    p_values = [hypergeom.sf(k - 1, 40, size, 5) for k, size in ((4, 8), (1, 20), (1, 20))]
    assert top["p_value"] == pytest.approx(p_values[0])
    assert top["p_adj"] == pytest.approx(3 * p_values[0])
    assert named["name"].tolist()[1] == ""


def test_rouge_recall_counts_the_labels_words():
    names = ["ribosomal assembly factors", "the ribosome", "", "splicing of mRNA"]
    labels = ["ribosome assembly", "cytosolic ribosome biogenesis", "x y", "mRNA splicing"]
    np.testing.assert_allclose(rouge1_recall(names, labels), [1, 1 / 3, 0, 1])


def test_clusters_without_a_label_are_named_and_not_scored(index):
    clusters = [Cluster(0, ("G00", "G01"), "ribosome"), Cluster(1, ("G30", "G31"), "")]
    scored = score_names(over_represented(clusters, index), clusters, None)
    assert scored["rouge1_recall"].tolist()[0] == 1
    assert np.isnan(scored["rouge1_recall"].tolist()[1])
    assert "bert_f1" not in scored


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Overview: They splice.\nUpstream: SR proteins.\nName: mRNA splicing", "mRNA splicing"),
        (
            '**Overview:** They\nsplice.\n\n**Upstream pathways:** SR.\n\n**Name:** "mRNA splicing".',
            "mRNA splicing",
        ),
        (
            "1. Overview - They splice.\n2. Upstream - SR.\n3. Name - mRNA splicing\n\nNote: guess.",
            "mRNA splicing",
        ),
        ("## Overview\nThey splice.\n\n## Upstream\nSR.\n\n## Name\nmRNA splicing", "mRNA splicing"),
        ("**Overview**\nThey splice.\n**Upstream**\nSR.\n**Name**\n\n**mRNA splicing**", "mRNA splicing"),
        ("Overview: They splice.\nUpstream: SR.\nCluster name: mRNA splicing", "mRNA splicing"),
        ("Overview: They splice.\nUpstream: SR.\n**Suggested name:** *mRNA splicing*", "mRNA splicing"),
        (
            "Overview (at most three sentences):\nThey splice.\nUpstream regulators: SR.\n"
            "Name (at most ten words): mRNA splicing",
            "mRNA splicing",
        ),
        (
            "Part 1 - Overview: They splice.\nPart 2 - Upstream: SR.\nPart 3 - Name: mRNA splicing",
            "mRNA splicing",
        ),
        (
            "1) Overview: They splice.\n2) Upstream: SR.\n3) Name of the cluster: mRNA splicing",
            "mRNA splicing",
        ),
        (
            "**Part 1: Overview**\nThey splice.\n**Part 2: Upstream**\nSR.\n**Part 3: Name**\nmRNA splicing",
            "mRNA splicing",
        ),
        (
            '{\n  "overview": "They splice.",\n  "upstream": "SR.",\n  "name": "mRNA splicing"\n}',
            "mRNA splicing",
        ),
        (
            "Name: something else?\n</think>\nOverview: They splice.\nUpstream: SR.\nName: mRNA splicing",
            "mRNA splicing",
        ),
        ("<think>Overview: They splice.\nUpstream: SR.\nName: mRNA splicing", ""),
        ("\n" * 5000 + "-" * 5000, ""),
        ("I cannot tell.", ""),
        ("", ""),
    ],
)
def test_the_parts_of_a_models_answer(text, name):
    naming = parse_naming(text)
    assert naming.name == name
    assert naming.overview == ("They splice." if name else "")
    assert naming.upstream.startswith("SR" if name else "")


def test_a_prompt_for_a_cluster_describes_its_members_and_not_its_label():
    texts = GeneTexts("entries", lambda role, gene: {"A": "does this"}.get(gene, ""))
    turns = cluster_messages(
        Cluster(0, ("A", "B"), "the secret name"), "pert", texts=texts, prompts=Prompts.load()
    )
    said = " ".join(turn["content"] for turn in turns)
    assert "Cluster of 2 genes: A, B" in said
    assert "- A: does this" in said
    assert "- B:" not in said
    assert "secret" not in said


def test_a_prompt_for_a_large_cluster_says_how_many_of_its_genes_are_shown():
    genes = tuple(f"G{number}" for number in range(100))
    _, question = cluster_messages(
        Cluster(0, genes, ""),
        "gene",
        texts=GeneTexts("entries", lambda role, gene: ""),
        prompts=Prompts.load(),
    )
    assert "Cluster of 100 genes, of which 60 are shown: G0, " in question["content"]
    assert "G60" not in question["content"]


def test_clusters_are_read_in_both_layouts_and_nothing_else(tmp_path):
    path = tmp_path / "clusters.json"
    path.write_text(json.dumps([{"genes": ["A", "B"], "label": None}, {"genes": ["C"], "label": "c"}]))
    assert read_clusters(path) == [Cluster(0, ("A", "B"), ""), Cluster(1, ("C",), "c")]
    path.write_text(json.dumps({"c": ["C"]}))
    assert read_clusters(path) == [Cluster(0, ("C",), "c")]
    for wrong in (
        "[",
        "[]",
        '[{"genes": []}]',
        '{"a": "b"}',
        '[{"genes": [1]}]',
        '[{"genes": ["A"], "label": 3}]',
    ):
        path.write_text(wrong)
        with pytest.raises(InputError):
            read_clusters(path)


def test_equal_texts_have_the_best_bert_score_and_none_the_worst(tmp_path):
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "ribosome", "assembly", "splicing"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=5, **sizes)).save_pretrained(tmp_path)
    names = ["ribosome assembly", "splicing", ""]
    scores = bert_score_f1(names, ["ribosome assembly", "ribosome assembly", "splicing"], tmp_path)
    assert scores[0] == pytest.approx(1)
    assert scores[1] < 0.99
    assert scores[2] == 0
