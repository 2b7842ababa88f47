"""Screens, data sets, knowledge and gene sets by name: what the forms offer, and which files are meant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.label_stages import EMBEDDED_NAME
from storage.errors import InputError
from storage.knowledge_store import HEAD
from storage.manifest import read_manifest
from tasks.scoring.task_names import TASK_TITLES

#: Folders below a data folder that are looked into.
DEPTH = 4


@dataclass(frozen=True)
class Catalog:
    """Names to places, by what is named.

    Attributes
    ----------
    screens
        h5ad files by path below their folder, without the suffix; the embedded one comes first.
    data_sets
        Stems of label tables: those of the data folder, and those made here (``made/NAME-DIGEST``).
    knowledge
        Folders with ``edges_*.parquet``.
    gene_lists
        JSON files of gene sets or clusters of genes.
    """

    screens: Mapping[str, str] = field(default_factory=dict)
    data_sets: Mapping[str, str] = field(default_factory=dict)
    knowledge: Mapping[str, str] = field(default_factory=dict)
    gene_lists: Mapping[str, str] = field(default_factory=dict)

    def path_of(self, kind: str, name: str) -> str:
        """The path behind a name.

        Raises
        ------
        InputError
            If nothing has this name; says what there is.
        """
        named = getattr(self, kind)
        if name not in named:
            listed = ", ".join(named) or "none"
            raise InputError(kind.replace("_", " "), [f"nothing is called '{name}'; there are: {listed}"])
        return named[name]


def read_catalog(data: Path, workspace: Path, watch: str = "") -> Catalog:
    """Look at a data folder, at a watched one if it is on this machine, and at what was made here."""
    screens, data_sets, knowledge, gene_lists = {EMBEDDED_NAME: EMBEDDED_NAME}, {}, {}, {}
    for folder, files in _walk(data):
        for name in files:
            path = folder / name
            stem = str(path.relative_to(data).with_suffix(""))
            if path.suffix == ".h5ad":
                screens[stem] = str(path)
            elif path.suffix == ".json" and name != HEAD:
                gene_lists[str(path.relative_to(data))] = str(path)
            for task in TASK_TITLES:
                if name.endswith(f"-{task}.parquet"):
                    short = stem.removesuffix(f"-{task}")
                    data_sets[short] = str(data / short)
        tables = any(name.startswith("edges_") and name.endswith(".parquet") for name in files)
        if tables or HEAD in files:
            knowledge[_name_of(folder, data)] = str(folder)
    if watch and "://" not in watch:
        inbox = Path(watch)
        screens |= {
            f"inbox/{(folder / name).relative_to(inbox).with_suffix('')}": str(folder / name)
            for folder, files in _walk(inbox)
            for name in files
            if name.endswith(".h5ad")
        }
    return Catalog(screens, data_sets | _made(workspace), knowledge, gene_lists)


def _walk(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders and their files in order of name, links followed, hidden ones left out."""
    for folder, below, files in os.walk(top, followlinks=True):
        here = Path(folder)
        deep = len(here.relative_to(top).parts) >= DEPTH
        below[:] = [] if deep else sorted(name for name in below if not name.startswith("."))
        yield here, sorted(name for name in files if not name.startswith("."))


def _name_of(folder: Path, top: Path) -> str:
    return str(folder.relative_to(top)) if folder != top else folder.name


def _made(workspace: Path) -> dict[str, str]:
    """Label tables made here, by the name of their stage."""
    folders = sorted((workspace / "labels").glob("*"))
    return {f"made/{folder.name}": str(folder) for folder in folders if read_manifest(folder) is not None}
