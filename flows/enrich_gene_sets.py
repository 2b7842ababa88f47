"""Flow: clusters of genes described, named, and held against their manual names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from prefect import flow, get_run_logger

from flows.answer_steps import material_of
from flows.enrich_stages import cluster_files, name_clusters
from flows.language_model import HOW_ASKED, LanguageModel, Spent, key_from_secret
from flows.options import AnswerOptions, KnowledgeOptions, RunOptions
from flows.reporting import names_artifacts
from flows.task_progress import task_progress
from storage.manifest import file_digest
from storage.source_code import source_digest
from storage.tracking import RunContent, Tracker
from tasks import summer


@flow(name="enrich-gene-sets", flow_run_name="name clusters of genes", validate_parameters=False)
def enrich_gene_sets(
    knowledge: Path,
    options: AnswerOptions = AnswerOptions(),
    knowledge_options: KnowledgeOptions = KnowledgeOptions(),
    run: RunOptions = RunOptions(),
    spent: Spent | None = None,
) -> dict[str, dict[str, float]]:
    """Name every cluster by over-representation and, with an engine, by the model; log both to MLflow.

    ``spent`` is what the job has used of its budget; counted in.
    """
    material = material_of("", knowledge, options, knowledge_options)
    parts = [options.model_dump_json(exclude=HOW_ASKED), knowledge_options.model_dump_json()]
    parts += [file_digest(path) for _, path in cluster_files(options)]
    parts += [*material.digests.values(), source_digest(summer)]
    digest = hashlib.sha256("|".join(parts).encode()).hexdigest()
    workspace = Path(run.workspace).resolve()
    folder = workspace / "enrichment" / digest[:12]
    say = get_run_logger().info
    progress = task_progress("clusters of genes", "clusters")
    key = key_from_secret(options)
    with LanguageModel(options, workspace / "answers", key, spent=spent, waits=True) as model:
        asked = model if options.engine != "none" else None
        means = name_clusters(folder, material, options, asked, say=say, progress=progress)
    names_artifacts([folder / f"{path.stem}-names.parquet" for _, path in cluster_files(options)], means)
    _track(
        Tracker(run.mlflow, workspace=run.workspace, experiment="gene-set-enrichment"), digest, folder, means
    )
    return means


def _track(tracker: Tracker, digest: str, folder: Path, means: dict[str, dict[str, float]]) -> None:
    """One run for each file of clusters and method."""
    parent = tracker.open_run(digest, "enrichment")
    with tracker.ending(parent):
        for name, figures in means.items():
            stem, _, method = name.partition(": ")
            names = folder / f"{stem}-names.parquet"
            content = RunContent(
                parameters={"clusters": stem, "method": method},
                metrics=figures,
                tags={"method": method},
                files=[("", names)],
                description=f"Names of the clusters in {stem}, by {method}.",
            )
            # The same options may come to other names: answers that were missing have come since.
            tracker.write_run(f"{digest}-{name}-{file_digest(names)}", name, content, parent=parent)
