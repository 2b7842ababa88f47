"""Clusters by name: each file is one, and is made into the cluster it says, as far as this machine goes."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from flows.dask_cluster import dask_client
from flows.dask_presets import KINDS, cluster_maker, read_preset
from storage.errors import InputError

FOLDER = Path(__file__).parents[2] / "deployments" / "dask"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_there_is_one_of_every_kind():
    assert {read_preset(name).kind for name in NAMES} == {"address", *KINDS}


def test_the_local_one_computes_in_processes_of_its_own():
    with dask_client("local", workers=1) as client:
        assert client.submit(_process).result() != _process()
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == 2


def test_slurm_writes_a_job_that_says_what_the_file_says():
    jobqueue = pytest.importorskip("dask_jobqueue")
    with jobqueue.SLURMCluster(**read_preset("slurm").options, scheduler_options={"port": 0}) as cluster:
        script = cluster.job_script()
    for words in ("#SBATCH -p normal", "--cpus-per-task=8", "--mem=30G", "12:00:00", "OMP_NUM_THREADS=1"):
        assert words in script


@pytest.mark.parametrize("name", ["ssh", "kubernetes", "slurm"])
def test_others_get_the_options_of_their_file(name, monkeypatch, tmp_path):
    preset, asked = read_preset(name), {}

    class Cluster:
        def __init__(self, **words):
            asked.update(words)

        def adapt(self, **words):
            asked["adapted"] = words

    module, made_by, _ = KINDS[name]
    fake = types.ModuleType(module)
    setattr(fake, made_by, Cluster)
    for part in ("asyncssh", module.partition(".")[0], module):
        monkeypatch.setitem(sys.modules, part, fake)
    if name == "slurm":
        (tmp_path / "sbatch").touch(mode=0o755)
        with pytest.raises(InputError, match="sbatch"):
            cluster_maker(preset)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    cluster_maker(preset)()
    adapted = asked.pop("adapted", None)
    assert asked == preset.options
    assert adapted == (preset.adapt.model_dump() if preset.adapt else None)


def test_what_cannot_be_used_is_said_with_what_there_is(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no preset; presets: address, kubernetes, local, slurm, ssh"):
        read_preset("nowhere")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("kind: local\naddress: tcp://a:1\nworkers: 0\ncolour: red\n")
    with pytest.raises(InputError) as caught:
        read_preset(str(wrong))
    assert {"workers", "colour"} <= {problem.partition(":")[0] for problem in caught.value.problems}
    monkeypatch.setitem(sys.modules, "dask_kubernetes", None)
    with pytest.raises(InputError, match="kind kubernetes needs the package dask-kubernetes"):
        cluster_maker(read_preset("kubernetes"))


def _process() -> int:
    import os

    return os.getpid()
