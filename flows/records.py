"""The small records that flows hand to each other: where, which labels, which finished stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from distributed import Client

from storage.errors import InputError
from storage.manifest import StageRecord, file_digest, read_manifest
from storage.tables import read_frame, read_labels, read_recipe
from tasks.scoring.task_names import TASK_TITLES

#: What predictors may learn from: the line's own training rows, or other lines' too.
WITHIN, ACROSS = "within", "across"
TRACK_TITLES = {WITHIN: "Within the line", ACROSS: "Across lines"}
#: Ends the name of a data set about gene sets; what stands before it is the line.
SETS = "_set"


@dataclass(frozen=True)
class Place:
    """Where stages are filed, what computes them, and whether finished ones are done again."""

    workspace: Path
    client: Client | None = None
    #: Kinds of stages to be done again; "all" for every one.
    force: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelSet:
    """A data set's label tables by task, with their digests.

    Attributes
    ----------
    also, also_digests
        Other lines' tables by task, whose training rows are learnt from too, and the tables' digests.
    expression, screen_columns
        The h5ad the labels were made from, where they were, and what its columns are called.
    """

    name: str
    tables: dict[str, Path]
    digests: dict[str, str]
    also: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    also_digests: dict[str, tuple[str, ...]] = field(default_factory=dict)
    expression: Path | None = None
    screen_columns: dict[str, str] = field(default_factory=dict)

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
        Tables about gene sets and about genes do not go together.
        """
        line, sets = self.name.removesuffix(SETS), self.name.endswith(SETS)
        fitting = [
            other
            for other in others
            if other.name.removesuffix(SETS) != line and other.name.endswith(SETS) == sets
        ]
        also = {
            task: {other.tables[task]: other.digests[task] for other in fitting if task in other.tables}
            for task in self.tables
        }
        also = {task: tables for task, tables in also.items() if tables}
        if not also:
            return None
        return replace(
            self,
            also={task: tuple(tables) for task, tables in also.items()},
            also_digests={task: tuple(tables.values()) for task, tables in also.items()},
        )

    @classmethod
    def of_files(cls, name: str, tables: dict[str, Path]) -> LabelSet:
        """Digest the tables."""
        return cls(name, tables, {task: file_digest(path) for task, path in tables.items()})

    @classmethod
    def of_stem(cls, stem: str) -> LabelSet:
        """The published layout, ``<stem>-de.parquet`` and ``<stem>-dir.parquet``; or tables made here.

        Those are ``de.parquet`` and ``dir.parquet`` in a folder of `pqa label` or of a finished stage.

        Raises
        ------
        InputError
            If neither is there, a table is not a label table, or none can be asked about.
        """
        folder = Path(stem)
        inside = {task: folder / f"{task}.parquet" for task in TASK_TITLES}
        if any(path.is_file() for path in inside.values()):
            made = read_manifest(folder)
            return cls.of_made(folder.resolve().name if made is None else made["name"], inside)
        tables = {task: Path(f"{stem}-{task}.parquet") for task in TASK_TITLES}
        found = {task: path for task, path in tables.items() if path.is_file()}
        if not found:
            beside, within = (" nor ".join(map(str, paths.values())) for paths in (tables, inside))
            raise InputError(stem, [f"no label tables: neither {beside} nor {within} is there"])
        for path in found.values():
            read_labels(path)
        return cls.of_files(folder.name, found)

    @classmethod
    def of_made(cls, name: str, tables: Mapping[str, Path]) -> LabelSet:
        """Those of the tables that can be asked about: with something to learn from and to predict.

        A screen with next to no DE genes may leave no direction to learn.

        Raises
        ------
        InputError
            If there is none.
        """
        usable = {task: path for task, path in tables.items() if path.is_file() and _can_be_asked(path)}
        if not usable:
            raise InputError(name, ["no perturbation with labels on both sides of the split"])
        return cls.of_files(name, usable)


def _can_be_asked(table: Path) -> bool:
    return not read_frame(table).empty and read_labels(table)["split"].nunique() == 2


@dataclass(frozen=True)
class SideBySide:
    """Tests done beside the one that labels come from, by name, and their comparison."""

    others: dict[str, StageRecord]
    comparison: StageRecord


@dataclass(frozen=True)
class ScreenRecords:
    """The finished stages behind labels that were made here."""

    screen: StageRecord
    quality: StageRecord
    tests: StageRecord
    pseudobulk: StageRecord
    agreement: StageRecord
    labels: StageRecord
    #: The simulated screen with its truth and knowledge graph, where the screen is the embedded one.
    simulated: StageRecord | None
    #: Tests and labels of gene sets, where there are any.
    set_tests: StageRecord | None = None
    set_labels: StageRecord | None = None
    #: Other tests of the same screen, where there are any.
    side_by_side: SideBySide | None = None

    @property
    def records(self) -> list[StageRecord]:
        """All stages, in the order they ran."""
        stages = [self.simulated, self.screen, self.quality, self.pseudobulk, self.tests]
        stages += [self.agreement, self.labels, self.set_tests, self.set_labels]
        if self.side_by_side is not None:
            stages += [*self.side_by_side.others.values(), self.side_by_side.comparison]
        return [stage for stage in stages if stage is not None]
