"""The project's errors: what was found, what is allowed, what to do, all in one message."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class PqaError(Exception):
    """Base of every error a user can cause and mend; the command line prints it as one block."""


class InputError(PqaError):
    """Input that cannot be used, with every problem found in it.

    Parameters
    ----------
    subject
        What was being read, for example a file's path.
    problems
        One plain sentence each: what was found, what is allowed, what to do.
    """

    def __init__(self, subject: str, problems: Sequence[str]):
        self.subject = subject
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            message = f"{subject}: {self.problems[0]}"
        else:
            lines = "".join(f"\n  - {problem}" for problem in self.problems)
            message = f"{subject}: {len(self.problems)} problems{lines}"
        super().__init__(message)

    def __reduce__(self):
        # Exception pickles its message only; workers must hand the problems back whole.
        return type(self), (self.subject, self.problems)


def problems_of(check: Callable[..., object], *arguments: object, **options: object) -> list[str]:
    """Problems in the ``InputError`` that ``check(*arguments, **options)`` raises, each after its subject."""
    try:
        check(*arguments, **options)
    except InputError as error:
        return [f"{error.subject}: {problem}" for problem in error.problems]
    return []


class StorageError(PqaError):
    """A file or folder could not be written or read back."""


class LedgerError(PqaError):
    """Units requested are not the units done, skipped and failed."""
