"""The record's own sums, checked against each other in one snapshot.

Responsible for the queries. It must not know the gate, and it changes nothing. Each SKU's row must
be the sum of its ledger; what is held must be what open reservations hold; what a drop has given
out and what each viewer has had of it must be what their reservations say.

A reservation takes its units while it is open, when it is sold, and also when it lapsed and its
money came late and bought them anew (`money_sql.settle_late`, and every order that was made anew
after a restore): it stays expired for ever, but there is an order of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.database_sql import Database
from commerce.reconcile import Difference, Page
from commerce.reservations_sql import OPEN_STATES
from commerce.schema_sql import (
    orders,
    outbox,
    reservation,
    reservation_line,
    sale_drop,
    sale_drop_line,
    shop,
    sku_stock,
    stock_ledger,
    viewer_use,
)
from commerce.stock import HoldState, StockRow

DIFFERENCES_MAX: Final = 50
"""Of viewers, in one page; one is enough to look into it."""
_TAKING: Final = or_(
    reservation.c.state.in_((*OPEN_STATES, HoldState.SOLD)),
    and_(
        reservation.c.state == HoldState.EXPIRED, exists().where(orders.c.rid == reservation.c.rid)
    ),
)
"""Reservations whose units count as given out."""


class SqlBooks:
    """See `commerce.reconcile.Books`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, after: str, limit: int) -> Page:
        """See `Books.page`."""
        row = sku_stock.c
        wanted = (
            select(row.sku, row.on_hand, row.held, row.committed, row.draining)
            .where(row.sku > after)
            .order_by(row.sku)
            .limit(limit)
        )
        async with self._database.read() as conn:
            rows = [StockRow(*found) for found in await conn.execute(wanted)]
            skus = [found.sku for found in rows]
            epoch, gate_n = (await conn.execute(select(shop.c.gate_epoch, shop.c.gate_n))).one()
            untold = await conn.execute(
                select(func.count()).select_from(outbox).where(outbox.c.gate_at.is_(None))
            )
            differences = [
                *await _ledger(conn, rows),
                *await _held(conn, rows),
                *await _drops(conn, skus),
                *await _viewers(conn, skus),
            ]
            return Page(
                skus,
                differences,
                epoch,
                gate_n is None,
                int(untold.scalar() or 0),
                {found.sku: found.available for found in rows},
            )


async def _ledger(conn: AsyncConnection, rows: Sequence[StockRow]) -> list[Difference]:
    entry = stock_ledger.c
    sums = (func.sum(entry.d_on_hand), func.sum(entry.d_held), func.sum(entry.d_committed))
    found = await conn.execute(
        select(entry.sku, *sums).where(entry.sku.in_([row.sku for row in rows])).group_by(entry.sku)
    )
    by_sku = {sku: tuple(int(number) for number in numbers) for sku, *numbers in found}
    differences = []
    for row in rows:
        sums_of = by_sku.get(row.sku, (0, 0, 0))
        for name, expected, number in zip(
            ("on_hand", "held", "committed"),
            sums_of,
            (row.on_hand, row.held, row.committed),
            strict=True,
        ):
            if expected != number:
                differences.append(Difference("ledger", f"{row.sku} {name}", expected, number))
    return differences


async def _held(conn: AsyncConnection, rows: Sequence[StockRow]) -> list[Difference]:
    line = reservation_line.c
    found = await conn.execute(
        select(line.sku, func.sum(line.quantity))
        .join(reservation, reservation.c.rid == line.rid)
        .where(line.sku.in_([row.sku for row in rows]), reservation.c.state.in_(OPEN_STATES))
        .group_by(line.sku)
    )
    held = {sku: int(units) for sku, units in found}
    return [
        Difference("held", row.sku, held.get(row.sku, 0), row.held)
        for row in rows
        if held.get(row.sku, 0) != row.held
    ]


async def _drops(conn: AsyncConnection, skus: Sequence[str]) -> list[Difference]:
    """Of drops that were not closed by the host; a closed one gives out nothing any more."""
    part, line = sale_drop_line.c, reservation_line.c
    taken = await conn.execute(
        select(part.drop, part.sku, part.taken)
        .join(sale_drop, sale_drop.c.id == part.drop)
        .where(part.sku.in_(skus), sale_drop.c.closed_at.is_(None))
    )
    given = {(drop, sku): units for drop, sku, units in taken}
    found = await conn.execute(
        select(reservation.c.drop, line.sku, func.sum(line.quantity))
        .join(reservation, reservation.c.rid == line.rid)
        .where(_of_pairs(given), _TAKING)
        .group_by(reservation.c.drop, line.sku)
    )
    sums = {(drop, sku): int(units) for drop, sku, units in found}
    return _different("drop", sums, given)


async def _viewers(conn: AsyncConnection, skus: Sequence[str]) -> list[Difference]:
    """Compared in SQL: a hot drop has 15,000 viewers, and only differences need to travel."""
    use, head, line = viewer_use.c, reservation.c, reservation_line.c
    units = func.coalesce(func.sum(line.quantity), 0)
    found = await conn.execute(
        select(use.drop, use.viewer, use.sku, units, use.units)
        .join(sale_drop, sale_drop.c.id == use.drop)
        .join(
            reservation,
            and_(head.viewer == use.viewer, head.drop == use.drop, _TAKING),
            isouter=True,
        )
        .join(
            reservation_line,
            and_(line.rid == head.rid, line.sku == use.sku),
            isouter=True,
        )
        .where(use.sku.in_(skus), sale_drop.c.closed_at.is_(None))
        .group_by(use.drop, use.viewer, use.sku, use.units)
        .having(units != use.units)
        .order_by(use.drop, use.viewer, use.sku)
        .limit(DIFFERENCES_MAX)
    )
    return [
        Difference("viewer", f"{drop} {viewer} {sku}", int(expected), counted)
        for drop, viewer, sku, expected, counted in found
    ]


def _of_pairs(pairs: Iterable[tuple[str, str]]) -> Any:
    """Reservation lines of these (drop, SKU); none if there are none."""
    by_drop: dict[str, list[str]] = {}
    for drop, sku in pairs:
        by_drop.setdefault(drop, []).append(sku)
    return or_(
        reservation.c.rid.is_(None),
        *(
            and_(reservation.c.drop == drop, reservation_line.c.sku.in_(skus))
            for drop, skus in by_drop.items()
        ),
    )


def _different(kind: str, sums: Mapping[Any, int], counted: Mapping[Any, int]) -> list[Difference]:
    return [
        Difference(kind, " ".join(key), sums.get(key, 0), counted.get(key, 0))
        for key in sorted(sums.keys() | counted.keys())
        if sums.get(key, 0) != counted.get(key, 0)
    ]
