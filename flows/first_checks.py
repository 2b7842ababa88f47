"""What can be known of a screen in the first second, before its file is read whole."""

from __future__ import annotations

from pathlib import Path

from flows.label_stages import EMBEDDED_KEYS, EMBEDDED_NAME, check_test
from flows.options import ExpressionOptions, GeneSetOptions, ScreenOptions
from flows.set_stages import check_gene_sets
from storage.errors import InputError
from storage.h5ad import H5adFile
from tasks.screens.checks import read_cells


def check_screen(screen: ScreenOptions, expression: ExpressionOptions, sets: GeneSetOptions) -> None:
    """Look at columns, control cells, tests and gene sets.

    Raises
    ------
    InputError
        Listing everything wrong, with what was found in the file.
    """
    problems = []
    names = screen.model_dump(exclude={"screen", "layer"})
    if screen.screen == EMBEDDED_NAME:
        screen = screen.model_copy(update=EMBEDDED_KEYS)
    else:
        try:
            with H5adFile(Path(screen.screen), layer=screen.layer) as file:
                read_cells(file, **names)
        except InputError as error:
            problems += error.problems
    for check in (lambda: check_test(expression, screen), lambda: check_gene_sets(sets, expression)):
        try:
            check()
        except InputError as error:
            problems += [f"{error.subject}: {problem}" for problem in error.problems]
    if problems:
        raise InputError(f"screen {Path(screen.screen).stem}", problems)
