"""The outbox: facts that were committed and must still be told.

Responsible for storing a fact in the transaction that made it true, for handing each fact to one
teller at a time, in order per key, at least once, and for the gate's own mark (the gate hears of
the same facts by another way and at another time than viewers do). It must not know what they
mean.

Why so: a message sent before the commit tells of things that may not happen; a message sent after
it is lost when the process dies in between. So the fact waits in the same commit, and tellers
repeat. A claim is a short lease: a teller that dies gives its facts back when the lease ends.
Claims take turns (one lock), since two that skip each other's locked rows could tell a key's second
fact before its first.

Order per key: add a fact while you hold the lock of the row that `key` names; then ids grow in the
order of the commits.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import and_, bindparam, delete, exists, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.bulk_sql import insert_rows
from commerce.database_sql import Database
from commerce.outbox import Fact
from commerce.schema_sql import outbox, shop

GATE_TOPICS: Final = frozenset({"hold", "stock", "drop", "wait"})
"""What changes a number in the gate. Facts of other topics are born with the gate's mark."""
HOOK_TOPICS: Final = frozenset({"order", "stock", "show"})
"""What other systems are told of. Facts of other topics are born with that mark."""
CLAIM_MAX: Final = 500
KEEP_MS: Final = 3_600_000
"""Told facts stay this long, for whoever looks into an accident."""
_CLAIM_LOCK: Final = 0x76697472
"""Number of the advisory lock on PostgreSQL under which claims take turns."""

# Asked some ten times a second by every node, so they are made once: to put `_FREE` together took
# 4 ms a time, 4 % of a node that sold 2,750 units a second.
_FOR_GATE: Final = (
    select(outbox.c.id, outbox.c.topic, outbox.c.key, outbox.c.payload, outbox.c.created_at)
    .where(outbox.c.gate_at.is_(None))
    .order_by(outbox.c.id)
    .limit(bindparam("limit"))
)
_older = outbox.alias("older")
_IS_FREE: Final = and_(
    outbox.c.sent_at.is_(None),
    outbox.c.topic.in_(bindparam("topics", expanding=True)),
    outbox.c.claimed_until.is_(None) | (outbox.c.claimed_until <= bindparam("now")),
)
_ANY_FREE: Final = select(outbox.c.id).where(_IS_FREE).limit(1)
_FREE: Final = (
    select(outbox.c.id, outbox.c.topic, outbox.c.key, outbox.c.payload, outbox.c.created_at)
    .where(
        _IS_FREE,
        ~exists().where(
            _older.c.sent_at.is_(None),
            _older.c.topic == outbox.c.topic,
            _older.c.key == outbox.c.key,
            _older.c.id < outbox.c.id,
            _older.c.claimed_until > bindparam("now"),
        ),
    )
    .order_by(outbox.c.id)
    .limit(bindparam("limit"))
)


class SqlOutbox:
    """Facts of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @staticmethod
    async def add(
        conn: AsyncConnection,
        topic: str,
        key: str,
        payload: Mapping[str, object],
        now: int,
        *,
        tell: bool = True,
    ) -> None:
        """Adds a fact in the caller's transaction. `tell=False`: for the gate alone."""
        await SqlOutbox.add_many(conn, topic, [(key, payload)], now, tell=tell)

    @staticmethod
    async def add_many(
        conn: AsyncConnection,
        topic: str,
        facts: Sequence[tuple[str, Mapping[str, object]]],
        now: int,
        *,
        tell: bool = True,
    ) -> None:
        """Adds facts of one topic, in order, in one statement."""
        gate_at = None if topic in GATE_TOPICS else now
        hooks_at = None if topic in HOOK_TOPICS else now
        rows = [
            {
                "topic": topic,
                "key": key,
                "payload": payload,
                "created_at": now,
                "sent_at": None if tell else now,
                "gate_at": gate_at,
                "hooks_at": hooks_at,
            }
            for key, payload in facts
        ]
        await insert_rows(conn, outbox, rows)

    async def claim(self, topics: Sequence[str], limit: int, now: int, lease_ms: int) -> list[Fact]:
        """Up to `limit` untold facts, oldest first, that nobody else gets for `lease_ms`.

        A fact waits while an older one of its topic and key is in somebody else's lease. Raises
        Unavailable.
        """
        if not await self._any(topics, now):
            return []
        async with self._database.begin() as conn:
            if self._database.dialect == "postgresql":
                await conn.execute(text(f"SELECT pg_advisory_xact_lock({_CLAIM_LOCK})"))
            given = {"topics": list(topics), "now": now, "limit": min(limit, CLAIM_MAX)}
            facts = [Fact(*row) for row in (await conn.execute(_FREE, given))]
            if facts:
                await conn.execute(
                    update(outbox)
                    .where(outbox.c.id.in_([fact.id for fact in facts]))
                    .values(claimed_until=now + lease_ms)
                )
        return facts

    async def _any(self, topics: Sequence[str], now: int) -> bool:
        """Whether a claim would be worth a write transaction; asked many times a second."""
        async with self._database.read() as conn:
            found = await conn.execute(_ANY_FREE, {"topics": list(topics), "now": now})
            return found.first() is not None

    async def done(self, ids: Sequence[int], now: int) -> None:
        """These facts were told. Repeating is harmless. Raises Unavailable."""
        if not ids:
            return
        async with self._database.begin() as conn:
            await conn.execute(
                update(outbox)
                .where(outbox.c.id.in_(list(ids)), outbox.c.sent_at.is_(None))
                .values(sent_at=now)
            )

    async def for_gate(self, limit: int) -> list[Fact]:
        """Facts the gate has not heard, oldest first; no lease, since telling twice is harmless."""
        async with self._database.read() as conn:
            return [Fact(*row) for row in (await conn.execute(_FOR_GATE, {"limit": limit}))]

    async def gate_done(self, ids: Sequence[int], epoch: int, now: int) -> bool:
        """The gate of `epoch` was told. False, and nothing marked, if the epoch has moved on.

        A rebuild counts up the epoch and then takes its snapshot. A fact that was told to the old
        gate after that snapshot is in neither, so it must be told again.
        """
        if not ids:
            return True
        async with self._database.begin() as conn:
            current = select(shop.c.gate_epoch).where(shop.c.id == 1).with_for_update(read=True)
            if (await conn.execute(current)).scalar() != epoch:
                return False
            await conn.execute(update(outbox).where(outbox.c.id.in_(list(ids))).values(gate_at=now))
        return True

    async def prune(self, now: int, limit: int = 5_000) -> int:
        """Deletes facts that everybody was told of more than KEEP_MS ago; how many."""
        old = (
            select(outbox.c.id)
            .where(
                outbox.c.sent_at < now - KEEP_MS,
                outbox.c.gate_at.is_not(None),
                outbox.c.hooks_at.is_not(None),
            )
            .limit(limit)
        )
        async with self._database.begin() as conn:
            done = await conn.execute(delete(outbox).where(outbox.c.id.in_(old)))
            return done.rowcount
