"""Drops in the record: opening, closing, listing, and what is left in one.

Responsible for the rule that a SKU is in at most one open drop at a time, which keeps a level a
single number. It must not know the gate: opening one fences every gate (the epoch moves on in the
same transaction), so that none can go on without knowing of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import epochs_sql
from commerce.database_sql import insert_new
from commerce.errors import SkuInDrop, UnknownDrop, UnknownSku
from commerce.outbox_sql import SqlOutbox
from commerce.schema_sql import sale_drop, sale_drop_line, sku, sku_stock
from commerce.stock import Drop, DropLine, Raffle


@dataclass(frozen=True, slots=True)
class DropRow:
    """A drop with what it has sold: by SKU (units or None, taken)."""

    drop: Drop
    units: Mapping[str, tuple[int | None, int]]

    def over(self, now: int) -> bool:
        """Closed by the host or by the clock."""
        return is_over(self.drop, now)


def is_over(drop: Drop, now: int) -> bool:
    """Closed by the host or by the clock."""
    return drop.closed_at is not None or (drop.closes_at is not None and drop.closes_at <= now)


def not_over(now: int | BindParameter[int]) -> ColumnElement[bool]:
    """The same as a condition."""
    row = sale_drop.c
    return row.closed_at.is_(None) & or_(row.closes_at.is_(None), row.closes_at > now)


async def drops_where(
    conn: AsyncConnection, condition: ColumnElement[bool], *, lock: bool = False
) -> list[DropRow]:
    """Drops with their lines, oldest first. `lock`: they cannot be closed meanwhile."""
    wanted = select(sale_drop).where(condition).order_by(sale_drop.c.created_at, sale_drop.c.id)
    heads = (await conn.execute(wanted.with_for_update(read=True) if lock else wanted)).all()
    line = sale_drop_line.c
    rows = await conn.execute(
        select(line.drop, line.sku, line.units, line.taken)
        .where(line.drop.in_([head.id for head in heads]))
        .order_by(line.drop, line.position)
    )
    lines: defaultdict[str, dict[str, tuple[int | None, int]]] = defaultdict(dict)
    for drop, name, units, taken in rows:
        lines[drop][name] = (units, taken)
    return [DropRow(drop_of(head, lines[head.id]), lines[head.id]) for head in heads]


def drop_of(head: Any, lines: Mapping[str, tuple[int | None, int]]) -> Drop:
    """A drop out of a row with the columns of `sale_drop`, and its SKUs."""
    return Drop(
        id=head.id,
        show=head.show,
        title=head.title,
        opens_at=head.opens_at,
        closes_at=head.closes_at,
        hold_s=head.hold_s,
        per_viewer=head.per_viewer,
        lines=tuple(DropLine(name, units) for name, (units, _taken) in lines.items()),
        closed_at=head.closed_at,
        raffle=_raffle(head),
    )


def _raffle(head: Any) -> Raffle | None:
    if head.draws_at is None:
        return None
    drawn = head.drawn_at is not None
    seed = head.seed if drawn else None
    return Raffle(head.draws_at, head.seed_sha, seed, head.drawn_at, head.entries)


async def open_drop(conn: AsyncConnection, drop: Drop, now: int) -> None:
    """Stores it; the same drop again changes nothing. Raises SkuInDrop, UnknownSku."""
    await epochs_sql.fence_all(conn)  # first, because it makes openings take turns
    if await drops_where(conn, sale_drop.c.id == drop.id):
        return
    names = [line.sku for line in drop.lines]
    await _check_skus(conn, names, now)
    await conn.execute(
        insert(sale_drop).values(
            id=drop.id,
            show=drop.show,
            title=drop.title,
            opens_at=drop.opens_at,
            closes_at=drop.closes_at,
            closed_at=drop.closed_at,
            hold_s=drop.hold_s,
            per_viewer=drop.per_viewer,
            created_at=now,
            **_raffle_values(drop.raffle),
        )
    )
    for position, line in enumerate(drop.lines):
        row = {"on_hand": 0, "held": 0, "committed": 0}
        await insert_new(conn, sku_stock, {"sku": line.sku, **row}, key=("sku",))
        await conn.execute(
            insert(sale_drop_line).values(
                drop=drop.id, sku=line.sku, position=position, units=line.units, taken=0
            )
        )


def _raffle_values(raffle: Raffle | None) -> dict[str, object]:
    if raffle is None:
        return {}
    return {"draws_at": raffle.draws_at, "seed": raffle.seed, "seed_sha": raffle.seed_sha}


async def _check_skus(conn: AsyncConnection, names: Iterable[str], now: int) -> None:
    wanted = list(names)
    known = set((await conn.execute(select(sku.c.sku).where(sku.c.sku.in_(wanted)))).scalars())
    for name in wanted:
        if name not in known:
            raise UnknownSku(name)
    taken = (
        select(sale_drop_line.c.sku, sale_drop_line.c.drop)
        .join(sale_drop, sale_drop.c.id == sale_drop_line.c.drop)
        .where(sale_drop_line.c.sku.in_(wanted), not_over(now))
        .limit(1)
    )
    row = (await conn.execute(taken)).first()
    if row is not None:
        raise SkuInDrop(row.sku, row.drop)


async def close_drop(conn: AsyncConnection, drop: str, now: int) -> Drop:
    """Closes it; a closed one stays as it was. Raises UnknownDrop."""
    done = await conn.execute(
        update(sale_drop)
        .where(sale_drop.c.id == drop, sale_drop.c.closed_at.is_(None))
        .values(closed_at=now)
    )
    found = await drops_where(conn, sale_drop.c.id == drop)
    if not found:
        raise UnknownDrop(drop)
    closed = found[0].drop
    if done.rowcount == 1:
        payload = {"drop": drop, "show": closed.show, "state": "closed"}
        await SqlOutbox.add(conn, "drop", drop, payload, now, tell=False)
    return closed


async def left_of(conn: AsyncConnection, drop: str) -> dict[str, int]:
    """Units that can still be bought in a drop, by SKU. Raises UnknownDrop."""
    found = await drops_where(conn, sale_drop.c.id == drop)
    if not found:
        raise UnknownDrop(drop)
    row = sku_stock.c
    wanted = select(row.sku, row.on_hand - row.held - row.committed - row.draining).where(
        row.sku.in_(list(found[0].units))
    )
    free = dict((await conn.execute(wanted)).all())
    return {
        name: _least(free.get(name, 0), None if units is None else units - taken)
        for name, (units, taken) in found[0].units.items()
    }


def _least(available: int, cap: int | None) -> int:
    return max(0, available if cap is None else min(available, cap))
