"""Why a stage failed, in the words of its error."""

from __future__ import annotations

import re

from prefect.states import State

from storage.errors import InputError


def reason_of(state: State) -> str:
    """The error's own words: what Prefect puts around them says nothing more."""
    said = re.sub(r"^(Task|Flow) run encountered an exception:?\s*", "", state.message or "")
    return said.removeprefix(f"{InputError.__name__}: ") or "failed"
