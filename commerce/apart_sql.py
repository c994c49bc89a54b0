"""A transaction in a thread of its own: some fifteen statements that do not wait for the loop.

Responsible for running coroutines written for an `AsyncConnection` on a plain connection, where
each `await` is answered on the spot, so that the same statements serve both. It must not know any
table.

Why so: while a crowd presses Buy, a turn of the event loop takes 5 to 20 ms. A transaction that
comes back to the loop after every statement (and with aiosqlite four times per statement) took some
300 ms per batch of winners. Here the loop is met after the commit (`run_last`), or before it too.

Each answer of the database still waits for the interpreter, which the loop has. So statements that
need no answer of one another go to PostgreSQL in one go (`run_together`): 5 ways instead of 13 for
a batch of winners, later 3, and none of them through SQLAlchemy, which costs 0.1 ms a statement.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, TextClause
from sqlalchemy.engine import CursorResult, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.bulk_sql import Question, Step

R = TypeVar("R")


class Apart:
    """One connection of `engine` and its thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="record")
        self._turn = asyncio.Lock()
        self._conn: Connection | None = None

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["Apart"]:
        """A transaction: committed at the end of the block, rolled back by an exception."""
        async with self._turn:
            try:
                yield self
            except BaseException:
                await self._call(self._close)  # which rolls back
                raise
            if self._conn is not None:
                await self._call(self._commit)

    async def run(self, work: Callable[[AsyncConnection], Coroutine[Any, Any, R]]) -> R:
        """Runs `work` to its end, inside `begin`. It may await nothing but its connection."""
        return await self._call(lambda: finish(work(as_async(self._begun()))))

    async def run_last(
        self,
        work: Callable[[AsyncConnection], Coroutine[Any, Any, R]],
        before_commit: Callable[[], None] = lambda: None,
    ) -> R:
        """As `run`, and the commit behind it on the same way; nothing may follow in the block.

        `before_commit` is called in the thread; what it raises rolls back.
        """

        def whole() -> R:
            result = finish(work(as_async(self._begun())))
            before_commit()
            self._commit()
            return result

        return await self._call(whole)

    def _begun(self) -> Connection:
        """The transaction's connection; it begins with the first work, to spare a way there."""
        if self._conn is None:
            self._conn = self._engine.connect()
            self._conn.begin()
        return self._conn

    def _commit(self) -> None:
        try:
            if self._conn is not None:
                self._conn.commit()
        finally:
            self._close()

    def _close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()

    async def _call(self, work: Callable[[], R]) -> R:
        """In the thread. Not interrupted: whoever cancels waits for what was begun."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            running.exception()  # looked at, so that nobody warns of it
            raise

    async def close(self) -> None:
        """Ends the connection and the thread."""
        await self._call(self._engine.dispose)
        self._thread.shutdown(wait=False)


class _Direct:
    """As much of an AsyncConnection as our statements use."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self.dialect: Dialect = conn.dialect
        self._errors: type[Exception] = conn.dialect.loaded_dbapi.Error

    async def execute(self, statement: Any, parameters: Any = None) -> CursorResult[Any]:
        return self._conn.execute(statement, parameters)

    def begin_nested(self) -> "_Nested":
        return _Nested(self._conn)

    async def run_together(self, steps: Sequence[Step]) -> list[int]:
        """See `bulk_sql.Together`: past SQLAlchemy, and to PostgreSQL all in one go."""
        asked = [(step.statement, {"rows": step.rows}) for step in steps]
        return [cursor.rowcount for cursor in self._together(asked)]

    async def ask_together(self, questions: Sequence[Question]) -> list[list[Sequence[Any]]]:
        """See `bulk_sql.Together`."""
        asked = [(question.statement, question.given) for question in questions]
        return [cursor.fetchall() for cursor in self._together(asked)]

    def _together(self, asked: Sequence[tuple[TextClause, Mapping[str, str]]]) -> list[Any]:
        """The driver's cursors, each with its answer."""
        driver: Any = self._conn.connection.driver_connection
        texts = [(_text(self.dialect, statement), given) for statement, given in asked]
        try:
            if self.dialect.name == "postgresql":
                with driver.pipeline():
                    return [driver.execute(sql, given) for sql, given in texts]
            return [driver.execute(sql, given) for sql, given in texts]
        except self._errors as error:
            gone = self.dialect.is_disconnect(cast("Any", error), driver, None)
            if gone:
                self._conn.invalidate(error)
            raise DBAPIError.instance(
                None, None, error, self._errors, connection_invalidated=gone, dialect=self.dialect
            ) from error


@lru_cache(maxsize=64)
def _text(dialect: Dialect, statement: TextClause) -> str:
    """As the driver wants it, with its parameter named."""
    if dialect.name == "sqlite":
        return statement.text  # SQLAlchemy would count the parameters; SQLite knows :names
    return str(statement.compile(dialect=dialect))


class _Nested:
    """A savepoint: `async with`."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def __aenter__(self) -> None:
        self._savepoint = self._conn.begin_nested()

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._savepoint.commit()
        else:
            self._savepoint.rollback()


def as_async(conn: Connection) -> AsyncConnection:
    """`conn` with the face of an AsyncConnection (execute, begin_nested, dialect)."""
    return cast("AsyncConnection", _Direct(conn))


def finish(work: Coroutine[Any, Any, R]) -> R:
    """The result of a coroutine that never really waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast("R", end.value)
    work.close()
    raise RuntimeError("it waits for more than its connection")
