"""The epoch: the number in the record that fences every gate loaded before it moved on.

Responsible for `shop.gate_epoch` and for moving it on exactly once per rebuild. It must not know
the gate.

`gate_n` is null while the epoch belongs to a gate. When SQL has to decide without one it moves the
epoch on first (so a gate that comes back is fenced by its first press) and counts decisions there.
"""

from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.database_sql import Database, insert_new
from commerce.record import Epoch
from commerce.schema_sql import shop

_FIRST: Final[dict[str, Any]] = {
    "id": 1,
    "name": "My shop",
    "currency": "USD",
    "shipping_amount": 0,
    "gate_epoch": 1,
    "gate_n": None,
}

# Every node reads the epoch with every look at the gate, so its statement is made once.
_EPOCH: Final = select(shop.c.gate_epoch, shop.c.gate_n).where(shop.c.id == 1)
_LOCKED: Final = select(shop.c.gate_epoch).where(shop.c.id == 1).with_for_update(read=True)


async def read_epoch(database: Database) -> Epoch:
    """The present epoch; makes the shop's row if there is none."""
    async with database.read() as conn:
        row = (await conn.execute(_EPOCH)).first()
    if row is None:
        async with database.begin() as conn:
            await insert_new(conn, shop, _FIRST, key=("id",))
        return await read_epoch(database)
    return Epoch(row.gate_epoch, row.gate_n is None)


async def lock_epoch(conn: AsyncConnection) -> int:
    """The epoch, which cannot move until this transaction ends; others may read it too."""
    return int((await conn.execute(_LOCKED)).scalar_one())


async def next_epoch(conn: AsyncConnection, seen: int, at_least: int) -> int | None:
    """Moves on from `seen`, for a gate; None if it is not `seen` any more."""
    new = max(seen + 1, at_least)
    done = await conn.execute(
        update(shop)
        .where(shop.c.id == 1, shop.c.gate_epoch == seen)
        .values(gate_epoch=new, gate_n=None)
    )
    return new if done.rowcount == 1 else None


async def fence_all(conn: AsyncConnection) -> None:
    """Moves on from whatever it is; gates loaded before are fenced, the next one may be loaded."""
    await insert_new(conn, shop, _FIRST, key=("id",))
    await conn.execute(
        update(shop).where(shop.c.id == 1).values(gate_epoch=shop.c.gate_epoch + 1, gate_n=None)
    )


async def count_without_gate(conn: AsyncConnection, decisions: int) -> tuple[int, int]:
    """Takes `decisions` numbers; (epoch, the number before the first of them).

    Holds the row until the end of the transaction: without a gate, presses are decided one
    transaction at a time.
    """
    await insert_new(conn, shop, _FIRST, key=("id",))
    wanted = select(shop.c.gate_epoch, shop.c.gate_n).where(shop.c.id == 1).with_for_update()
    row = (await conn.execute(wanted)).one()
    epoch, n = row.gate_epoch, row.gate_n
    if n is None:
        epoch, n = epoch + 1, 0
    await conn.execute(
        update(shop).where(shop.c.id == 1).values(gate_epoch=epoch, gate_n=n + decisions)
    )
    return epoch, n
