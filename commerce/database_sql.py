"""One way to PostgreSQL and SQLite: a write transaction, a read transaction, the differences.

Responsible for opening an engine with the settings that make a commit durable, for the two kinds of
transaction, and for hiding what the dialects spell differently. It must not know any table.

Why so: SQLite has one writer, and its own way of waiting for it is to sleep and poll (naps of up
to 100 ms, nobody in order), so writers of one process queue here first, in order of arrival; the
busy timeout only meets other processes. A write begins with BEGIN IMMEDIATE: in WAL a transaction
that reads first and then wants to write fails at once, however long it would be willing to wait.
`synchronous=FULL` because "it is yours" is said after the commit.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final, Literal, Self, cast

from sqlalchemy import ColumnElement, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from commerce import errands_sql
from commerce.apart_sql import Apart
from commerce.checkpoints_sql import LOG_PAGES
from commerce.errors import Unavailable

logger = logging.getLogger(__name__)

Dialect = Literal["sqlite", "postgresql"]

POOL_SIZE: Final = 8
"""Connections of one process: some for readers, and writers mostly wait for each other."""
POOL_WAIT_S: Final = 5.0
LOCK_WAIT_MS: Final = 5_000
"""How long a writer waits for another process before the answer is "not now"."""
STATEMENT_MAX_MS: Final = 15_000
CONNECT_WAIT_S: Final = 5
RETRY_AFTER_MS: Final = 500
"""What a caller is told to wait when an engine did not answer."""

_POSTGRES_ARGS: Final = {
    "connect_timeout": CONNECT_WAIT_S,
    "options": f"-c statement_timeout={STATEMENT_MAX_MS} -c lock_timeout={LOCK_WAIT_MS}",
}
_BY_KEY: Final = "-c enable_seqscan=off"
"""For the connection that writes winners, all of whose statements go by a key.

A plan is kept once it has run five times, those of the foreign keys' own checks too. Made while a
shop was small, it reads whole tables for ever after: the lines of 40 winners took 24 ms at 12,000
reservations, and 0.5 with this.
"""
READ_OPTION = "vitrine_read"
_PRAGMAS = (
    f"busy_timeout={LOCK_WAIT_MS}",
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    f"wal_autocheckpoint={LOG_PAGES}",
)


class Database:
    """An open engine. Build it with `open`; close it when the program ends."""

    def __init__(self, engine: AsyncEngine, dialect: Dialect) -> None:
        self.engine = engine
        self.dialect: Dialect = dialect
        self._writer = asyncio.Lock()
        self._apart: Apart | None = None
        self.writes = 0
        """Write transactions that have ended since it was opened; see `checkpoints_sql`."""

    @classmethod
    async def open(cls, url: str, *, poolsize: int = POOL_SIZE) -> Self:
        """Opens `sqlite:///path` or `postgresql://…`.

        Makes no connection yet: an engine that is away is met by the first transaction.
        ValueError if the URL is of neither kind.
        """
        parsed = make_url(url)
        kind = parsed.get_backend_name()
        if kind == "sqlite":
            return cls(_open_sqlite(parsed, poolsize), "sqlite")
        if kind == "postgresql":
            return cls(_open_postgres(parsed, poolsize), "postgresql")
        raise ValueError(f"a database of the kind {kind!r} is not supported")

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A write transaction: committed at the end of the block, rolled back by an exception.

        Do not nest two in one task (SQLite has one writer); pass the connection along instead.
        Raises Unavailable when the engine did not answer: then the commit may have happened, so
        whatever is done in here has an id by which the next attempt finds it.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(_Translate())
            if self.dialect == "sqlite":
                await stack.enter_async_context(self._writer)
            conn = await stack.enter_async_context(self._connection())
            async with conn.begin():
                yield conn
            self.writes += 1

    async def answers(self) -> bool:
        """Whether the engine can be asked anything; without a word in the log if it cannot."""
        try:
            async with self._connection() as conn:
                await conn.execute(text("SELECT 1"))
        except (OperationalError, InterfaceError, PoolTimeout):
            return False
        return True

    @asynccontextmanager
    async def begin_apart(self) -> AsyncIterator[Apart]:
        """A write transaction as by `begin`, of many statements that must not wait for the loop.

        There is one such connection and one thread, so one such transaction at a time.
        """
        if self._apart is None:
            self._apart = Apart(self._open_sync())
        async with AsyncExitStack() as stack:
            stack.enter_context(_Translate())
            if self.dialect == "sqlite":
                await stack.enter_async_context(self._writer)
            async with self._apart.begin() as apart:
                yield apart
            self.writes += 1

    def _open_sync(self, connections: int = 1) -> Engine:
        url = self.engine.url
        if self.dialect == "sqlite":
            plain = url.set(drivername="sqlite+pysqlite")
            return _listen(create_engine(plain, pool_size=connections, max_overflow=0))
        by_key = {**_POSTGRES_ARGS, "options": f"{_POSTGRES_ARGS['options']} {_BY_KEY}"}
        return create_engine(url, pool_size=connections, max_overflow=0, connect_args=by_key)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A read transaction: everything read in the block is one snapshot. Raises Unavailable."""
        async with AsyncExitStack() as stack:
            stack.enter_context(_Translate())
            conn = await stack.enter_async_context(self._connection())
            if self.dialect == "sqlite":
                conn = await conn.execution_options(**{READ_OPTION: True})
            else:
                conn = await conn.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            async with conn.begin():
                yield conn

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection of the pool. Taking one is not interrupted: half open it would be lost."""
        taking = asyncio.ensure_future(self.engine.connect().start())
        try:
            yield await asyncio.shield(taking)
        finally:
            await asyncio.shield(_give_back(taking))

    async def close(self) -> None:
        """Closes every connection. Transactions under way should have ended."""
        if self._apart is not None:
            await self._apart.close()
        await self.engine.dispose()


async def _give_back(taking: "asyncio.Future[AsyncConnection]") -> None:
    await asyncio.wait([taking])
    if taking.exception() is None:
        await taking.result().close()


class _Translate:
    """Turns "the engine did not answer" into Unavailable; a broken rule of a table passes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        gone = isinstance(error, OperationalError | InterfaceError | PoolTimeout) or (
            isinstance(error, DBAPIError) and error.connection_invalidated
        )
        if gone and error is not None:
            logger.warning("the database did not answer (%s)", _reason(error))
            raise Unavailable(RETRY_AFTER_MS) from error


def _reason(error: BaseException) -> str:
    origin = error.orig if isinstance(error, DBAPIError) else None
    return type(origin if origin is not None else error).__name__


def _open_sqlite(url: URL, poolsize: int) -> AsyncEngine:
    def open_file() -> sqlite3.Connection:
        where, how = engine.dialect.create_connect_args(engine.url)
        named: dict[str, Any] = {**how, "check_same_thread": False}
        found: sqlite3.Connection = sqlite3.connect(str(where[0]), **named)
        return found

    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        async_creator=partial(errands_sql.connect, open_file),
        pool_size=poolsize,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
    )
    _listen(engine.sync_engine)
    return engine


def _listen(engine: Engine) -> Engine:
    """What SQLite needs at each connection and transaction; the engine."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not begin anything by itself
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        read = connection.get_execution_options().get(READ_OPTION, False)
        connection.exec_driver_sql("BEGIN" if read else "BEGIN IMMEDIATE")

    @event.listens_for(engine, "handle_error")
    def on_error(context: ExceptionContext) -> None:
        # A cancelled statement makes SQLAlchemy close the connection. With a cursor still open
        # somewhere SQLite keeps such a connection, and its write lock, until the cursor is
        # collected. Statements queue in the connection's own thread, so it is sound to keep it:
        # the ROLLBACK that follows waits for whatever is running.
        if isinstance(context.original_exception, asyncio.CancelledError):
            context.is_disconnect = False

    return engine


def _open_postgres(url: URL, poolsize: int) -> AsyncEngine:
    return create_async_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=poolsize,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        connect_args=_POSTGRES_ARGS,
    )


def insert_into(conn: AsyncConnection, table: Table) -> postgresql.Insert:
    """An INSERT that knows ON CONFLICT, of whichever dialect the connection speaks.

    Typed as PostgreSQL's; SQLite's has the same `on_conflict_do_nothing`, `on_conflict_do_update`
    and `excluded`.
    """
    if conn.dialect.name == "sqlite":
        return cast("postgresql.Insert", sqlite.insert(table))
    return postgresql.insert(table)


async def insert_new(
    conn: AsyncConnection, table: Table, values: dict[str, Any], *, key: tuple[str, ...]
) -> bool:
    """Inserts one row unless its key is there; whether it was inserted."""
    statement = insert_into(conn, table).values(values)
    # rowcount of such an INSERT is -1 on PostgreSQL, so the row itself is the witness
    kept = statement.on_conflict_do_nothing(index_elements=list(key)).returning(table.c[key[0]])
    return (await conn.execute(kept)).first() is not None


async def upsert(
    conn: AsyncConnection, table: Table, values: dict[str, Any], *, key: tuple[str, ...]
) -> None:
    """Inserts one row or overwrites the columns of the one that has its key."""
    statement = insert_into(conn, table).values(values)
    excluded: dict[str, ColumnElement[Any]] = {
        name: statement.excluded[name] for name in values if name not in key
    }
    await conn.execute(
        statement.on_conflict_do_update(index_elements=list(key), set_=cast("Any", excluded))
    )
