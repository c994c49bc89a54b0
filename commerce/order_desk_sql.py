"""What people do to an order: cancel it, give money back, ask for that. One transaction each.

Responsible for opening the transaction, taking the lock of the order, letting the smaller modules
do their part, drawing the conclusion (`follow`) and keeping the answer, all before one commit. It
must not call the provider: a promised refund is carried out afterwards by `refunding`, however
often the process dies in between.

`actor` is who did it; `viewer` given: only an order of that viewer is known. Every method raises
UnknownOrder and Unavailable beside what it names.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import refunds_sql, units_sql
from commerce.database_sql import Database
from commerce.dossier import Dossier
from commerce.dossier_sql import dossier_of
from commerce.errors import (
    NotRefundable,
    OrderMoved,
    PaymentPending,
    RefundTooLarge,
    UnknownOrder,
    UnknownRefund,
)
from commerce.events_sql import add_event
from commerce.fulfilment import Goods, Pick, Unit
from commerce.keep import Keep, keep_answer
from commerce.money_schema_sql import refund
from commerce.order_states_sql import OrderMoney, follow, money_of
from commerce.orders import UnitState
from commerce.payments import PaymentState
from commerce.refunds import Refund, RefundState
from commerce.schema_sql import orders, payment

CAPTURE_RETRY_MS: Final = 1_000
ASKED_MAX: Final = 5
"""Wishes of one order that wait for the host."""
REFUNDABLE: Final = tuple(state.value for state in UnitState)
"""Money goes back for units in any state: a delivered one may be broken, a lost one is gone."""


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order under its lock, in an open transaction."""

    conn: AsyncConnection
    id: str
    rid: str


@asynccontextmanager
async def open_order(
    database: Database, order_id: str, viewer: str | None = None
) -> AsyncIterator[OpenOrder]:
    """Everything about this order waits until the block ends. Raises UnknownOrder."""
    async with database.begin() as conn:
        wanted = select(orders.c.rid, orders.c.viewer).where(orders.c.id == order_id)
        row = (await conn.execute(wanted)).first()
        if row is None or (viewer is not None and row.viewer != viewer):
            raise UnknownOrder
        await units_sql.lock(conn, row.rid)
        yield OpenOrder(conn, order_id, row.rid)


async def closed(order: OpenOrder, now: int, keep: Keep[Dossier] | None) -> Dossier:
    """The last step of each transaction: the state follows, the answer is kept."""
    await follow(order.conn, order.rid, now)
    return await keep_answer(keep, order.conn, await dossier_of(order.conn, order.id))


class SqlOrderDesk:
    """Orders of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cancel(
        self,
        order_id: str,
        picks: Sequence[Pick] | None,
        *,
        goods: Goods,
        reason: str,
        actor: str,
        new_id: str,
        now: int,
        viewer: str | None = None,
        keep: Keep[Dossier] | None = None,
    ) -> Dossier:
        """Units that are still in the shop are not sold after all, and their money goes back.

        `picks` None: all that are left. Money that is only reserved is let go (the whole order
        then; a part of a reservation cannot be). Raises OrderMoved (shipped or cancelled
        meanwhile), PaymentPending (the money is being taken in this moment).
        """
        async with open_order(self._database, order_id, viewer) as order:
            conn = order.conn
            units = await units_sql.units_of(conn, order_id)
            chosen = units_sql.choose(units, picks, (UnitState.SOLD.value,))
            money = await money_of(conn, order.rid)
            whole = len(chosen) == len(units)
            if money is not None and (
                money.state is PaymentState.CAPTURING
                or (money.state is PaymentState.AUTHORISED and not whole)
            ):
                raise PaymentPending(CAPTURE_RETRY_MS)
            keys = [(unit.position, unit.n) for unit in chosen]
            await units_sql.move_units(conn, order_id, keys, UnitState.CANCELLED)
            await units_sql.uncommit(conn, chosen, goods, f"cancel:{order_id}:{new_id}", now)
            await add_event(
                conn, order.rid, "order.cancel", now, actor=actor,
                units=[list(key) for key in keys], goods=goods.value,
            )  # fmt: skip
            await self._free_money(order, money, chosen, reason, actor, new_id, now)
            return await closed(order, now, keep)

    async def _free_money(
        self,
        order: OpenOrder,
        money: OrderMoney | None,
        units: Sequence[Unit],
        reason: str,
        actor: str,
        new_id: str,
        now: int,
    ) -> None:
        if money is None:
            return
        if money.state is PaymentState.AUTHORISED:
            done = await order.conn.execute(
                update(payment)
                .where(
                    payment.c.id == money.payment,
                    payment.c.state == PaymentState.AUTHORISED.value,
                )
                .values(
                    state=PaymentState.CANCEL_REQUESTED.value, updated_at=now, next_at=now, tries=0
                )
            )
            if done.rowcount != 1:
                raise PaymentPending(CAPTURE_RETRY_MS)
            await add_event(
                order.conn, order.rid, "payment.cancel_requested", now, payment=money.payment
            )
            return
        amount = min(sum(unit.amount - unit.refunded for unit in units), money.left)
        if amount:
            await refunds_sql.promise(
                order.conn, id_=new_id, rid=order.rid, order=order.id, units=units,
                amount=amount, reason=reason, by=actor, now=now,
            )  # fmt: skip

    async def give_back(
        self,
        order_id: str,
        picks: Sequence[Pick] | None,
        amount: int | None,
        *,
        reason: str,
        actor: str,
        new_id: str,
        now: int,
        keep: Keep[Dossier] | None = None,
    ) -> Dossier:
        """The host gives money back: for units, an amount, or an amount for units.

        Neither given: all that is left. Raises OrderMoved, NotRefundable, RefundTooLarge.
        """
        async with open_order(self._database, order_id) as order:
            units = await units_sql.units_of(order.conn, order_id)
            chosen = _refundable(units, picks)
            await refunds_sql.promise(
                order.conn, id_=new_id, rid=order.rid, order=order_id, units=chosen,
                amount=amount, reason=reason, by=actor, now=now,
            )  # fmt: skip
            return await closed(order, now, keep)

    async def ask_back(
        self,
        order_id: str,
        picks: Sequence[Pick] | None,
        amount: int | None,
        *,
        reason: str,
        viewer: str,
        new_id: str,
        now: int,
        keep: Keep[Dossier] | None = None,
    ) -> Dossier:
        """The buyer asks for money; the host decides. Raises as `give_back`; OrderMoved also when
        a wish for these units, or `ASKED_MAX` of them, are waiting."""
        async with open_order(self._database, order_id, viewer) as order:
            asked = await refunds_sql.asked_units(order.conn, order.rid)
            units = await units_sql.units_of(order.conn, order_id)
            free = [unit for unit in units if (unit.position, unit.n) not in asked]
            chosen = _refundable(free, picks)
            money = await money_of(order.conn, order.rid)
            left = sum(unit.amount - unit.refunded for unit in chosen)
            if money is None or not min(left, money.left):
                raise NotRefundable
            wanted = left if amount is None else amount
            if not 0 < wanted <= min(left, money.left):
                raise RefundTooLarge(min(left, money.left))
            known = await refunds_sql.refunds_of(order.conn, order.rid)
            if sum(one.state is RefundState.ASKED for one in known) >= ASKED_MAX:
                raise OrderMoved(RefundState.ASKED.value)
            wish = Refund(
                new_id, order.rid, money.payment, order_id, None, RefundState.ASKED, wanted,
                money.currency, reason, viewer, None, "", now, now, 0,
            )  # fmt: skip
            keys = [(unit.position, unit.n) for unit in chosen]
            await refunds_sql.ask(order.conn, wish, keys, now)
            return await closed(order, now, keep)

    async def decide(
        self,
        refund_id: str,
        *,
        approve: bool,
        actor: str,
        now: int,
        keep: Keep[Dossier] | None = None,
    ) -> Dossier:
        """The host says yes or no to a wish. Raises UnknownRefund, OrderMoved, NotRefundable."""
        row = await self._refund(refund_id)
        async with open_order(self._database, row.order) as order:
            if approve:
                units = await units_sql.units_of(order.conn, order.id)
                wanted = {(position, n) for position, n in row.units or []}
                chosen = [unit for unit in units if (unit.position, unit.n) in wanted]
                done = await refunds_sql.approve(order.conn, refund_id, chosen, actor, now)
            else:
                done = await refunds_sql.reject(order.conn, refund_id, actor, now)
            if not done:
                wanted_state = select(refund.c.state).where(refund.c.id == refund_id)
                raise OrderMoved((await order.conn.execute(wanted_state)).scalar_one())
            return await closed(order, now, keep)

    async def _refund(self, refund_id: str) -> Any:
        async with self._database.read() as conn:
            row = (await conn.execute(select(refund).where(refund.c.id == refund_id))).first()
        if row is None or row.order is None:
            raise UnknownRefund
        return row


def _refundable(units: Sequence[Unit], picks: Sequence[Pick] | None) -> list[Unit]:
    """Those with money left first: giving back "one of two" twice gives back both."""
    ordered = sorted(units, key=lambda unit: (unit.refunded >= unit.amount, unit.position, unit.n))
    return units_sql.choose(ordered, picks, REFUNDABLE)
