"""Transactions on Prefect's SQLite: many at once, each of which reads first and then writes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from deployments.prefect_server import serialized_transaction

N = 20


class Serialized(AioSqliteConfiguration):
    begin_transaction = serialized_transaction


async def counter(kind: type[AioSqliteConfiguration], path: Path) -> AioSqliteConfiguration:
    database = kind(connection_url=f"sqlite+aiosqlite:///{path}")
    engine = await database.engine()
    async with engine.begin() as connection:
        await connection.execute(text("create table counter (n integer)"))
        await connection.execute(text("insert into counter values (0)"))
    return database


async def read(database: AioSqliteConfiguration) -> int:
    async with await database.session(await database.engine()) as session:
        return (await session.execute(text("select n from counter"))).scalar_one()


async def add_one(database: AioSqliteConfiguration, *, look: bool = False) -> None:
    async with (
        await database.session(await database.engine()) as session,
        database.begin_transaction(session),
    ):
        n = (await session.execute(text("select n from counter"))).scalar_one()
        await asyncio.sleep(0.005)
        if look:
            # Another connection is asked in the middle of it, as some of Prefect's rules do.
            assert await read(database) == n
        await session.execute(text("update counter set n = :n"), {"n": n + 1})


async def add_many(kind: type[AioSqliteConfiguration], path: Path, *, look: bool = False) -> int:
    database = await counter(kind, path)
    await asyncio.gather(*(add_one(database, look=look) for _ in range(N)))
    return await read(database)


def test_transactions_that_take_turns_neither_fail_nor_lose_a_write(tmp_path):
    assert asyncio.run(asyncio.wait_for(add_many(Serialized, tmp_path / "counter.db", look=True), 30)) == N


def test_prefects_own_way_still_needs_this(tmp_path):
    with pytest.raises(OperationalError, match="database is locked"):
        asyncio.run(asyncio.wait_for(add_many(AioSqliteConfiguration, tmp_path / "counter.db"), 30))


def test_what_fails_leaves_the_turn_to_others_and_writes_nothing(tmp_path):
    async def fail(database: AioSqliteConfiguration) -> None:
        session = await database.session(await database.engine())
        async with session, database.begin_transaction(session):
            await session.execute(text("update counter set n = 100"))
            raise ZeroDivisionError

    async def fail_then_add() -> int:
        database = await counter(Serialized, tmp_path / "counter.db")
        with pytest.raises(ZeroDivisionError):
            await fail(database)
        await add_one(database)
        return await read(database)

    assert asyncio.run(asyncio.wait_for(fail_then_add(), 30)) == 1


def test_a_transaction_inside_another_does_not_wait_for_it(tmp_path):
    async def inside() -> int:
        database = await counter(Serialized, tmp_path / "counter.db")
        outer, inner = [await database.session(await database.engine()) for _ in range(2)]
        async with outer, database.begin_transaction(outer), inner, database.begin_transaction(inner):
            return (await inner.execute(text("select n from counter"))).scalar_one()

    assert asyncio.run(asyncio.wait_for(inside(), 30)) == 0
