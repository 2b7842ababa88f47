"""Tables of DE tests, which may be larger than memory: read by perturbation, and only the columns needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import InputError


def read_by_perturbation(path: Path | str, columns: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Read a table of DE tests one perturbation at a time; at most two row groups are in memory.

    Parameters
    ----------
    columns
        Read beside ``pert``.

    Yields
    ------
    name, rows
        The perturbation and its rows in the file's order, with ``columns``; text as ``str`` objects.

    Raises
    ------
    InputError
        If the file cannot be read, a column is missing, or a perturbation's rows are not next to each other.
    """
    file = _open_tests(path, ("pert", *columns))
    waiting: list[pd.DataFrame] = []
    open_name, finished = None, set()
    for group in range(file.num_row_groups):
        rows = file.read_row_group(group, columns=["pert", *columns]).to_pandas()
        names = rows.pop("pert").astype(str).to_numpy()
        rows = rows.astype({name: str for name in columns if rows[name].dtype == "category"})
        edges = np.flatnonzero(names[1:] != names[:-1]) + 1
        for first, last in pairwise([0, *edges, len(names)] if len(names) else []):
            if waiting and names[first] != open_name:
                yield open_name, _one_frame(waiting)
                finished.add(open_name)
                waiting = []
            open_name = str(names[first])
            if open_name in finished:
                raise InputError(
                    str(path), [f"the rows of {open_name} are not next to each other; sort by pert"]
                )
            waiting.append(rows.iloc[first:last])
    if waiting:
        yield open_name, _one_frame(waiting)


def read_perturbations(path: Path | str, names: Sequence[str]) -> pd.DataFrame:
    """Read the rows of some perturbations, all columns; text as ``str`` objects, in the file's order."""
    file = _open_tests(path, ("pert", "gene"))
    place = file.metadata.schema.names.index("pert")
    parts = [file.schema_arrow.empty_table().to_pandas()]
    for group in range(file.num_row_groups):
        seen = file.metadata.row_group(group).column(place).statistics
        # One row group at a time, and most need not be opened: the table is sorted by perturbation.
        if any(seen is None or not seen.has_min_max or seen.min <= name <= seen.max for name in names):
            rows = file.read_row_group(group)
            rows = rows.filter(pc.is_in(rows["pert"].cast(pa.string()), pa.array(list(names), pa.string())))
            parts.append(rows.to_pandas())
    parts = [part.astype({"pert": str, "gene": str}) for part in parts]
    return _one_frame([part for part in parts if len(part)] or parts[:1])


def _open_tests(path: Path | str, columns: Sequence[str]) -> pq.ParquetFile:
    if not Path(path).is_file():
        raise InputError(str(path), ["no such file"])
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(str(path), [f"not a readable Parquet table ({reason})"]) from error
    found = file.schema_arrow.names
    missing = [column for column in columns if column not in found]
    if missing:
        message = f"columns {', '.join(missing)} are missing; found {', '.join(found) or 'none'}"
        raise InputError(str(path), [message])
    return file


def _one_frame(parts: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0].reset_index(drop=True)
