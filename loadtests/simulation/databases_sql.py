"""The record's database for the simulation: transactions that pass a port, and a clean start.

Responsible for the one place where every transaction of a node passes (`Passing`), for emptying the
tables between seeds, and for SQLite without a thread: aiosqlite hands each call to a thread of its
own, which costs 60 µs and leaves the order to the operating system; here the call is made at once.
It must not know what is written.
"""

from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol, TypeVar, cast

from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from commerce import reservations_sql
from commerce.apart_sql import Apart, as_async
from commerce.bulk_sql import insert_rows
from commerce.database_sql import READ_OPTION, Database
from commerce.schema_sql import metadata, product, sku, sku_stock, stock_ledger
from commerce.stock import HoldState

R = TypeVar("R")
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
    """SQLite's two connections of a worker, one that writes and one that reads, without a thread.

    Taking one from a pool for each transaction costs more than the transaction. One of each is
    enough: SQLite answers at once here, so no two transactions of a kind are ever open together.
    The statements meet them as they do in production's own `Apart`.
    """

    def __init__(self, engine: Engine) -> None:
        metadata.create_all(engine)
        self._engine = engine
        self._writes = engine.connect()
        self._reads = engine.connect().execution_options(**{READ_OPTION: True})

    @property
    def raw(self) -> Any:
        """The driver's connection that writes."""
        return self._writes.connection.driver_connection

    @asynccontextmanager
    async def begin(self, *, reads: bool) -> AsyncIterator[AsyncConnection]:
        """A transaction, as `Database.begin` and `Database.read` make it."""
        conn = self._reads if reads else self._writes
        with conn.begin():
            yield as_async(conn)

    def close(self) -> None:
        """Gives them back."""
        self._writes.close()
        self._reads.close()
        self._engine.dispose()


class Kept(Database):
    """A worker's database with its connections."""

    kept: Connections | None = None

    async def prepare(self) -> None:
        """Makes all tables, and opens the connections that are kept; PostgreSQL has a pool."""
        if self.dialect == "sqlite":
            self.kept = Connections(self._open_sync(2))
            return
        async with self.begin() as conn:
            await conn.run_sync(metadata.create_all)
        await self.close()

    @override
    async def close(self) -> None:
        """See `Database.close`."""
        if self.kept is not None:
            self.kept.close()
            self.kept = None
        await super().close()


class Passing(Database):
    """A node's database: the real one, with the node's port around each transaction."""

    def __init__(self, database: Database, port: Port) -> None:
        super().__init__(database.engine, database.dialect)
        self._port = port
        self.kept = database.kept if isinstance(database, Kept) else None

    def _writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return super().begin() if self.kept is None else self.kept.begin(reads=False)

    def _reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return super().read() if self.kept is None else self.kept.begin(reads=True)

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


async def empty(database: Passing) -> None:
    """No rows, and numbers begin at one again."""
    names = [table.name for table in reversed(metadata.sorted_tables)]
    async with database.begin() as conn:
        if database.kept is not None:
            for name in names:  # past SQLAlchemy, which costs more than the deletion
                database.kept.raw.execute(f'DELETE FROM "{name}"')
            return
        listed = ", ".join(f'"{name}"' for name in names)
        await conn.execute(text(f"TRUNCATE {listed} RESTART IDENTITY"))


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
