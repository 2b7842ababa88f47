"""The versions of LMDeploy's environment: all that the project needs, and the torch that LMDeploy takes."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]


def pins(path: Path) -> dict[str, Version]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert all(" @ " not in line and "//" not in line for line in lines), "names and versions, no addresses"
    found = (line.partition(" ;")[0].split("==") for line in lines)
    return {canonicalize_name(name): Version(version) for name, version in found}


def test_its_versions_are_what_the_project_asks_for_but_for_torch():
    pinned = pins(ROOT / "deployments" / "lmdeploy" / "requirements.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for needed in map(Requirement, project["dependencies"]):
        name = canonicalize_name(needed.name)
        assert name in pinned, f"{name} is missing; resolve the list again"
        assert name == "torch" or pinned[name] in needed.specifier, needed
    # By the metadata of lmdeploy 0.18.0.
    assert pinned["lmdeploy"] >= Version("0.18")
    assert pinned["torch"] <= Version("2.12.1")
    assert pinned["transformers"] in Requirement("transformers>=4.56,!=5.0.*,!=5.5.0,!=5.9.*").specifier


def test_its_versions_are_those_of_the_projects_own_environment_but_for_torch():
    ours, theirs = (
        pins(ROOT / "constraints.txt"),
        pins(ROOT / "deployments" / "lmdeploy" / "requirements.txt"),
    )
    different = {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    assert different <= {"torch"}
