"""What can be known of a job's inputs in the first second, before anything is computed."""

from __future__ import annotations

from pathlib import Path

from flows.configurations import parsed_settings
from flows.enrich_stages import cluster_problems
from flows.label_sets import LabelSet
from flows.label_stages import EMBEDDED_KEYS, EMBEDDED_NAME, check_test
from flows.language_model import answer_problems, knowledge_problems
from flows.options import (
    AnswerOptions,
    ExpressionOptions,
    GeneSetOptions,
    KnowledgeOptions,
    PredictorOptions,
    ScreenOptions,
)
from flows.set_stages import check_gene_sets
from storage.errors import InputError, problems_of
from storage.gene_sets import read_gene_sets
from storage.h5ad import H5adFile
from tasks.screens.checks import read_cells
from tasks.screens.ingest import first_look


def check_screen(screen: ScreenOptions, expression: ExpressionOptions, sets: GeneSetOptions) -> None:
    """Look at columns, control cells, the first counts, tests and gene sets.

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
        problems += _file_problems(Path(screen.screen), screen.layer, names)
    problems += problems_of(check_test, expression, screen)
    problems += problems_of(check_gene_sets, sets, expression)
    if problems:
        raise InputError(screen.screen, problems)


def _file_problems(path: Path, layer: str | None, names: dict[str, object]) -> list[str]:
    """What is wrong with an h5ad file: its layer, its first counts, and what ``names`` tells."""
    try:
        with H5adFile(path, layer=layer) as file:
            # For the first cells of a matrix laid out by gene all of it would be read.
            first_look(file, names, layer=layer, counts=file.kind != "csc")
    except InputError as error:
        # A layer that is not there hides nothing else that is wrong.
        others = [] if layer is None else _name_problems(path, names)
        return list(dict.fromkeys([*error.problems, *others]))
    return []


def _name_problems(path: Path, names: dict[str, object]) -> list[str]:
    """What is wrong with the columns and controls, whatever the matrix is."""
    try:
        with H5adFile(path) as file:
            read_cells(file, **names)
    except InputError as error:
        return list(error.problems)
    return []


def check_inputs(
    labels: tuple[str, ...],
    screen: ScreenOptions,
    knowledge: KnowledgeOptions,
    answer: AnswerOptions = AnswerOptions(),
    predict: PredictorOptions = PredictorOptions(),
    expression: ExpressionOptions = ExpressionOptions(),
    sets: GeneSetOptions = GeneSetOptions(),
) -> None:
    """Find what is wrong with the inputs before anything is computed, all of it in one message."""
    problems = answer_problems(answer) + cluster_problems(answer)
    try:
        parsed_settings(predict.settings)
    except InputError as error:
        problems += error.problems
    for stem in (*labels, *predict.also):
        problems += problems_of(LabelSet.of_stem, stem)
    embedded = not labels and screen.screen == EMBEDDED_NAME
    if not (embedded and knowledge.knowledge is None):
        problems += knowledge_problems(knowledge)
    if knowledge.set_members is not None:
        problems += problems_of(read_gene_sets, knowledge.set_members)
    if not labels:
        problems += problems_of(check_screen, screen, expression, sets)
    if problems:
        raise InputError("benchmark", problems)
