"""The last stage: predictors side by side, and the report that shows them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

import flows.predict_stages
import flows.records
import flows.report_pages
import flows.rule_stages
import flows.set_stages
import flows.side_by_side
import tasks.report
import tasks.scoring
from flows.label_sets import TRACK_TITLES, WITHIN, LabelSet
from flows.options import KnowledgeOptions, PredictorOptions
from flows.predict_stages import knowledge_digest, scored_pairs
from flows.records import Place, ScreenRecords
from flows.report_pages import error_page, report_page, screen_sections
from storage.manifest import Stage, StageRecord, folder_digest, run_stage
from storage.tables import read_frame, read_labels, write_table
from tasks.knowledge.read import read_knowledge
from tasks.report.comparison_sections import comparison_sections
from tasks.report.error_analysis import PairTraits, error_section
from tasks.report.page import write_report
from tasks.scoring.intervals import leaderboard
from tasks.scoring.metrics import auroc_per_gene
from tasks.scoring.published import published_auroc

#: What computes the figures of a comparison, and what puts its pages together.
CODE = (
    tasks.report,
    tasks.scoring,
    flows.predict_stages,
    flows.records,
    flows.report_pages,
    flows.rule_stages,
    flows.set_stages,
    flows.side_by_side,
    sys.modules[__name__],
)


def compare_stage(
    place: Place,
    labels: LabelSet,
    tracks: Mapping[str, Mapping[str, tuple[StageRecord, ...]]],
    tasks_scored: tuple[str, ...],
    knowledge: tuple[Path, KnowledgeOptions],
    options: PredictorOptions,
    screen: ScreenRecords | None,
    notes: tuple[str, ...],
) -> StageRecord:
    """Write a leaderboard for each task and track, ``report.html`` and ``errors.html`` for one data set.

    Parameters
    ----------
    tracks
        Predictions, one a seed, by row of the leaderboard, by track.
    notes
        Plain lines that the report repeats: what was skipped and why.
    """
    inputs = {
        f"{row} {at} {track} predictions": record.content
        for track, rows in tracks.items()
        for row, records in rows.items()
        for at, record in enumerate(records)
    }
    inputs |= {f"{task} labels": digest for task, digest in labels.digests.items()}
    inputs |= {"knowledge": knowledge_digest(*knowledge)}
    inputs |= screen_digests(screen) if screen else {}
    settings = {
        "draws": options.draws,
        "seed": options.seed,
        "tasks": list(tasks_scored),
        "notes": list(notes),
        "noncommercial": knowledge[1].noncommercial,
        "max_links": knowledge[1].max_links,
    }
    stage = Stage("comparisons", labels.name, inputs, settings, CODE)

    def work(folder: Path) -> dict[str, int]:
        rows, sections, errors = {}, [], []
        traits = read_traits(labels, knowledge)
        for track, by_row in tracks.items():
            for task in tasks_scored:
                scored = {
                    row: [scored_pairs(labels, task, record) for record in records]
                    for row, records in by_row.items()
                }
                name = board_name(task, track)
                board = leaderboard(scored, draws=options.draws, seed=options.seed)
                write_table(
                    folder / f"leaderboard-{name}.parquet", board, settings | {"task": task, "track": track}
                )
                rows[f"leaderboard-{name}.parquet"] = len(board)
                first = {row: fits[0] for row, fits in scored.items()}
                told = TRACK_TITLES[track] if len(tracks) > 1 or track != WITHIN else ""
                sections += comparison_sections(
                    task,
                    board,
                    scored_by_predictor=first,
                    per_gene={row: auroc_per_gene(pairs) for row, pairs in first.items()},
                    published=published_figures(labels, task),
                    name=told,
                )
                best_first = {row: first[row] for row in board["predictor"]}
                errors.append(error_section(task, best_first, traits[task], name=told))
        sections += screen_sections(screen) if screen else []
        write_report(folder / "report.html", report_page(labels, sections, screen, notes))
        write_report(folder / "errors.html", error_page(labels, errors, notes))
        return rows

    return run_stage(place.workspace, stage, work, force=place.force)


def screen_digests(screen: ScreenRecords) -> dict[str, str]:
    """A digest for each stage of a screen: of its files, and of the counts in its manifest."""
    beside = screen.side_by_side
    others = () if beside is None else beside.others.values()
    stages = {record.kind: record for record in screen.records if record not in others}
    stages |= {} if beside is None else {f"tests {name}": record for name, record in beside.others.items()}
    return {
        f"{role} of the screen": folder_digest(
            {"files": record.content, "rows": json.dumps(dict(record.rows), sort_keys=True)}
        )
        for role, record in stages.items()
    }


def read_traits(labels: LabelSet, knowledge: tuple[Path, KnowledgeOptions]) -> dict[str, PairTraits]:
    """What may make a pair of each task easy or hard, from the graph and the training rows."""
    folder, options = knowledge
    graph = read_knowledge(
        folder,
        noncommercial=options.noncommercial,
        max_term_genes=options.max_links,
        max_degree=options.max_links,
    )
    return {task: PairTraits.of(read_labels(path), graph) for task, path in labels.tables.items()}


def published_figures(labels: LabelSet, task: str) -> dict[str, float] | None:
    """Published AUROC by method on these very labels; None where there is none.

    Labels made here follow another rule, whatever the data set is called.
    """
    return None if labels.made_here(task) else published_auroc(labels.name, task)


def board_name(task: str, track: str) -> str:
    """A leaderboard's name: the task, and the track where it is not the line's own."""
    return task if track == WITHIN else f"{task}-{track}"


def leaderboards_of(record: StageRecord) -> dict[str, pd.DataFrame]:
    """A finished comparison's leaderboards by name, those of the line's own rows first."""
    paths = sorted(
        record.folder.glob("leaderboard-*.parquet"), key=lambda path: (path.stem.count("-"), path.stem)
    )
    return {path.stem.partition("-")[2]: read_frame(path) for path in paths}
