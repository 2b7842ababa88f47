"""Dask clusters by name: small YAML files that say what kind of cluster there is and how large."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from flows.base_options import Options
from storage.errors import InputError

#: Module, class and package of each kind of cluster.
KINDS = {
    "local": ("distributed", "LocalCluster", "distributed"),
    "ssh": ("distributed", "SSHCluster", "asyncssh"),
    "slurm": ("dask_jobqueue", "SLURMCluster", "dask-jobqueue"),
    "kubernetes": ("dask_kubernetes.operator", "KubeCluster", "dask-kubernetes"),
}


class Adapt(Options):
    """Between how many workers a cluster may have."""

    minimum: int = Field(0, ge=0)
    maximum: int = Field(ge=1)


class DaskPreset(Options):
    """A cluster as a file describes it.

    Attributes
    ----------
    options
        Keyword arguments of the cluster's class, see its own documentation.
    """

    kind: Literal["address", "local", "ssh", "slurm", "kubernetes"]
    address: str | None = None
    workers: int | None = Field(None, ge=1)
    adapt: Adapt | None = None
    options: dict[str, object] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> DaskPreset:
        if (self.kind == "address") != (self.address is not None):
            raise ValueError("'address' is needed for kind address, and only there")
        if self.workers is not None and self.adapt is not None:
            raise ValueError("give 'workers' or 'adapt', not both")
        return self


def read_preset(name: str) -> DaskPreset:
    """Read a preset by name (of those in ``deployments/dask``) or by the path of a YAML file.

    Raises
    ------
    InputError
        If there is none of this name, or the file is no preset.
    """
    folder = Path(str(files("deployments") / "dask"))
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        message = f"'{name}' is no address (tcp://...), no YAML file, and no preset; presets: {known}"
        raise InputError("--dask", [message])
    try:
        return DaskPreset.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise InputError(str(path), [f"not YAML: {error}"]) from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc'])) or 'preset'}: {p['msg']}" for p in error.errors()]
        raise InputError(str(path), problems) from error


def cluster_maker(preset: DaskPreset) -> Callable[[], object]:
    """A function that starts the preset's cluster, with as many workers as it says.

    Raises
    ------
    InputError
        If the package that makes this kind of cluster is not installed.
    """
    module, name, package = KINDS[preset.kind]
    try:
        made_by = getattr(import_module(module), name)
        import_module("asyncssh" if preset.kind == "ssh" else module)
    except ImportError as error:
        raise InputError("--dask", [f"kind {preset.kind} needs the package {package} ({error})"]) from error
    if preset.kind == "slurm" and shutil.which("sbatch") is None:
        raise InputError("--dask", ["kind slurm needs the program sbatch, which is not on this machine"])

    def start():
        words = dict(preset.options)
        if preset.kind == "local" and preset.workers is not None:
            words["n_workers"] = preset.workers
        cluster = made_by(**words)
        if preset.adapt is not None:
            cluster.adapt(minimum=preset.adapt.minimum, maximum=preset.adapt.maximum)
        elif preset.workers is not None and preset.kind in ("slurm", "kubernetes"):
            cluster.scale(preset.workers)
        return cluster

    return start
