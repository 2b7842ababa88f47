"""When is a stage done? When its manifest, written last, names files that are all there.

A stage is one step on one data set. It lives in ``<workspace>/<kind>/<name>-<digest>/``; the digest covers
the digests of its inputs, its options and the code it runs, so a changed option is another folder and an
unchanged one is a look-up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from filelock import FileLock

from storage.atomic import disk_errors, remove, write_json
from storage.source_code import source_digest

MANIFEST = "manifest.json"
LIBRARIES = (
    "lightgbm",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "statsmodels",
    "torch",
    "torch-geometric",
    "zarr",
)
#: What a manifest says.
PARTS = {"kind", "name", "digest", "inputs", "options", "files", "rows"}


@dataclass(frozen=True)
class Stage:
    """What a stage's result depends on.

    Parameters
    ----------
    kind, name
        The folder it is filed under and the data set's readable name.
    inputs
        Digests of what it reads, by role.
    options
        Its options as plain JSON values.
    code
        Packages or modules whose functions are called; what these import counts too (``source_code``).
    """

    kind: str
    name: str
    inputs: Mapping[str, str]
    options: Mapping[str, object]
    code: tuple[ModuleType, ...] = field(default=())

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 over inputs, options and code."""
        content = {
            "kind": self.kind,
            "name": self.name,
            "inputs": dict(self.inputs),
            "options": self.options,
            "code": source_digest(*self.code),
            "libraries": library_versions(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def folder(self, workspace: Path | str) -> Path:
        """Where this stage lives in ``workspace``."""
        return Path(workspace) / self.kind / f"{self.name}-{self.digest[:12]}"


@dataclass(frozen=True)
class StageRecord:
    """A finished stage, as handed from task to task: where it is and what it is, never its contents."""

    kind: str
    name: str
    folder: Path
    digest: str
    #: Digest over the bytes of all files made; what later stages depend on.
    content: str
    rows: Mapping[str, int]
    #: ``done`` in this run, or ``skipped`` because an earlier run had finished it.
    status: str
    reason: str


def run_stage(
    workspace: Path | str,
    stage: Stage,
    work: Callable[[Path], Mapping[str, int] | None],
    *,
    force: bool | Collection[str] = False,
) -> StageRecord:
    """Do ``work`` in the stage's folder unless its manifest verifies already.

    ``work`` gets the folder and returns row counts for the ledger. What it keeps under a name with a leading
    dot (finished blocks, say) is there again after an interruption and goes when the stage is done. A second
    process asking for the same stage waits and finds it done. ``force`` does it again though it is done:
    True, or kinds of stages with this one, or "all", among them.

    Raises
    ------
    StorageError
        If the workspace cannot be written.
    """
    # Workers of a cluster may have been started in another folder.
    workspace = Path(workspace).resolve()
    folder = stage.folder(workspace)
    again = force if isinstance(force, bool) else bool({"all", stage.kind} & set(force))
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if again:
                remove(folder)
            elif (record := finished_stage(stage, workspace)) is not None:
                _remove_hidden(folder)
                return record
            folder.mkdir(exist_ok=True)
            rows = dict(work(folder) or {})
            _write_manifest(folder, stage, rows)
            _remove_hidden(folder)
            reason = "asked for again" if again else why_not_done(stage, folder)
            return _record(folder, stage, "done", reason)


def finished_stage(stage: Stage, workspace: Path | str) -> StageRecord | None:
    """Read a stage back if its manifest verifies: every file is there with the size it had."""
    folder = stage.folder(workspace)
    manifest = read_manifest(folder)
    if manifest is None or manifest["digest"] != stage.digest:
        return None
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            return None
    finished = datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime).strftime("%Y-%m-%d %H:%M")
    why = f"an earlier run finished it on {finished} with the same inputs, options and code"
    return _record(folder, stage, "skipped", why)


def why_not_done(stage: Stage, folder: Path) -> str:
    """What differs from the last stage of this kind and name that was finished."""
    others = folder.parent.glob(f"{stage.name}-{'?' * 12}/{MANIFEST}")
    others = [path for path in others if path.parent != folder]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    last = next((content for path in others if (content := read_manifest(path.parent)) is not None), None)
    if last is None:
        return "not done before"
    changed = [f"other {role}" for role in stage.inputs if stage.inputs[role] != last["inputs"].get(role)]
    options = json.loads(json.dumps(stage.options, sort_keys=True))
    names = sorted(options.keys() | last["options"].keys())
    changed += [
        f"{name} {last['options'].get(name)} -> {options.get(name)}"
        for name in names
        if options.get(name) != last["options"].get(name)
    ]
    return f"since the last time: {', '.join(changed) or 'other code or libraries'}"


def read_manifest(folder: Path | str) -> dict | None:
    """Read a folder's manifest; ``None`` where there is none or it is not whole."""
    try:
        content = json.loads((Path(folder) / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) and content.keys() >= PARTS else None


def file_digest(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def folder_digest(files: Mapping[str, str]) -> str:
    """One digest over the names and digests of several files."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries whose numbers end up in results."""
    return {name: version(name) for name in LIBRARIES}


def _write_manifest(folder: Path, stage: Stage, rows: Mapping[str, int]) -> None:
    files = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        name = "/".join(parts)
        if path.is_file() and name != MANIFEST and not any(part.startswith(".") for part in parts):
            files[name] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    write_json(
        folder / MANIFEST,
        {
            "kind": stage.kind,
            "name": stage.name,
            "digest": stage.digest,
            "inputs": dict(stage.inputs),
            "options": stage.options,
            "files": files,
            "rows": dict(rows),
        },
    )


def _remove_hidden(folder: Path) -> None:
    for path in folder.glob(".*"):
        remove(path)


def _record(folder: Path, stage: Stage, status: str, reason: str) -> StageRecord:
    manifest = read_manifest(folder)
    content = folder_digest({name: entry["sha256"] for name, entry in manifest["files"].items()})
    return StageRecord(
        stage.kind, stage.name, folder, stage.digest, content, manifest["rows"], status, reason
    )
