"""Naming clusters of genes: by over-representation of known terms, or by a language model."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from storage.errors import InputError
from tasks.summer.entries import EntryIndex
from tasks.summer.gene_texts import GeneTexts, Role
from tasks.summer.plain_text import without_reasoning
from tasks.summer.templates import Message, Prompts

#: Relations whose terms name a cluster; CORUM only where its licence is accepted.
TERM_SOURCES = ("go", "reactome", "corum")
#: Members a prompt describes.
MEMBERS = 60


@dataclass(frozen=True)
class Cluster:
    """Genes that belong together.

    Attributes
    ----------
    number
        Position in its file.
    genes
        Symbols.
    label
        The name that curators gave it; empty where they gave none.
    """

    number: int
    genes: tuple[str, ...]
    label: str


def read_clusters(path: Path | str) -> list[Cluster]:
    """Read clusters: JSON, a list of ``{"genes": [...], "label": name or null}`` or an object name -> genes.

    Raises
    ------
    InputError
        If the file is neither.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(str(path), [f"cannot be read ({error.strerror})"]) from error
    except ValueError as error:
        raise InputError(str(path), [f"not JSON ({error})"]) from error
    if isinstance(content, dict):
        content = [{"genes": genes, "label": name} for name, genes in content.items()]
    if not isinstance(content, list) or not content or not all(_is_cluster(item) for item in content):
        raise InputError(
            str(path),
            ['a JSON list of {"genes": [symbols], "label": name or null} is needed, or name -> symbols'],
        )
    return [
        Cluster(number, tuple(item["genes"]), item.get("label") or "") for number, item in enumerate(content)
    ]


def _is_cluster(item: object) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("genes"), list) or not item["genes"]:
        return False
    return all(isinstance(gene, str) for gene in item["genes"]) and isinstance(item.get("label"), str | None)


def term_sets(index: EntryIndex) -> dict[str, list[str]]:
    """Genes of every term of `TERM_SOURCES`, by the term's id."""
    graph = index.graph
    by_term = graph.incidence.tocsc()
    chosen = [at for at, name in enumerate(graph.term_relations.tolist()) if name.startswith(TERM_SOURCES)]
    genes = graph.genes.tolist()
    return {
        str(graph.terms[at]): [genes[i] for i in by_term.indices[by_term.indptr[at] : by_term.indptr[at + 1]]]
        for at in chosen
    }


def over_represented(clusters: Sequence[Cluster], index: EntryIndex) -> pd.DataFrame:
    """Name each cluster by the term it holds most surprisingly many genes of (hypergeometric test, gseapy).

    The background are all genes with any of the terms. P-values are adjusted (Benjamini-Hochberg) over the
    terms that the cluster holds any gene of.

    Returns
    -------
    DataFrame
        ``cluster``, ``name`` (empty where no gene has a term), ``term``, ``overlap``, ``p_value``, ``p_adj``.
    """
    # Its import takes seconds; only this needs it.
    import gseapy

    sets = term_sets(index)
    background = sorted({gene for genes in sets.values() for gene in genes})
    known = set(background)
    rows = []
    for cluster in clusters:
        genes = sorted(set(_current(cluster.genes, index)) & known)
        best = {"cluster": cluster.number, "name": "", "term": "", "overlap": ""}
        if genes:
            found = gseapy.enrich(
                gene_list=genes, gene_sets=sets, background=background, outdir=None, no_plot=True
            ).results
            top = found.sort_values(["Adjusted P-value", "P-value", "Term"]).iloc[0]
            best |= {
                "name": index.term_names.get(top["Term"], top["Term"]),
                "term": top["Term"],
                "overlap": top["Overlap"],
                "p_value": float(top["P-value"]),
                "p_adj": float(top["Adjusted P-value"]),
            }
        rows.append(best)
    columns = ["cluster", "name", "term", "overlap", "p_value", "p_adj"]
    return pd.DataFrame(rows).reindex(columns=columns)


def cluster_messages(
    cluster: Cluster, kind: Role, *, texts: GeneTexts, prompts: Prompts
) -> tuple[Message, ...]:
    """The conversation in which a model describes and names a cluster."""
    members = [{"name": gene, "text": texts.text(kind, gene)} for gene in cluster.genes[:MEMBERS]]
    return prompts.conversation(
        prompts.fill("gene_set_system", kind=kind),
        prompts.fill("gene_set_question", n_genes=len(cluster.genes), members=members, text_kind=texts.title),
    )


@dataclass(frozen=True)
class Naming:
    """What a model says of a cluster; empty parts were not found in its answer."""

    overview: str
    upstream: str
    name: str


# Before the name of a part: "3.", "Part 3 -", "Suggested"; after it: "of the cluster", "(at most ten words)".
_PART = re.compile(
    r"(?im)^[^\w\n]*(?:(?:part\s+)?\d{1,2}\s*[.):\-–—][^\w\n]*)?"
    r"(?:(?:the|a|suggested|proposed|final|short|best|cluster|gene|set|overall)\s+){0,3}"
    r"(overview|upstream(?:[ /,&]+\w+){0,5}|name)(?:\s+(?:of|for)\s+(?:the|this)\s+\w+)?"
    r"[ \t]*(?:\([^()\n]*\))?[\"”']?[ \t]*(?:[:\-–—]\s*|$)"
)


def parse_naming(text: str) -> Naming:
    """Read the three parts out of an answer, whatever markup and numbering it has.

    A part begins where a line begins with its name, and either a colon or a dash follows or the line ends.
    """
    bare = re.sub(r"[*`#]", "", without_reasoning(text)).replace("_", " ")
    marks = list(_PART.finditer(bare))
    parts = {"overview": "", "upstream": "", "name": ""}
    for mark, following in itertools.zip_longest(marks, marks[1:]):
        body = bare[mark.end() : following.start() if following else len(bare)].strip()
        key = mark.group(1).lower().split()[0]
        if key == "name":
            # What comes after its line are notes.
            body = body.partition("\n")[0].strip(' ."“”,')
        parts[key] = " ".join(body.split()).strip(' "“”,{}') or parts[key]
    return Naming(**parts)


def rouge1_recall(names: Iterable[str], labels: Iterable[str]) -> np.ndarray:
    """Share of each label's words that its name holds: ROUGE-1 recall (Lin 2004), stemmed, float64 [n]."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1"], use_stemmer=True)
    pairs = zip(names, labels, strict=True)
    return np.array([scorer.score(label, name)["rouge1"].recall for name, label in pairs], dtype=np.float64)


def bert_score_f1(names: Sequence[str], labels: Sequence[str], model: str | Path) -> np.ndarray:
    """F1 of matching each word piece with its most similar one by the cosine of a model's last layer.

    BERTScore (Zhang et al. 2020) without inverse document frequencies and without rescaling; the model is a
    folder or hub name. An empty name scores 0. float64 [n].
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, network = (
        AutoTokenizer.from_pretrained(str(model)),
        AutoModel.from_pretrained(str(model)).eval(),
    )

    def embed(text: str) -> torch.Tensor:
        with torch.no_grad():
            hidden = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        return torch.nn.functional.normalize(hidden.double(), dim=1)

    scores = []
    for name, label in zip(names, labels, strict=True):
        if not name:
            scores.append(0.0)
            continue
        cosines = embed(name) @ embed(label).T
        precision, recall = cosines.max(1).values.mean(), cosines.max(0).values.mean()
        scores.append(float(2 * precision * recall / (precision + recall)))
    return np.array(scores, dtype=np.float64)


def score_names(named: pd.DataFrame, clusters: Sequence[Cluster], bert_model: str | None) -> pd.DataFrame:
    """Add ``label``, ``n_genes``, ``rouge1_recall``, with a model ``bert_f1``; missing without a label."""
    by_number = {cluster.number: cluster for cluster in clusters}
    labels = [by_number[number].label for number in named["cluster"]]
    scored = named.assign(label=labels, n_genes=[len(by_number[n].genes) for n in named["cluster"]])
    has_label = scored["label"] != ""
    names, known = scored.loc[has_label, "name"].tolist(), scored.loc[has_label, "label"].tolist()
    scored.loc[has_label, "rouge1_recall"] = rouge1_recall(names, known)
    if bert_model is not None:
        scored.loc[has_label, "bert_f1"] = bert_score_f1(names, known, bert_model)
    return scored


def _current(genes: Iterable[str], index: EntryIndex) -> list[str]:
    """The graph's symbols of the genes it knows under any name."""
    genes = list(genes)
    at = index.graph.resolve(genes)
    return [str(name) for name in index.graph.genes[at[at >= 0]]]
