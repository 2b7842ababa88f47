from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from flows.environment import prepare_environment
from tests.flows.jobs import run_pqa


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory):
    """A real Prefect server for all jobs of the session; its API's address."""
    home = tmp_path_factory.mktemp("prefect-server")
    before = dict(os.environ)
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["PREFECT_HOME"] = str(home)
    prepare_environment()
    from flows.prefect_server import prefect_server

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(prefect_server(home))
        os.environ.clear()
        os.environ.update(before)
        yield f"{url}/api"


@pytest.fixture(scope="session")
def small_screen(tmp_path_factory) -> Path:
    """A simulated screen of seconds, with its knowledge folder and truth beside it."""
    path = tmp_path_factory.mktemp("screen") / "small.h5ad"
    sizes = ["--cells", "5000", "--genes", "400", "--perturbations", "90", "--seed", "3"]
    run_pqa("simulate", path, *sizes)
    return path


@pytest.fixture(scope="session")
def benchmark_arguments(small_screen) -> list[str]:
    """The main job on the small screen, less its workspace."""
    keys = ["--guide-key", "guide_id", "--batch-key", "batch"]
    knowledge = ["--knowledge", str(small_screen.with_suffix(".knowledge"))]
    return ["benchmark", "--screen", str(small_screen), *keys, *knowledge, "--draws", "50"]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, benchmark_arguments, prefect_api) -> tuple[Path, str]:
    """Workspace and standard output of the main job run once, from beginning to end."""
    workspace = tmp_path_factory.mktemp("undisturbed") / "workspace"
    environment = {"PREFECT_API_URL": prefect_api}
    out = run_pqa(*benchmark_arguments, "--workspace", workspace, "--json", environment=environment)
    return workspace, out
