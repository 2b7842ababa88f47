"""What `pqa label` and `pqa test-expression` have in common: from a file to its tests."""

from __future__ import annotations

from pathlib import Path

from flows import label_stages as stages
from flows.first_checks import check_screen
from flows.options import GeneSetOptions, LabelScreenOptions, ScreenOptions, TestExpressionOptions
from flows.progress import progress_of
from flows.records import Place
from storage.manifest import StageRecord


def check_first(screen: str, options: LabelScreenOptions | TestExpressionOptions) -> None:
    """Raise for what is wrong with the file's names and first counts, the tests and the gene sets."""
    sets = options.sets if isinstance(options, LabelScreenOptions) else GeneSetOptions()
    check_screen(_named(screen, options), options.expression, sets)


def stages_to_tests(
    place: Place, screen: str, options: LabelScreenOptions | TestExpressionOptions
) -> tuple[StageRecord, StageRecord, StageRecord]:
    """Ingest, judge and test a screen; the three finished stages."""
    path = Path(screen)
    ingested = stages.ingest_stage(
        place, path.stem, path, _named(screen, options), progress_of("reading", "cells")
    )
    judged = stages.quality_stage(place, ingested, options.quality)
    progress = progress_of("testing", "gene blocks")
    tests = stages.tests_stage(place, ingested, judged, options.expression, options.quality, progress)
    return ingested, judged, tests


def _named(screen: str, options: LabelScreenOptions | TestExpressionOptions) -> ScreenOptions:
    return ScreenOptions(screen=screen, **options.names.model_dump())
