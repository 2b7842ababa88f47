"""What SUMMER tells MLflow: a run for each model, data set, task and variant."""

from __future__ import annotations

import json
from collections.abc import Mapping

from flows.answer_options import AnswerOptions
from flows.answer_steps import predictor_name, scores_by_counting
from flows.label_sets import LabelSet
from flows.language_model import HOW_ASKED
from flows.predict_stages import scores_of
from flows.track import table_inputs
from storage.manifest import StageRecord
from storage.tables import read_frame, read_labels
from storage.tracking import RunContent, Tracker
from tasks.summer.questions import VARIANTS, Variant
from tasks.summer.templates import Prompts


def track_answers(
    tracker: Tracker,
    labels: LabelSet,
    variant: Variant,
    record: StageRecord,
    scores: Mapping[str, StageRecord],
    counted: Mapping[str, Mapping[str, int]],
    options: AnswerOptions,
    *,
    parent: str,
) -> None:
    """Write a variant's child runs, one a task: parameters, rates, tokens, scores, tables to read."""
    rates = json.loads((record.folder / "rates.json").read_text())
    name = predictor_name(variant)
    tags = {"predictor": name, "data_set": labels.name, "track": "within", "model": options.model}
    settings = options.model_dump(mode="json", exclude=HOW_ASKED)
    for task, path in labels.tables.items():
        votes = read_frame(record.folder / f"votes-{task}.parquet")
        figures = scores_of(scores[task]) if task in scores else {}
        figures |= {f"requests_{word}": number for word, number in counted[task].items()}
        figures |= rates[task] | scores_by_counting(read_labels(path), votes)
        files = [
            ("", record.folder / f"{task}.parquet"),
            ("", record.folder / f"votes-{task}.parquet"),
            ("", record.folder / f"sample-{task}.parquet"),
        ]
        files += [("", scores[task].folder / "per_gene.parquet")] if task in scores else []
        content = RunContent(
            parameters=settings
            | {"predictor": name, "variant": variant, "task": task, "data_set": labels.name}
            | {"engine": options.engine, "prompts_digest": Prompts.load(options.prompts).digest},
            metrics={key: value for key, value in figures.items() if value is not None},
            tags=tags | {"task": task, "variant": variant},
            inputs=table_inputs(labels, task),
            files=files,
            tables={f"sampled-{task}.json": read_frame(record.folder / f"sample-{task}.parquet")},
            description=f"{name} with {options.model} on {labels.name}, task {task}: {VARIANTS[variant]}.",
        )
        scored = scores[task].digest if task in scores else "unscored"
        key = f"{record.digest}-{task}-{scored}-{parent}"
        tracker.write_run(key, f"{name} {task}", content, parent=parent)
