"""Flow: the observations that each question is shown with."""

from __future__ import annotations

from prefect import flow

from flows.answer_stages import retrieve_stage
from flows.label_sets import LabelSet
from flows.options import AnswerOptions
from flows.records import Place
from storage.manifest import StageRecord
from tasks.summer.material import Material


@flow(name="retrieve-observations", flow_run_name="retrieve for {labels.name}", validate_parameters=False)
def retrieve_observations(
    place: Place, labels: LabelSet, material: Material, options: AnswerOptions
) -> dict[str, StageRecord]:
    """Draw the observations of every test question, task by task."""
    return {task: retrieve_stage(place, labels, task, material, options) for task in labels.tables}
