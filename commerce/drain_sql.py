"""Stock that runs down: a number below what is held, reached as holds end.

Responsible for setting `on_hand` to a number (compare-and-set), for `draining` (units that will not
come back when their holds end) and for swallowing them. It must not know drops or the gate.

The gate is told at once: its units are `on_hand - held - committed - draining`, which may be below
zero, so a unit that returns raises it towards nothing and is never on sale in between; the record
takes the same unit off `on_hand` in the transaction that ends the hold, with a row in the ledger
(`drain`, under the hold's rid). What is sold meanwhile cannot be taken back: the rest is let go.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.bulk_sql import insert_rows
from commerce.errors import BadQuantity, StockChanged, StockHeld, UnknownSku
from commerce.outbox_sql import SqlOutbox
from commerce.schema_sql import sku_stock, stock_ledger
from commerce.stock import Hold, StockRow
from commerce.stock_sql import DELTA_MAX, locked_row, short_ref

SET: Final = "set"
"""Kind of a ledger row that a compare-and-set wrote."""


async def set_on_hand(
    conn: AsyncConnection, sku: str, to: int, expected: int, *, drain: bool, ref: str, now: int
) -> StockRow:
    """Sets the units on hand, if they are `expected`, once per ref; the row afterwards.

    Below what is held or sold: refused, or with `drain` as far as it goes, the rest as holds end.
    Raises UnknownSku, BadQuantity, StockChanged and StockHeld (both with the numbers).
    """
    if not 0 <= to <= DELTA_MAX:
        raise BadQuantity(sku)
    ref = short_ref(ref)
    before = await locked_row(conn, sku)
    done = select(stock_ledger.c.id).where(
        stock_ledger.c.ref == ref, stock_ledger.c.sku == sku, stock_ledger.c.kind == SET
    )
    if (await conn.execute(done)).first() is not None:
        return before
    if before.on_hand != expected:
        raise StockChanged(before.on_hand, before.held, before.committed)
    taken = before.held + before.committed
    if to < taken and not drain:
        raise StockHeld(before.on_hand, before.held, before.committed)
    on_hand = max(to, taken)
    draining = min(on_hand - to, before.held)
    await _write(conn, sku, on_hand, draining)
    delta = on_hand - before.on_hand
    await insert_rows(conn, stock_ledger, [_entry(sku, SET, delta, ref, now)])
    after = StockRow(sku, on_hand, before.held, before.committed, draining)
    await _tell_gate(conn, before, after, f"{SET}:{ref}", now)
    return after


async def cancel_drain(conn: AsyncConnection, sku: str, *, ref: str, now: int) -> StockRow:
    """What has not run down yet stays; the row afterwards. Raises UnknownSku."""
    before = await locked_row(conn, sku)
    if before.draining == 0:
        return before
    await _write(conn, sku, before.on_hand, 0)
    after = StockRow(sku, before.on_hand, before.held, before.committed, 0)
    await _tell_gate(conn, before, after, f"undrain:{short_ref(ref)}", now)
    return after


async def swallow(
    conn: AsyncConnection, after: StockRow, ended: Sequence[Hold], *, sold: bool, now: int
) -> None:
    """Holds of a SKU that runs down have ended, and `after` is its row, locked, with less held.

    Units given back leave the stock; of units sold nothing can be taken, so fewer still drain.
    """
    sku = after.sku
    if sold:
        left = min(after.draining, after.held)
        if left < after.draining:
            await _write(conn, sku, after.on_hand, left)
            now_sold = StockRow(sku, after.on_hand, after.held, after.committed, left)
            await _tell_gate(conn, after, now_sold, f"sold:{ended[0].rid}", now)
        return
    left, entries = after.draining, []
    for hold in ended:
        units = min(left, sum(line.quantity for line in hold.lines if line.sku == sku))
        left -= units
        if units:
            entries.append(_entry(sku, "drain", -units, hold.rid, now))
    await insert_rows(conn, stock_ledger, entries)
    await _write(conn, sku, after.on_hand - (after.draining - left), left)


async def _write(conn: AsyncConnection, sku: str, on_hand: int, draining: int) -> None:
    done = await conn.execute(
        update(sku_stock).where(sku_stock.c.sku == sku).values(on_hand=on_hand, draining=draining)
    )
    if done.rowcount != 1:
        raise UnknownSku(sku)


def _entry(sku: str, kind: str, delta: int, ref: str, now: int) -> dict[str, object]:
    return {
        "sku": sku,
        "kind": kind,
        "d_on_hand": delta,
        "d_held": 0,
        "d_committed": 0,
        "ref": ref,
        "at": now,
    }


async def _tell_gate(
    conn: AsyncConnection, before: StockRow, after: StockRow, ref: str, now: int
) -> None:
    delta = after.available - before.available
    payload: dict[str, object] = {"sku": after.sku, "delta": delta, "ref": ref}
    await SqlOutbox.add(conn, "stock", after.sku, payload, now, tell=False)
