"""Parquet tables of links: ``edges_*.parquet`` between genes, ``gene_*.parquet`` from genes to terms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from storage.errors import InputError
from storage.tables import read_frame
from tasks.knowledge.sources.protocol import GENE_GENE, GENE_TERM, Links, Reading, link_frame, release_in
from tasks.knowledge.sources.source_file import SourceFile

EDGE_COLUMNS = ("source_gene", "target_gene", "relation")
TERM_COLUMNS = ("source_gene", "target", "relation")
#: Texts about genes share the prefix of the gene-term tables but hold no links.
TEXT_TABLE = "gene_text.parquet"


class ParquetTables:
    """The tables as they are; their names are taken for the genes' symbols where no list knows better."""

    name: ClassVar[str] = "tables"
    title: ClassVar[str] = "Parquet tables edges_*, gene_*"
    files: ClassVar[re.Pattern] = re.compile(rf"^(edges|gene)_(?!{TEXT_TABLE[5:]}).*\.parquet$")
    beside: ClassVar[re.Pattern | None] = None
    columns: ClassVar[tuple[str, ...]] = ()
    delimiter: ClassVar[str] = ""
    keeps_unknown: ClassVar[bool] = True

    def database(self, file: SourceFile) -> str:
        """The word after ``edges`` or ``gene``."""
        return database_of(file.path)

    def problems(self, file: SourceFile, reading: Reading) -> list[str]:
        """Look at the schema."""
        if file.member:
            return ["Parquet tables are read from a folder, not from an archive; unpack it"]
        return [text.removeprefix(f"{file.name} ") for text in schema_problems(file.path, _columns(file))]

    def read(self, file: SourceFile, reading: Reading) -> Links:
        """Read the links; a ``score`` or ``evidence`` the table has is kept."""
        columns = _columns(file)
        links = read_links(file.path, columns)
        frame = read_frame(file.path)
        score = pd.to_numeric(frame["score"], errors="coerce").to_numpy() if "score" in frame else None
        evidence = frame["evidence"].fillna("").astype(str) if "evidence" in frame else ""
        kind = GENE_GENE if columns == EDGE_COLUMNS else GENE_TERM
        source, target, relation = (pd.Categorical(links[column]) for column in columns)
        typed = link_frame(source, target, relation=relation, kind=kind, score=score, evidence=evidence)
        return Links(typed, len(typed), release=release_in(file.stem))


def database_of(path: Path) -> str:
    """The database a table's name tells: releases of one (``edges_string_v11``, ``_v12``) are the same."""
    return path.stem.split("_")[1]


def schema_problems(path: Path, columns: tuple[str, ...]) -> list[str]:
    """Say that a file is no Parquet table or which columns it lacks."""
    try:
        found = pq.read_schema(path).names
    except (OSError, ValueError) as error:
        return [f"{path.name} is not a readable Parquet table ({str(error).splitlines()[0]})"]
    missing = [column for column in columns if column not in found]
    if not missing:
        return []
    return [f"{path.name} lacks columns {', '.join(missing)}; found {', '.join(found)}"]


def read_links(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read the link columns of one table as categories; every name must be given."""
    # Categories: there are few distinct names, so each is checked and looked up once.
    frame = read_frame(path)[list(columns)].astype("category")
    named = [frame[column].cat.codes.ge(0) & frame[column].ne("") for column in columns]
    empty = int((~np.logical_and.reduce(named)).sum())
    if empty:
        raise InputError(str(path), [f"{empty} rows have an empty name in {', '.join(columns)}"])
    return frame


def _columns(file: SourceFile) -> tuple[str, ...]:
    return EDGE_COLUMNS if file.own_name.lower().startswith("edges_") else TERM_COLUMNS
