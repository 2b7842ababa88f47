"""Prefect's server on SQLite, with its writers in a queue.

Prefect 3.8 begins most transactions without saying that they will write. Where another one commits between
the first read and the first write, SQLite refuses the write at once, and the request is answered with 503:
Prefect's Python client asks again, the Run button does not. Here a transaction first waits for its turn, in
the order of requests, and then locks the database for writing.

Started like ``prefect server start``, with the same options: ``python -m deployments.prefect_server``.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import weakref
from collections.abc import AsyncIterator
from contextvars import ContextVar

from prefect.cli import app
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

#: Whether the running code is inside a transaction already: a nested one must not wait for the outer one.
_inside: ContextVar[bool] = ContextVar("pqa_inside_transaction", default=False)
_locks: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@contextlib.asynccontextmanager
async def serialized_transaction(
    _self: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = False
) -> AsyncIterator[AsyncSessionTransaction]:
    """A transaction that may write from its beginning on; takes the place of ``begin_transaction``."""
    nested = _inside.get()
    turn = contextlib.nullcontext() if nested else _loop_lock()
    inside = _inside.set(True)
    try:
        async with turn, session.begin() as transaction:
            mode = SQLITE_BEGIN_MODE.set("DEFERRED" if nested else "IMMEDIATE")
            try:
                # Begins here, so that sessions opened inside this one are not begun like it.
                await session.connection()
            finally:
                SQLITE_BEGIN_MODE.reset(mode)
            yield transaction
    finally:
        _inside.reset(inside)


def _loop_lock() -> asyncio.Lock:
    """The lock of this event loop: the server may have several."""
    loop = asyncio.get_running_loop()
    if loop not in _locks:
        _locks[loop] = asyncio.Lock()
    return _locks[loop]


if __name__ == "__main__":
    AioSqliteConfiguration.begin_transaction = serialized_transaction
    sys.argv[1:1] = ["server", "start"]
    app()
