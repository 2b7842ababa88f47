"""The command line ``pqa``: it parses, sets the environment, calls a flow or a few stages, and prints."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from flows.arguments import read_options
from flows.environment import prepare_environment
from flows.options import BenchmarkOptions
from flows.parser import make_parser
from storage.errors import PqaError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for an error the user can mend, 130 for Ctrl-C."""
    parsed = make_parser().parse_args(arguments)
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


def _workspace(parsed: argparse.Namespace) -> Path | None:
    """Where the command keeps Prefect's state; None for commands that run without it."""
    if parsed.command != "benchmark":
        return None
    return read_options(BenchmarkOptions, parsed, config=parsed.config).run.workspace


if __name__ == "__main__":
    sys.exit(main())
