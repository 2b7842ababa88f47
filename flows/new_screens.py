"""Flow: every screen that comes or changes in a watched folder is labelled, once."""

from __future__ import annotations

import time
from pathlib import Path

import yaml
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import Field, ValidationError

from flows.base_options import Options
from flows.label_alone import label_and_track
from flows.options import (
    ExpressionOptions,
    GeneSetOptions,
    LabelOptions,
    QualityOptions,
    RunOptions,
    ScreenNames,
    ScreenOptions,
)
from flows.reasons import reason_of
from storage.errors import InputError, LedgerError
from storage.watched_files import Seen, Watched, WatchedFolder, look, read_seen, write_seen

#: The record of what was seen, in the workspace.
RECORD = "new-screens.json"


class NewScreenOptions(Options):
    """Which files are ready, and which are tried once more."""

    settle_seconds: float = Field(
        20,
        ge=0,
        le=3600,
        title="Settle time",
        description="Seconds a new file is looked at again after; one that grows meanwhile waits for the "
        "next run.",
    )
    failed_again: bool = Field(
        False,
        title="Failed ones again",
        description="Also try files again that failed before and have not changed since.",
    )


@task(name="look at the folder", cache_policy=NO_CACHE)
def settled_files(folder: WatchedFolder, record: Path, options: NewScreenOptions) -> list[Watched]:
    """New and changed files that have stopped changing; the record then knows of all that are there."""
    wanted = {"waiting", "failed"} if options.failed_again else {"waiting"}
    files = folder.list()
    seen = look(files, read_seen(record))
    if any(entry.status in wanted and entry.looks < 2 for entry in seen.values()):
        time.sleep(options.settle_seconds)
        files = folder.list()
        seen = look(files, seen)
    write_seen(record, seen)
    return [file for file in files if (entry := seen[file.path]).status in wanted and entry.looks >= 2]


@flow(name="new-screens", flow_run_name="new screens in {address}")
def new_screens(
    address: str,
    files: NewScreenOptions = NewScreenOptions(),
    columns: ScreenNames = ScreenNames(),
    quality: QualityOptions = QualityOptions(),
    expression: ExpressionOptions = ExpressionOptions(),
    label: LabelOptions = LabelOptions(),
    run: RunOptions = RunOptions(),
) -> dict[str, Seen]:
    """Label what is new below ``address``; fails, at its end, if any file failed.

    A file NAME.yaml beside NAME.h5ad names that screen's columns (the keys of `ScreenNames`).
    """
    workspace, logger = Path(run.workspace).resolve(), get_run_logger()
    folder, record = WatchedFolder(address), workspace / RECORD
    ready = settled_files(folder, record, files)
    logger.info(f"{len(ready)} new or changed screens in {address}")
    for file in ready:
        # A flow of its own: whatever is wrong with one file, the next ones have their turn.
        state = label_file(
            folder,
            file,
            columns,
            quality=quality,
            expression=expression,
            label=label,
            sets=GeneSetOptions(),
            run=run,
            return_state=True,
        )
        if state.is_completed():
            outcome = Seen(file.mark, 2, "labelled", state.result())
        else:
            outcome = Seen(file.mark, 2, "failed", reason_of(state))
            logger.error(f"{file.path}: {outcome.said}")
        # Written after each: what is labelled stays labelled if this run is stopped.
        write_seen(record, read_seen(record) | {file.path: outcome})
    return _ledger(read_seen(record), ready)


@flow(name="label-file", flow_run_name="label {file.name}", validate_parameters=False)
def label_file(
    folder: WatchedFolder,
    file: Watched,
    columns: ScreenNames,
    quality: QualityOptions,
    expression: ExpressionOptions,
    label: LabelOptions,
    sets: GeneSetOptions,
    run: RunOptions,
) -> str:
    """Label one file of a watched folder; gives the folder of its label tables."""
    given = _columns_of(folder, file, columns)
    with folder.fetched(file, Path(run.workspace).resolve() / "fetched") as path:
        screen = ScreenOptions(screen=str(path), **given.model_dump())
        made = label_and_track(screen, quality, expression, label, sets, run)
    return str(made.labels.folder)


def _columns_of(folder: WatchedFolder, file: Watched, columns: ScreenNames) -> ScreenNames:
    """The form's names of columns, and over them those of the file beside the screen."""
    content = folder.sidecar(file)
    if content is None:
        return columns
    known = f"keys: {', '.join(ScreenNames.model_fields)}"
    try:
        given = yaml.safe_load(content) or {}
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise InputError(f"{file.name}.yaml", [f"is not YAML ({why}); {known}"]) from error
    if not isinstance(given, dict):
        raise InputError(f"{file.name}.yaml", [f"holds a {type(given).__name__} and no names; {known}"])
    try:
        return ScreenNames.model_validate(columns.model_dump() | given)
    except ValidationError as error:
        problems = [f"{problem['loc'][0]}: {problem['msg'].lower()}; {known}" for problem in error.errors()]
        raise InputError(f"{file.name}.yaml", problems) from error


def _ledger(seen: dict[str, Seen], ready: list[Watched]) -> dict[str, Seen]:
    """Show all files as a table; raise if any of this run's failed."""
    rows = [
        {"file": Path(path).name, "status": entry.status, "where or why": entry.said}
        for path, entry in seen.items()
    ]
    description = (
        "Every screen in the watched folder: labelled once, waiting until it stops changing, or failed."
    )
    create_table_artifact(rows, key="new-screens", description=description)
    failed = [file for file in ready if seen[file.path].status == "failed"]
    if failed:
        lines = "".join(f"\n  - {Path(file.path).name}: {seen[file.path].said}" for file in failed)
        raise LedgerError(f"{len(failed)} of {len(ready)} new screens failed:{lines}")
    return seen
