"""The image: everything a gate must know, read from the record in one snapshot.

Responsible for reading it. It must not know how a gate stores it. The size is what counts: 1,000
open holds are read in a few milliseconds, and the catalogue is not in it (a gate knows the SKUs of
open drops and open holds, nothing else).
"""

from collections import defaultdict
from typing import Any, Final

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import lapses_sql, waiting_sql
from commerce.drops_sql import drops_where
from commerce.gate import RECENT_MS, Entry, Image
from commerce.hold_rule import WINDOW_MS
from commerce.reservations_sql import OPEN_STATES
from commerce.schema_sql import (
    outbox,
    reservation,
    reservation_line,
    sale_drop,
    shop,
    sku_stock,
    viewer_use,
)
from commerce.stock import HoldState

CLOSED_KEPT_MS: Final = 86_400_000
"""A closed drop stays known for a day: a late press hears "closed", not "unknown"."""


async def read_image(conn: AsyncConnection, epoch: int, now: int) -> Image | None:
    """One snapshot, in the caller's read transaction; None if the epoch is another one.

    Meanwhile reservations can only end, and an end stands in the outbox, from where the gate is
    told of it by rid.
    """
    current = (await conn.execute(select(shop.c.gate_epoch).where(shop.c.id == 1))).scalar()
    if current != epoch:
        return None
    closed_at, closes_at, oldest = (
        sale_drop.c.closed_at,
        sale_drop.c.closes_at,
        now - CLOSED_KEPT_MS,
    )
    recent = and_(
        or_(closed_at.is_(None), closed_at > oldest),
        or_(closes_at.is_(None), closes_at > oldest),
    )
    drops = await drops_where(conn, recent)
    open_drops = {found.drop.id: found for found in drops if not found.over(now)}
    left = {
        (drop, sku): None if units is None else units - taken
        for drop, found in open_drops.items()
        for sku, (units, taken) in found.units.items()
    }
    entries = await _entries(conn, now)
    skus = {sku for _drop, sku in left} | {sku for entry in entries for sku, _q in entry.lines}
    return Image(
        drops=[found.drop for found in drops],
        left=left,
        stock=await _available(conn, skus),
        used=await _used(conn, set(open_drops)),
        entries=entries,
        changes=await _untold_changes(conn),
        lapses=await lapses_sql.lapses_since(conn, now - WINDOW_MS),
        waiting=await waiting_sql.queued(conn, open_drops),
    )


async def _entries(conn: AsyncConnection, now: int) -> list[Entry]:
    head = reservation.c
    wanted: Any = or_(head.state.in_(OPEN_STATES), head.closed_at > now - RECENT_MS)
    lines: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    rows = await conn.execute(
        select(reservation_line.c.rid, reservation_line.c.sku, reservation_line.c.quantity)
        .join(reservation, head.rid == reservation_line.c.rid)
        .where(wanted)
        .order_by(reservation_line.c.rid, reservation_line.c.position)
    )
    for rid, sku, quantity in rows:
        lines[rid].append((sku, quantity))
    heads = await conn.execute(
        select(
            head.rid, head.fingerprint, head.viewer, head.drop, head.until_ms, head.state,
            head.closed_at,
        )
        .where(wanted)
        .order_by(head.rid)
    )  # fmt: skip
    return [
        Entry(
            rid, fingerprint, viewer, drop, tuple(lines[rid]), until_ms,
            sold=state == HoldState.SOLD,
            ended=closed_at if HoldState(state).over else None,
        )
        for rid, fingerprint, viewer, drop, until_ms, state, closed_at in heads
    ]  # fmt: skip


async def _available(conn: AsyncConnection, skus: set[str]) -> dict[str, int]:
    if not skus:
        return {}
    row = sku_stock.c
    wanted = select(row.sku, row.on_hand - row.held - row.committed - row.draining).where(
        row.sku.in_(skus)
    )
    return dict((await conn.execute(wanted)).all())


async def _used(conn: AsyncConnection, drops: set[str]) -> dict[tuple[str, str, str], int]:
    if not drops:
        return {}
    row = viewer_use.c
    wanted = select(row.drop, row.viewer, row.sku, row.units).where(
        row.drop.in_(drops), row.units > 0
    )
    return {(drop, viewer, sku): units for drop, viewer, sku, units in (await conn.execute(wanted))}


async def _untold_changes(conn: AsyncConnection) -> list[tuple[str, str]]:
    wanted = select(outbox.c.payload).where(outbox.c.gate_at.is_(None), outbox.c.topic == "stock")
    facts = (await conn.execute(wanted)).scalars()
    return [(str(fact["ref"]), str(fact["sku"])) for fact in facts]
