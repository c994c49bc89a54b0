"""A transaction in a thread of its own keeps what a transaction promises."""

import asyncio
import threading

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.apart_sql import finish
from commerce.bulk_sql import (
    Question,
    Step,
    ask_all,
    in_texts,
    insert_steps,
    rows_of_texts,
    run_steps,
    texts,
)
from commerce.database_sql import Database
from commerce.errors import Unavailable
from commerce.schema_sql import product, viewer_use
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


def _uses(*viewers: str) -> list[dict[str, object]]:
    return [{"drop": "d", "viewer": viewer, "sku": "A", "units": 1} for viewer in viewers]


async def _users(database: Database) -> set[str]:
    async with database.read() as conn:
        return set((await conn.execute(select(viewer_use.c.viewer))).scalars())


async def test_statements_that_go_together_are_counted_one_by_one(database: Database) -> None:
    async def work(conn: AsyncConnection) -> list[int]:
        once = "ON CONFLICT DO NOTHING"
        steps = [
            Step(text("SAVEPOINT here"), counted=False),
            *insert_steps(conn, viewer_use, _uses("a", "b"), tail=once),
            *insert_steps(conn, viewer_use, _uses("b", "c", "d"), tail=once),
            *insert_steps(conn, viewer_use, _uses("d"), tail=once),
        ]
        counts = await run_steps(conn, steps)
        await run_steps(conn, insert_steps(conn, viewer_use, _uses("e")))
        return counts

    async with database.begin_apart() as apart:
        assert await apart.run_last(work) == [2, 2, 0]
    assert await _users(database) == set("abcde")


async def test_an_error_among_them_takes_all_back_and_the_next_transaction_works(
    database: Database,
) -> None:
    async def twice(conn: AsyncConnection) -> None:
        steps = [
            *insert_steps(conn, viewer_use, _uses("a")),
            *insert_steps(conn, viewer_use, _uses("a")),
            *insert_steps(conn, viewer_use, _uses("b")),
        ]
        await run_steps(conn, steps)

    async def once(conn: AsyncConnection) -> None:
        await run_steps(conn, insert_steps(conn, viewer_use, _uses("c")))

    for _ in range(2):
        with pytest.raises(IntegrityError):
            async with database.begin_apart() as apart:
                await apart.run_last(twice)
    async with database.begin_apart() as apart:
        await apart.run_last(once)
    assert await _users(database) == {"c"}


async def test_a_connection_lost_among_them_is_an_outage_and_the_next_is_a_new_one(
    database: Database,
) -> None:
    if database.dialect == "sqlite":
        return  # it has no connection to lose

    async def after(conn: AsyncConnection) -> None:
        await run_steps(conn, insert_steps(conn, viewer_use, _uses("b")))

    pids: list[int] = []

    async def whose(conn: AsyncConnection) -> None:
        pids.append((await conn.execute(text("SELECT pg_backend_pid()"))).scalar_one())
        await run_steps(conn, insert_steps(conn, viewer_use, _uses("a")))

    async def cut_off() -> None:
        async with database.begin_apart() as apart:
            await apart.run(whose)
            async with database.begin() as other:
                await other.execute(text(f"SELECT pg_terminate_backend({pids[0]})"))
            await apart.run_last(after)

    with pytest.raises(Unavailable):
        await cut_off()
    async with database.begin_apart() as apart:
        await apart.run_last(after)
    assert await _users(database) == {"b"}


async def test_questions_have_the_same_answers_together_and_one_by_one(database: Database) -> None:
    async def ask(conn: AsyncConnection) -> list[list[tuple[object, ...]]]:
        chosen, rows = in_texts(conn, "id", "ids"), rows_of_texts(conn, "ids")
        ids = {"ids": texts(["b", "a", "none"])}
        found = await ask_all(
            conn,
            [
                Question(text(f"SELECT id FROM product WHERE {chosen} ORDER BY id"), ids),
                Question(text(f"SELECT value FROM {rows} v ORDER BY value"), ids),
            ],
        )
        return [[tuple(row) for row in rows] for rows in found]

    async with database.begin_apart() as apart:
        for name in ("a", "b", "c"):
            await apart.run(lambda conn, name=name: add(conn, name))  # type: ignore[misc]
        together = await apart.run(ask)
    async with database.read() as conn:
        one_by_one = await ask(conn)
    assert together == one_by_one == [[("a",), ("b",)], [("a",), ("b",), ("none",)]]


async def test_the_winners_connection_reads_no_table_from_end_to_end(postgres_url: str) -> None:
    async def setting(conn: AsyncConnection) -> object:
        return (await conn.execute(text("SHOW enable_seqscan"))).scalar()

    database = await Database.open(postgres_url)
    async with database.begin_apart() as apart:
        assert await apart.run(setting) == "off"
    async with database.read() as conn:
        assert await setting(conn) == "on", "whoever reads a whole table should"
    await database.close()
