"""Progress of a Prefect task: an artifact on the run's page, and lines in its log."""

from __future__ import annotations

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from flows.progress import Progress, throttled


def task_progress(title: str, unit: str) -> Progress:
    """A function to be told ``(done, total)`` in ``unit``; to be made inside a task run."""
    logger, artifact = get_run_logger(), None

    def show(words: str, percent: float) -> None:
        nonlocal artifact
        if artifact is None:
            artifact = create_progress_artifact(percent, description=words)
        else:
            update_progress_artifact(artifact, progress=percent, description=words)
        logger.info(words)

    return throttled(title, unit, show)
