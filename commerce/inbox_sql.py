"""The inbox: events of the provider, committed before they are answered, worked off afterwards.

Responsible for the rows of `psp_inbox`. The primary key (provider, event id) makes a repeated
webhook cost one refused insert. An event keeps nothing but the id of its object: what happened is
fetched from the provider when it is worked off, so no body (which may name a person) is stored.

    received ── done        worked off, or not about payments
        └────── parked ──── done | dead      somebody did not know or answer: again in 1, 2, 4… s
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, select, update

from commerce.database_sql import Database, insert_new
from commerce.payments import Event
from commerce.schema_sql import psp_inbox

LEASE_MS: Final = 60_000
"""A worker that dies gives its events back after this."""
PARK_MS: Final = 1_000
PARK_MAX_MS: Final = 600_000
DEAD_AFTER_MS: Final = 7 * 86_400_000
KEEP_MS: Final = 30 * 86_400_000
"""Done events are kept for longer than Stripe lists them (30 days), so that none is done twice."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that this worker has leased."""

    id: str
    kind: str
    object_id: str
    received_at: int
    tries: int


class Inbox:
    """Events of one provider. Every method raises Unavailable when the database is away."""

    def __init__(self, database: Database, provider: str) -> None:
        self._database = database
        self._provider = provider

    async def receive(self, events: Sequence[Event], now: int) -> int:
        """Stores those that are new; how many. Committed when it returns."""
        if not events:
            return 0
        new = 0
        async with self._database.begin() as conn:
            for event in events:
                state = "received" if event.about_payment else "done"
                row = {
                    "provider": self._provider,
                    "event_id": event.id,
                    "kind": event.kind,
                    "object_id": event.object_id,
                    "received_at": now,
                    "state": state,
                    "tries": 0,
                    "next_at": now if event.about_payment else None,
                }
                new += await insert_new(conn, psp_inbox, row, key=("provider", "event_id"))
        return new

    async def unknown(self, events: Sequence[Event]) -> list[Event]:
        """Those of which nothing is stored yet: a cheap read before `receive`."""
        ids = [event.id for event in events]
        columns = psp_inbox.c
        wanted = select(columns.event_id).where(
            columns.provider == self._provider, columns.event_id.in_(ids)
        )
        async with self._database.read() as conn:
            known = set((await conn.execute(wanted)).scalars())
        return [event for event in events if event.id not in known]

    async def claim(self, limit: int, now: int) -> list[Waiting]:
        """Up to `limit` events that are due, oldest first, leased for `LEASE_MS`."""
        columns = psp_inbox.c
        due = (
            columns.provider == self._provider,
            columns.state.in_(("received", "parked")),
            columns.next_at <= now,
        )
        async with self._database.read() as conn:
            if (await conn.execute(select(columns.event_id).where(*due).limit(1))).first() is None:
                return []
        wanted = (
            select(psp_inbox)
            .where(*due)
            .order_by(columns.received_at, columns.event_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        async with self._database.begin() as conn:
            rows = (await conn.execute(wanted)).all()
            await conn.execute(
                update(psp_inbox)
                .where(
                    columns.provider == self._provider,
                    columns.event_id.in_([row.event_id for row in rows]),
                )
                .values(next_at=now + LEASE_MS, tries=columns.tries + 1)
            )
        return [
            Waiting(row.event_id, row.kind, row.object_id, row.received_at, row.tries)
            for row in rows
        ]

    async def done(self, ids: Sequence[str]) -> None:
        """Worked off."""
        await self._set(ids, state="done", next_at=None)

    async def park(self, event: Waiting, now: int) -> bool:
        """Later; False when it has waited for a week and is given up."""
        if now - event.received_at > DEAD_AFTER_MS:
            await self._set([event.id], state="dead", next_at=None)
            return False
        wait = min(PARK_MS << min(event.tries, 20), PARK_MAX_MS)
        await self._set([event.id], state="parked", next_at=now + wait)
        return True

    async def prune(self, now: int) -> None:
        """Forgets what was done more than `KEEP_MS` ago."""
        columns = psp_inbox.c
        async with self._database.begin() as conn:
            await conn.execute(
                delete(psp_inbox).where(
                    columns.provider == self._provider,
                    columns.state == "done",
                    columns.received_at < now - KEEP_MS,
                )
            )

    async def _set(self, ids: Sequence[str], *, state: str, next_at: int | None) -> None:
        columns = psp_inbox.c
        async with self._database.begin() as conn:
            await conn.execute(
                update(psp_inbox)
                .where(columns.provider == self._provider, columns.event_id.in_(list(ids)))
                .values(state=state, next_at=next_at)
            )
