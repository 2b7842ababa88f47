"""What `pqa label` and `pqa test-expression` have in common: from a file to its tests."""

from __future__ import annotations

from pathlib import Path

from flows import label_stages as stages
from flows.options import LabelScreenOptions, ScreenOptions, TestExpressionOptions
from flows.progress import progress_of
from flows.records import Place
from storage.errors import InputError
from storage.manifest import StageRecord


def stages_to_tests(
    place: Place, screen: str, options: LabelScreenOptions | TestExpressionOptions
) -> tuple[StageRecord, StageRecord, StageRecord]:
    """Ingest, judge and test a screen; the three finished stages."""
    if not Path(screen).is_file():
        raise InputError(screen, ["no such file"])
    stages.check_test(options.expression, options.names)
    named = ScreenOptions(screen=screen, **options.names.model_dump())
    path = Path(screen)
    ingested = stages.ingest_stage(place, path.stem, path, named, progress_of("reading", "cells"))
    judged = stages.quality_stage(place, ingested, options.quality)
    progress = progress_of("testing", "gene blocks")
    tests = stages.tests_stage(place, ingested, judged, options.expression, options.quality, progress)
    return ingested, judged, tests
