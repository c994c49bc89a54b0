"""SQLite behind its thread: one errand for a statement, and nothing lost when a caller gives up."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from commerce.database_sql import Database
from commerce.errands_sql import OneErrandConnection, connect
from commerce.errors import Unavailable
from tests.waiting import until

SLOW = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) SELECT max(i) FROM n"
)


@pytest.fixture
def errands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was sent to the thread."""
    sent: list[str] = []
    original = OneErrandConnection._execute

    async def counted(self, fn, *args, **named):
        sent.append(fn.__name__)
        return await original(self, fn, *args, **named)

    monkeypatch.setattr(OneErrandConnection, "_execute", counted)
    return sent


async def test_a_statement_is_one_errand(tmp_path: Path, errands: list[str]):
    database = await Database.open(f"sqlite:///{tmp_path}/x.db")
    async with database.begin() as conn:
        await conn.execute(text("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)"))
    errands.clear()
    async with database.begin() as conn:
        await conn.execute(text("INSERT INTO t (b) VALUES (:b)"), [{"b": "x"}, {"b": "y"}])
        kept = await conn.execute(text("INSERT INTO t (b) VALUES ('z') RETURNING a"))
        assert kept.scalar_one() == 3
        found = await conn.execute(text("SELECT b FROM t ORDER BY a"))
        assert found.scalars().all() == ["x", "y", "z"]
    assert errands == ["_run", "_run_many", "_run", "_run", "commit", "rollback"]
    await database.close()


async def test_a_statement_that_fails_says_so_and_the_connection_goes_on(tmp_path: Path):
    database = await Database.open(f"sqlite:///{tmp_path}/x.db", poolsize=1)
    with pytest.raises(Unavailable):
        async with database.begin() as conn:
            await conn.execute(text("SELECT * FROM nowhere"))
    async with database.begin() as conn:
        assert (await conn.execute(text("SELECT 1"))).scalar_one() == 1
    await database.close()


async def test_one_who_gives_up_in_the_middle_of_a_statement_leaves_no_lock(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/x.db"
    database = await Database.open(url, poolsize=1)
    async with database.begin() as conn:
        await conn.execute(text("CREATE TABLE t (a INTEGER)"))
    begun = asyncio.Event()

    async def write() -> None:
        async with database.begin() as conn:
            await conn.execute(text("INSERT INTO t VALUES (1)"))
            begun.set()
            await conn.execute(text(SLOW.format(300_000)))

    writing = asyncio.create_task(write())
    await begun.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    async with database.begin() as conn:  # the only connection of the pool
        assert (await conn.execute(text("SELECT count(*) FROM t"))).scalar_one() == 0
    with sqlite3.connect(f"{tmp_path}/x.db", timeout=0) as other:
        other.execute("INSERT INTO t VALUES (2)")
    other.close()
    await database.close()


async def test_a_cursor_whose_statement_still_runs_is_closed_behind_it(errands: list[str]):
    connection = await connect(lambda: sqlite3.connect(":memory:", check_same_thread=False))
    cursor = connection.cursor()
    running = asyncio.create_task(cursor.execute(SLOW.format(300_000)))
    await until(lambda: bool(errands))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await cursor.close()
    assert errands == ["_run", "close"]
    again = connection.cursor()
    await again.execute("SELECT 7")
    assert list(await again.fetchall()) == [(7,)]
    await again.close()
    assert errands == ["_run", "close", "_run"]
    await connection.close()
