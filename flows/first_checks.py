"""What can be known of a job's inputs in the first second, before anything is computed."""

from __future__ import annotations

from pathlib import Path

from flows.configurations import configurations, parsed_settings
from flows.enrich_stages import cluster_problems
from flows.label_sets import ACROSS, WITHIN, LabelSet
from flows.label_stages import EMBEDDED_KEYS, EMBEDDED_NAME, check_test
from flows.language_model import answer_problems, knowledge_problems
from flows.options import BenchmarkOptions, ExpressionOptions, GeneSetOptions, PredictorOptions, ScreenOptions
from flows.set_stages import check_gene_sets
from storage.errors import InputError, problems_of
from storage.h5ad import H5adFile
from tasks.predictors.registry import make_predictor
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


def check_inputs(options: BenchmarkOptions) -> None:
    """Find what is wrong with a job's options before anything is computed, all of it in one message.

    Raises
    ------
    InputError
        Listing everything wrong, options that the job would not use included.
    """
    screen, knowledge, predict = options.screen, options.knowledge, options.predict
    problems = answer_problems(options.answer) + cluster_problems(options.answer)
    problems += _setting_problems(predict) + _table_problems(options.labels, predict)
    embedded = not options.labels and screen.screen == EMBEDDED_NAME
    if not (embedded and knowledge.knowledge is None):
        problems += knowledge_problems(knowledge)
    if options.labels:
        problems += _problems_beside_labels(options)
    else:
        problems += problems_of(check_screen, screen, options.expression, options.sets)
    if problems:
        raise InputError("benchmark", problems)


def _setting_problems(predict: PredictorOptions) -> list[str]:
    try:
        parsed_settings(predict.settings)
    except InputError as error:
        return list(error.problems)
    return []


def _table_problems(labels: tuple[str, ...], predict: PredictorOptions) -> list[str]:
    """What is wrong with the label tables, each and together."""
    problems = [found for stem in labels for found in problems_of(LabelSet.of_stem, stem)]
    for stem in predict.also:
        problems += problems_of(LabelSet.of_stem, stem, to_learn_from=True)
    if predict.also and ACROSS not in predict.tracks:
        problems.append("--also is learnt from with --tracks across only")
    if not problems and ACROSS in predict.tracks:
        given = [LabelSet.of_stem(stem) for stem in labels]
        others = [*given, *(LabelSet.of_stem(stem, to_learn_from=True) for stem in predict.also)]
        for one in given:
            problems += problems_of(one.across, others)
        alone = (not others) if not labels else len({one.line for one in others}) < 2
        if alone and WITHIN not in predict.tracks:
            problems.append("--tracks across: no other line's tables; name them with --also or --labels")
    return problems


def _problems_beside_labels(options: BenchmarkOptions) -> list[str]:
    """Options of labelling that do nothing where label tables are given, and cells that nobody reads."""
    sections = (options.quality, options.expression, options.label, options.sets)
    changed = [
        f"--{field.replace('_', '-')}"
        for section in sections
        for field, value in section
        if value != type(section).model_fields[field].get_default(call_default_factory=True)
    ]
    problems = []
    if changed:
        problems.append(f"--labels: nothing is to be labelled, {', '.join(changed)} would do nothing")
    if options.screen.screen == EMBEDDED_NAME:
        return problems
    if len(options.labels) > 1:
        problems.append("--screen with several --labels: whose cells these are cannot be told")
    if not _cells_are_read(options.predict):
        problems.append("--screen beside --labels: no predictor asked for reads cells, as gears does")
    names = options.screen.model_dump(exclude={"screen", "layer"})
    return problems + _file_problems(Path(options.screen.screen), options.screen.layer, names)


def _cells_are_read(predict: PredictorOptions) -> bool:
    """Whether any predictor reads cells; settings that are wrong are told elsewhere."""
    try:
        made = [make_predictor(one.predictor, **dict(one.options)) for one in configurations(predict)]
    except InputError:
        return True
    return any(method.reads_cells for method in made)
