"""Parquet tables: their columns, their checks, and the recipe kept in each file's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from storage.atomic import atomic_path
from storage.errors import InputError

RECIPE_KEY = b"pqa_recipe"
PREDICTION_COLUMNS = ("pert", "gene", "score")
SPLITS = ("train", "test")


def write_table(path: Path | str, frame: pd.DataFrame, recipe: Mapping | None = None) -> Path:
    """Write ``frame`` as Parquet, atomically, with ``recipe`` as JSON in the schema's metadata.

    The same frame and recipe give the same bytes.
    """
    path = Path(path)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    # pandas' own metadata names the library versions; the recipe says what a reader needs.
    table = table.replace_schema_metadata(recipe_metadata(recipe or {}))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def recipe_metadata(recipe: Mapping) -> dict[bytes, bytes]:
    """The recipe as Parquet schema metadata: JSON under the key ``pqa_recipe``."""
    return {RECIPE_KEY: json.dumps(recipe, sort_keys=True).encode()}


def read_recipe(path: Path | str) -> dict:
    """Read the recipe of a table this project wrote; ``{}`` where there is none.

    Raises
    ------
    InputError
        If the file is missing, or no Parquet table though its name does not end in .csv.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(str(path), ["no such file"])
    if path.suffix == ".csv":
        return {}
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(str(path), [f"not a readable Parquet table ({reason})"]) from error
    return json.loads(metadata.get(RECIPE_KEY, b"{}"))


def read_frame(path: Path | str) -> pd.DataFrame:
    """Read a Parquet or CSV table.

    Raises
    ------
    InputError
        If the file is missing, empty, or not of the kind its name says.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(str(path), ["no such file"])
    try:
        if path.suffix == ".csv":
            # "NA" is a gene-like word, not a missing value, in every column but the label.
            missing = {"label": ["", "NA", "nan"]}
            names = {"pert": str, "gene": str, "split": str}
            frame = pd.read_csv(path, keep_default_na=False, na_values=missing, dtype=names)
        else:
            frame = pq.read_table(path).to_pandas()
    except (
        pa.ArrowInvalid,
        pa.ArrowIOError,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        ValueError,
    ) as error:
        kind = "CSV" if path.suffix == ".csv" else "Parquet"
        reason = str(error).splitlines()[0]
        raise InputError(str(path), [f"not a readable {kind} table ({reason})"]) from error
    return frame


def read_labels(path: Path | str) -> pd.DataFrame:
    """Read a label table in the published layout.

    Returns
    -------
    DataFrame
        ``pert``, ``gene``, ``split`` as ``str`` objects and ``label`` as nullable ``Int8``
        (0, 1 or missing where unknown), in the file's row order.

    Raises
    ------
    InputError
        Listing every problem: missing columns, labels other than 0/1, unknown splits, empty names,
        duplicated pairs, perturbations on both sides of the split.
    """
    frame = read_frame(path)
    _require_columns(path, frame, ("pert", "gene", "split"))
    problems = _name_problems(frame)
    label = _label_column(frame, problems)
    split = frame["split"].astype(str)
    unknown = sorted(set(split) - set(SPLITS))
    if unknown:
        problems.append(f"split must be 'train' or 'test'; found {_some(unknown)}")
    both = sorted(set(frame["pert"][split == "train"]) & set(frame["pert"][split == "test"]))
    if both:
        problems.append(f"{len(both)} perturbations are on both sides of the split: {_some(both)}")
    if problems:
        raise InputError(str(path), problems)
    return pd.DataFrame(
        {
            "pert": frame["pert"].astype(str).astype(object),
            "gene": frame["gene"].astype(str).astype(object),
            "label": label,
            "split": split.astype(object),
        }
    )


def read_pairs(path: Path | str) -> pd.DataFrame:
    """Read the pairs to be predicted: ``pert`` and ``gene``; a label in the file is not looked at."""
    frame = read_frame(path)
    _require_columns(path, frame, ("pert", "gene"))
    problems = _name_problems(frame)
    if problems:
        raise InputError(str(path), problems)
    return frame[["pert", "gene"]].astype(str).astype(object).reset_index(drop=True)


def read_predictions(path: Path | str) -> pd.DataFrame:
    """Read predictions (``pert``, ``gene``, ``score``); scores must be finite numbers."""
    frame = read_frame(path)
    _require_columns(path, frame, PREDICTION_COLUMNS)
    problems = _name_problems(frame)
    score = pd.to_numeric(frame["score"], errors="coerce").to_numpy(np.float64)
    bad = int((~np.isfinite(score)).sum())
    if bad:
        problems.append(f"{bad} scores are missing, infinite or not numbers; every pair needs a finite score")
    if problems:
        raise InputError(str(path), problems)
    return frame[["pert", "gene"]].astype(str).astype(object).assign(score=score)


def _require_columns(path: Path | str, frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        found = ", ".join(map(str, frame.columns)) or "none"
        raise InputError(str(path), [f"columns {', '.join(missing)} are missing; found {found}"])
    if frame.empty:
        raise InputError(str(path), ["the table has no rows"])


def _name_problems(frame: pd.DataFrame) -> list[str]:
    problems = []
    for column in ("pert", "gene"):
        empty = int((frame[column].isna() | (frame[column].astype(str) == "")).sum())
        if empty:
            problems.append(f"{empty} rows have an empty {column}")
    duplicated = frame.duplicated(["pert", "gene"])
    if duplicated.any():
        first = frame.loc[duplicated, ["pert", "gene"]].iloc[0]
        problems.append(
            f"{int(duplicated.sum())} pairs are listed more than once, for example {first.pert}, {first.gene}"
        )
    return problems


def _label_column(frame: pd.DataFrame, problems: list[str]) -> pd.Series:
    """Labels as ``Int8``; a table without the column has unknown labels throughout."""
    if "label" not in frame:
        return pd.Series(pd.array([pd.NA] * len(frame), dtype="Int8"), index=frame.index)
    numeric = pd.to_numeric(frame["label"], errors="coerce").astype("Float64")
    wrong = frame["label"].notna() & ~numeric.isin([0, 1]).fillna(False)
    if wrong.any():
        others = _some(frame["label"][wrong].unique())
        problems.append(f"labels must be 0, 1 or missing; {int(wrong.sum())} rows have others: {others}")
        return numeric
    return numeric.astype("Int8")


def _some(values, most: int = 5) -> str:
    values = [str(value) for value in values]
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more
