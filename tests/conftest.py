"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with labels/, knowledge/ and screens/: PQA_SHARED, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("PQA_SHARED") or ROOT.parent / "shared" / "data")
    if not (folder / "labels").is_dir():
        pytest.skip(
            f"no real data at {folder}; set PQA_SHARED to the folder that holds labels/ and knowledge/"
        )
    return folder
