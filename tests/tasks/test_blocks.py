"""Blocks on a cluster: not written, raising, and robbed by a dying worker of what all of them take."""

from __future__ import annotations

import numpy as np
import pytest
from distributed import Client, LocalCluster

from storage.errors import LedgerError, StorageError
from tasks.expression.blocks import GeneSpan, Unit, run_blocks, shared, write_block


def piece(folder, index=0):
    return GeneSpan(folder / "no.zarr", folder / f"genes-000{index}.npy", index, index + 1)


def test_a_block_that_is_not_written_fails_the_run(tmp_path, client):
    def work(span):
        if span.first != 1:
            write_block(span.target, np.zeros(3))
        return span.target

    units = [Unit(piece(tmp_path, i), (3,)) for i in range(3)]
    with pytest.raises(LedgerError, match=r"3 blocks requested, 1 not done: genes-0001.npy"):
        run_blocks(client, work, units)


def test_an_error_inside_a_block_is_raised_as_it_is(tmp_path, client):
    def work(span):
        raise ZeroDivisionError(span.target)

    with pytest.raises(ZeroDivisionError, match="genes"):
        run_blocks(client, work, [Unit(piece(tmp_path), (3,))])


def write_sum(span, values):
    write_block(span.target, np.full(3, values.sum() + span.first))
    return span.target


def test_what_all_blocks_take_is_made_again_where_its_worker_dies(tmp_path):
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None)
    with cluster, Client(cluster, set_as_default=False) as client:
        values = shared(client, np.arange(4))
        values.result()
        (holder,) = client.who_has(values)[values.key]

        async def lose(dask_scheduler):
            await dask_scheduler.remove_worker(holder, stimulus_id="test")

        client.run_on_scheduler(lose)
        units = [Unit(piece(tmp_path, i), (3,), {"values": values}) for i in range(3)]
        ledger = run_blocks(client, write_sum, units)
    assert ledger.done == 3
    assert [unit.file[0] for unit in units] == [6, 7, 8]


def test_a_file_that_cannot_be_read_is_told_and_not_computed_again(tmp_path, client, monkeypatch):
    unit = Unit(piece(tmp_path), (3,))
    write_block(unit.piece.target, np.zeros(3))

    def refuse(*_args, **_how):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(StorageError, match=r"cannot read .*genes-0000\.npy: Permission denied"):
        run_blocks(client, write_sum, [unit])


def test_a_folder_in_the_place_of_a_block_is_told(tmp_path):
    unit = Unit(piece(tmp_path), (3,))
    unit.piece.target.mkdir()
    with pytest.raises(StorageError, match=r"cannot read .*genes-0000\.npy: Is a directory"):
        unit.file.read()


def test_a_block_that_is_gone_when_it_is_read_back_is_named(tmp_path):
    unit = Unit(piece(tmp_path), (3,))
    write_block(unit.piece.target, np.zeros(3))
    assert unit.file[1] == 0
    unit.piece.target.unlink()
    with pytest.raises(LedgerError, match=r"genes-0000\.npy is gone or cut off since it was done"):
        unit.file[1]
