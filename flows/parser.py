"""What the command line ``pqa`` takes: one function a command, or one line where a model says it all."""

from __future__ import annotations

import argparse
import difflib
from importlib.metadata import version
from pathlib import Path

from flows.arguments import add_arguments
from flows.options import (
    AnswerCommandOptions,
    BenchmarkOptions,
    EnrichOptions,
    LabelScreenOptions,
    PredictCommandOptions,
    TestExpressionOptions,
)
from flows.predictor_options import DRAWS
from flows.up_options import UpOptions


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; what cannot be understood ends the program with the command's own usage."""
    parser, commands = make_parser()
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        command = commands.choices[parsed.command]
        options = [name for action in command._actions for name in action.option_strings]
        near = [difflib.get_close_matches(word, options, n=1) for word in unknown if word.startswith("-")]
        meant = ", ".join(dict.fromkeys(name for names in near for name in names))
        command.error(f"unrecognized arguments: {' '.join(unknown)}{f'; meant: {meant}?' if meant else ''}")
    return parsed


def make_parser() -> tuple[argparse.ArgumentParser, argparse._SubParsersAction]:
    """The parser, and in it the commands' own by name."""
    parser = argparse.ArgumentParser(
        prog="pqa", description="Perturb-seq counts in, label tables out, predictors scored."
    )
    parser.add_argument("--version", action="version", version=f"pqa {version('perturbqa-flows')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, purpose: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=purpose)

    _add_benchmark(add("benchmark", "the main job: label, predict, compare"))
    _add_label(add("label", "counts to DE tests and label tables"))
    _add_test_expression(add("test-expression", "counts to DE tests only"))
    _add_predict(add("predict", "fit one predictor and score pairs"))
    _add_answer(add("answer", "ask a language model about pairs (SUMMER)"))
    _add_enrich(add("enrich", "describe and name clusters of genes"))
    _add_score(add("score", "score predictions against labels"))
    _add_simulate(add("simulate", "make a simulated screen with known truth"))
    _add_knowledge(add("knowledge", "gene knowledge from its sources into one graph"))
    add_arguments(add("up", "serve everything: Prefect, MLflow, Dask, all jobs as forms"), UpOptions)
    _add_data(add("data", "public data by name"))
    return parser, commands


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, help="YAML file of options; arguments come over it")
    add_arguments(parser, BenchmarkOptions)
    _add_json(parser)


def _add_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("screen", metavar="SCREEN.h5ad")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and report")
    add_arguments(parser, LabelScreenOptions)
    _add_json(parser)


def _add_test_expression(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("screen", metavar="SCREEN.h5ad")
    parser.add_argument("--out", type=Path, required=True, help="Parquet file for the tests")
    add_arguments(parser, TestExpressionOptions)
    _add_json(parser)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser, PredictCommandOptions)
    parser.add_argument("--out", type=Path, required=True, help="Parquet file for pert, gene, score")
    _add_json(parser)


def _add_answer(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser, AnswerCommandOptions)
    parser.add_argument("--out", type=Path, required=True, help="folder for answers, votes and predictions")
    _add_json(parser)


def _add_enrich(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser, EnrichOptions)
    parser.add_argument("--out", type=Path, required=True, help="folder for names and answers")
    _add_json(parser)


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--labels", type=Path, required=True, help="label table with known test labels")
    parser.add_argument("--predictions", type=Path, required=True, help="table of pert, gene, score")
    parser.add_argument("--draws", type=_draws, default=1000, help="bootstrap draws (default: 1000)")
    parser.add_argument("--seed", type=_whole, default=0, help="seed of the bootstrap (default: 0)")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write the scores as JSON")


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT.h5ad")
    for name, default in (("cells", 16_000), ("genes", 1_200), ("perturbations", 240), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"(default: {default})")
    parser.add_argument("--controls", type=int, help="control cells (default: an eighth)")
    parser.add_argument("--batches", type=int, default=4, help="(default: 4)")
    parser.add_argument("--batch-imbalance", type=float, default=0.0, help="0 even, 1 uneven (default: 0)")
    parser.add_argument("--mean-umis", type=float, help="mean UMIs per cell (default: 1.5 per gene)")
    _add_json(parser)


def _add_knowledge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", type=Path, metavar="FILES_OR_FOLDERS")
    parser.add_argument("--out", type=Path, required=True, help="folder for the graph store")
    parser.add_argument(
        "--noncommercial", action="store_true", help="also CORUM, whose licence forbids commercial use"
    )
    parser.add_argument(
        "--min-string-score", type=_whole, default=700, help="of STRING's links, 0 to 1000 (default: 700)"
    )
    parser.add_argument(
        "--max-links",
        type=_whole,
        default=1000,
        help="count hubs and terms above it; all are kept, reading leaves them out (default: 1000)",
    )
    _add_json(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_json(actions.add_parser("list", help="what there is"))
    get = actions.add_parser("get", help="fetch one data set, checked and resumed")
    get.add_argument("name")
    get.add_argument("--to", type=Path, default=Path("data"), help="folder (default: data)")
    get.add_argument("--mirror", help="base address that holds the files under their own names")
    _add_json(get)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")


def _whole(text: str) -> int:
    """A whole number that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a whole number is needed, not '{text}'")
    return int(text)


def _draws(text: str) -> int:
    """A number of bootstrap draws within the bounds that the main job has too."""
    draws = _whole(text)
    if not DRAWS["ge"] <= draws <= DRAWS["le"]:
        raise argparse.ArgumentTypeError(f"{DRAWS['ge']} to {DRAWS['le']} are allowed, not {text}")
    return draws
