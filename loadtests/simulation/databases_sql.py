"""The record's database for the simulation: transactions that pass a port, and a clean start.

Responsible for the one place where every transaction of a node passes (`Passing`), for emptying the
tables between seeds, and for SQLite without a thread: aiosqlite hands each call to a thread of its
own, which costs 60 µs and leaves the order to the operating system; here the call is made at once.
It must not know what is written.
"""

import contextlib
import sqlite3
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol, TypeVar, cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from commerce import errands_sql, reservations_sql
from commerce.apart_sql import Apart
from commerce.bulk_sql import insert_rows
from commerce.database_sql import READ_OPTION, Database
from commerce.schema_sql import metadata, product, sku, sku_stock, stock_ledger
from commerce.stock import HoldState

R = TypeVar("R")
ITERATION_ROWS: Final = 64
"""For a way of reading that nobody here uses; the library wants a number."""
POOL: Final = 48
"""Nodes of one seed share an engine and its compiled statements, dead ones included."""


class Port(Protocol):
    """What a node puts around each of its transactions."""

    @property
    def writing(self) -> Sequence[str]:
        """Rids that the running task is making durable."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Held while the engine is asked: one at a time."""

    async def enter(self, kind: str) -> None:
        """Before it begins. Raises Unavailable if the request is lost."""

    def before_commit(self) -> None:
        """All is written. Raises Unavailable if the connection is lost here."""

    async def leave(self, kind: str, durable: Collection[str]) -> None:
        """It is committed, these rids with it. Raises Unavailable if the answer is lost."""


class Connections:
    """SQLite's two connections of a worker, one that writes and one that reads.

    Taking one from a pool for each transaction costs more than the transaction. One of each is
    enough: SQLite answers at once here, so no two transactions of a kind are ever open together.
    """

    def __init__(self, writes: AsyncConnection, reads: AsyncConnection) -> None:
        self._writes = writes
        self._reads = reads

    @asynccontextmanager
    async def begin(self, *, reads: bool) -> AsyncIterator[AsyncConnection]:
        """A transaction, as `Database.begin` and `Database.read` make it."""
        conn = self._reads if reads else self._writes
        async with conn.begin():
            yield conn

    async def close(self) -> None:
        """Gives them back."""
        await self._writes.close()
        await self._reads.close()


class Kept(Database):
    """A worker's database with its connections."""

    kept: Connections | None = None

    async def keep(self) -> None:
        """Opens the connections that are kept; PostgreSQL has a pool."""
        if self.dialect == "sqlite":
            reads = await self.engine.connect()
            reads = await reads.execution_options(**{READ_OPTION: True})
            self.kept = Connections(await self.engine.connect(), reads)

    @override
    async def close(self) -> None:
        """See `Database.close`."""
        if self.kept is not None:
            await self.kept.close()
            self.kept = None
        await super().close()


class Passing(Database):
    """A node's database: the real one, with the node's port around each transaction."""

    def __init__(self, database: Database, port: Port) -> None:
        super().__init__(database.engine, database.dialect)
        self._port = port
        self._kept = database.kept if isinstance(database, Kept) else None

    def _writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return super().begin() if self._kept is None else self._kept.begin(reads=False)

    def _reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return super().read() if self._kept is None else self._kept.begin(reads=True)

    @asynccontextmanager
    @override
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        await self._port.enter("write")
        durable: Collection[str] = ()
        async with self._port.turn(), self._writing() as conn:
            yield conn
            if rids := self._port.writing:
                durable = await reservations_sql.find_many(conn, rids)
            self._port.before_commit()
        await self._port.leave("write", durable)

    @asynccontextmanager
    @override
    async def begin_apart(self) -> AsyncIterator[Apart]:
        async with self.begin() as conn:
            yield cast("Apart", _Inline(conn))

    @asynccontextmanager
    @override
    async def read(self) -> AsyncIterator[AsyncConnection]:
        await self._port.enter("read")
        async with self._port.turn(), self._reading() as conn:
            yield conn
        await self._port.leave("read", ())


class _Inline:
    """In place of a transaction in a thread of its own: the work is done where it is called."""

    def __init__(self, conn: AsyncConnection) -> None:
        self._conn = conn

    async def run(self, work: Callable[[AsyncConnection], Coroutine[Any, Any, R]]) -> R:
        return await work(self._conn)

    async def run_last(
        self,
        work: Callable[[AsyncConnection], Coroutine[Any, Any, R]],
        before_commit: Callable[[], None] = lambda: None,
    ) -> R:
        result = await work(self._conn)
        before_commit()
        return result


class _AtOnce(errands_sql.OneErrandConnection):
    """The program's connection, working where it is called instead of in a thread."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        made: Any = self
        made._tx, made._thread = _Here(), _NoThread()

    @override
    async def _execute(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)


class _Here:
    """In place of aiosqlite's queue to its thread: the call is made where it is put."""

    def put_nowait(self, job: tuple[Any, Any]) -> None:
        future, function = job
        result = function()
        if future is not None:
            future.set_result(result)


class _NoThread:
    daemon = True

    def start(self) -> None:
        """Nothing to start."""


@contextlib.contextmanager
def sqlite_without_threads() -> Iterator[None]:
    """Inside it new SQLite connections work in the calling thread."""
    before = errands_sql.connect
    errands_sql.connect = _connect_here
    try:
        yield
    finally:
        errands_sql.connect = before


async def _connect_here(open_: Callable[[], sqlite3.Connection]) -> errands_sql.OneErrandConnection:
    connection = await _AtOnce(open_, ITERATION_ROWS)
    assert isinstance(connection, _AtOnce)
    return connection


async def create_schema(database: Database) -> None:
    """All tables."""
    async with database.begin() as conn:
        await conn.run_sync(metadata.create_all)


async def empty(database: Database) -> None:
    """No rows, and numbers begin at one again."""
    names = [table.name for table in reversed(metadata.sorted_tables)]
    async with database.begin() as conn:
        if database.dialect == "postgresql":
            listed = ", ".join(f'"{name}"' for name in names)
            await conn.execute(text(f"TRUNCATE {listed} RESTART IDENTITY"))
            return
        raw: Any = (await conn.get_raw_connection()).driver_connection
        for name in names:  # past SQLAlchemy, which costs more than the deletion
            await raw.execute(f'DELETE FROM "{name}"')


async def move(database: Database, rid: str, to: HoldState, now: int) -> HoldState | None:
    """Moves a reservation as a payment does; the state it is in afterwards, None: there is none."""
    async with database.begin() as conn:
        moved = await reservations_sql.move(conn, rid, to, now, reason="provider")
        hold = moved or await reservations_sql.find(conn, rid)
    return None if hold is None else hold.state


async def fill(database: Database, stock: Mapping[str, int], now: int) -> None:
    """One product for all SKUs, with so many units on hand."""
    words = ("handle", "title", "description_html", "vendor", "kind", "fingerprint")
    item = dict.fromkeys(words, "") | {"id": "p", "created_at": now, "updated_at": now}
    item |= {"tags": [], "options": [], "published": True}
    kept = {"options": {}, "amount": 1_000, "currency": "USD", "barcode": "", "image_url": ""}
    skus = [
        {"sku": name, "product": "p", "position": place, "title": name, "grams": 0, "active": True}
        | kept
        for place, name in enumerate(stock)
    ]
    levels = [
        {"sku": name, "on_hand": units, "held": 0, "committed": 0} for name, units in stock.items()
    ]
    entries = [
        {"sku": name, "kind": "receive", "ref": f"start-{name}", "at": now}
        | {"d_on_hand": units, "d_held": 0, "d_committed": 0}
        for name, units in stock.items()
    ]
    async with database.begin() as conn:
        await insert_rows(conn, product, [item])
        await insert_rows(conn, sku, skus)
        await insert_rows(conn, sku_stock, levels)
        await insert_rows(conn, stock_ledger, entries)
