"""Clusters of genes described and named, by over-representation and, where there is one, by the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from flows.answer_options import AnswerOptions
from flows.language_model import LanguageModel, Say, answer_problems
from flows.progress import Progress
from storage.answers import AnswerLedger, read_rows
from storage.atomic import write_json
from storage.errors import LedgerError, problems_of
from storage.tables import write_table
from tasks.summer.engines.protocol import Request
from tasks.summer.enrichment import (
    Cluster,
    cluster_messages,
    over_represented,
    parse_naming,
    read_clusters,
    score_names,
)
from tasks.summer.gene_texts import Role
from tasks.summer.material import Material
from tasks.summer.tokens import four_characters, report_tokens


def cluster_files(options: AnswerOptions) -> list[tuple[Role, Path]]:
    """Kind and file of every list of clusters that the options name."""
    return [("pert", path) for path in options.pert_clusters] + [
        ("gene", path) for path in options.gene_clusters
    ]


def cluster_problems(options: AnswerOptions) -> list[str]:
    """What is wrong with the files of clusters, in sentences."""
    paths = [path for _, path in cluster_files(options)]
    # What comes of a file is filed under its name.
    twice = [name for name, n in Counter(path.stem for path in paths).items() if n > 1]
    problems = [f"two files of clusters are called {name}; give one of them another name" for name in twice]
    for path in paths:
        problems += problems_of(read_clusters, path)
    return problems


def enrichment_problems(options: AnswerOptions) -> list[str]:
    """What is wrong with a job that names clusters and nothing else, in sentences."""
    problems = answer_problems(options) + cluster_problems(options)
    if not cluster_files(options):
        problems.append(
            "no clusters are chosen: --pert-clusters or --gene-clusters; in the form 'Clusters of "
            "perturbations' or 'Clusters of genes'"
        )
    if options.summaries == "engine":
        problems.append("summaries 'engine' is not for clusters; give a folder that holds some, or 'entries'")
    return problems


def name_clusters(
    folder: Path,
    material: Material,
    options: AnswerOptions,
    model: LanguageModel | None,
    *,
    say: Say,
    progress: Progress,
) -> dict[str, dict[str, float]]:
    """Name the clusters of every file; gives the mean scores by file and method.

    Writes ``<file>-names.parquet`` (cluster, method, name, label, scores, the model's description) and
    ``enrichment.json``.
    """
    means = {}
    for kind, path in cluster_files(options):
        clusters = read_clusters(path)
        unknown = [
            cluster.number for cluster in clusters if (material.graph.resolve(cluster.genes) < 0).all()
        ]
        if unknown:
            say(f"{path.name}: the graph knows no gene of {len(unknown)} clusters: {unknown[:10]}")
        tables = {"over-representation": over_represented(clusters, material.entries)}
        if model is not None:
            tables["summer"] = _by_model(clusters, kind, material, model, say, progress)
        scored = {
            method: score_names(table, clusters, options.bert_model).assign(method=method)
            for method, table in tables.items()
        }
        recipe = {"kind": kind, "clusters": path.name, "texts": material.texts.source, "model": options.model}
        write_table(folder / f"{path.stem}-names.parquet", pd.concat(scored.values()), recipe)
        means |= {f"{path.stem}: {method}": _means(table) for method, table in scored.items()}
        for method, table in scored.items():
            if nameless := int((table["name"] == "").sum()):
                say(f"{path.name}: {method} gives {nameless:,} of {len(clusters):,} clusters no name")
    write_json(folder / "enrichment.json", means)
    return means


def _by_model(
    clusters: list[Cluster],
    kind: Role,
    material: Material,
    model: LanguageModel,
    say: Say,
    progress: Progress,
) -> pd.DataFrame:
    """Ask the model once about every cluster; gives ``cluster``, ``name``, ``overview``, ``upstream``."""
    sampling = replace(model.sampling, votes=1)
    requests = [
        sampling.requests(cluster_messages(cluster, kind, texts=material.texts, prompts=material.prompts))[0]
        for cluster in clusters
    ]
    with model.ledger(say) as ledger:
        _ask(requests, model, ledger, say, progress)
    texts = _texts(model.ledger_folder, requests)
    rows = []
    for cluster, request in zip(clusters, requests, strict=True):
        naming = parse_naming(texts.get(request.key, ""))
        rows.append({"cluster": cluster.number, **vars(naming)})
    return pd.DataFrame(rows)


def _ask(
    requests: list[Request], model: LanguageModel, ledger: AnswerLedger, say: Say, progress: Progress
) -> None:
    again = model.options.ask_again
    missing = len({request.key for request in requests if not ledger.is_done(request.key, ask_again=again)})
    if missing:
        conversations = (request.messages for request in requests)
        report = report_tokens(conversations, model.tokenize or four_characters, votes=1)
        say(
            f"{len(requests):,} clusters, {missing:,} to be asked about, "
            f"{report.prompt_tokens:,} prompt tokens in all"
        )
        model.ask(
            requests,
            ledger,
            total=missing,
            listed=len(requests),
            longest_prompt=report.longest_prompt,
            sampling=replace(model.sampling, votes=1),
            say=say,
            progress=progress,
        )
    unasked = sum(ledger.status(request.key) is None for request in requests)
    if unasked:
        raise LedgerError(f"{unasked:,} of {len(requests):,} clusters were never asked about")


def _texts(folder: Path, requests: Iterable[Request]) -> dict[str, str]:
    wanted = {request.key for request in requests}
    return {key: text for key, text in read_rows(folder, ("key", "text")) if key in wanted}


def _means(scored: pd.DataFrame) -> dict[str, float]:
    """Mean scores over the clusters with a label, and how many got no name."""
    labelled = scored[scored["label"] != ""]
    figures = {
        "clusters": float(len(scored)),
        "labelled": float(len(labelled)),
        "without_a_name": float((scored["name"] == "").sum()),
        "rouge1_recall": float(labelled["rouge1_recall"].mean()),
    }
    if "bert_f1" in labelled:
        figures["bert_f1"] = float(labelled["bert_f1"].mean())
    return {name: value for name, value in figures.items() if pd.notna(value)}
