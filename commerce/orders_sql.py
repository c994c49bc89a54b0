"""Orders in the record: placing and reading them.

Responsible for the rows of `orders` and `order_line` as they are written and read; what becomes of
an order afterwards follows from its units and its money (`order_states_sql`). `place` takes the
caller's connection, because an order must be placed in the very transaction that sells the units.
It must not know payments. `orders.rid` is unique: however often a payment is reported, a hold
becomes one order.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, insert, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.bulk_sql import in_texts, texts
from commerce.database_sql import Database
from commerce.events_sql import add_event
from commerce.order_states_sql import tell_order
from commerce.orders import PAGE_MAX, Order, OrderFilter, OrderLine, OrderPage, OrderState
from commerce.people_sql import SqlPeople
from commerce.pricing import DISCOUNT, SHIPPING, TAX, Adjustment, share_out, sum_of, total_of
from commerce.schema_sql import order_line, orders
from commerce.stock import Hold
from commerce.units_sql import add_units


async def place(
    conn: AsyncConnection, id_: str, hold: Hold, steps: Sequence[Adjustment], now: int
) -> None:
    """A sold hold becomes an order of single units. Raises IntegrityError if it has one already."""
    await conn.execute(
        insert(orders).values(
            id=id_,
            rid=hold.rid,
            viewer=hold.viewer,
            show=hold.show,
            state=OrderState.PLACED.value,
            currency=hold.currency,
            subtotal=hold.total,
            shipping=sum_of(steps, SHIPPING),
            discount=-sum_of(steps, DISCOUNT),
            tax=sum_of(steps, TAX),
            total=total_of(hold.total, steps),
            refunded=0,
            placed_at=now,
            updated_at=now,
        )
    )
    await conn.execute(
        insert(order_line),
        [
            {
                "order": id_,
                "position": position,
                "sku": line.sku,
                "title": line.title,
                "quantity": line.quantity,
                "unit_amount": line.unit_amount,
            }
            for position, line in enumerate(hold.lines)
        ],
    )
    await add_units(conn, id_, share_out(hold.lines, steps))
    await add_event(conn, hold.rid, f"order.{OrderState.PLACED.value}", now, order=id_)
    head = (await conn.execute(select(orders).where(orders.c.id == id_))).one()
    await tell_order(conn, head, OrderState.PLACED, now)


async def read_order(conn: AsyncConnection, id_: str) -> Order | None:
    """One order, in the caller's transaction."""
    rows = (await conn.execute(select(orders).where(orders.c.id == id_))).all()
    found = await _with_lines(conn, rows)
    return found[0] if found else None


class SqlOrders:
    """See `commerce.orders.Orders`. Every method raises Unavailable when the database is away."""

    def __init__(self, database: Database, people: SqlPeople) -> None:
        self._database = database
        self._people = people

    async def get(self, id: str) -> Order | None:
        """One order."""
        return await self._one(orders.c.id == id)

    async def by_rid(self, rid: str) -> Order | None:
        """The order of a hold."""
        return await self._one(orders.c.rid == rid)

    async def customer(self, rid: str) -> dict[str, object] | None:
        """See `Orders`."""
        async with self._database.read() as conn:
            return await self._people.detail(conn, rid)

    async def of_viewer(self, viewer: str, limit: int = 50) -> Sequence[Order]:
        """A viewer's own, newest first; at most `PAGE_MAX`."""
        return await self._many([orders.c.viewer == viewer], min(limit, PAGE_MAX))

    async def of_viewers(
        self, viewers: Sequence[str], limit: int = 50
    ) -> Mapping[str, Sequence[Order]]:
        """See `Orders`. Two statements however many viewers, one if none of them has an order."""
        async with self._database.read() as conn:
            newest = (
                "SELECT o.id, row_number() OVER "
                "(PARTITION BY o.viewer ORDER BY o.placed_at DESC, o.id DESC) AS place "
                f"FROM orders o WHERE {in_texts(conn, 'o.viewer', 'viewers')}"
            )
            rows = await conn.execute(
                text(
                    f"SELECT o.* FROM orders o JOIN ({newest}) n ON n.id = o.id "
                    "WHERE n.place <= :most ORDER BY o.viewer, n.place"
                ),
                {"viewers": texts(viewers), "most": min(limit, PAGE_MAX)},
            )
            found = await _with_lines(conn, rows.all())
        by_viewer: defaultdict[str, list[Order]] = defaultdict(list)
        for order in found:
            by_viewer[order.viewer].append(order)
        return dict(by_viewer)

    async def page(
        self,
        show: str | None = None,
        state: str | None = None,
        limit: int = 50,
        after: str | None = None,
        *,
        wanted: OrderFilter | None = None,
    ) -> OrderPage:
        """See `Orders`. Pages by (placed_at, id), so that new orders do not shift a page."""
        limit = max(1, min(limit, PAGE_MAX))
        conditions = filtered(wanted or OrderFilter(show=show, state=state))
        if (before := _cursor(after)) is not None:
            at, id_ = before
            same = and_(orders.c.placed_at == at, orders.c.id < id_)
            conditions.append(or_(orders.c.placed_at < at, same))
        found = await self._many(conditions, limit + 1)
        last = found[limit - 1] if len(found) > limit else None
        return OrderPage(
            tuple(found[:limit]), None if last is None else f"{last.placed_at}.{last.id}"
        )

    async def _one(self, where: ColumnElement[bool]) -> Order | None:
        found = await self._many([where], 1)
        return found[0] if found else None

    async def _many(self, where: Sequence[ColumnElement[bool]], limit: int) -> list[Order]:
        heads = (
            select(orders)
            .where(*where)
            .order_by(orders.c.placed_at.desc(), orders.c.id.desc())
            .limit(limit)
        )
        async with self._database.read() as conn:
            return await _with_lines(conn, (await conn.execute(heads)).all())


def filtered(wanted: OrderFilter) -> list[ColumnElement[bool]]:
    """The conditions on `orders` that a filter means."""
    columns = orders.c
    conditions: list[ColumnElement[bool]] = []
    for column, value in (
        (columns.show, wanted.show),
        (columns.state, wanted.state),
        (columns.viewer, wanted.viewer),
    ):
        if value is not None:
            conditions.append(column == value)
    if wanted.since is not None:
        conditions.append(columns.placed_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(columns.placed_at < wanted.until)
    if wanted.text:
        part = wanted.text.lower()
        line = order_line.c
        in_lines = exists().where(
            line.order == columns.id,
            or_(
                func.lower(line.sku).contains(part, autoescape=True),
                func.lower(line.title).contains(part, autoescape=True),
            ),
        )
        by_id = func.lower(columns.id).contains(part, autoescape=True)
        conditions.append(or_(by_id, in_lines))
    return conditions


async def _with_lines(conn: AsyncConnection, rows: Sequence[Any]) -> list[Order]:
    """Rows of `orders` as orders; one statement for the lines of all."""
    if not rows:
        return []
    chosen = in_texts(conn, 'l."order"', "ids")
    wanted = text(
        'SELECT l."order", l.sku, l.title, l.quantity, l.unit_amount FROM order_line l '
        f'WHERE {chosen} ORDER BY l."order", l.position'
    )
    lines: defaultdict[str, list[OrderLine]] = defaultdict(list)
    for line in (await conn.execute(wanted, {"ids": texts(row.id for row in rows)})).all():
        lines[line.order].append(OrderLine(line.sku, line.title, line.quantity, line.unit_amount))
    return [_order(row, lines[row.id]) for row in rows]


def _cursor(after: str | None) -> tuple[int, str] | None:
    if not after:
        return None
    at, _, id_ = after.partition(".")
    if not (at.isascii() and at.isdecimal() and len(at) <= 15 and id_):
        return None
    return int(at), id_


def _order(row: Any, lines: list[OrderLine]) -> Order:
    return Order(
        id=row.id,
        rid=row.rid,
        viewer=row.viewer,
        show=row.show,
        state=OrderState(row.state),
        currency=row.currency,
        subtotal=row.subtotal,
        shipping=row.shipping,
        total=row.total,
        lines=tuple(lines),
        placed_at=row.placed_at,
        updated_at=row.updated_at,
        discount=row.discount,
        tax=row.tax,
        refunded=row.refunded,
    )
