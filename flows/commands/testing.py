"""What `pqa label` and `pqa test-expression` have in common: from a file to its tests."""

from __future__ import annotations

from pathlib import Path

from flows import label_stages as stages
from flows.first_checks import check_screen
from flows.options import GeneSetOptions, LabelScreenOptions, ScreenOptions, TestExpressionOptions
from flows.progress import progress_of
from flows.records import Place
from storage.manifest import StageRecord


def stages_to_tests(
    place: Place, screen: str, options: LabelScreenOptions | TestExpressionOptions
) -> tuple[StageRecord, StageRecord, StageRecord]:
    """Ingest, judge and test a screen; the three finished stages."""
    named = ScreenOptions(screen=screen, **options.names.model_dump())
    sets = options.sets if isinstance(options, LabelScreenOptions) else GeneSetOptions()
    check_screen(named, options.expression, sets)
    path = Path(screen)
    ingested = stages.ingest_stage(place, path.stem, path, named, progress_of("reading", "cells"))
    judged = stages.quality_stage(place, ingested, options.quality)
    progress = progress_of("testing", "gene blocks")
    tests = stages.tests_stage(place, ingested, judged, options.expression, options.quality, progress)
    return ingested, judged, tests
