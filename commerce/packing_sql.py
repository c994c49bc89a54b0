"""Parcels to pack, wishes to answer and stock to order, read from the record.

Responsible for three lists. It must not change anything. A parcel is what of a paid order still
lies in the shop: what was cancelled or shipped is not on the list, so it can be printed at any
time.
"""

from collections import defaultdict

from sqlalchemy import and_, exists, func, or_, select

from commerce.database_sql import Database
from commerce.fulfilment import ReturnState
from commerce.money_schema_sql import order_unit, refund, return_case
from commerce.orders import OrderState, UnitState
from commerce.packing import (
    LOW_MAX,
    PARCELS_MAX,
    WAITING_MAX,
    PackLine,
    Parcel,
    ParcelPage,
    Waiting,
)
from commerce.people_sql import SqlPeople
from commerce.refunds import RefundState
from commerce.schema_sql import order_line, orders, sku, sku_stock
from commerce.stock import StockRow

_RETURNS = (ReturnState.REQUESTED.value, ReturnState.APPROVED.value)
_TO_PACK = (OrderState.PAID.value, OrderState.PARTLY_SHIPPED.value)


class SqlPacking:
    """Lists of one database. Raises Unavailable when it is away."""

    def __init__(self, database: Database, people: SqlPeople) -> None:
        self._database = database
        self._people = people

    async def parcels(self, show: str, limit: int, after: str | None = None) -> ParcelPage:
        """What is to be packed for a show, oldest order first."""
        limit = max(1, min(limit, PARCELS_MAX))
        wanted = (
            select(orders.c.id, orders.c.rid, orders.c.placed_at)
            .where(orders.c.show == show, orders.c.state.in_(_TO_PACK))
            .order_by(orders.c.placed_at, orders.c.id)
            .limit(limit + 1)
        )
        at, _, id_ = (after or "").partition(".")
        if at.isascii() and at.isdecimal() and len(at) <= 15 and id_:
            same = and_(orders.c.placed_at == int(at), orders.c.id > id_)
            wanted = wanted.where(or_(orders.c.placed_at > int(at), same))
        async with self._database.read() as conn:
            heads = (await conn.execute(wanted)).all()
            counted = (
                select(
                    order_unit.c.order,
                    order_unit.c.position,
                    order_line.c.sku,
                    order_line.c.title,
                    func.count().label("quantity"),
                )
                .join(
                    order_line,
                    and_(
                        order_line.c.order == order_unit.c.order,
                        order_line.c.position == order_unit.c.position,
                    ),
                )
                .where(
                    order_unit.c.order.in_([head.id for head in heads[:limit]]),
                    order_unit.c.state == UnitState.SOLD.value,
                )
                .group_by(
                    order_unit.c.order,
                    order_unit.c.position,
                    order_line.c.sku,
                    order_line.c.title,
                )
                .order_by(order_unit.c.order, order_unit.c.position)
            )
            lines: defaultdict[str, list[PackLine]] = defaultdict(list)
            for row in (await conn.execute(counted)).all():
                lines[row.order].append(PackLine(row.position, row.sku, row.title, row.quantity))
            people = await self._people.details(conn, [head.rid for head in heads[:limit]])
        last = heads[limit - 1] if len(heads) > limit else None
        return ParcelPage(
            tuple(
                Parcel(head.id, head.placed_at, tuple(lines[head.id]), people.get(head.rid))
                for head in heads[:limit]
            ),
            None if last is None else f"{last.placed_at}.{last.id}",
        )

    async def waiting(self, limit: int = WAITING_MAX) -> list[Waiting]:
        """What needs the host, the longest waiting first: refunds asked for, returns under way.

        A refund that failed waits too, until another one of its order is begun.
        """
        limit = min(limit, WAITING_MAX)
        later = refund.alias("later")
        begun = exists().where(
            later.c.rid == refund.c.rid, later.c.created_at > refund.c.created_at
        )
        asked = refund.c.state == RefundState.ASKED.value
        failed = and_(refund.c.state == RefundState.FAILED.value, ~begun)
        found: list[Waiting] = []
        async with self._database.read() as conn:
            for kind, table, condition in (
                ("refund", refund, or_(asked, failed)),
                ("return", return_case, return_case.c.state.in_(_RETURNS)),
            ):
                wanted = (
                    select(table.c.id, table.c.order, table.c.state, table.c.created_at)
                    .where(condition)
                    .order_by(table.c.created_at, table.c.id)
                    .limit(limit)
                )
                found += [Waiting(kind, *row) for row in (await conn.execute(wanted)).all()]
        return sorted(found, key=lambda one: one.at)[:limit]

    async def low_stock(self, threshold: int, limit: int = LOW_MAX) -> list[StockRow]:
        """Active SKUs of which so many units or fewer can be bought, the fewest first."""
        available = sku_stock.c.on_hand - sku_stock.c.held - sku_stock.c.committed
        wanted = (
            select(sku_stock)
            .join(sku, sku.c.sku == sku_stock.c.sku)
            .where(sku.c.active, available <= threshold)
            .order_by(available, sku_stock.c.sku)
            .limit(min(limit, LOW_MAX))
        )
        async with self._database.read() as conn:
            return [
                StockRow(row.sku, row.on_hand, row.held, row.committed)
                for row in (await conn.execute(wanted)).all()
            ]
