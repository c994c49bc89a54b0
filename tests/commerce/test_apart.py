"""A transaction in a thread of its own keeps what a transaction promises."""

import asyncio
import threading

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.apart_sql import finish
from commerce.database_sql import Database
from commerce.schema_sql import product
from tests.commerce.stock_support import product_row


async def names(database: Database) -> set[str]:
    async with database.read() as conn:
        return set((await conn.execute(select(product.c.id))).scalars())


async def add(conn: AsyncConnection, name: str) -> int:
    await conn.execute(insert(product).values(**product_row(name)))
    return threading.get_ident()


async def test_it_commits_at_the_end_and_not_on_the_loop(database: Database) -> None:
    async with database.begin_apart() as apart:
        thread = await apart.run(lambda conn: add(conn, "a"))
        assert await names(database) == set()
    assert await names(database) == {"a"}
    assert thread != threading.get_ident()


async def test_an_error_rolls_it_back_and_the_next_one_works(database: Database) -> None:
    async def fail() -> None:
        async with database.begin_apart() as apart:
            await apart.run(lambda conn: add(conn, "a"))
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    async with database.begin_apart() as apart:
        await apart.run(lambda conn: add(conn, "b"))
    assert await names(database) == {"b"}


async def test_a_savepoint_takes_back_its_own_part_alone(database: Database) -> None:
    async def fail(conn: AsyncConnection) -> None:
        async with conn.begin_nested():
            await add(conn, "lost")
            raise KeyError

    async def work(conn: AsyncConnection) -> None:
        await add(conn, "kept")
        with pytest.raises(KeyError):
            await fail(conn)

    async with database.begin_apart() as apart:
        await apart.run(work)
    assert await names(database) == {"kept"}


async def test_cancelled_it_leaves_no_row_and_no_lock(database: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()

    async def work(conn: AsyncConnection) -> None:
        await add(conn, "a")
        begun.set()
        assert go_on.wait(10)

    async def write() -> None:
        async with database.begin_apart() as apart:
            await apart.run(work)

    task = asyncio.create_task(write())
    assert await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()  # what runs in a thread cannot be stopped, so it is waited for
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(database) == set()
    async with database.begin() as conn:
        await add(conn, "b")
    async with database.begin_apart() as apart:
        await apart.run(lambda conn: add(conn, "c"))
    assert await names(database) == {"b", "c"}


async def test_work_that_would_wait_for_something_else_is_refused(database: Database) -> None:
    with pytest.raises(RuntimeError, match="more than its connection"):
        finish(asyncio.sleep(1))
