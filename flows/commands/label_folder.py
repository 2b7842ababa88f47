"""The folder that `pqa label` writes: it replaces what it has put there itself, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from storage.atomic import copy_or_remove, remove, write_json
from storage.manifest import file_digest

#: In the folder: digests of all that this command has ever put there, by name.
RECORD = ".made.json"


class LabelFolder:
    """A folder of results, with a record of what was put into it.

    Parameters
    ----------
    path
        The folder; need not exist.
    names
        All names that results may have in it.
    """

    def __init__(self, path: Path, names: Collection[str]):
        self._path, self._names = path, sorted(names)

    def problems(self) -> list[str]:
        """Why results cannot be put into the folder, in sentences."""
        made = self._made()
        there = [name for name in self._names if (self._path / name).exists()]
        others = [name for name in there if not self._is_own(name, made)]
        if not others:
            return []
        listed = ", ".join(others)
        return [f"--out {self._path}: holds {listed}, which `pqa label` has not made; choose another folder"]

    def replace(self, results: Mapping[str, Path | None]) -> None:
        """Copy each file to its name; where there is none now, remove what was put there before."""
        made = self._made()
        found = {name: path for name, path in results.items() if path is not None and path.is_file()}
        for name, path in found.items():
            made[name] = list(dict.fromkeys([*made.get(name, ()), file_digest(path)]))
        # Before the first copy: wherever this is stopped, all that lies there is in the record.
        write_json(self._path / RECORD, made)
        for name in results:
            if name in found:
                copy_or_remove(found[name], self._path / name)
            elif self._is_own(name, made):
                remove(self._path / name)

    def _is_own(self, name: str, made: Mapping[str, list[str]]) -> bool:
        """Whether what lies under a name is as this command put it there."""
        path = self._path / name
        return name in made and path.is_file() and file_digest(path) in made[name]

    def _made(self) -> dict[str, list[str]]:
        record = self._path / RECORD
        return json.loads(record.read_text()) if record.is_file() else {}
