"""The Dask cluster of one job."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta

from tornado.locks import Event

from flows.dask_cluster import dask_client


def test_a_wait_that_a_closed_cluster_left_behind_is_not_told(caplog):
    with dask_client(None, workers=1) as client:
        assert client.submit(sum, (1, 2)).result() == 3

    async def leave(error: Exception) -> None:
        # What a sender of Dask's does that is stopped while it waits for its next batch.
        Event().wait(timedelta(milliseconds=1))
        asyncio.get_running_loop().create_future().set_exception(error)
        await asyncio.sleep(0.1)

    asyncio.run(leave(TimeoutError("Timeout")))
    gc.collect()
    assert not caplog.records
    asyncio.run(leave(ValueError("something else")))
    gc.collect()
    assert [str(record.exc_info[1]) for record in caplog.records] == ["something else"]
