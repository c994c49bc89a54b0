"""The usual way to sell: each Buy in a transaction of its own that locks the stock's row.

What a careful shop does, and well: SQLAlchemy Core with compiled statements, a pool of 16 open
connections, one joined SELECT … FOR UPDATE (BEGIN IMMEDIATE on SQLite) that reads price, drop and
stock and takes the lock, then the reservation (its rid makes a second press harmless), its line,
the ledger row and the hot row, then the commit. It does less than the product: no limits per
viewer, no units of a drop, no levels told to the room, no epoch. A press waits for a connection in
order of arrival and as long as it takes, so none is sent away and comes back. On SQLite it gets the
product's own queue for the one writer, instead of SQLite's naps.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.database_sql import Database, insert_into
from commerce.errors import DropClosed, DropNotOpen, SoldOut, UnknownSku
from commerce.presses import fingerprint, normal
from commerce.schema_sql import (
    product,
    reservation,
    reservation_line,
    sale_drop,
    sku,
    sku_stock,
    stock_ledger,
)
from commerce.stock import HeldLine, Hold, HoldState, Press

CONNECTIONS: Final = 16

_STOCK = (
    select(
        sku.c.amount,
        sku.c.currency,
        product.c.title,
        sale_drop.c.show,
        sale_drop.c.opens_at,
        sale_drop.c.closes_at,
        sale_drop.c.closed_at,
        sale_drop.c.hold_s,
        (sku_stock.c.on_hand - sku_stock.c.held - sku_stock.c.committed).label("free"),
    )
    .select_from(sku_stock)
    .join(sku, sku.c.sku == sku_stock.c.sku)
    .join(product, product.c.id == sku.c.product)
    .join(sale_drop, sale_drop.c.id == bindparam("of_drop"))
    .where(sku_stock.c.sku == bindparam("of_sku"))
    .with_for_update(of=sku_stock)
)
_HOLD = (
    update(sku_stock)
    .where(sku_stock.c.sku == bindparam("of_sku"))
    .values(held=sku_stock.c.held + bindparam("units"))
)


class RowLock:
    """`reserve` as `Checkout.reserve`. `clock`: milliseconds since 1970."""

    def __init__(self, database_url: str, clock: Callable[[], int]) -> None:
        self._url = database_url
        self._clock = clock
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._database: Database | None = None

    async def open(self) -> None:
        """Opens all connections, so that none is opened while it is measured."""
        self._database = database = await Database.open(self._url, poolsize=CONNECTIONS)
        ready = asyncio.Barrier(CONNECTIONS)

        async def connect() -> None:
            async with database.read() as conn:
                await conn.exec_driver_sql("SELECT 1")
                await ready.wait()

        await asyncio.gather(*(connect() for _ in range(CONNECTIONS)))

    async def close(self) -> None:
        """Closes them."""
        if self._database is not None:
            await self._database.close()

    async def reserve(self, press: Press) -> Hold:
        """One line of one SKU. Raises SoldOut, DropClosed, DropNotOpen, UnknownSku."""
        assert self._database is not None
        press = normal(press)
        mark = fingerprint(press)
        now = self._clock()
        async with self._places, self._database.begin() as conn:
            return await _reserve(conn, press, mark, now)


async def _reserve(conn: AsyncConnection, press: Press, mark: str, now: int) -> Hold:
    line = press.lines[0]
    row = (await conn.execute(_STOCK, {"of_sku": line.sku, "of_drop": press.drop})).first()
    if row is None:
        raise UnknownSku(line.sku)
    if now < row.opens_at:
        raise DropNotOpen(row.opens_at, row.opens_at - now)
    if row.closed_at is not None or (row.closes_at is not None and now >= row.closes_at):
        raise DropClosed
    if row.free < line.quantity:
        raise SoldOut(line.sku, row.free)
    held = HeldLine(line.sku, row.title, line.quantity, row.amount)
    hold = Hold(
        rid=press.rid,
        viewer=press.viewer,
        drop=press.drop,
        show=row.show,
        state=HoldState.HELD,
        until_ms=now + row.hold_s * 1000,
        lines=(held,),
        currency=row.currency,
        total=row.amount * line.quantity,
        receipt=(0, 0),
    )
    if await _insert(conn, hold, mark, now):
        await conn.execute(_HOLD, {"of_sku": line.sku, "units": line.quantity})
    return hold


async def _insert(conn: AsyncConnection, hold: Hold, mark: str, now: int) -> bool:
    """The reservation, its line and the ledger's row; False if the rid was there already."""
    head: dict[str, Any] = {
        "rid": hold.rid,
        "viewer": hold.viewer,
        "drop": hold.drop,
        "fingerprint": mark,
        "state": hold.state.value,
        "until_ms": hold.until_ms,
        "epoch": 0,
        "n": 0,
        "currency": hold.currency,
        "total": hold.total,
        "created_at": now,
        "closed_at": None,
        "reason": None,
    }
    once = insert_into(conn, reservation).on_conflict_do_nothing(index_elements=["rid"])
    if (await conn.execute(once.returning(reservation.c.rid), head)).first() is None:
        return False
    (line,) = hold.lines
    await conn.execute(
        insert_into(conn, reservation_line),
        {
            "rid": hold.rid,
            "sku": line.sku,
            "position": 0,
            "title": line.title,
            "quantity": line.quantity,
            "unit_amount": line.unit_amount,
        },
    )
    await conn.execute(
        insert_into(conn, stock_ledger),
        {
            "sku": line.sku,
            "kind": "hold",
            "d_on_hand": 0,
            "d_held": line.quantity,
            "d_committed": 0,
            "ref": hold.rid,
            "at": now,
        },
    )
    return True
