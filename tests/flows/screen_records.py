"""The finished stages of `pqa label`, for tests of what is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import flows.commands.label
from flows.__main__ import main
from flows.records import ScreenRecords

KEYS = ("--guide-key", "guide_id", "--batch-key", "batch")
SIZES = ("--cells", "1500", "--genes", "150", "--perturbations", "16", "--seed", "4", "--mean-umis", "400")


def simulated(folder: Path) -> Path:
    """A screen of a second, its knowledge beside it."""
    assert main(["simulate", str(folder / "small.h5ad"), *SIZES, "--json"]) == 0
    return folder / "small.h5ad"


def labelled(screen: Path, out: Path, *more: str) -> ScreenRecords:
    """Run `pqa label`, less the drawing of its report; gives what the report would be drawn from."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows.commands.label, "label_report", lambda _, records: made.append(records))
        assert main(["label", str(screen), "--out", str(out), *KEYS, *more]) == 0
    return made[0]
