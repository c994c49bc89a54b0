"""Drawing raffles: entries become a wait list in the order of their lots, once, in one transaction.

Responsible for the draw and for showing it afterwards. It must not know the gate: the draw fences
every gate (the epoch moves on in the same transaction), and the next one is loaded with the list.
An entry is a row of `waiting` in state `entered`; joining share-locks the drop and the draw locks
it, so an entry is in before the draw or refused.
"""

from typing import Final

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import epochs_sql
from commerce.database_sql import Database
from commerce.drops_sql import drops_where, not_over
from commerce.errors import UnknownDrop
from commerce.outbox_sql import SqlOutbox
from commerce.raffle import Draw, ranking
from commerce.schema_sql import sale_drop, waiting
from commerce.stock import Drop

DRAWS_MAX: Final = 20
ENTERED: Final = "entered"
# Asked twice a second by every node, so it is made once.
_DUE: Final = (
    select(sale_drop.c.id)
    .where(
        sale_drop.c.draws_at <= bindparam("now"),
        sale_drop.c.drawn_at.is_(None),
        not_over(bindparam("now")),
    )
    .limit(DRAWS_MAX)
)


async def draw_due(database: Database, now: int) -> list[Drop]:
    """Draws what is due; the drops that were drawn here. Raises Unavailable."""
    row = sale_drop.c
    async with database.read() as conn:
        ids = list((await conn.execute(_DUE, {"now": now})).scalars())
    drawn = []
    for drop in ids:
        async with database.begin() as conn:
            if await _draw(conn, drop, now):
                drawn += [found.drop for found in await drops_where(conn, row.id == drop)]
    return drawn


async def _draw(conn: AsyncConnection, drop: str, now: int) -> bool:
    await epochs_sql.fence_all(conn)
    row = sale_drop.c
    locked = select(row.seed, row.show).where(row.id == drop, row.drawn_at.is_(None))
    found = (await conn.execute(locked.with_for_update())).first()
    if found is None:
        return False  # another node has drawn it
    entry = waiting.c
    entries = await conn.execute(
        select(entry.rid, entry.viewer, entry.sku, entry.quantity, entry.fingerprint)
        .where(entry.drop == drop, entry.state == ENTERED)
        .with_for_update()
    )
    by_rid = {one.rid: one for one in entries}
    ranks = ranking(found.seed, by_rid)
    if ranks:
        placed = (
            update(waiting)
            .where(entry.rid == bindparam("of"))
            .values(state="waiting", place=bindparam("rank"))
        )
        rows = [{"of": rid, "rank": rank} for rank, rid in enumerate(ranks, start=1)]
        await conn.execute(placed, rows)
    facts: list[tuple[str, dict[str, object]]] = [
        (
            rid,
            {
                "rid": rid,
                "viewer": by_rid[rid].viewer,
                "show": found.show,
                "drop": drop,
                "sku": by_rid[rid].sku,
                "quantity": by_rid[rid].quantity,
                "fingerprint": by_rid[rid].fingerprint,
                "place": rank,
                "position": rank,
                "state": "waiting",
            },
        )
        for rank, rid in enumerate(ranks, start=1)
    ]
    await SqlOutbox.add_many(conn, "wait", facts, now)
    await conn.execute(
        update(sale_drop).where(row.id == drop).values(drawn_at=now, entries=len(ranks))
    )
    return True


async def read_draw(database: Database, drop: str) -> Draw:
    """A raffle, for whoever wants to check it. Raises UnknownDrop (also if it is none)."""
    async with database.read() as conn:
        found = await drops_where(conn, sale_drop.c.id == drop)
        if not found or found[0].drop.raffle is None:
            raise UnknownDrop(drop)
        entry = waiting.c
        if found[0].drop.raffle.drawn_at is None:
            entered = select(func.count()).where(entry.drop == drop, entry.state == ENTERED)
            return Draw(found[0].drop, int((await conn.execute(entered)).scalar() or 0), ())
        ranked = select(entry.rid).where(entry.drop == drop, entry.place.is_not(None))
        rids = list((await conn.execute(ranked.order_by(entry.place))).scalars())
        return Draw(found[0].drop, len(rids), rids)
