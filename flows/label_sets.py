"""A data set's label tables, the line they are of, and which other lines' may be learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from storage.errors import InputError
from storage.manifest import file_digest, read_manifest
from storage.tables import read_frame, read_labels, read_recipe
from tasks.predictors.protocol import OWN
from tasks.scoring.task_names import TASK_TITLES

#: What predictors may learn from: the line's own training rows, or other lines' too.
WITHIN, ACROSS = "within", "across"
TRACK_TITLES = {WITHIN: "Within the line", ACROSS: "Across lines"}
#: Ends the name of a data set about gene sets; what stands before it is the line.
SETS = "_set"


@dataclass(frozen=True)
class LabelSet:
    """A data set's label tables by task, with their digests.

    Attributes
    ----------
    screen
        Digest of the counts that the tables were made of; None where that is not known.
    also, also_digests
        Other lines' tables by task and line, whose training rows are learnt from too, and their digests.
    expression, screen_columns
        The h5ad the labels were made from, where they were, and what its columns are called.
    """

    name: str
    tables: dict[str, Path]
    digests: dict[str, str]
    screen: str | None = None
    also: dict[str, dict[str, Path]] = field(default_factory=dict)
    also_digests: dict[str, dict[str, str]] = field(default_factory=dict)
    expression: Path | None = None
    screen_columns: dict[str, str] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The line's name: the data set's, also where it is about gene sets."""
        return self.name.removesuffix(SETS)

    @property
    def track(self) -> str:
        """``across`` where other lines are learnt from, else ``within``; the two are never mixed."""
        return ACROSS if self.also else WITHIN

    def made_here(self, task: str) -> bool:
        """Whether a task's table carries a recipe of this project, which published tables do not."""
        return bool(read_recipe(self.tables[task]))

    def across(self, others: Sequence[LabelSet]) -> LabelSet | None:
        """The same questions with other lines' training rows to learn from; None where there are none.

        Tables of the same line are no other line's: what was seen there of a test perturbation is its answer.
        Of the same line are tables of its name, and those made of the same counts whatever their name. Tables
        about gene sets and about genes do not go together.

        Raises
        ------
        InputError
            If two other lines have one name, by which a predictor could not tell them apart.
        """
        lines: dict[str, LabelSet] = {}
        for other in others:
            if not self._has_line_of(other) and other.name.endswith(SETS) == self.name.endswith(SETS):
                known = lines.setdefault(other.line, other)
                if known.digests != other.digests or other.line == OWN:
                    raise InputError(
                        "other lines",
                        [f"{_places(known, other)}: called {other.line}; each needs a name of its own"],
                    )
        also = {
            task: {line: other for line, other in lines.items() if task in other.tables}
            for task in self.tables
        }
        also = {task: by_line for task, by_line in also.items() if by_line}
        if not also:
            return None
        return replace(
            self,
            also={task: {line: one.tables[task] for line, one in by.items()} for task, by in also.items()},
            also_digests={
                task: {line: one.digests[task] for line, one in by.items()} for task, by in also.items()
            },
        )

    def _has_line_of(self, other: LabelSet) -> bool:
        return other.line == self.line or (self.screen is not None and other.screen == self.screen)

    @classmethod
    def of_files(cls, name: str, tables: Mapping[str, Path]) -> LabelSet:
        """Digest the tables."""
        screens = {read_recipe(path).get("screen") for path in tables.values()}
        digests = {task: file_digest(path) for task, path in tables.items()}
        return cls(name, dict(tables), digests, screens.pop() if len(screens) == 1 else None)

    @classmethod
    def of_table(cls, table: Path, task: str) -> LabelSet:
        """One table alone.

        Raises
        ------
        InputError
            If it is not a label table.
        """
        read_labels(table)
        return cls.of_files(_name_of(table, task), {task: table})

    @classmethod
    def of_stem(cls, stem: str, *, to_learn_from: bool = False) -> LabelSet:
        """The published layout, ``<stem>-de.parquet`` and ``<stem>-dir.parquet``; or tables made here.

        Those are ``de.parquet`` and ``dir.parquet`` in a folder of `pqa label` or of a finished stage, and
        ``set-de.parquet`` and ``set-dir.parquet`` there by the stem ``<folder>/set``. A screen with next to
        no DE genes may leave no direction to learn: such a table is left out.

        Parameters
        ----------
        stem
            Where the tables are.
        to_learn_from
            Only that: no pairs to be predicted are asked for.

        Raises
        ------
        InputError
            If neither is there, a table is not a label table, or none can be asked about.
        """
        inside = {task: Path(stem) / f"{task}.parquet" for task in TASK_TITLES}
        tables = {task: Path(f"{stem}-{task}.parquet") for task in TASK_TITLES}
        if any(path.is_file() for path in inside.values()):
            tables = inside
        found = {task: path for task, path in tables.items() if path.is_file()}
        if not found:
            beside, within = (" nor ".join(map(str, paths.values())) for paths in (tables, inside))
            raise InputError(stem, [f"no label tables: neither {beside} nor {within} is there"])
        needed = {"train"} if to_learn_from else {"train", "test"}
        usable = {task: path for task, path in found.items() if needed <= _splits(path)}
        if not usable:
            missing = "labels in the train split" if to_learn_from else "labels on both sides of the split"
            raise InputError(stem, [f"no perturbation with {missing}"])
        task, table = next(iter(usable.items()))
        return cls.of_files(_name_of(table, task), usable)


def _splits(table: Path) -> set[str]:
    """Sides of the split that have rows, train rows only with a label; test labels need not be known."""
    if read_frame(table).empty:
        return set()
    rows = read_labels(table)
    return set(rows.loc[rows["label"].notna() | (rows["split"] != "train"), "split"])


def _name_of(table: Path, task: str) -> str:
    """What the data set of a table is called: after its file, or after the folder where it was made."""
    name = table.stem.removesuffix(f"-{task}")
    if name not in (task, SETS.strip("_")):
        return name
    made = read_manifest(table.parent)
    folder = table.parent.resolve().name if made is None else made["name"]
    return folder if name == task else folder + SETS


def _places(*sets: LabelSet) -> str:
    return " and ".join(dict.fromkeys(str(next(iter(one.tables.values()))) for one in sets))
