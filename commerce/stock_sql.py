"""Stock on hand in the record: reading it, and changing it by deltas.

Responsible for `on_hand`: the host, an import or an ERP adds or takes units, each change once per
`ref`, never below what is held or sold. It must not know drops or the gate. Only deltas here: an
absolute number is wrong as soon as one unit was sold since it was read, so setting one compares
first and stands in `drain_sql`.
"""

from hashlib import sha256
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.database_sql import insert_new
from commerce.errors import BadQuantity, KeyConflict, StockHeld, UnknownSku
from commerce.outbox_sql import SqlOutbox
from commerce.schema_sql import sku as sku_table
from commerce.schema_sql import sku_stock, stock_ledger
from commerce.stock import StockRow

DELTA_MAX: Final = 10**9
"""Units in one change. Far below 2^53, the largest whole number that Lua and JavaScript hold."""

REF_MAX: Final = 80
"""Characters of a ref in the ledger; longer ones (an idempotency key may have 255) are hashed."""


async def stock_rows(conn: AsyncConnection, skus: list[str]) -> dict[str, StockRow]:
    """Of those SKUs that exist; one without a row has none on hand."""
    row = sku_stock.c
    wanted = (
        select(sku_table.c.sku, row.on_hand, row.held, row.committed, row.draining)
        .join(sku_stock, row.sku == sku_table.c.sku, isouter=True)
        .where(sku_table.c.sku.in_(skus))
    )
    return {
        name: StockRow(name, on_hand or 0, held or 0, committed or 0, draining or 0)
        for name, on_hand, held, committed, draining in (await conn.execute(wanted))
    }


async def adjust(
    conn: AsyncConnection, sku: str, delta: int, *, ref: str, kind: str, now: int
) -> StockRow:
    """Adds `delta` units, once per (ref, SKU, kind); the row afterwards.

    Raises UnknownSku, BadQuantity (beyond DELTA_MAX), StockHeld (with the numbers), KeyConflict
    (the ref was used with another delta).
    """
    ref = short_ref(ref)
    if abs(delta) > DELTA_MAX:
        raise BadQuantity(sku)
    await locked_row(conn, sku)
    before = await _earlier(conn, sku, ref, kind)
    if before is not None:
        if before != delta:
            raise KeyConflict(ref)
        return (await stock_rows(conn, [sku]))[sku]
    row = sku_stock.c
    done = await conn.execute(
        update(sku_stock)
        .where(row.sku == sku, row.held + row.committed <= row.on_hand + delta)
        .values(on_hand=row.on_hand + delta)
    )
    after = (await stock_rows(conn, [sku]))[sku]
    if done.rowcount != 1:
        raise StockHeld(after.on_hand, after.held, after.committed)
    await conn.execute(
        stock_ledger.insert().values(
            sku=sku, kind=kind, d_on_hand=delta, d_held=0, d_committed=0, ref=ref, at=now
        )
    )
    payload = {
        "sku": sku,
        "delta": delta,
        "ref": f"{kind}:{ref}",
        "on_hand": after.on_hand,
        "held": after.held,
        "committed": after.committed,
    }
    await SqlOutbox.add(conn, "stock", sku, payload, now, tell=False)
    return after


def short_ref(ref: str) -> str:
    """A ref that fits the ledger's column."""
    return ref if len(ref) <= REF_MAX else sha256(ref.encode()).hexdigest()


async def locked_row(conn: AsyncConnection, sku: str) -> StockRow:
    """The row, which nobody else changes until this transaction ends; made if there is none.

    Raises UnknownSku.
    """
    if sku not in await stock_rows(conn, [sku]):
        raise UnknownSku(sku)
    empty = {"sku": sku, "on_hand": 0, "held": 0, "committed": 0}
    await insert_new(conn, sku_stock, empty, key=("sku",))
    await conn.execute(select(sku_stock.c.sku).where(sku_stock.c.sku == sku).with_for_update())
    return (await stock_rows(conn, [sku]))[sku]


async def _earlier(conn: AsyncConnection, sku: str, ref: str, kind: str) -> int | None:
    row = stock_ledger.c
    wanted = select(row.d_on_hand).where(row.ref == ref, row.sku == sku, row.kind == kind)
    return (await conn.execute(wanted)).scalar()
