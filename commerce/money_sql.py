"""What money that was taken means for the record: booking it, and finding a home for late money.

Responsible for the ledger entry of a capture, for money that arrives for a hold that is over (sold
anew if there are units, given back by itself if not), and for an order whose reserved money has
vanished. All of it takes the caller's connection and the lock of the reservation's row. It must not
know the provider.

Late money is sold anew only for a hold that ran out of time: what its buyer cancelled is not
bought, so that money goes back. The drop's cap counts for it as for everybody.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import ledger, ledger_sql, orders_sql, reservations_sql, units_sql
from commerce.bulk_sql import add_to_rows
from commerce.errors import OrderMoved
from commerce.events_sql import add_event
from commerce.fulfilment import Goods
from commerce.ledger import Account
from commerce.order_states_sql import OrderMoney, follow
from commerce.orders import UnitState
from commerce.payments import PaymentState
from commerce.pricing_sql import steps_paid
from commerce.refunds import SeenRefund
from commerce.refunds_sql import adopt_unallocated, promise_unallocated
from commerce.schema_sql import orders, payment, sale_drop_line, viewer_use
from commerce.stock import Hold, HoldState

_OVER_UNITS: Final = "t.units IS NOT NULL AND t.taken + x.taken > t.units"


class _NoUnit(Exception):
    """Rolls the attempt to sell anew back."""


async def book_capture(
    conn: AsyncConnection, payment_id: str, rid: str, amount: int, now: int
) -> None:
    """The money of an order is at the provider."""
    head = (await conn.execute(select(orders).where(orders.c.rid == rid))).one()
    postings = [
        ledger.Posting(Account.PROVIDER, amount),
        *ledger.sale(head.subtotal, head.discount, head.shipping, head.tax),
    ]
    await ledger_sql.post(conn, f"capture:{payment_id}", rid, head.currency, postings, now)


async def settle_late(
    conn: AsyncConnection,
    payment_id: str,
    rid: str,
    new_id: str,
    now: int,
    back: Sequence[SeenRefund] = (),
) -> None:
    """Money without a unit has just been recorded: sell anew, or promise it back.

    `back`: what the provider has given back of it already, and this record does not know. Then
    nothing is sold anew: those are counted, and the rest is promised.
    """
    row = (await conn.execute(select(payment).where(payment.c.id == payment_id))).one()
    if not row.captured:
        await add_event(conn, rid, "payment.foreign_money", now, payment=payment_id)
        return  # taken in another currency: a person must look, and reconciling shows it
    taken = ledger.moved(Account.UNALLOCATED, Account.PROVIDER, row.captured)
    await ledger_sql.post(conn, f"capture:{payment_id}", rid, row.currency, taken, now)
    hold = await reservations_sql.find(conn, rid)
    if (
        hold is not None
        and not back
        and row.captured == row.amount
        and await _sell_anew(conn, hold, row, new_id, now)
    ):
        await follow(conn, rid, now)
        return
    money = OrderMoney(
        row.id, PaymentState.UNALLOCATED, row.currency, row.captured, row.captured - row.refunded
    )
    for one in back:
        counted = await adopt_unallocated(conn, rid, money, one, now)
        money = replace(money, left=money.left - counted)
    if money.left:
        await promise_unallocated(conn, new_id, rid, money, now)
    await follow(conn, rid, now)


async def _sell_anew(conn: AsyncConnection, hold: Hold, paid: Any, order_id: str, now: int) -> bool:
    """`paid` is the row of the payment. False, and nothing changed, if there is no unit."""
    ordered = await conn.execute(select(orders.c.id).where(orders.c.rid == hold.rid))
    if hold.state is not HoldState.EXPIRED or ordered.first() is not None:
        return False  # a second payment of one hold never buys a second time
    try:
        async with conn.begin_nested():
            await _take_units(conn, hold, now)
            steps = await steps_paid(conn, hold, paid.amount, paid.shipping, now)
            await orders_sql.place(conn, order_id, hold, steps, now)
            done = await conn.execute(
                update(payment)
                .where(payment.c.id == paid.id, payment.c.state == PaymentState.UNALLOCATED)
                .values(state=PaymentState.CAPTURED.value)
            )
            if done.rowcount != 1:
                raise _NoUnit
    except _NoUnit:
        return False
    head = (await conn.execute(select(orders).where(orders.c.id == order_id))).one()
    postings = [
        ledger.Posting(Account.UNALLOCATED, head.total),
        *ledger.sale(head.subtotal, head.discount, head.shipping, head.tax),
    ]
    ref = f"allocated:{paid.id}"
    await ledger_sql.post(conn, ref, hold.rid, hold.currency, postings, now)
    await add_event(conn, hold.rid, "payment.allocated", now, payment=paid.id, order=order_id)
    return True


async def _take_units(conn: AsyncConnection, hold: Hold, now: int) -> None:
    """As a press would, without a hold in between. Raises _NoUnit."""
    count: Counter[str] = Counter()
    for line in hold.lines:
        count[line.sku] += line.quantity
    used = [
        {"drop": hold.drop, "viewer": hold.viewer, "sku": sku, "units": units}
        for sku, units in sorted(count.items())
    ]
    taken = [
        {"drop": hold.drop, "sku": sku, "taken": units} for sku, units in sorted(count.items())
    ]
    await add_to_rows(conn, viewer_use, used, key=("drop", "viewer", "sku"), column="units")
    within = await add_to_rows(
        conn, sale_drop_line, taken, key=("drop", "sku"), column="taken", unless=_OVER_UNITS
    )
    if within < len(taken) or not await units_sql.commit_anew(conn, count, hold.rid, now):
        raise _NoUnit


async def give_up_order(conn: AsyncConnection, rid: str, now: int) -> None:
    """The reserved money of an order is gone (an authorisation lapses after a week).

    Nothing can have been shipped, because only what is paid is shipped: the units are everybody's.
    """
    order = (await conn.execute(select(orders.c.id).where(orders.c.rid == rid))).scalar()
    if order is None:
        return
    units = await units_sql.units_of(conn, order)
    waiting = [unit for unit in units if unit.state == UnitState.SOLD]
    if not waiting:
        return
    keys = [(unit.position, unit.n) for unit in waiting]
    try:
        await units_sql.move_units(conn, order, keys, UnitState.CANCELLED)
    except OrderMoved:  # a person was faster, under the same lock: nothing is left to do
        return
    await units_sql.uncommit(conn, waiting, Goods.RESTOCK, f"lost:{order}", now)
    await add_event(conn, rid, "order.payment_lost", now, order=order)
