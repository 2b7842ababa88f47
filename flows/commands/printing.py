"""What commands print."""

from __future__ import annotations

import json


def print_json(content: object) -> None:
    """Print a result, and nothing else, as JSON on standard output."""
    print(json.dumps(content, indent=2, default=str))
