"""Flow: the model summarises the genes that are asked about."""

from __future__ import annotations

from prefect import flow, get_run_logger

from flows.label_sets import LabelSet
from flows.language_model import LanguageModel
from flows.progress import Progress
from flows.records import Place
from flows.summary_stages import summarise_stage
from flows.task_progress import task_progress
from storage.manifest import StageRecord
from tasks.summer.material import Material


@flow(name="summarise-genes", flow_run_name="summarise genes of {labels.name}", validate_parameters=False)
def summarise_genes(place: Place, labels: LabelSet, material: Material, model: LanguageModel) -> StageRecord:
    """Write summaries from entries, then with relations; both rounds are in the answer ledger."""

    def progress(title: str) -> Progress:
        return task_progress(f"summaries of {labels.name} {title}", "genes")

    say = get_run_logger().info
    return summarise_stage(place, labels, material, model, say=say, progress=progress)
