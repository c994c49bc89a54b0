"""Refunds in the record: promising money back, and following what the provider says about it.

Responsible for the rows of `refund` and `refund_unit`, and for everything that a promise drags
along in the same transaction: `payment.refunded` (the wall against giving back too much), the
units' shares, the ledger, the event. It must not call the provider. `promise` takes the caller's
connection, because cancelling and receiving a return promise money in their own transactions.

Never more than was taken, also of two refunds at once: one UPDATE with the condition, under the
lock of the reservation's row, and CHECKs on payment and unit behind it.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import ledger, ledger_sql, units_sql
from commerce.database_sql import Database
from commerce.errors import NotRefundable, RefundTooLarge
from commerce.events_sql import add_event
from commerce.fulfilment import ReturnState, Unit
from commerce.ledger import Account
from commerce.money_schema_sql import refund, refund_unit, return_case
from commerce.order_states_sql import OrderMoney, follow, money_of
from commerce.pricing import refund_parts, tax_of_part
from commerce.refunds import MOVES, OUTSIDE, Refund, RefundState, SeenRefund, judge
from commerce.schema_sql import orders, payment

FOUND: Final = "made at the provider"
LOOK_AFTER_MS: Final = 2_000
LOOK_AFTER_MAX_MS: Final = 600_000
"""Pauses of the poller for one refund; a bank may take days, webhooks are faster."""


async def promise(
    conn: AsyncConnection,
    *,
    id_: str,
    rid: str,
    order: str,
    units: Sequence[Unit],
    amount: int | None,
    reason: str,
    by: str,
    now: int,
    return_id: str | None = None,
) -> Refund:
    """Gives back what is left of these units, or `amount` shared over them.

    Raises NotRefundable (nothing was taken, or all of it is back or disputed), RefundTooLarge.
    """
    money = await money_of(conn, rid)
    if money is None or not money.captured:
        raise NotRefundable
    left = [unit.amount - unit.refunded for unit in units]
    wanted = sum(left) if amount is None else amount
    if not sum(left) or not money.left:
        raise NotRefundable
    if not 0 < wanted <= min(sum(left), money.left):
        raise RefundTooLarge(min(sum(left), money.left))
    parts = [
        (unit, part) for unit, part in zip(units, refund_parts(left, wanted), strict=True) if part
    ]
    made = _new(id_, rid, money, order, wanted, reason, by, now, return_id)
    await _insert(conn, made, RefundState.REQUESTED, now)
    await _count(conn, made, parts, now)
    return made


async def promise_unallocated(
    conn: AsyncConnection, id_: str, rid: str, money: OrderMoney, now: int
) -> Refund:
    """Money for which there is no unit goes back by itself, all of it."""
    made = _new(id_, rid, money, None, money.left, "no unit left", "", now, None)
    await _insert(conn, made, RefundState.REQUESTED, now)
    await _count(conn, made, [], now)
    return made


async def adopt_unallocated(
    conn: AsyncConnection, rid: str, money: OrderMoney, seen: SeenRefund, now: int
) -> int:
    """A refund that only the provider remembers, of money without a unit; how much it counts."""
    if judge(seen.status) is RefundState.FAILED or not 0 < seen.amount <= money.left:
        return 0
    id_ = seen.refund or seen.id
    made = _new(id_, rid, money, None, seen.amount, FOUND, OUTSIDE, now, None)
    await _insert(conn, made, RefundState.REQUESTED, now)
    await _count(conn, made, [], now)
    await _advance(conn, made, seen, now)
    return seen.amount


async def ask(
    conn: AsyncConnection, made: Refund, picked: Sequence[tuple[int, int]], now: int
) -> None:
    """A viewer's wish: nothing is counted until the host says yes."""
    await _insert(conn, made, RefundState.ASKED, now, units=[list(key) for key in picked])


async def approve(
    conn: AsyncConnection, id_: str, units: Sequence[Unit], by: str, now: int
) -> bool:
    """The host says yes to a wish; its amount becomes what is left if that is less.

    False if it is no wish any more. Raises NotRefundable.
    """
    row = (await conn.execute(select(refund).where(refund.c.id == id_))).one()
    if row.state != RefundState.ASKED:
        return False
    money = await money_of(conn, row.rid)
    left = [unit.amount - unit.refunded for unit in units]
    if money is None or not min(sum(left), money.left):
        raise NotRefundable
    amount = min(row.amount, sum(left), money.left)
    if not await _cas(
        conn, id_, RefundState.REQUESTED, now, amount=amount, payment=money.payment, next_at=now
    ):
        return False
    parts = [
        (unit, part) for unit, part in zip(units, refund_parts(left, amount), strict=True) if part
    ]
    made = _refund((await conn.execute(select(refund).where(refund.c.id == id_))).one())
    await _count(conn, made, parts, now)
    await add_event(conn, row.rid, "refund.approved", now, actor=by, refund=id_)
    return True


async def reject(conn: AsyncConnection, id_: str, by: str, now: int) -> bool:
    """The host says no."""
    if not await _cas(conn, id_, RefundState.REJECTED, now, next_at=None):
        return False
    row = (await conn.execute(select(refund.c.rid).where(refund.c.id == id_))).one()
    await add_event(conn, row.rid, "refund.rejected", now, actor=by, refund=id_)
    return True


async def asked_units(conn: AsyncConnection, rid: str) -> set[tuple[int, int]]:
    """Units for which a wish waits for the host."""
    wanted = select(refund.c.units).where(
        refund.c.rid == rid, refund.c.state == RefundState.ASKED.value
    )
    rows = (await conn.execute(wanted)).scalars()
    return {(position, n) for units in rows for position, n in units or []}


async def refunds_of(conn: AsyncConnection, rid: str) -> list[Refund]:
    """All of a hold, oldest first."""
    wanted = select(refund).where(refund.c.rid == rid).order_by(refund.c.created_at, refund.c.id)
    return [_refund(row) for row in (await conn.execute(wanted)).all()]


class SqlRefunds:
    """Refunds of one database through one provider. Methods raise Unavailable when it is away."""

    def __init__(self, database: Database, provider: str) -> None:
        self._database = database
        self._provider = provider

    async def find(self, id_: str) -> tuple[Refund, str | None] | None:
        """A refund and the provider's id of its payment's intent."""
        wanted = (
            select(refund, payment.c.intent_id)
            .join(payment, payment.c.id == refund.c.payment)
            .where(refund.c.id == id_)
        )
        async with self._database.read() as conn:
            row = (await conn.execute(wanted)).first()
        return None if row is None else (_refund(row), row.intent_id)

    async def due(self, now: int, limit: int) -> list[str]:
        """Refunds whose time to be looked at has come."""
        wanted = (
            select(refund.c.id)
            .where(refund.c.next_at <= now, refund.c.provider == self._provider)
            .order_by(refund.c.next_at)
            .limit(limit)
        )
        async with self._database.read() as conn:
            return list((await conn.execute(wanted)).scalars())

    async def claim(self, id_: str, now: int) -> bool:
        """Take a due refund, so that no other process looks at it meanwhile."""
        async with self._database.begin() as conn:
            row = (
                await conn.execute(
                    select(refund.c.tries)
                    .where(refund.c.id == id_, refund.c.next_at <= now)
                    .with_for_update()
                )
            ).first()
            if row is None:
                return False
            pause = min(LOOK_AFTER_MS << min(row.tries, 10), LOOK_AFTER_MAX_MS)
            await conn.execute(
                update(refund)
                .where(refund.c.id == id_)
                .values(next_at=now + pause, tries=refund.c.tries + 1)
            )
        return True

    async def told(self, id_: str, seen: SeenRefund, now: int) -> bool:
        """What the provider has: moves the refund and its money; whether anything moved."""
        async with self._database.begin() as conn:
            known = await self._locked(conn, id_)
            if known is None:
                return False
            return await _advance(conn, known, seen, now)

    async def refused(self, id_: str, code: str, now: int) -> bool:
        """The provider said no: the money is free again, and the host sees why."""
        async with self._database.begin() as conn:
            known = await self._locked(conn, id_)
            if known is None:
                return False
            return await _fail(conn, known, code, now)

    async def outside(self, seen: SeenRefund, id_: str, now: int) -> bool:
        """Somebody refunded at the provider itself: it is counted like our own.

        Shared over the units by what is left of each. False if it cannot be (unknown payment, more
        than is left): reconciling shows it.
        """
        async with self._database.begin() as conn:
            wanted = select(payment.c.rid).where(payment.c.intent_id == seen.intent)
            rid = (await conn.execute(wanted)).scalar()
            if rid is None:
                return False
            await units_sql.lock(conn, rid)
            known = await self._by_provider_id(conn, seen.id)
            if known is not None:
                return await _advance(conn, known, seen, now)
            made = await _adopt(conn, rid, seen, id_, now)
            return made is not None and await _advance(conn, made, seen, now)

    async def by_provider_id(self, provider_id: str) -> Refund | None:
        """A refund by the provider's name for it."""
        async with self._database.read() as conn:
            return await self._by_provider_id(conn, provider_id)

    async def _by_provider_id(self, conn: AsyncConnection, provider_id: str) -> Refund | None:
        wanted = select(refund).where(refund.c.provider_id == provider_id)
        row = (await conn.execute(wanted)).first()
        return None if row is None else _refund(row)

    async def _locked(self, conn: AsyncConnection, id_: str) -> Refund | None:
        rid = (await conn.execute(select(refund.c.rid).where(refund.c.id == id_))).scalar()
        if rid is None:
            return None
        await units_sql.lock(conn, rid)
        return _refund((await conn.execute(select(refund).where(refund.c.id == id_))).one())


async def _adopt(
    conn: AsyncConnection, rid: str, seen: SeenRefund, id_: str, now: int
) -> Refund | None:
    if judge(seen.status) is RefundState.FAILED:
        return None
    order = (await conn.execute(select(orders.c.id).where(orders.c.rid == rid))).scalar()
    money = await money_of(conn, rid)
    if order is None or money is None or seen.currency != money.currency:
        return None
    units = await units_sql.units_of(conn, order)
    left = sum(unit.amount - unit.refunded for unit in units)
    if not 0 < seen.amount <= min(left, money.left):
        return None
    return await promise(
        conn, id_=id_, rid=rid, order=order, units=units, amount=seen.amount,
        reason=FOUND, by=OUTSIDE, now=now,
    )  # fmt: skip


async def _advance(conn: AsyncConnection, known: Refund, seen: SeenRefund, now: int) -> bool:
    to = judge(seen.status)
    if to is RefundState.FAILED:
        return await _fail(conn, known, seen.failure or seen.status, now, provider_id=seen.id)
    if to is known.state:
        return False
    next_at = None if to is RefundState.SUCCEEDED else now + LOOK_AFTER_MS
    if not await _cas(conn, known.id, to, now, provider_id=seen.id, next_at=next_at):
        return False
    await add_event(conn, known.rid, f"refund.{to.value}", now, refund=known.id)
    if to is RefundState.SUCCEEDED:
        gone = ledger.moved(Account.PROVIDER, Account.REFUNDS_PAYABLE, known.amount)
        ref = f"refund_paid:{known.id}"
        await ledger_sql.post(conn, ref, known.rid, known.currency, gone, now)
        await _move_return(conn, known, ReturnState.RECEIVED, ReturnState.REFUNDED, now)
    await follow(conn, known.rid, now)
    return True


async def _fail(
    conn: AsyncConnection, known: Refund, code: str, now: int, *, provider_id: str | None = None
) -> bool:
    """The money stayed, or came back: everything that was counted is counted back."""
    values: dict[str, object] = {"failure": code[:80], "next_at": None}
    if provider_id is not None:
        values["provider_id"] = provider_id
    if not await _cas(conn, known.id, RefundState.FAILED, now, **values):
        return False
    parts = (await conn.execute(select(refund_unit).where(refund_unit.c.refund == known.id))).all()
    if known.order is not None:
        back = [(row.position, row.n, -row.amount) for row in parts]
        await units_sql.add_refunded(conn, known.order, back)
    await conn.execute(
        update(payment)
        .where(payment.c.id == known.payment)
        .values(refunded=payment.c.refunded - known.amount)
    )
    tax = sum(row.tax for row in parts)
    postings = ledger.reversed_(
        ledger.refund_promised(known.amount, tax, has_order=known.order is not None)
    )
    if known.state is RefundState.SUCCEEDED:
        postings += ledger.moved(Account.REFUNDS_PAYABLE, Account.PROVIDER, known.amount)
        await _move_return(conn, known, ReturnState.REFUNDED, ReturnState.RECEIVED, now)
    ref = f"refund_failed:{known.id}"
    await ledger_sql.post(conn, ref, known.rid, known.currency, postings, now)
    await add_event(conn, known.rid, "refund.failed", now, refund=known.id, code=code[:80])
    await follow(conn, known.rid, now)
    return True


async def _count(
    conn: AsyncConnection, made: Refund, parts: Sequence[tuple[Unit, int]], now: int
) -> None:
    """The promise counts from here: payment, units, ledger, event."""
    row = payment.c
    done = await conn.execute(
        update(payment)
        .where(row.id == made.payment, row.refunded + made.amount <= row.captured)
        .values(refunded=row.refunded + made.amount, updated_at=now)
    )
    if done.rowcount != 1:
        raise RefundTooLarge(0)
    taxes = [tax_of_part(unit.tax, unit.amount, unit.refunded, part) for unit, part in parts]
    if parts and made.order is not None:
        shares = [(unit.position, unit.n, part) for unit, part in parts]
        await units_sql.add_refunded(conn, made.order, shares)
        rows = [
            {
                "refund": made.id,
                "order": unit.order,
                "position": unit.position,
                "n": unit.n,
                "amount": part,
                "tax": tax,
            }
            for (unit, part), tax in zip(parts, taxes, strict=True)
        ]
        await conn.execute(insert(refund_unit), rows)
    postings = ledger.refund_promised(made.amount, sum(taxes), has_order=made.order is not None)
    await ledger_sql.post(conn, f"refund:{made.id}", made.rid, made.currency, postings, now)


async def _insert(
    conn: AsyncConnection,
    made: Refund,
    state: RefundState,
    now: int,
    units: list[list[int]] | None = None,
) -> None:
    counts = state is RefundState.REQUESTED
    await conn.execute(
        insert(refund).values(
            id=made.id,
            rid=made.rid,
            payment=made.payment,
            order=made.order,
            provider=await _provider_of(conn, made.payment),
            provider_id=None,
            state=state.value,
            amount=made.amount,
            currency=made.currency,
            reason=made.reason,
            asked_by=made.asked_by,
            units=units,
            return_case=made.return_case,
            failure="",
            created_at=now,
            updated_at=now,
            next_at=now if counts else None,
            tries=0,
        )
    )
    data = {"refund": made.id, "amount": made.amount, "currency": made.currency}
    await add_event(conn, made.rid, f"refund.{state.value}", now, actor=made.asked_by, **data)


async def _provider_of(conn: AsyncConnection, payment_id: str) -> str:
    wanted = select(payment.c.provider).where(payment.c.id == payment_id)
    return str((await conn.execute(wanted)).scalar_one())


async def _move_return(
    conn: AsyncConnection, known: Refund, source: ReturnState, to: ReturnState, now: int
) -> None:
    if known.return_case is None:
        return
    await conn.execute(
        update(return_case)
        .where(return_case.c.id == known.return_case, return_case.c.state == source.value)
        .values(state=to.value, updated_at=now)
    )


async def _cas(
    conn: AsyncConnection, id_: str, to: RefundState, now: int, **values: object
) -> bool:
    sources = [state.value for state, targets in MOVES.items() if to in targets]
    done = await conn.execute(
        update(refund)
        .where(refund.c.id == id_, refund.c.state.in_(sources))
        .values(state=to.value, updated_at=now, **values)
    )
    return done.rowcount == 1


def _new(
    id_: str,
    rid: str,
    money: OrderMoney,
    order: str | None,
    amount: int,
    reason: str,
    by: str,
    now: int,
    return_id: str | None,
) -> Refund:
    return Refund(
        id=id_,
        rid=rid,
        payment=money.payment,
        order=order,
        provider_id=None,
        state=RefundState.REQUESTED,
        amount=amount,
        currency=money.currency,
        reason=reason,
        asked_by=by,
        return_case=return_id,
        failure="",
        created_at=now,
        updated_at=now,
        tries=0,
    )


def _refund(row: Any) -> Refund:
    return Refund(
        id=row.id,
        rid=row.rid,
        payment=row.payment,
        order=row.order,
        provider_id=row.provider_id,
        state=RefundState(row.state),
        amount=row.amount,
        currency=row.currency,
        reason=row.reason,
        asked_by=row.asked_by,
        return_case=row.return_case,
        failure=row.failure,
        created_at=row.created_at,
        updated_at=row.updated_at,
        tries=row.tries,
    )
