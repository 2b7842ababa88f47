"""The command line ``pqa``: it parses, sets the environment, calls a flow or a few stages, and prints."""

from __future__ import annotations

import signal
import sys
import threading
from importlib import import_module

from storage.errors import PqaError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for an error the user can mend, 130 for Ctrl-C."""
    command = "pqa"
    sys.unraisablehook = _interrupt_again
    try:
        # All else is imported in here: imports take seconds, in which Ctrl-C is as likely as later.
        from flows.parser import parse

        parsed = parse(arguments)
        command = f"pqa {parsed.command}"
        _prepare(parsed)
        import_module(f"flows.commands.{parsed.command.replace('-', '_')}").run(parsed)
    except PqaError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{command}: stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    return 0


def _interrupt_again(dropped: sys.UnraisableHookArgs) -> None:
    """Repeat a Ctrl-C that Python has dropped, as it does in a callback of the garbage collector.

    Dask has such a callback; the job would go on as if nobody had said anything.
    """
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        # Later, and from a thread: raised in here it would be dropped as well.
        main_thread = threading.main_thread().ident
        threading.Timer(0.1, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(dropped)


def _prepare(parsed) -> None:
    """Set the environment: libraries read their settings when they are imported, which a command does."""
    from flows.arguments import read_options
    from flows.environment import prepare_environment
    from flows.options import BenchmarkOptions

    workspace = None
    if parsed.command == "benchmark":
        # Other commands keep no state of Prefect's.
        workspace = read_options(BenchmarkOptions, parsed, config=parsed.config).run.workspace
    prepare_environment(workspace)


if __name__ == "__main__":
    sys.exit(main())
