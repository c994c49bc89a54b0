"""What people do with the goods of an order: hand parcels over, take returns. One transaction each.

Responsible for the rows of `shipment` and `return_case`, for the units that move with them and for
the money that follows a return. It must not call the provider. See `order_desk_sql` for the shape
of each transaction and for what `actor`, `viewer` and `keep` mean.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import refunds_sql, units_sql
from commerce.database_sql import Database
from commerce.dossier import Dossier
from commerce.dossier_sql import read_return
from commerce.errors import OrderMoved, PaymentPending, UnknownReturn, UnknownShipment
from commerce.events_sql import add_event
from commerce.fulfilment import (
    RETURN_MOVES,
    SHIPMENT_MOVES,
    Goods,
    Pick,
    ReturnState,
    ShipmentState,
)
from commerce.keep import Keep
from commerce.money_schema_sql import return_case, shipment
from commerce.order_desk_sql import CAPTURE_RETRY_MS, OpenOrder, closed, open_order
from commerce.order_states_sql import money_of
from commerce.orders import UnitState
from commerce.payments import PaymentState

OPEN_RETURNS_MAX: Final = 20
"""Returns of one order that are not over."""
_OUT: Final = (UnitState.SHIPPED.value, UnitState.DELIVERED.value)


class SqlFulfilment:
    """Parcels and returns of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Shipments

    async def ship(
        self,
        order_id: str,
        picks: Sequence[Pick] | None,
        *,
        carrier: str,
        tracking: str,
        actor: str,
        new_id: str,
        now: int,
        keep: Keep[Dossier] | None = None,
    ) -> Dossier:
        """Units are handed over to a carrier; `picks` None: all that are left in the shop.

        Only what is paid is shipped: raises PaymentPending before that, and OrderMoved when a unit
        was shipped or cancelled meanwhile.
        """
        async with open_order(self._database, order_id) as order:
            conn = order.conn
            units = await units_sql.units_of(conn, order_id)
            chosen = units_sql.choose(units, picks, (UnitState.SOLD.value,))
            money = await money_of(conn, order.rid)
            if money is None or money.state is not PaymentState.CAPTURED:
                raise PaymentPending(CAPTURE_RETRY_MS)
            keys = [(unit.position, unit.n) for unit in chosen]
            await units_sql.move_units(conn, order_id, keys, UnitState.SHIPPED, shipment=new_id)
            await units_sql.leave(conn, chosen, new_id, now)
            await conn.execute(
                insert(shipment).values(
                    id=new_id, rid=order.rid, order=order_id,
                    state=ShipmentState.SHIPPED.value, carrier=carrier, tracking=tracking,
                    created_at=now, updated_at=now,
                )
            )  # fmt: skip
            await add_event(
                conn, order.rid, "shipment.shipped", now, actor=actor, shipment=new_id,
                units=[list(key) for key in keys],
            )  # fmt: skip
            return await closed(order, now, keep)

    async def arrive(
        self,
        shipment_id: str,
        to: ShipmentState,
        *,
        actor: str,
        now: int,
        keep: Keep[Dossier] | None = None,
    ) -> Dossier:
        """A parcel was delivered or lost. Raises UnknownShipment, OrderMoved."""
        order_id = await self._order_of(shipment, shipment_id)
        if order_id is None:
            raise UnknownShipment
        async with open_order(self._database, order_id) as order:
            sources = [one.value for one, targets in SHIPMENT_MOVES.items() if to in targets]
            await _cas(order.conn, shipment, shipment_id, sources, to.value, now)
            units = await units_sql.units_of(order.conn, order_id)
            on_the_way = (UnitState.SHIPPED.value, UnitState.LOST.value)
            keys = [
                (unit.position, unit.n)
                for unit in units
                if unit.shipment == shipment_id
                and unit.state in on_the_way  # a unit may have come back before the news
                and unit.state != to.value
            ]
            await units_sql.move_units(order.conn, order_id, keys, UnitState(to.value))
            await add_event(
                order.conn, order.rid, f"shipment.{to.value}", now, actor=actor,
                shipment=shipment_id,
            )  # fmt: skip
            return await closed(order, now, keep)

    # Returns

    async def ask_return(
        self,
        order_id: str,
        picks: Sequence[Pick] | None,
        *,
        reason: str,
        actor: str,
        new_id: str,
        now: int,
        viewer: str | None = None,
        keep: Keep[Dossier] | None = None,
    ) -> Dossier:
        """Units that were shipped are to come back. Raises OrderMoved (not shipped, or in another
        return)."""
        async with open_order(self._database, order_id, viewer) as order:
            units = await units_sql.units_of(order.conn, order_id)
            free = [unit for unit in units if unit.return_case is None]
            chosen = units_sql.choose(free, picks, _OUT)
            keys = [(unit.position, unit.n) for unit in chosen]
            await units_sql.mark_units(order.conn, order_id, keys, free=True, return_case=new_id)
            await order.conn.execute(
                insert(return_case).values(
                    id=new_id, rid=order.rid, order=order_id, state=ReturnState.REQUESTED.value,
                    reason=reason, asked_by=actor, units=[list(key) for key in keys],
                    stock=None, created_at=now, updated_at=now,
                )
            )  # fmt: skip
            await add_event(
                order.conn, order.rid, "return.requested", now, actor=actor,
                units=[list(key) for key in keys], **{"return": new_id},
            )  # fmt: skip
            return await closed(order, now, keep)

    async def decide_return(
        self,
        return_id: str,
        *,
        approve: bool,
        actor: str,
        now: int,
        keep: Keep[Dossier] | None = None,
    ) -> Dossier:
        """The host says yes or no; no also to one that never arrived. Raises UnknownReturn,
        OrderMoved."""
        order_id = await self._order_of(return_case, return_id)
        if order_id is None:
            raise UnknownReturn
        to = ReturnState.APPROVED if approve else ReturnState.REJECTED
        async with open_order(self._database, order_id) as order:
            await _move_return(order, return_id, to, actor, now)
            if not approve:
                found = await _return(order.conn, return_id)
                await units_sql.mark_units(
                    order.conn, order_id, found.units, free=False, return_case=None
                )
            return await closed(order, now, keep)

    async def receive(
        self,
        return_id: str,
        goods: Goods,
        *,
        refund: bool,
        actor: str,
        new_id: str,
        now: int,
        keep: Keep[Dossier] | None = None,
    ) -> Dossier:
        """The goods are back: restocked or written off, and their money promised back if `refund`.

        Money and goods are decided apart: without `refund` the host can still give it back later.
        Raises UnknownReturn, OrderMoved.
        """
        order_id = await self._order_of(return_case, return_id)
        if order_id is None:
            raise UnknownReturn
        async with open_order(self._database, order_id) as order:
            conn = order.conn
            await _move_return(order, return_id, ReturnState.RECEIVED, actor, now, goods=goods)
            found = await _return(conn, return_id)
            wanted = set(found.units)
            units = [
                unit
                for unit in await units_sql.units_of(conn, order_id)
                if (unit.position, unit.n) in wanted
            ]
            await units_sql.move_units(conn, order_id, found.units, UnitState.RETURNED)
            await units_sql.come_back(conn, units, goods, return_id, now)
            money = await money_of(conn, order.rid)
            left = sum(unit.amount - unit.refunded for unit in units)
            amount = min(left, money.left) if money is not None else 0
            if refund and amount:
                await refunds_sql.promise(
                    conn, id_=new_id, rid=order.rid, order=order_id, units=units, amount=amount,
                    reason=found.reason, by=actor, now=now, return_id=return_id,
                )  # fmt: skip
            return await closed(order, now, keep)

    async def _order_of(self, table: Table, id_: str) -> str | None:
        async with self._database.read() as conn:
            wanted = select(table.c.order).where(table.c.id == id_)
            found: str | None = (await conn.execute(wanted)).scalar()
        return found


async def _return(conn: AsyncConnection, return_id: str) -> Any:
    wanted = select(return_case).where(return_case.c.id == return_id)
    return read_return((await conn.execute(wanted)).one())


async def _move_return(
    order: OpenOrder,
    return_id: str,
    to: ReturnState,
    actor: str,
    now: int,
    goods: Goods | None = None,
) -> None:
    sources = [one.value for one, targets in RETURN_MOVES.items() if to in targets]
    if to is ReturnState.RECEIVED:
        sources.remove(ReturnState.REFUNDED.value)  # only a bank's return of the money does that
    values = {} if goods is None else {"stock": goods.value}
    await _cas(order.conn, return_case, return_id, sources, to.value, now, **values)
    data: dict[str, object] = {"return": return_id, **values}
    await add_event(order.conn, order.rid, f"return.{to.value}", now, actor=actor, **data)


async def _cas(
    conn: AsyncConnection,
    table: Table,
    id_: str,
    sources: Sequence[str],
    to: str,
    now: int,
    **values: object,
) -> None:
    """Moves a parcel or a return along its table. Raises OrderMoved with where it is."""
    done = await conn.execute(
        update(table)
        .where(table.c.id == id_, table.c.state.in_(sources))
        .values(state=to, updated_at=now, **values)
    )
    if done.rowcount != 1:
        wanted = select(table.c.state).where(table.c.id == id_)
        raise OrderMoved((await conn.execute(wanted)).scalar_one())
