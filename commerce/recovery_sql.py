"""Rows of a payment that only its provider remembers, written anew; and the mark of a restore.

Responsible for the rows of `restored` and for `rebuild`: reservation, lines, terms and payment in
one transaction, once however often it is asked for. It must not call the provider and places no
order: the reservation is written as one that ran out of time, so that its money is late money, for
which the shop has rules already (sold anew if there are units, given back if not). Of money that is
back in part and has no unit, the rest goes back in the same transaction.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import units_sql
from commerce.database_sql import Database, insert_new
from commerce.events_sql import add_event
from commerce.money_schema_sql import hold_promise, restored
from commerce.money_sql import settle_late
from commerce.payment_rows_sql import tell_payment
from commerce.payments import PaymentState, Seen
from commerce.pricing_sql import write_steps
from commerce.refunds import SeenRefund
from commerce.reservations_sql import OPEN_STATES
from commerce.schema_sql import (
    payment,
    product,
    reservation,
    reservation_line,
    sale_drop,
    sale_drop_line,
    sku,
    sku_stock,
)
from commerce.snapshot import Snapshot
from commerce.stock import HoldState

REASON: Final = "restored"
HOLD_S: Final = 180
"""Of a sale that was lost with the database: it is over, so nobody holds anything in it."""


async def mark(database: Database, backup_at: int) -> None:
    """This database is a copy of that time; `open_mark` finds it until `recovered`."""
    async with database.begin() as conn:
        await conn.execute(insert(restored).values(backup_at=backup_at, recovered_at=None))


class SqlRecovery:
    """Of one database and one provider. Every method raises Unavailable when it is away."""

    def __init__(self, database: Database, provider: str) -> None:
        self._database = database
        self._provider = provider

    async def open_mark(self) -> int | None:
        """The time of the oldest copy that was restored and not reconciled yet."""
        wanted = (
            select(restored.c.backup_at)
            .where(restored.c.recovered_at.is_(None))
            .order_by(restored.c.backup_at)
            .limit(1)
        )
        async with self._database.read() as conn:
            found: int | None = (await conn.execute(wanted)).scalar()
        return found

    async def is_a_shop(self) -> bool:
        """Whether the copy has anything to sell. An empty one would give everybody's money back."""
        async with self._database.read() as conn:
            return (await conn.execute(select(product.c.id).limit(1))).first() is not None

    async def recovered(self, now: int) -> None:
        """Everything the provider knows is known here too."""
        async with self._database.begin() as conn:
            await conn.execute(
                update(restored).where(restored.c.recovered_at.is_(None)).values(recovered_at=now)
            )

    async def unknown(self, payments: Sequence[str]) -> set[str]:
        """Those that this database does not have."""
        wanted = select(payment.c.id).where(payment.c.id.in_(payments))
        async with self._database.read() as conn:
            return set(payments) - set((await conn.execute(wanted)).scalars())

    async def in_stock(self, one: Snapshot) -> bool:
        """Whether there are units for it now. Only a hint: placing the order checks again.

        A hold that the copy still has as open has them.
        """
        row = sku_stock.c
        held = select(reservation.c.rid).where(
            reservation.c.rid == one.rid, reservation.c.state.in_(OPEN_STATES)
        )
        async with self._database.read() as conn:
            if (await conn.execute(held)).first() is not None:
                return True
            found = await conn.execute(
                select(row.sku, row.on_hand - row.held - row.committed).where(
                    row.sku.in_([line.sku for line in one.lines])
                )
            )
            free = {name: int(units) for name, units in found}
        return all(free.get(line.sku, 0) >= line.quantity for line in one.lines)

    async def rebuild(
        self,
        one: Snapshot,
        seen: Seen,
        now: int,
        *,
        back: Sequence[SeenRefund] = (),
        new_id: str = "",
    ) -> bool:
        """The rows of a payment; False if they are there already.

        With `back` (what the provider has given back of it in part, and no unit is left for the
        rest) also what becomes of it: it is counted, and a refund `new_id` of the rest promised.
        """
        async with self._database.begin() as conn:
            made = await self._rows(conn, one, seen, now)
            if made and back:
                await self._return_rest(conn, one, seen, now, back, new_id)
        return made

    async def _rows(self, conn: AsyncConnection, one: Snapshot, seen: Seen, now: int) -> bool:
        await _drop(conn, one, now)
        head = {
            "rid": one.rid,
            "viewer": one.viewer,
            "drop": one.drop,
            "fingerprint": "",
            "state": HoldState.EXPIRED.value,
            "until_ms": one.until_ms,
            "epoch": 0,
            "n": 0,
            "currency": seen.currency,
            "total": one.goods,
            "created_at": one.at,
            "closed_at": now,
            "reason": REASON,
        }
        if await insert_new(conn, reservation, head, key=("rid",)):
            await _contents(conn, one, now)
        row = {
            "id": one.payment,
            "rid": one.rid,
            "provider": self._provider,
            "session_id": seen.session,
            "intent_id": seen.intent,
            "state": PaymentState.OPEN.value,
            "amount": seen.amount,
            "currency": seen.currency,
            "shipping": one.shipping,
            "captured": 0,
            "refunded": 0,
            "url": "",
            "created_at": one.at,
            "updated_at": now,
            "next_at": now,
            "tries": 0,
        }
        made = await insert_new(conn, payment, row, key=("id",))
        if made:
            await add_event(conn, one.rid, "payment.restored", now, payment=one.payment)
        return made

    async def _return_rest(
        self,
        conn: AsyncConnection,
        one: Snapshot,
        seen: Seen,
        now: int,
        back: Sequence[SeenRefund],
        new_id: str,
    ) -> None:
        await units_sql.lock(conn, one.rid)
        await conn.execute(
            update(payment)
            .where(payment.c.id == one.payment)
            .values(
                state=PaymentState.UNALLOCATED.value,
                intent_id=seen.intent,
                captured=min(seen.captured, seen.amount),
                next_at=None,
            )
        )
        await add_event(
            conn, one.rid, f"payment.{PaymentState.UNALLOCATED.value}", now, payment=one.payment
        )
        await tell_payment(conn, one.rid, PaymentState.UNALLOCATED.value, now)
        await settle_late(conn, one.payment, one.rid, new_id, now, back)


async def _drop(conn: AsyncConnection, one: Snapshot, now: int) -> None:
    """The sale, closed, if it was lost as well; and its lines, as far as the SKUs are known."""
    head = {
        "id": one.drop,
        "show": one.show,
        "title": "",
        "opens_at": one.at,
        "closes_at": one.at,
        "closed_at": now,
        "hold_s": HOLD_S,
        "created_at": one.at,
    }
    await insert_new(conn, sale_drop, head, key=("id",))
    wanted = select(sku.c.sku).where(sku.c.sku.in_([line.sku for line in one.lines]))
    known = set((await conn.execute(wanted)).scalars())
    for position, line in enumerate(one.lines):
        if line.sku in known:
            row = {"drop": one.drop, "sku": line.sku, "position": position, "taken": 0}
            await insert_new(conn, sale_drop_line, row, key=("drop", "sku"))


async def _contents(conn: AsyncConnection, one: Snapshot, now: int) -> None:
    lines = [
        {
            "rid": one.rid,
            "sku": line.sku,
            "position": position,
            "title": line.title,
            "quantity": line.quantity,
            "unit_amount": line.unit_amount,
        }
        for position, line in enumerate(one.lines)
    ]
    await conn.execute(insert(reservation_line), lines)
    await write_steps(conn, one.rid, one.steps, now)
    if one.promise:
        await conn.execute(insert(hold_promise).values(rid=one.rid, **one.promise))
