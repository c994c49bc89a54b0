"""Chargebacks in the record: a bank takes money back while it decides.

Responsible for the rows of `dispute`, for their ledger entries and for telling the host. It must
not call the provider. While a dispute is open, and for good when it is lost, its money cannot be
refunded (`order_states_sql.money_of` takes it off): otherwise a buyer would be paid twice.
"""

from typing import Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import ledger, ledger_sql, units_sql
from commerce.database_sql import Database, insert_new
from commerce.events_sql import add_event
from commerce.ledger import Account
from commerce.money_schema_sql import dispute
from commerce.order_states_sql import follow
from commerce.refunds import DISPUTE_MOVES, DisputeState, SeenDispute, judge_dispute
from commerce.schema_sql import payment

_INQUIRY: Final = "warning_"
"""A bank that only asks has taken no money yet."""


class SqlDisputes:
    """Chargebacks of one database. Raises Unavailable when it is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def told(self, seen: SeenDispute, now: int) -> bool:
        """What the provider has of a chargeback; whether anything moved."""
        if seen.status.startswith(_INQUIRY):
            return False
        async with self._database.begin() as conn:
            wanted = select(payment).where(payment.c.intent_id == seen.intent)
            paid = (await conn.execute(wanted)).first()
            if paid is None or paid.currency != seen.currency or seen.amount < 0:
                return False
            await units_sql.lock(conn, paid.rid)
            row = {
                "provider_id": seen.id,
                "rid": paid.rid,
                "payment": paid.id,
                "state": DisputeState.OPEN.value,
                "amount": seen.amount,
                "currency": seen.currency,
                "created_at": now,
                "updated_at": now,
            }
            moved = await insert_new(conn, dispute, row, key=("provider_id",))
            if moved:
                taken = ledger.moved(Account.PROVIDER, Account.DISPUTES, seen.amount)
                await self._book(conn, seen, paid.rid, "opened", taken, now)
            moved |= await self._decide(conn, seen, paid.rid, now)
            if moved:
                await follow(conn, paid.rid, now)
            return moved

    async def _decide(self, conn: AsyncConnection, seen: SeenDispute, rid: str, now: int) -> bool:
        to = judge_dispute(seen.status)
        sources = [one.value for one, targets in DISPUTE_MOVES.items() if to in targets]
        if not sources:
            return False
        done = await conn.execute(
            update(dispute)
            .where(dispute.c.provider_id == seen.id, dispute.c.state.in_(sources))
            .values(state=to.value, updated_at=now)
            .returning(dispute.c.amount)
        )
        amount = done.scalar()
        if amount is None:
            return False
        back = ledger.moved(Account.DISPUTES, Account.PROVIDER, amount)
        await self._book(conn, seen, rid, to.value, back if to is DisputeState.WON else [], now)
        return True

    async def _book(
        self,
        conn: AsyncConnection,
        seen: SeenDispute,
        rid: str,
        what: str,
        postings: list[ledger.Posting],
        now: int,
    ) -> None:
        ref = f"dispute_{what}:{seen.id}"[:140]
        await ledger_sql.post(conn, ref, rid, seen.currency, postings, now)
        await add_event(conn, rid, f"dispute.{what}", now, dispute=seen.id, amount=seen.amount)
