"""Rows of `payment`: reading them, moving them by compare-and-set, telling of them.

Responsible for the statements that every transaction about a payment is made of. It must not open
transactions nor know which moves belong together (`payments_sql`). A move along `payments.MOVES`
writes the event of the timeline with it, so no path can forget to.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import reservations_sql
from commerce.events_sql import add_event
from commerce.outbox_sql import SqlOutbox
from commerce.payments import MOVES, Payment, PaymentState
from commerce.pricing import Adjustment
from commerce.schema_sql import payment


async def state_of(conn: AsyncConnection, id_: str) -> PaymentState:
    """Where a payment is, its row locked."""
    wanted = select(payment.c.state).where(payment.c.id == id_).with_for_update()
    return PaymentState((await conn.execute(wanted)).scalar_one())


async def cas(
    conn: AsyncConnection,
    id_: str,
    to: PaymentState,
    now: int,
    *,
    only: Sequence[PaymentState] | None = None,
    **values: object,
) -> bool:
    """Moves along the table, or not. A move starts the count of tries anew."""
    sources = [state.value for state in (MOVES[to] if only is None else only)]
    done = await conn.execute(
        update(payment)
        .where(payment.c.id == id_, payment.c.state.in_(sources))
        .values(state=to.value, updated_at=now, tries=0, **values)
    )
    if done.rowcount == 1:
        wanted = select(payment.c.rid).where(payment.c.id == id_)
        rid = (await conn.execute(wanted)).scalar_one()
        await add_event(conn, rid, f"payment.{to.value}", now, payment=id_)
    return done.rowcount == 1


async def set_values(conn: AsyncConnection, id_: str, now: int, **values: object) -> None:
    """Columns of one row."""
    await conn.execute(update(payment).where(payment.c.id == id_).values(updated_at=now, **values))


async def of_rid(conn: AsyncConnection, rid: str) -> list[Payment]:
    """All payments of a hold, newest first, without their steps."""
    wanted = (
        select(payment)
        .where(payment.c.rid == rid)
        .order_by(payment.c.created_at.desc(), payment.c.id.desc())
    )
    return [as_payment(row) for row in (await conn.execute(wanted)).all()]


async def tell_payment(conn: AsyncConnection, rid: str, state: str, now: int) -> None:
    """The fact that the viewer hears of a payment."""
    hold = await reservations_sql.find(conn, rid)
    if hold is None:  # a payment row refers to its reservation
        raise LookupError(rid)
    payload = {"rid": rid, "viewer": hold.viewer, "show": hold.show, "state": state}
    await SqlOutbox.add(conn, "payment", rid, payload, now)


def as_payment(row: Row[Any], steps: tuple[Adjustment, ...] = ()) -> Payment:
    """A row as the rest of the program knows it."""
    return Payment(
        id=row.id,
        rid=row.rid,
        session=row.session_id,
        intent=row.intent_id,
        state=PaymentState(row.state),
        amount=row.amount,
        shipping=row.shipping,
        currency=row.currency,
        captured=row.captured,
        url=row.url,
        created_at=row.created_at,
        tries=row.tries,
        steps=steps,
    )
