"""SQLite behind its thread with one errand for each statement instead of four.

Responsible for how a statement travels to the thread of its connection and back. It must not know
any table or transaction.

Each errand ends with a wake-up of the event loop, and its result is seen when the loop comes to it:
in a storm of joins a turn of the loop takes 5 to 10 ms. aiosqlite makes four of each statement
(make a cursor, run, fetch, close), so a transaction of four statements waited 21 turns and kept
the one writer's place meanwhile; here it waits seven. To make a cursor or to close one that has
given its rows asks SQLite nothing and needs no errand, and the rows come back with the statement
that found them. What is asked of SQLite itself, and may wait
for the disk or for another writer, still happens in the thread.
"""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import aiosqlite
from typing_extensions import override

_CHUNK_ROWS: Final = 64
"""For iteration, which nobody here uses; the library wants a number."""


class OneErrandCursor(aiosqlite.Cursor):
    """Rows are fetched in the errand that ran the statement."""

    _rows: list[Any]
    _busy = False
    """A statement is in the thread or on its way there, though its caller may have given up."""

    @override
    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> aiosqlite.Cursor:
        errand: Any = self._execute  # the library has no type for it
        self._busy = True
        await errand(self._run, sql, () if parameters is None else parameters)
        return self

    @override
    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> aiosqlite.Cursor:
        errand: Any = self._execute
        self._busy = True
        await errand(self._run_many, sql, parameters)
        return self

    def _run_many(self, sql: str, parameters: Iterable[Iterable[Any]]) -> None:
        self._rows = []
        try:
            self._cursor.executemany(sql, cast("Any", parameters))
        finally:
            self._busy = False

    def _run(self, sql: str, parameters: Iterable[Any]) -> None:
        self._rows = []
        try:
            self._cursor.execute(sql, cast("Any", parameters))
            if self._cursor.description:
                self._rows = self._cursor.fetchall()
        finally:
            self._busy = False

    @override
    async def fetchall(self) -> Iterable[sqlite3.Row]:
        rows, self._rows = self._rows, []
        return rows

    @override
    async def fetchone(self) -> sqlite3.Row | None:
        return self._rows.pop(0) if self._rows else None

    @override
    async def fetchmany(self, size: int | None = None) -> Iterable[sqlite3.Row]:
        count = self._cursor.arraysize if size is None else size
        rows, self._rows = self._rows[:count], self._rows[count:]
        return rows

    @override
    async def close(self) -> None:
        if self._busy:
            await super().close()  # behind the statement
        else:
            self._cursor.close()  # it has no rows left, so SQLite has nothing to do


class OneErrandConnection(aiosqlite.Connection):
    """Cursors are made where they are asked for."""

    @override
    def cursor(self) -> Any:
        return OneErrandCursor(self, self._conn.cursor())


async def connect(open_: Callable[[], sqlite3.Connection]) -> OneErrandConnection:
    """`open_` runs in the connection's thread and must allow the use of cursors from another."""
    connection = OneErrandConnection(open_, _CHUNK_ROWS)
    connection._thread.daemon = True  # as SQLAlchemy does with those that it makes
    return cast("OneErrandConnection", await connection)
