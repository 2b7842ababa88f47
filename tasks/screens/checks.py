"""Is this h5ad file a screen with raw counts? Every problem is found before anything is written."""

from __future__ import annotations

import difflib
import fnmatch
from dataclasses import dataclass

import numpy as np
import pandas as pd

from storage.errors import InputError
from storage.h5ad import H5adFile
from tasks.screens.tiles import FAULTS, check_counts

#: What the screen store can hold.
LARGEST_COUNT = np.iinfo(np.uint32).max


@dataclass(frozen=True)
class CellTable:
    """What ingest needs to know of each cell.

    Attributes
    ----------
    keep
        bool, (n_cells in the file,): cells with a perturbation that ``only`` selects.
    frame
        One row a kept cell: ``perturbation``, ``control`` (bool) and, where keys were given, ``guide`` and
        ``batch``.
    n_unassigned
        Cells left out because they have no perturbation.
    """

    keep: np.ndarray
    frame: pd.DataFrame
    n_unassigned: int


def read_cells(
    file: H5adFile,
    *,
    perturbation_key: str,
    control: str,
    guide_key: str | None = None,
    batch_key: str | None = None,
    gene_key: str | None = None,
    only: str | None = None,
) -> tuple[CellTable, np.ndarray]:
    """Read and check the names in a screen.

    Parameters
    ----------
    control
        Name of the control cells in the perturbation column; several names or patterns with ``*`` may be
        given, separated by commas.
    only
        ``column=value``: keep these cells only.

    Returns
    -------
    CellTable, ndarray
        The cells, and the gene names (object, (n_genes,)).

    Raises
    ------
    InputError
        Listing every problem: missing columns (with the near ones), no control cells (with the most
        frequent values), no perturbation, empty names, missing or empty guides or batches, duplicated
        genes.
    """
    if file.n_cells == 0:
        raise InputError(str(file.path), ["there are no cells in it"])
    keys = [key for key in (perturbation_key, guide_key, batch_key) if key is not None]
    missing = [_missing_key(file, "obs", key) for key in keys]
    missing += [] if gene_key is None else [_missing_key(file, "var", gene_key)]
    keep, only_problem = _selection(file, only)
    problems = [problem for problem in [*missing, only_problem] if problem]
    genes, gene_problems = _gene_names(file, gene_key)
    problems += gene_problems
    if perturbation_key not in file.columns("obs"):
        raise InputError(str(file.path), problems)
    names = file.column("obs", perturbation_key)
    assigned = names.notna().to_numpy()
    n_unassigned = int((keep & ~assigned).sum())
    keep = keep & assigned
    frame, name_problems = _perturbations(names[keep], control, key=perturbation_key)
    problems += name_problems
    for column, key in (("guide", guide_key), ("batch", batch_key)):
        if key in file.columns("obs"):
            values = file.column("obs", key)[keep]
            n_missing = int(values.isna().sum())
            problems += [f"{n_missing:,} cells have no value in '{key}'"] if n_missing else []
            frame[column] = values.astype(str).to_numpy(object)
            n_empty = int((frame[column] == "").sum())
            problems += [f"{n_empty:,} cells have an empty value in '{key}'"] if n_empty else []
    if problems:
        raise InputError(str(file.path), problems)
    return CellTable(keep, frame, n_unassigned), genes


def _gene_names(file: H5adFile, gene_key: str | None) -> tuple[np.ndarray, list[str]]:
    """The genes' names, object (n_genes,), and what is wrong with them; no names without their column."""
    if gene_key is not None and gene_key not in file.columns("var"):
        return np.empty(0, object), []
    column = file.column("var", gene_key)
    genes = column.astype(str).to_numpy(object)
    problems = _gene_problems(file, genes[column.notna().to_numpy()], gene_key)
    n_missing = int(column.isna().sum())
    return genes, problems + ([f"{n_missing:,} genes have no name in '{gene_key}'"] if n_missing else [])


def _perturbations(names: pd.Series, control: str, *, key: str) -> tuple[pd.DataFrame, list[str]]:
    """``perturbation`` and ``control`` of cells that all have a name, and what is wrong with the names.

    All controls are called ``control`` from here on, whatever pattern of it they match.
    """
    frame = pd.DataFrame({"perturbation": names.astype(str).to_numpy(object)})
    frame["control"], unmatched = _matches(frame["perturbation"], control)
    problems = _perturbation_problems(frame, key, control)
    if unmatched and frame["control"].any():
        problems.append(f"no '{key}' is '{', '.join(unmatched)}', though named as control")
    frame.loc[frame["control"], "perturbation"] = control
    return frame, problems


def count_problems(values: np.ndarray, where: str, layers: list[str]) -> list[str]:
    """Say what in ``values`` is not a raw UMI count, one sentence a kind of fault.

    Parameters
    ----------
    where
        Names the cells looked at.
    layers
        The file's layers and ``raw``, to point at where the counts may be.
    """
    *faults, largest = check_counts(values)
    problems = [f"{n:,} values are {kind} in {where}" for kind, n in zip(FAULTS, faults, strict=True) if n]
    if problems:
        problems[-1] += "; raw integer UMI counts are needed"
    if faults[2]:
        guess = "log-transformed" if largest < 20 else "normalised or corrected"
        problems[-1] += f" (these look {guess}: largest value {largest:.4g})"
    if largest > LARGEST_COUNT:
        problems.append(f"a value of {largest:,.0f} in {where}; UMI counts are at most {LARGEST_COUNT:,}")
    if problems and layers:
        problems[-1] += f"; raw counts may be in {', '.join(layers)} (--layer)"
    return problems


def _missing_key(file: H5adFile, part: str, key: str) -> str | None:
    columns = file.columns(part)
    if key in columns:
        return None
    near = difflib.get_close_matches(key, columns, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{part} has no column '{key}'; {hint}its columns: {', '.join(columns) or 'none'}"


def _selection(file: H5adFile, only: str | None) -> tuple[np.ndarray, str | None]:
    keep = np.ones(file.n_cells, bool)
    if only is None:
        return keep, None
    column, equals, value = only.partition("=")
    if not equals:
        return keep, f"--only takes column=value, not '{only}'"
    if problem := _missing_key(file, "obs", column):
        return keep, problem
    values = file.column("obs", column).astype(str)
    selected = (values == value).to_numpy()
    if not selected.any():
        # The rest is looked at in all cells: that none is left is not the names' fault.
        return keep, f"no cell has {only}; most frequent: {_frequent(values)}"
    return selected, None


def _gene_problems(file: H5adFile, genes: np.ndarray, gene_key: str | None) -> list[str]:
    problems = []
    duplicated = pd.unique(genes[pd.Series(genes).duplicated()])
    if len(duplicated):
        source = "the index of var" if gene_key is None else f"var['{gene_key}']"
        others = ", ".join(name for name in file.columns("var") if name != gene_key) or "none"
        problems.append(
            f"{len(duplicated)} gene names in {source} are duplicated ({', '.join(duplicated[:5])}); "
            f"make them unique or name another column with --gene-key (there are: {others})"
        )
    if (empty := int((genes == "").sum())) > 0:
        problems.append(f"{empty} gene names are empty")
    return problems


def _matches(names: pd.Series, control: str) -> tuple[np.ndarray, list[str]]:
    """Which cells are controls, and the names or patterns that match none."""
    values = names.unique()
    # A name may itself hold a comma or a bracket, so it is first taken as it stands.
    patterns = [control] if control in values else [part.strip() for part in control.split(",")]
    matches = {
        pattern: [value for value in values if value == pattern or fnmatch.fnmatchcase(value, pattern)]
        for pattern in patterns
    }
    controls = [value for matched in matches.values() for value in matched]
    return names.isin(controls).to_numpy(), [pattern for pattern, matched in matches.items() if not matched]


def _perturbation_problems(frame: pd.DataFrame, key: str, control: str) -> list[str]:
    problems = []
    names = frame["perturbation"]
    if not frame["control"].any():
        problems.append(
            f"no control cells: no '{key}' is '{control}'; name them with --control (most frequent values: "
            f"{_frequent(names)})"
        )
    if (empty := int((names == "").sum())) > 0:
        problems.append(f"{empty:,} cells have an empty perturbation name; name them or leave them missing")
    if frame["control"].all():
        problems.append("no perturbation: every cell is a control")
    return problems


def _frequent(values: pd.Series, most: int = 8) -> str:
    counts = values.value_counts().head(most)
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items()) or "none"
