"""Gene sets as JSON: ``{name: [symbols]}``."""

from __future__ import annotations

import json
from pathlib import Path

from storage.errors import InputError


def read_gene_sets(path: Path | str) -> dict[str, tuple[str, ...]]:
    """Read gene sets; sets in the file's order, symbols in order and once each.

    Raises
    ------
    InputError
        Listing every problem: not JSON, another layout, names that are empty or come twice, empty sets,
        symbols that are no text.
    """
    problems: list[str] = []
    try:
        content = json.loads(
            Path(path).read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: _once(pairs, problems)
        )
    except OSError as error:
        raise InputError(str(path), [f"cannot be read ({error.strerror})"]) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(str(path), [f"not JSON ({error})"]) from error
    if not isinstance(content, dict) or not content:
        found = "an empty object" if content == {} else f"a {type(content).__name__}"
        message = f"the file holds {found}; a JSON object of sets is needed: {{name: [symbols]}}"
        raise InputError(str(path), [message])
    for name, symbols in content.items():
        if not name.strip():
            problems.append("a set has an empty name")
        if not isinstance(symbols, list) or not symbols:
            problems.append(f"set '{name}' is not a list of gene symbols, or an empty one")
        elif wrong := [symbol for symbol in symbols if not isinstance(symbol, str) or not symbol]:
            problems.append(f"set '{name}' has {len(wrong)} members that are no symbols: {wrong[:3]}")
    if problems:
        raise InputError(str(path), problems)
    return {name: tuple(sorted(set(symbols))) for name, symbols in content.items()}


def _once(pairs: list[tuple[str, object]], problems: list[str]) -> dict[str, object]:
    made = dict(pairs)
    names = [name for name, _ in pairs]
    problems += [f"set '{name}' is there {names.count(name)} times" for name in made if names.count(name) > 1]
    return made
