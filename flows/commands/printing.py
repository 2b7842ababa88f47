"""What commands print."""

from __future__ import annotations

import json
import sys

from storage.atomic import plain


def print_json(content: object) -> None:
    """Print a result, and nothing else, as JSON on standard output."""
    print(json.dumps(plain(content), indent=2, default=str, allow_nan=False))


def print_message(words: str) -> None:
    """Print what is no result on standard error."""
    print(words, file=sys.stderr, flush=True)
