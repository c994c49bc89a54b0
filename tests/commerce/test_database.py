"""Transactions on both kinds of database, and what they do when they are interrupted."""

import asyncio

import pytest
from sqlalchemy import event, func, insert, select, text

from commerce.bulk_sql import add_to_rows, insert_rows
from commerce.database_sql import Database, insert_new, upsert
from commerce.errors import Unavailable
from commerce.schema_sql import idempotency, sku_stock, viewer_use


def _key(name: str, status: int | None = None) -> dict[str, object]:
    return {"scope": "s", "key": name, "request_sha": "x", "status": status, "created_at": 1}


async def _count(database: Database) -> int:
    async with database.read() as conn:
        found = await conn.execute(select(func.count()).select_from(idempotency))
        return int(found.scalar_one())


async def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    async def half() -> None:
        async with database.begin() as conn:
            await conn.execute(insert(idempotency).values(**_key("a")))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await half()
    assert await _count(database) == 0


async def test_a_read_transaction_sees_one_snapshot(database: Database) -> None:
    async with database.read() as conn:
        wanted = select(func.count()).select_from(idempotency)
        assert (await conn.execute(wanted)).scalar_one() == 0
        async with database.begin() as other:
            await other.execute(insert(idempotency).values(**_key("a")))
        assert (await conn.execute(wanted)).scalar_one() == 0
    assert await _count(database) == 1


async def test_writers_take_turns_and_none_fails(database: Database) -> None:
    async def add_one() -> None:
        async with database.begin() as conn:
            count = select(func.count()).select_from(idempotency)
            before = (await conn.execute(count)).scalar_one()
            await conn.execute(insert(idempotency).values(**_key(f"{before}-{id(conn)}")))

    await asyncio.gather(*(add_one() for _ in range(30)))
    assert await _count(database) == 30


async def test_a_cancelled_transaction_leaves_no_lock_behind(database: Database) -> None:
    async def write(n: int) -> None:
        async with database.begin() as conn:
            for part in range(3):
                made = insert(idempotency).values(**_key(f"{n}-{part}"))
                await conn.execute(made.returning(idempotency.c.key))

    opened: list[object] = []
    event.listen(database.engine.sync_engine, "connect", lambda *which: opened.append(which))
    kept = []  # whoever keeps the error keeps the frames, and with them the cursors
    for n in range(60):
        task = asyncio.create_task(write(n))
        for _ in range(n):
            await asyncio.sleep(0)
        task.cancel()
        kept += await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(4):  # below the time a writer would wait for a lost lock
        await write(-1)
    assert await _count(database) % 3 == 0
    if database.dialect == "sqlite":
        # A connection that is closed with a cursor open keeps its lock; so none is closed.
        assert len(opened) <= 6


async def test_inserting_what_is_there_is_told_apart_from_inserting(database: Database) -> None:
    async with database.begin() as conn:
        key = ("scope", "key")
        assert await insert_new(conn, idempotency, _key("a", 200), key=key)
        assert not await insert_new(conn, idempotency, _key("a", 500), key=key)
        await upsert(conn, idempotency, _key("a", 201), key=key)
        row = (await conn.execute(select(idempotency))).one()
    assert row.status == 201


async def test_many_rows_go_in_one_statement_and_conditions_hold(database: Database) -> None:
    rows = [
        {"drop": "d", "viewer": f"v{n}", "sku": 'A "quoted" ☃', "units": n} for n in range(1_500)
    ]
    key = ("drop", "viewer", "sku")
    async with database.begin() as conn:
        assert await insert_rows(conn, viewer_use, rows) == 1_500
        assert await insert_rows(conn, viewer_use, rows[:3], tail="ON CONFLICT DO NOTHING") == 0
        change = [{**row, "units": -5} for row in rows[:10]]
        changed = await add_to_rows(
            conn, viewer_use, change, key=key, column="units", unless="t.units + x.units < 0"
        )
        assert changed == 5
        total = (await conn.execute(select(func.sum(viewer_use.c.units)))).scalar_one()
        assert total == sum(range(1_500)) - 25
        assert await insert_rows(conn, sku_stock, []) == 0


async def test_a_database_that_is_not_there_is_unavailable(tmp_path: object) -> None:
    for url in (f"sqlite:///{tmp_path}/missing/x.db", "postgresql://nobody@127.0.0.1:1/nothing"):
        database = await Database.open(url)
        with pytest.raises(Unavailable):
            await _ask(database)
        await database.close()
    with pytest.raises(ValueError, match="not supported"):
        await Database.open("mysql://host/name")


async def _ask(database: Database) -> None:
    async with database.read() as conn:
        await conn.execute(text("SELECT 1"))
