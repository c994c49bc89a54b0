"""The state of an order follows its units and its money; and finding the money of an order.

Responsible for moving `orders.state` to what `commerce.orders.derive` says, for the sum that has
arrived back, and for telling both. It must not move units or payments: it looks at what others have
done in the same transaction and draws the conclusion, so no path can forget to.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.events_sql import add_event
from commerce.money_schema_sql import dispute, order_unit, refund
from commerce.orders import MOVES, OrderState, UnitState, derive
from commerce.outbox_sql import SqlOutbox
from commerce.payments import PaymentState
from commerce.refunds import DisputeState, RefundState
from commerce.schema_sql import orders, payment

MONEYED: Final = (
    PaymentState.AUTHORISED.value,
    PaymentState.CAPTURING.value,
    PaymentState.CAPTURED.value,
)
"""States of the payment by which an order was or is being paid."""
_PENDING: Final = (
    PaymentState.AUTHORISED.value,
    PaymentState.CAPTURING.value,
    PaymentState.CANCEL_REQUESTED.value,
)


@dataclass(frozen=True, slots=True)
class OrderMoney:
    """The payment of an order. `left`: what can still be given back, chargebacks taken off."""

    payment: str
    state: PaymentState
    currency: str
    captured: int
    left: int


async def money_of(conn: AsyncConnection, rid: str, *, lock: bool = True) -> OrderMoney | None:
    """The payment that pays this order, its row locked; None: there is none (any more)."""
    wanted = (
        select(payment)
        .where(payment.c.rid == rid, payment.c.state.in_(MONEYED))
        .order_by(payment.c.captured.desc())
        .limit(1)
    )
    if lock:
        wanted = wanted.with_for_update()
    row = (await conn.execute(wanted)).first()
    if row is None:
        return None
    left = row.captured - row.refunded - await _disputed(conn, row.id)
    return OrderMoney(row.id, PaymentState(row.state), row.currency, row.captured, max(left, 0))


async def follow(conn: AsyncConnection, rid: str, now: int) -> None:
    """Moves the order of a hold to where its units and its money are, and tells it if it moved."""
    head = (await conn.execute(select(orders).where(orders.c.rid == rid))).first()
    if head is None:
        return
    states = await conn.execute(select(order_unit.c.state).where(order_unit.c.order == head.id))
    back = await _arrived(conn, refund.c.order == head.id)
    captured, owed = await _money(conn, rid)
    units = [UnitState(state) for state in states.scalars()]
    to = derive(units, captured=captured, owed=owed)
    if to is OrderState.PLACED and head.state != OrderState.PLACED:
        to = OrderState(head.state)  # paid, and its payment is not visible here
    moved = to.value != head.state and to in MOVES[OrderState(head.state)]
    if not moved and back == head.refunded:
        return
    state = to if moved else OrderState(head.state)
    done = await conn.execute(
        update(orders)
        .where(orders.c.id == head.id, orders.c.state == head.state)
        .values(state=state.value, refunded=back, updated_at=now)
    )
    if done.rowcount != 1:
        return
    if moved:
        await add_event(conn, rid, f"order.{state.value}", now, order=head.id)
    await tell_order(conn, head, state, now)


async def tell_order(conn: AsyncConnection, head: Any, state: OrderState, now: int) -> None:
    """The fact that viewers and consoles hear; `head` is a row of `orders`."""
    payload = {
        "order": head.id,
        "rid": head.rid,
        "viewer": head.viewer,
        "show": head.show,
        "state": state.value,
    }
    await SqlOutbox.add(conn, "order", head.rid, payload, now)


async def _money(conn: AsyncConnection, rid: str) -> tuple[bool, bool]:
    """(something was captured for the order, something is owed or reserved)."""
    rows = (await conn.execute(select(payment).where(payment.c.rid == rid))).all()
    captured = any(row.state == PaymentState.CAPTURED for row in rows)
    taken = sum(row.captured for row in rows)
    back = await _arrived(conn, refund.c.rid == rid)
    lost = await conn.execute(
        select(func.coalesce(func.sum(dispute.c.amount), 0)).where(
            dispute.c.rid == rid, dispute.c.state == DisputeState.LOST.value
        )
    )
    pending = any(row.state in _PENDING for row in rows)
    return captured, pending or taken - back - int(lost.scalar_one()) > 0


async def _arrived(conn: AsyncConnection, condition: Any) -> int:
    wanted = select(func.coalesce(func.sum(refund.c.amount), 0)).where(
        condition, refund.c.state == RefundState.SUCCEEDED.value
    )
    return int((await conn.execute(wanted)).scalar_one())


async def _disputed(conn: AsyncConnection, payment_id: str) -> int:
    wanted = select(func.coalesce(func.sum(dispute.c.amount), 0)).where(
        dispute.c.payment == payment_id,
        dispute.c.state.in_((DisputeState.OPEN.value, DisputeState.LOST.value)),
    )
    return int((await conn.execute(wanted)).scalar_one())
