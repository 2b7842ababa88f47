"""Which source files a result depends on: found by following imports, so that none is forgotten."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parents[1]
#: Packages whose imports are followed: flows only say what runs, in which order.
FOLLOWED = ("storage", "tasks")
SUFFIXES = {".py", ".j2", ".jinja"}


@cache
def source_digest(*modules: ModuleType) -> str:
    """Digest over the sources of modules and of all that they import from ``storage`` and ``tasks``.

    A package stands for all modules and templates in it. Imports inside functions count; what is imported
    by a name that is computed does not. Names are relative to the project, wherever it is installed.
    """
    waiting = [path for module in modules for path in _own_files(Path(module.__file__).resolve())]
    digests: dict[str, str] = {}
    while waiting:
        path = waiting.pop()
        name = str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name)
        if name not in digests:
            digests[name], imported = _read_source(path)
            waiting += imported
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _own_files(source: Path) -> Iterator[Path]:
    if source.name != "__init__.py":
        yield source
        return
    yield from (path for path in source.parent.rglob("*") if path.suffix in SUFFIXES)


@cache
def _read_source(path: Path) -> tuple[str, tuple[Path, ...]]:
    """A file's digest, and the project's files it imports."""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if path.suffix != ".py":
        return digest, ()
    return digest, tuple(file for name in _imported_names(content) for file in _find(name))


def _imported_names(source: bytes) -> Iterator[str]:
    """Dotted names of modules that may be meant: ``from a import b`` means ``a``, and perhaps ``a.b``."""
    # Compiled, not parsed: CPython 3.11 fails where two threads build syntax trees at once.
    waiting = [compile(source, "<source>", "exec", dont_inherit=True)]
    while waiting:
        code = waiting.pop()
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for kind, found in ModuleFinder().scan_opcodes(code):
            if kind == "absolute_import":
                names, module = found
                yield module
                yield from (f"{module}.{name}" for name in names or ())


def _find(name: str) -> list[Path]:
    parts = name.split(".")
    if parts[0] not in FOLLOWED:
        return []
    path = ROOT.joinpath(*parts)
    return [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
