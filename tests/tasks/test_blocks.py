"""Blocks on a cluster: not written, raising, and robbed by a dying worker of what all of them take."""

from __future__ import annotations

import numpy as np
import pytest
from distributed import Client, LocalCluster

from storage.errors import LedgerError
from tasks.expression.blocks import run_blocks, shared, write_block


def test_a_block_that_is_not_written_fails_the_run(tmp_path, client):
    def work(target, index):
        if index != 1:
            write_block(target, np.zeros(3))
        return target

    units = [
        (tmp_path / f"genes-000{i}.npy", (3,), (str(tmp_path / f"genes-000{i}.npy"), i)) for i in range(3)
    ]
    with pytest.raises(LedgerError, match=r"3 blocks requested, 1 not done: genes-0001.npy"):
        run_blocks(client, work, units)


def test_an_error_inside_a_block_is_raised_as_it_is(tmp_path, client):
    def work(target):
        raise ZeroDivisionError(target)

    with pytest.raises(ZeroDivisionError, match="genes"):
        run_blocks(client, work, [(tmp_path / "genes.npy", (3,), ("genes",))])


def write_sum(target, values, index):
    write_block(target, np.full(3, values.sum() + index))
    return target


def test_what_all_blocks_take_is_made_again_where_its_worker_dies(tmp_path):
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None)
    with cluster, Client(cluster, set_as_default=False) as client:
        values = shared(client, np.arange(4))
        values.result()
        (holder,) = client.who_has(values)[values.key]

        async def lose(dask_scheduler):
            await dask_scheduler.remove_worker(holder, stimulus_id="test")

        client.run_on_scheduler(lose)
        files = [tmp_path / f"genes-000{i}.npy" for i in range(3)]
        units = [(file, (3,), (str(file), values, i)) for i, file in enumerate(files)]
        ledger = run_blocks(client, write_sum, units)
    assert ledger.done == 3
    assert [np.load(file)[0] for file in files] == [6, 7, 8]
