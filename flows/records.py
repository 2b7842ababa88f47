"""The small records that flows hand to each other: where, and which finished stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from distributed import Client

from storage.manifest import StageRecord


@dataclass(frozen=True)
class Place:
    """Where stages are filed, what computes them, and whether finished ones are done again."""

    workspace: Path
    client: Client | None = None
    #: Kinds of stages to be done again; "all" for every one.
    force: tuple[str, ...] = ()


@dataclass(frozen=True)
class SideBySide:
    """Tests done beside the one that labels come from, by name, and their comparison.

    ``impossible`` are those that could be done on no perturbation, with the reason.
    """

    others: dict[str, StageRecord]
    comparison: StageRecord
    impossible: dict[str, str] = field(default_factory=dict)


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
