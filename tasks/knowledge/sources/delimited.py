"""Tables as text: their first line checked, then streamed in blocks, only the columns that are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pv

from storage.errors import InputError
from tasks.knowledge.sources.source_file import SourceFile

#: Names repeat a lot: as categories a block of millions of rows stays small.
CATEGORY = pa.dictionary(pa.int32(), pa.string())
BLOCK_BYTES = 16 * 2**20

#: Told a block of rows, says which to keep.
Keep = Callable[[pa.RecordBatch], pa.Array]


def columns_of(file: SourceFile, delimiter: str) -> list[str]:
    """Names in the first line, quotes taken off."""
    line = file.first_line()
    return [name.strip().strip('"') for name in line.split(delimiter)] if line.strip() else []


def column_problems(file: SourceFile, columns: Sequence[str], delimiter: str) -> list[str]:
    """Say that the file is empty, or which columns it lacks."""
    found = columns_of(file, delimiter)
    if not found:
        return ["the file is empty"]
    missing = [column for column in columns if column not in found]
    if not missing:
        return []
    shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    return [f"columns {', '.join(missing)} are missing in its first line; found {shown}"]


def stream_columns(
    file: SourceFile,
    types: dict[str, pa.DataType],
    *,
    delimiter: str = "\t",
    quoted: bool = False,
    keep: Keep | None = None,
    names: Sequence[str] | None = None,
    skip_lines: int = 0,
    comment: str = "",
) -> tuple[pd.DataFrame, int]:
    """Read some columns block by block, and of each block the rows to be kept.

    Parameters
    ----------
    types
        The columns and what they hold; `CATEGORY` for names.
    quoted
        Whether fields may be in double quotes.
    keep
        Which rows of a block stay; None: all.
    names
        The columns' names where the file has none.
    skip_lines
        Lines before the table.
    comment
        What lines that are not rows begin with.

    Returns
    -------
    DataFrame, int
        The rows kept, and the number of rows there were.

    Raises
    ------
    InputError
        If a row has another number of fields than the first line, a number is none, or there are no rows.
    """
    read, batches = 0, []
    try:
        with file.open() as raw:
            reader = pv.open_csv(
                raw,
                pv.ReadOptions(block_size=BLOCK_BYTES, column_names=names, skip_rows=skip_lines),
                pv.ParseOptions(
                    delimiter=delimiter,
                    quote_char='"' if quoted else False,
                    invalid_row_handler=lambda row: "skip" if _is_comment(row, comment) else "error",
                ),
                # Without null values an empty field is no number, and an empty name stays a name.
                pv.ConvertOptions(column_types=types, include_columns=list(types), null_values=[]),
            )
            for batch in reader:
                read += batch.num_rows
                batches.append(batch if keep is None else batch.filter(keep(batch)))
    except pa.ArrowInvalid as error:
        raise InputError(file.name, [f"cannot be read as a table ({_one_line(error)})"]) from error
    if not read:
        raise InputError(file.name, ["there are no rows below its first line"])
    return pa.Table.from_batches(batches).to_pandas(), read


def renamed(column: pd.Series, rename: Callable[[str], str]) -> pd.Categorical:
    """The column's categories under other names; those that become the same are one."""
    categorical = column.cat
    names = pd.Index([rename(name) for name in categorical.categories], dtype=object)
    codes, unique = pd.factorize(names, sort=True)
    at = categorical.codes.to_numpy()
    return pd.Categorical.from_codes(np.where(at >= 0, codes[at], -1), categories=unique)


def _is_comment(row: pv.InvalidRow, comment: str) -> bool:
    return bool(comment) and row.text.startswith(comment)


def _one_line(error: Exception) -> str:
    text = str(error).splitlines()[0]
    return text if len(text) <= 200 else f"{text[:200]}..."
