"""The command line ``pqa``: it parses, sets the environment, calls a flow or a few stages, and prints."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from flows.environment import prepare_environment
from storage.errors import PqaError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for an error the user can mend, 130 for Ctrl-C."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    try:
        # Libraries read their settings when they are imported, so a command is imported after this.
        prepare_environment(_workspace(parsed))
        import_module(f"flows.commands.{parsed.command.replace('-', '_')}").run(parsed)
    except PqaError as error:
        print(f"pqa {parsed.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"pqa {parsed.command}: stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    from flows.arguments import add_arguments
    from flows.options import (
        AnswerCommandOptions,
        BenchmarkOptions,
        EnrichOptions,
        LabelScreenOptions,
        PredictCommandOptions,
        TestExpressionOptions,
    )
    from flows.up_options import UpOptions

    parser = argparse.ArgumentParser(
        prog="pqa", description="Perturb-seq counts in, label tables out, predictors scored."
    )
    parser.add_argument("--version", action="version", version=f"pqa {version('perturbqa-flows')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    benchmark = commands.add_parser("benchmark", help="the main job: label, predict, compare")
    benchmark.add_argument("--config", type=Path, help="YAML file of options; arguments come over it")
    add_arguments(benchmark, BenchmarkOptions)
    _json(benchmark)

    label = commands.add_parser("label", help="counts to DE tests and label tables")
    label.add_argument("screen", metavar="SCREEN.h5ad")
    label.add_argument("--out", type=Path, required=True, help="folder for tables and report")
    add_arguments(label, LabelScreenOptions)
    _json(label)

    expression = commands.add_parser("test-expression", help="counts to DE tests only")
    expression.add_argument("screen", metavar="SCREEN.h5ad")
    expression.add_argument("--out", type=Path, required=True, help="Parquet file for the tests")
    add_arguments(expression, TestExpressionOptions)
    _json(expression)

    predict = commands.add_parser("predict", help="fit one predictor and score pairs")
    add_arguments(predict, PredictCommandOptions)
    predict.add_argument("--out", type=Path, required=True, help="Parquet file for pert, gene, score")
    _json(predict)

    answer = commands.add_parser("answer", help="ask a language model about pairs (SUMMER)")
    add_arguments(answer, AnswerCommandOptions)
    answer.add_argument("--out", type=Path, required=True, help="folder for answers, votes and predictions")
    _json(answer)

    enrich = commands.add_parser("enrich", help="describe and name clusters of genes")
    add_arguments(enrich, EnrichOptions)
    enrich.add_argument("--out", type=Path, required=True, help="folder for names and answers")
    _json(enrich)

    score = commands.add_parser("score", help="score predictions against labels")
    score.add_argument("--labels", type=Path, required=True, help="label table with known test labels")
    score.add_argument("--predictions", type=Path, required=True, help="table of pert, gene, score")
    score.add_argument("--draws", type=_whole, default=1000, help="bootstrap draws (default: 1000)")
    score.add_argument("--seed", type=_whole, default=0, help="seed of the bootstrap (default: 0)")
    score.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write the scores as JSON")

    simulate = commands.add_parser("simulate", help="make a simulated screen with known truth")
    simulate.add_argument("out", type=Path, metavar="OUT.h5ad")
    for name, default in (("cells", 16_000), ("genes", 1_200), ("perturbations", 240), ("seed", 0)):
        simulate.add_argument(f"--{name}", type=int, default=default, help=f"(default: {default})")
    simulate.add_argument("--controls", type=int, help="control cells (default: an eighth)")
    simulate.add_argument("--batches", type=int, default=4, help="(default: 4)")
    simulate.add_argument("--batch-imbalance", type=float, default=0.0, help="0 even, 1 uneven (default: 0)")
    simulate.add_argument("--mean-umis", type=float, help="mean UMIs a cell (default: 1.5 a gene)")
    _json(simulate)

    knowledge = commands.add_parser("knowledge", help="gene knowledge from its sources into one graph")
    knowledge.add_argument("sources", nargs="+", type=Path, metavar="FILES_OR_FOLDERS")
    knowledge.add_argument("--out", type=Path, required=True, help="folder for the graph store")
    knowledge.add_argument(
        "--noncommercial", action="store_true", help="also CORUM, whose licence forbids commercial use"
    )
    knowledge.add_argument(
        "--min-string-score", type=_whole, default=700, help="of STRING's links, 0 to 1000 (default: 700)"
    )
    knowledge.add_argument(
        "--max-links",
        type=_whole,
        default=1000,
        help="count hubs and terms above it; all are kept, reading leaves them out (default: 1000)",
    )
    _json(knowledge)

    up = commands.add_parser("up", help="serve everything: Prefect, MLflow, Dask, all jobs as forms")
    add_arguments(up, UpOptions)

    data = commands.add_parser("data", help="public data by name")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    _json(actions.add_parser("list", help="what there is"))
    get = actions.add_parser("get", help="fetch one data set, checked and resumed")
    get.add_argument("name")
    get.add_argument("--to", type=Path, default=Path("data"), help="folder (default: data)")
    get.add_argument("--mirror", help="base address that holds the files under their own names")
    _json(get)
    return parser


def _whole(text: str) -> int:
    """A whole number that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a whole number is needed, not '{text}'")
    return int(text)


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")


def _workspace(parsed: argparse.Namespace) -> Path | None:
    """Where the command keeps Prefect's state; None for commands that run without it."""
    if parsed.command != "benchmark":
        return None
    from flows.arguments import read_options
    from flows.options import BenchmarkOptions

    return read_options(BenchmarkOptions, parsed, config=parsed.config).run.workspace


if __name__ == "__main__":
    sys.exit(main())
