"""A typed graph of gene knowledge on disk: nodes, edges, other names of genes, and a head of sources."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from storage.atomic import atomic_path, write_json
from storage.errors import InputError
from storage.manifest import file_digest
from storage.tables import read_frame, write_table

HEAD = "knowledge.json"
EDGES, NODES, ALIASES, UNRESOLVED = "edges.parquet", "nodes.parquet", "aliases.parquet", "unresolved.parquet"
#: The store's own files; texts and names of terms lie beside them as they were given.
OWN = (EDGES, NODES, ALIASES, UNRESOLVED)
FORMAT = 1

_NAME = pa.dictionary(pa.int32(), pa.string())
EDGE_SCHEMA = pa.schema(
    [
        ("source", _NAME),
        ("target", _NAME),
        ("relation", _NAME),
        ("kind", _NAME),
        ("score", pa.float32()),
        ("evidence", _NAME),
        ("database", _NAME),
        ("file", _NAME),
        ("licence", _NAME),
    ]
)
NODE_COLUMNS = ("node", "type", "id", "name", "database")
UNRESOLVED_COLUMNS = ("file", "database", "name", "links")


def is_store(folder: Path | str) -> bool:
    """Whether a folder is a graph store."""
    return (Path(folder) / HEAD).is_file()


def write_store(
    folder: Path | str,
    edges: Iterable[pd.DataFrame],
    *,
    nodes: pd.DataFrame,
    aliases: Mapping[str, str],
    unresolved: pd.DataFrame,
    copied: Sequence[Path],
    term_names: pd.DataFrame,
    head: Mapping[str, object],
) -> dict:
    """Write a store, whole or not at all; an older one in its place is replaced.

    Parameters
    ----------
    edges
        Frames with the columns of `EDGE_SCHEMA`, names as categories; each becomes row groups of its own.
    nodes, unresolved
        Columns `NODE_COLUMNS` and `UNRESOLVED_COLUMNS`.
    aliases
        Other names of genes to symbols.
    copied
        Files put beside as they are.
    term_names
        ``term_id`` and ``name`` of terms whose names no copied file has; none: no table.
    head
        What the store is made from; the store's own files are added to it.

    Returns
    -------
    dict
        The head as written.
    """
    with atomic_path(folder) as place:
        place.mkdir()
        rows = {EDGES: _write_edges(place / EDGES, edges)}
        others = pd.DataFrame(sorted(aliases.items()), columns=["alias", "symbol"], dtype=str)
        frames = {NODES: nodes, ALIASES: others, UNRESOLVED: unresolved}
        if len(term_names):
            frames["terms_of_sources.parquet"] = term_names
        for name, frame in frames.items():
            write_table(place / name, frame)
            rows[name] = len(frame)
        for path in copied:
            shutil.copyfile(path, place / path.name)
        files = {path.name: _entry(path, rows) for path in sorted(place.iterdir())}
        written = {"format": FORMAT, **head, "files": files}
        write_json(place / HEAD, written)
    return json.loads((Path(folder) / HEAD).read_text())


def read_head(folder: Path | str) -> dict:
    """Read a store's head, and see that the store is whole.

    Raises
    ------
    InputError
        If the head is not one, is of another format, or a file is missing or has another size.
    """
    folder = Path(folder)
    try:
        head = json.loads((folder / HEAD).read_text())
    except (OSError, ValueError) as error:
        raise InputError(str(folder / HEAD), [f"cannot be read ({error}); make the store again"]) from error
    if not isinstance(head, dict) or not {"format", "sources", "files"} <= head.keys():
        raise InputError(str(folder / HEAD), ["not the head of a knowledge store"])
    if head["format"] != FORMAT:
        found = f"the store has format {head['format']}, this program reads {FORMAT}; make it again"
        raise InputError(str(folder), [found])
    problems = []
    for name in sorted({*OWN, *head["files"]}):
        path, entry = folder / name, head["files"].get(name)
        if entry is None or not path.is_file():
            problems.append(f"{name} is missing; make the store again")
        elif path.stat().st_size != entry["bytes"]:
            problems.append(f"{name} is not the file that was written; make the store again")
    if problems:
        raise InputError(str(folder), problems)
    return head


def store_files(folder: Path | str) -> tuple[Path, ...]:
    """The store's own files, sorted by name: what a digest of it has to cover."""
    return tuple(Path(folder) / name for name in sorted({HEAD, *OWN}))


def read_edges(folder: Path | str, files: Collection[str]) -> pd.DataFrame:
    """The edges that come from some of the source files.

    Returns
    -------
    DataFrame
        ``source``, ``target``, ``relation``, ``kind``, ``file`` as categories.
    """
    columns = ["source", "target", "relation", "kind", "file"]
    frame = pq.read_table(Path(folder) / EDGES, columns=columns).to_pandas()
    kept = frame["file"].cat.categories.isin(list(files))
    return frame[kept[frame["file"].cat.codes.to_numpy()]] if len(kept) else frame


def read_aliases(folder: Path | str) -> dict[str, str]:
    """Other names of genes to symbols."""
    frame = read_frame(Path(folder) / ALIASES)
    return dict(zip(frame["alias"], frame["symbol"], strict=True))


def check_place(folder: Path | str, given: Collection[Path]) -> list[str]:
    """What speaks against writing a store to a folder, in sentences."""
    folder = Path(folder)
    if any(folder.resolve() == path.resolve() for path in given):
        return [f"--out {folder} is one of the places that are read; choose another"]
    if folder.is_file():
        return [f"--out {folder} is a file; choose a folder"]
    if folder.is_dir() and not is_store(folder) and any(folder.iterdir()):
        return [f"--out {folder} holds other things than a knowledge store; choose another folder"]
    return []


def _write_edges(path: Path, edges: Iterable[pd.DataFrame]) -> int:
    rows = 0
    with pq.ParquetWriter(path, EDGE_SCHEMA, compression="zstd") as writer:
        for frame in edges:
            table = pa.Table.from_pandas(frame, preserve_index=False).select(EDGE_SCHEMA.names)
            writer.write_table(table.replace_schema_metadata(None).cast(EDGE_SCHEMA))
            rows += len(frame)
    return rows


def _entry(path: Path, rows: Mapping[str, int]) -> dict:
    counted = {"rows": rows[path.name]} if path.name in rows else {}
    return {"bytes": path.stat().st_size, "sha256": file_digest(path), **counted}
