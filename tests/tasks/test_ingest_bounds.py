from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ["tests/storage/test_screens.py", "tests/storage/test_gene_codes.py", "tests/tasks/test_ingest.py"]
#: What writes and reads in every way, without the types of numbers that compile everything again.
CHOSEN = "any_range or found_out or given_back or stretch or laid_out or 32 or unsorted or parts"


@pytest.mark.slow
def test_no_compiled_loop_of_ingest_and_reading_leaves_its_arrays(tmp_path):
    """They check nothing themselves; numba does, where it is told to, at several times the time."""
    checked = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", *FILES, "-k", CHOSEN]
    done = subprocess.run(command, cwd=ROOT, env=checked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3_000:]
