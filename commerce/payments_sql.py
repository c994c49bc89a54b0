"""Payments in the record: the transactions in which payment, hold and order move together.

Responsible for the rows of `payment` and for composing a move of the payment with the move of the
reservation, the order and the facts in ONE commit, because between two commits a process can die.
It must not call the provider: what the provider says comes in as `Seen`, already judged.

Each transaction first locks the reservation's row, then the payment's: two that concern the same
hold take turns, never wait for each other in a circle, and the second finds the compare-and-set
lost. `next_at` is when the poller looks again; null means that nothing more can happen.
"""

import logging
from dataclasses import asdict, replace
from typing import Any, Final

from sqlalchemy import and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import money_sql, orders_sql, reservations_sql
from commerce.database_sql import Database
from commerce.errors import BadCurrency, HoldEnded, PaymentOpen, UnknownHold
from commerce.events_sql import add_event
from commerce.keep import Keep, keep_answer
from commerce.money_schema_sql import hold_promise
from commerce.order_states_sql import follow
from commerce.payment_rows_sql import (
    as_payment,
    cas,
    of_rid,
    set_values,
    state_of,
    tell_payment,
)
from commerce.payments import (
    MOVES,
    PAYABLE,
    SHOWN,
    Delivery,
    Payment,
    PaymentPage,
    PaymentState,
    Sale,
    Seen,
)
from commerce.people_sql import SqlPeople
from commerce.pricing import SHIPPING, sum_of, total_of
from commerce.pricing_sql import fix_steps, same_coupon, steps_of, steps_paid
from commerce.schema_sql import payment, reservation, shop
from commerce.stock import Hold, HoldState
from commerce.units_sql import lock

DEADLINE: Final = "deadline"
"""Why a hold is closing when its time ran out; any other reason was somebody's wish."""
LOOK_AFTER_MS: Final = 60_000
"""A page that is simply open is looked at this rarely: webhooks and the event list are faster."""
LOOK_AFTER_MAX_MS: Final = 600_000
URGENT_AFTER_MS: Final = 1_000
"""Money that is authorised, or a page that must end: looked at again soon, then more rarely."""
URGENT_AFTER_MAX_MS: Final = 60_000
_UNDECIDED: Final = (
    *PAYABLE,
    PaymentState.CANCEL_REQUESTED,
    PaymentState.AUTHORISED,
    PaymentState.CAPTURING,
)

_log = logging.getLogger(__name__)


class SqlPayments:
    """Payments of one database through one provider. Methods raise Unavailable when it is away."""

    def __init__(self, database: Database, provider: str, people: SqlPeople) -> None:
        self._database = database
        self._provider = provider
        self._people = people

    # Looking

    async def find(self, id_: str) -> tuple[Payment, Hold] | None:
        """A payment and its hold, as of one moment."""
        async with self._database.read() as conn:
            row = (await conn.execute(select(payment).where(payment.c.id == id_))).first()
            if row is None:
                return None
            hold = await reservations_sql.find(conn, row.rid)
            steps = await steps_of(conn, row.rid)
        return None if hold is None else (as_payment(row, steps), hold)

    async def standing(self, id_: str) -> tuple[Payment, HoldState] | None:
        """As `find`, without what was bought: one statement for who only wants to move it."""
        wanted = (
            select(payment, reservation.c.state.label("hold_state"))
            .join(reservation, reservation.c.rid == payment.c.rid)
            .where(payment.c.id == id_)
        )
        async with self._database.read() as conn:
            row = (await conn.execute(wanted)).first()
        return None if row is None else (as_payment(row), HoldState(row.hold_state))

    async def by_object(self, object_id: str) -> tuple[str, PaymentState] | None:
        """The payment whose session or intent this is; None: of none, or not known yet."""
        wanted = select(payment.c.id, payment.c.state).where(
            or_(payment.c.session_id == object_id, payment.c.intent_id == object_id)
        )
        async with self._database.read() as conn:
            row = (await conn.execute(wanted)).first()
        return None if row is None else (row.id, PaymentState(row.state))

    async def of_rid(self, rid: str) -> list[Payment]:
        """All payments of a hold, newest first."""
        async with self._database.read() as conn:
            return await of_rid(conn, rid)

    async def promise(self, rid: str) -> dict[str, Any]:
        """What the host was showing when this hold was made; empty if nothing."""
        columns = [column for column in hold_promise.c if column.name != "rid"]
        async with self._database.read() as conn:
            wanted = select(*columns).where(hold_promise.c.rid == rid)
            row = (await conn.execute(wanted)).first()
        return {} if row is None else dict(row._mapping)

    async def due(self, now: int, limit: int) -> list[str]:
        """Payments whose time to be looked at has come."""
        wanted = (
            select(payment.c.id)
            .where(payment.c.next_at <= now, payment.c.provider == self._provider)
            .order_by(payment.c.next_at)
            .limit(limit)
        )
        async with self._database.read() as conn:
            return list((await conn.execute(wanted)).scalars())

    async def claim(self, id_: str, now: int) -> bool:
        """Take a due payment, so that no other process looks at it meanwhile."""
        async with self._database.begin() as conn:
            row = (
                await conn.execute(
                    select(payment.c.state, payment.c.tries)
                    .where(payment.c.id == id_, payment.c.next_at <= now)
                    .with_for_update()
                )
            ).first()
            if row is None:
                return False
            later = now + _pause(PaymentState(row.state), row.tries)
            await conn.execute(
                update(payment)
                .where(payment.c.id == id_)
                .values(next_at=later, tries=payment.c.tries + 1)
            )
        return True

    async def to_close(self, now: int, limit: int) -> list[tuple[str, str]]:
        """(payment, rid) where somebody can still pay although the hold is closing or overdue."""
        over = or_(
            reservation.c.state == HoldState.CLOSING,
            and_(reservation.c.state == HoldState.PAYING, reservation.c.until_ms <= now),
        )
        wanted = (
            select(payment.c.id, payment.c.rid)
            .join(reservation, reservation.c.rid == payment.c.rid)
            .where(over, payment.c.state.in_(PAYABLE), payment.c.provider == self._provider)
            .order_by(reservation.c.until_ms)
            .limit(limit)
        )
        async with self._database.read() as conn:
            return [(row.id, row.rid) for row in (await conn.execute(wanted)).all()]

    # Beginning

    async def begin(
        self,
        viewer: str,
        rid: str,
        delivery: Delivery,
        new_id: str,
        now: int,
        keep: Keep[PaymentPage] | None = None,
        *,
        coupon: str = "",
    ) -> tuple[Payment, Hold]:
        """The payment to show: the one whose page is open, or a new one (CREATED, hold PAYING).

        Committed when it returns; a page that is there is kept as the answer. Raises UnknownHold,
        HoldEnded, PaymentOpen (the bank is at it), CouponRefused and BadCurrency (the shop changed
        its currency meanwhile).
        """
        async with self._database.begin() as conn:
            await lock(conn, rid)
            hold = await reservations_sql.find(conn, rid)
            if hold is None or hold.viewer != viewer:
                raise UnknownHold
            current = await self._current(conn, hold, now)
            if current is None:
                current, hold = await self._create(conn, hold, new_id, now, coupon)
            else:
                await same_coupon(conn, rid, coupon)
            await self._people.keep(conn, hold.viewer, hold.rid, asdict(delivery), now)
            if current.state is not PaymentState.CREATED:
                await keep_answer(keep, conn, current.page(hold))
        return current, hold

    async def _current(self, conn: AsyncConnection, hold: Hold, now: int) -> Payment | None:
        if hold.state is HoldState.HELD:
            if hold.until_ms <= now:
                raise HoldEnded(HoldState.EXPIRED.value)
            return None
        if hold.state is not HoldState.PAYING:
            raise HoldEnded(hold.state.value)
        if hold.until_ms <= now:
            raise HoldEnded(HoldState.CLOSING.value)
        newest = replace((await of_rid(conn, hold.rid))[0], steps=await steps_of(conn, hold.rid))
        if newest.state is not PaymentState.CREATED and newest.state not in SHOWN:
            raise PaymentOpen
        return newest

    async def _create(
        self, conn: AsyncConnection, hold: Hold, id_: str, now: int, coupon: str
    ) -> tuple[Payment, Hold]:
        terms = (await conn.execute(select(shop).where(shop.c.id == 1))).one()
        if terms.currency != hold.currency:
            raise BadCurrency
        moved = await reservations_sql.move(conn, hold.rid, HoldState.PAYING, now)
        if moved is None:
            raise HoldEnded(HoldState.EXPIRED.value)
        first = not await of_rid(conn, hold.rid)
        steps = await fix_steps(conn, hold, terms.shipping_amount, now, first=first, coupon=coupon)
        made = Payment(
            id=id_,
            rid=hold.rid,
            session=None,
            intent=None,
            state=PaymentState.CREATED,
            amount=total_of(hold.total, steps),
            shipping=sum_of(steps, SHIPPING),
            currency=hold.currency,
            captured=0,
            url="",
            created_at=now,
            tries=0,
            steps=steps,
        )
        await add_event(conn, hold.rid, "payment.created", now, payment=id_, amount=made.amount)
        await conn.execute(
            payment.insert().values(
                id=made.id,
                rid=made.rid,
                provider=self._provider,
                state=made.state.value,
                amount=made.amount,
                currency=made.currency,
                shipping=made.shipping,
                captured=0,
                refunded=0,
                url="",
                created_at=now,
                updated_at=now,
                next_at=now + LOOK_AFTER_MS,
                tries=0,
            )
        )
        return made, moved

    async def opened(
        self,
        id_: str,
        seen: Seen,
        page: PaymentPage,
        now: int,
        keep: Keep[PaymentPage] | None = None,
    ) -> bool:
        """The page exists. False: this payment has been given up meanwhile, so end the page."""
        async with self._database.begin() as conn:
            moved = await cas(
                conn,
                id_,
                PaymentState.OPEN,
                now,
                only=(PaymentState.CREATED,),
                session_id=seen.session,
                url=seen.url,
                next_at=now + LOOK_AFTER_MS,
            )
            if moved:
                await keep_answer(keep, conn, page)
        return moved

    # Moving with what the provider says

    async def adopt(self, id_: str, seen: Seen, now: int) -> None:
        """The answer to the creation was lost, but here is its session."""
        async with self._database.begin() as conn:
            await conn.execute(
                update(payment)
                .where(payment.c.id == id_, payment.c.session_id.is_(None))
                .values(session_id=seen.session, url=seen.url, updated_at=now)
            )

    async def note(self, known: Payment, to: PaymentState, now: int) -> bool:
        """Still undecided, but differently. A decline is told to the viewer."""
        async with self._database.begin() as conn:
            await lock(conn, known.rid)
            if not await cas(conn, known.id, to, now, next_at=now + LOOK_AFTER_MS):
                return False
            if to is PaymentState.DECLINED:
                await tell_payment(conn, known.rid, to.value, now)
        return True

    async def close(self, id_: str, rid: str, now: int) -> bool:
        """Ask for the end: hold CLOSING, payment CANCEL_REQUESTED. True if it was this call."""
        async with self._database.begin() as conn:
            await lock(conn, rid)
            hold = await reservations_sql.find(conn, rid)
            if hold is None:
                return False
            if hold.state is HoldState.PAYING and hold.until_ms <= now:
                await reservations_sql.move(conn, rid, HoldState.CLOSING, now, reason=DEADLINE)
            elif hold.state is not HoldState.CLOSING:
                return False
            return await cas(conn, id_, PaymentState.CANCEL_REQUESTED, now, next_at=now)

    async def authorise(self, known: Payment, seen: Seen, order_id: str, now: int) -> Sale:
        """The money is reserved: sell the units, place the order, tell it; all or nothing.

        When the hold has ended, nothing is sold and the payment is CANCEL_REQUESTED: the caller
        lets the money go. Other payments of the same hold are asked to end.
        """
        async with self._database.begin() as conn:
            await lock(conn, known.rid)
            state = await state_of(conn, known.id)
            if state not in MOVES[PaymentState.AUTHORISED]:
                return Sale.LOST
            sold = await reservations_sql.move(conn, known.rid, HoldState.SOLD, now)
            if sold is None:
                await set_values(
                    conn,
                    known.id,
                    now,
                    state=PaymentState.CANCEL_REQUESTED.value,
                    intent_id=seen.intent,
                    next_at=now + URGENT_AFTER_MS,
                )
                return Sale.UNSELLABLE
            await cas(
                conn,
                known.id,
                PaymentState.AUTHORISED,
                now,
                intent_id=seen.intent,
                next_at=now + URGENT_AFTER_MS,
            )
            steps = await steps_paid(conn, sold, known.amount, known.shipping, now)
            await orders_sql.place(conn, order_id, sold, steps, now)
            await self._end_others(conn, known, now)
        return Sale.SOLD

    async def capturing(self, id_: str, now: int) -> bool:
        """From here a cancellation of the order is a refund."""
        async with self._database.begin() as conn:
            return await cas(conn, id_, PaymentState.CAPTURING, now, next_at=now + URGENT_AFTER_MS)

    async def captured(self, known: Payment, amount: int, now: int) -> bool:
        """The money is ours: the order is paid."""
        async with self._database.begin() as conn:
            await lock(conn, known.rid)
            moved = await cas(
                conn, known.id, PaymentState.CAPTURED, now, captured=amount, next_at=None
            )
            if moved:
                await money_sql.book_capture(conn, known.id, known.rid, amount, now)
                await follow(conn, known.rid, now)
            return moved

    async def mismatch(self, known: Payment, seen: Seen, now: int) -> bool:
        """Another amount or currency than we asked for: it never sells, whatever happens next."""
        async with self._database.begin() as conn:
            await lock(conn, known.rid)
            to = PaymentState.MISMATCH
            if not await cas(conn, known.id, to, now, intent_id=seen.intent, next_at=now):
                return False
            await tell_payment(conn, known.rid, to.value, now)
        return True

    async def unallocated(self, known: Payment, seen: Seen, new_id: str, now: int) -> bool:
        """Money was taken for a hold that is over: sold anew if a unit is left, else given back.

        `new_id` names the order or the refund that comes of it, in this same transaction.
        """
        async with self._database.begin() as conn:
            await lock(conn, known.rid)
            to = PaymentState.UNALLOCATED
            taken = min(seen.captured, known.amount) if seen.currency == known.currency else 0
            moved = await cas(
                conn, known.id, to, now, intent_id=seen.intent, captured=taken, next_at=None
            )
            if moved:
                await tell_payment(conn, known.rid, to.value, now)
                await money_sql.settle_late(conn, known.id, known.rid, new_id, now)
        return moved

    async def revive(self, id_: str, now: int) -> bool:
        """Something turned up for a payment that was over: let it go again."""
        async with self._database.begin() as conn:
            only = (PaymentState.CANCELLED,)
            return await cas(conn, id_, PaymentState.CANCEL_REQUESTED, now, only=only, next_at=now)

    async def dead(self, known: Payment, now: int) -> bool:
        """Nobody can pay by it any more. Only now the hold may be given back. True if it moved.

        Time left: PAYING becomes HELD and the viewer may begin again. None left, or cancelled:
        the hold ends. Money that came too late and was let go is told as "returned"; money that
        vanished after the sale (an authorisation lapses after 7 days) as "lost".
        """
        async with self._database.begin() as conn:
            await lock(conn, known.rid)
            if not await self._bury(conn, known, now):
                return False
            hold = await reservations_sql.find(conn, known.rid)
            if hold is None or await self._another(conn, known):
                return False
            if hold.state.over:
                if hold.state is HoldState.SOLD:
                    if known.state in (PaymentState.AUTHORISED, PaymentState.CAPTURING):
                        await tell_payment(conn, known.rid, "lost", now)
                        await money_sql.give_up_order(conn, known.rid, now)
                    await follow(conn, known.rid, now)
                elif known.intent is not None:
                    await tell_payment(conn, known.rid, "returned", now)
                return False
            if hold.state is HoldState.PAYING and hold.until_ms > now:
                await reservations_sql.move(conn, known.rid, HoldState.HELD, now)
                await tell_payment(conn, known.rid, "ended", now)
                return True
            return await _end_hold(conn, hold, now)

    async def _bury(self, conn: AsyncConnection, known: Payment, now: int) -> bool:
        if known.state is PaymentState.MISMATCH:  # stays what it is, but nothing more can happen
            done = await conn.execute(
                update(payment)
                .where(payment.c.id == known.id, payment.c.next_at.is_not(None))
                .values(next_at=None, updated_at=now)
            )
            return done.rowcount == 1
        return await cas(conn, known.id, PaymentState.CANCELLED, now, next_at=None)

    async def _another(self, conn: AsyncConnection, known: Payment) -> bool:
        """Whether another payment of this hold is not decided: then the hold is its business."""
        return any(
            one.id != known.id and one.state in _UNDECIDED for one in await of_rid(conn, known.rid)
        )

    async def _end_others(self, conn: AsyncConnection, known: Payment, now: int) -> None:
        for other in await of_rid(conn, known.rid):
            if other.id != known.id and other.state in PAYABLE:
                await cas(conn, other.id, PaymentState.CANCEL_REQUESTED, now, next_at=now)


def _pause(state: PaymentState, tries: int) -> int:
    """Milliseconds until the next look."""
    if state in PAYABLE:
        return int(min(LOOK_AFTER_MS << min(tries, 10), LOOK_AFTER_MAX_MS))
    return int(min(URGENT_AFTER_MS << min(tries, 10), URGENT_AFTER_MAX_MS))


async def _end_hold(conn: AsyncConnection, hold: Hold, now: int) -> bool:
    rid = hold.rid
    if hold.state is HoldState.PAYING:
        await reservations_sql.move(conn, rid, HoldState.CLOSING, now, reason=DEADLINE)
    elif hold.state is not HoldState.CLOSING:
        return False
    wanted = select(reservation.c.reason).where(reservation.c.rid == rid)
    reason = (await conn.execute(wanted)).scalar_one()
    to = HoldState.EXPIRED if reason == DEADLINE else HoldState.CANCELLED
    return await reservations_sql.move(conn, rid, to, now, reason=reason) is not None
