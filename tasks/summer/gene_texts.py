"""What a prompt says of a gene, by role: published summaries, a model's, or entries condensed by rule."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from storage.errors import InputError
from tasks.summer.entries import EntryIndex

Role = Literal["pert", "gene"]
ROLES: tuple[Role, ...] = ("pert", "gene")
#: Files of the published layout, the better first: with one-hop relations, then from own entries only.
FILES = {role: (f"desc_1hop_{role}.json", f"desc_{role}.json") for role in ROLES}
TITLES = {
    "entries": "Database entries, condensed by rule",
    "published": "Summary",
    "engine": "Summary",
}


@dataclass(frozen=True, eq=False)
class GeneTexts:
    """Texts of genes by role, and of gene sets by their members.

    Attributes
    ----------
    source
        ``entries``, ``published`` or ``engine``: where the texts are from; a prompt and a run say so.
    find
        Role and symbol to text; empty where nothing is on record.
    sets
        Name of a gene set to its members.
    """

    source: Literal["entries", "published", "engine"]
    find: Callable[[Role, str], str]
    sets: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What a prompt calls these texts."""
        return TITLES[self.source]

    def text(self, role: Role, symbol: str) -> str:
        """The text of a gene in a role; a gene set is described by its members."""
        if symbol in self.sets:
            return f"a set of {len(self.sets[symbol])} genes: {', '.join(self.sets[symbol])}"
        return self.find(role, symbol)

    def measured(self, symbol: str) -> str:
        """Whether a measured name is a gene or a gene set, in words."""
        return "gene set" if symbol in self.sets else "gene"


def texts_from_entries(index: EntryIndex, sets: Mapping[str, Sequence[str]]) -> GeneTexts:
    """Condense entries by rule, each gene once."""
    condensed = lru_cache(maxsize=50_000)(index.condensed)
    return GeneTexts("entries", lambda _role, symbol: condensed(symbol), sets)


def texts_from_files(
    place: Path | str, source: Literal["published", "engine"], sets: Mapping[str, Sequence[str]]
) -> GeneTexts:
    """Read summaries in the published layout, a folder or a zip archive of JSON files symbol -> text.

    Raises
    ------
    InputError
        Listing what is missing or not such a file.
    """
    files, problems = _json_files(Path(place)), []
    by_role: dict[str, dict[str, str]] = {}
    for role, names in FILES.items():
        found = [name for name in names if name in files]
        if not found:
            problems.append(f"neither {' nor '.join(names)} is in it")
            continue
        # One-hop summaries come over those from own entries, gene by gene.
        merged: dict[str, str] = {}
        for name in reversed(found):
            problems += _problems(name, files[name])
            merged |= files[name] if isinstance(files[name], dict) else {}
        by_role[role] = merged
    if problems:
        raise InputError(str(place), problems)
    return GeneTexts(source, lambda role, symbol: by_role[role].get(symbol, ""), sets)


def _json_files(place: Path) -> dict[str, object]:
    """The published files of a folder or archive by name, wherever in it they are."""
    wanted = {name for names in FILES.values() for name in names}
    if place.is_dir():
        paths = sorted(path for path in place.rglob("*.json") if path.name in wanted)
        return {path.name: _load(path.name, _bytes(path), str(place)) for path in paths}
    try:
        with zipfile.ZipFile(place) as archive:
            members = [name for name in archive.namelist() if Path(name).name in wanted]
            return {Path(name).name: _load(name, archive.read(name), str(place)) for name in sorted(members)}
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(str(place), [f"neither a folder nor a zip archive ({error})"]) from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(str(path), [f"cannot be read ({error.strerror})"]) from error


def _load(name: str, content: bytes, subject: str) -> object:
    try:
        return json.loads(content)
    except ValueError as error:
        raise InputError(subject, [f"{name} is not JSON ({error})"]) from error


def _problems(name: str, content: object) -> list[str]:
    if isinstance(content, dict) and all(isinstance(text, str) for text in content.values()):
        return []
    return [f"{name} is not an object of symbol -> text"]
