"""Reading everything about one order in one snapshot, and its timeline.

Responsible for putting rows of many tables together. It must not change any. The timeline is not a
table of its own kept in step by discipline: it is the events (`order_event`), the moves of stock,
the ledger's entries and the provider's webhooks, each of which was written by what it tells of.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import ledger_sql, orders_sql, pricing_sql, refunds_sql, units_sql
from commerce.database_sql import Database
from commerce.dossier import Dossier, Happening
from commerce.errors import UnknownOrder
from commerce.events_sql import events_of
from commerce.fulfilment import Goods, Return, ReturnState, Shipment, ShipmentState, Unit
from commerce.money_schema_sql import dispute, hold_promise, refund, return_case, shipment
from commerce.order_states_sql import money_of
from commerce.orders import UnitState
from commerce.payments import PaymentState
from commerce.schema_sql import orders, payment, psp_inbox, reservation, stock_ledger

_CANCELLABLE_WHILE = (PaymentState.AUTHORISED, PaymentState.CAPTURED)


async def dossier_of(conn: AsyncConnection, order_id: str) -> Dossier:
    """In the caller's transaction. Raises UnknownOrder."""
    order = await orders_sql.read_order(conn, order_id)
    if order is None:
        raise UnknownOrder
    units = await units_sql.units_of(conn, order_id)
    money = await money_of(conn, order.rid, lock=False)
    left = sum(unit.amount - unit.refunded for unit in units)
    waiting = any(unit.state == UnitState.SOLD for unit in units)
    return Dossier(
        order=order,
        units=tuple(units),
        steps=await pricing_sql.steps_of(conn, order.rid),
        refunds=tuple(await refunds_sql.refunds_of(conn, order.rid)),
        returns=tuple(await returns_of(conn, order_id)),
        shipments=tuple(await shipments_of(conn, order_id, units)),
        refundable=0 if money is None else min(left, money.left),
        cancellable=waiting and money is not None and money.state in _CANCELLABLE_WHILE,
    )


async def returns_of(conn: AsyncConnection, order_id: str) -> list[Return]:
    """All of an order, oldest first."""
    wanted = (
        select(return_case)
        .where(return_case.c.order == order_id)
        .order_by(return_case.c.created_at, return_case.c.id)
    )
    return [read_return(row) for row in (await conn.execute(wanted)).all()]


def read_return(row: Any) -> Return:
    """A row of `return_case`."""
    return Return(
        id=row.id,
        rid=row.rid,
        order=row.order,
        state=ReturnState(row.state),
        reason=row.reason,
        asked_by=row.asked_by,
        units=tuple((position, n) for position, n in row.units),
        stock=None if row.stock is None else Goods(row.stock),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


async def shipments_of(
    conn: AsyncConnection, order_id: str, units: Sequence[Unit]
) -> list[Shipment]:
    """All of an order, oldest first."""
    wanted = (
        select(shipment)
        .where(shipment.c.order == order_id)
        .order_by(shipment.c.created_at, shipment.c.id)
    )
    return [
        Shipment(
            id=row.id,
            rid=row.rid,
            order=row.order,
            state=ShipmentState(row.state),
            carrier=row.carrier,
            tracking=row.tracking,
            units=tuple((unit.position, unit.n) for unit in units if unit.shipment == row.id),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )
        for row in (await conn.execute(wanted)).all()
    ]


class SqlDossiers:
    """Reading. Raises Unavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, order_id: str) -> Dossier:
        """Raises UnknownOrder."""
        async with self._database.read() as conn:
            return await dossier_of(conn, order_id)

    async def timeline(self, order_id: str) -> list[Happening]:
        """Everything that happened, oldest first. Raises UnknownOrder."""
        async with self._database.read() as conn:
            wanted = select(orders.c.rid).where(orders.c.id == order_id)
            rid = (await conn.execute(wanted)).scalar()
            if rid is None:
                raise UnknownOrder
            found = await _of_hold(conn, rid)
            found += await _of_stock(conn, rid, order_id)
            found += [
                Happening(at, kind, actor, data)
                for kind, actor, data, at in await events_of(conn, rid)
            ]
            found += await _of_provider(conn, rid)
            found += [
                Happening(
                    entry["at"],
                    "ledger",
                    "",
                    {name: entry[name] for name in ("ref", "currency", "postings")},
                )
                for entry in await ledger_sql.entries_of(conn, rid)
            ]
        return sorted(found, key=lambda one: one.at)  # stable: of one instant, as they were read


async def _of_hold(conn: AsyncConnection, rid: str) -> list[Happening]:
    row = (await conn.execute(select(reservation).where(reservation.c.rid == rid))).one()
    promised = (await conn.execute(select(hold_promise).where(hold_promise.c.rid == rid))).first()
    data: dict[str, object] = {
        "rid": rid,
        "drop": row.drop,
        "total": row.total,
        "currency": row.currency,
        "receipt": [row.epoch, row.n],
    }
    if promised is not None:
        data["promise"] = {
            "source": promised.source,
            "pinned": promised.pinned,
            "pinned_at": promised.pinned_at,
            "media_ms": promised.media_ms,
        }
    return [Happening(row.created_at, "pressed", row.viewer, data)]


async def _of_stock(conn: AsyncConnection, rid: str, order_id: str) -> list[Happening]:
    refs = [rid, f"lost:{order_id}"]
    for table in (shipment, return_case):
        ids = await conn.execute(select(table.c.id).where(table.c.order == order_id))
        refs += list(ids.scalars())
    wanted = (
        select(stock_ledger)
        .where(stock_ledger.c.ref.in_(refs) | stock_ledger.c.ref.startswith(f"cancel:{order_id}:"))
        .order_by(stock_ledger.c.id)
    )
    return [
        Happening(
            row.at,
            f"stock.{row.kind}",
            "",
            {
                "sku": row.sku,
                "on_hand": row.d_on_hand,
                "held": row.d_held,
                "committed": row.d_committed,
            },
        )
        for row in (await conn.execute(wanted)).all()
    ]


async def _of_provider(conn: AsyncConnection, rid: str) -> list[Happening]:
    """Webhooks and listed events about the objects of this hold, when they came."""
    objects: list[str] = []
    for table, columns in (
        (payment, ("session_id", "intent_id")),
        (refund, ("provider_id",)),
        (dispute, ("provider_id",)),
    ):
        for row in (await conn.execute(select(table).where(table.c.rid == rid))).all():
            objects += [getattr(row, name) for name in columns if getattr(row, name)]
    if not objects:
        return []
    wanted = (
        select(psp_inbox)
        .where(psp_inbox.c.object_id.in_(objects))
        .order_by(psp_inbox.c.received_at, psp_inbox.c.event_id)
    )
    return [
        Happening(
            row.received_at,
            "provider.event",
            "",
            {"event": row.event_id, "type": row.kind, "object": row.object_id, "state": row.state},
        )
        for row in (await conn.execute(wanted)).all()
    ]
