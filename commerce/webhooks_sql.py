"""Endpoints, events and deliveries in the database.

Responsible for making the deliveries of a fact in one transaction with the mark that it was done,
and for handing each delivery to one courier at a time, in order per key. It must not know what a
fact means, nor send anything.

Order: deliveries are made under one lock, facts by their id, so ids of events grow as the facts
did; a delivery is not handed out while an older one of its endpoint and key is pending.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import and_, delete, exists, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.database_sql import Database
from commerce.outbox import Fact
from commerce.schema_sql import outbox, webhook_delivery, webhook_endpoint, webhook_event
from commerce.webhooks import (
    ENDPOINTS_MAX,
    TEST_TYPE,
    Delivery,
    DeliveryState,
    Endpoint,
    Event,
    Stopped,
)

KEEP_MS: Final = 30 * 24 * 3_600_000
"""Events stay this long, for whoever asks what was sent. The schedule of tries ends long before."""
PRUNE_MAX: Final = 1_000
_LOCK: Final = 0x76697477
"""Number of the advisory lock on PostgreSQL under which deliveries are made and claimed."""
_PENDING: Final = DeliveryState.PENDING.value


class SqlWebhooks:
    """All of one shop. `new_id` makes ids. Every method raises Unavailable."""

    def __init__(self, database: Database, new_id: Callable[[], str]) -> None:
        self._database = database
        self._new_id = new_id

    # Facts become deliveries.

    async def facts(self, limit: int) -> list[Fact]:
        """Facts for which no deliveries were made, oldest first."""
        row = outbox.c
        wanted = (
            select(row.id, row.topic, row.key, row.payload, row.created_at)
            .where(row.hooks_at.is_(None))
            .order_by(row.id)
            .limit(limit)
        )
        async with self._database.read() as conn:
            return [Fact(*found) for found in (await conn.execute(wanted))]

    async def tell(self, told: Sequence[tuple[Fact, Sequence[Event]]], now: int) -> None:
        """Makes the deliveries of these facts, unless another node has made them meanwhile."""
        async with self._database.begin() as conn:
            await self._lock(conn)
            open_ = select(outbox.c.id).where(
                outbox.c.id.in_([fact.id for fact, _ in told]), outbox.c.hooks_at.is_(None)
            )
            ours = set((await conn.execute(open_)).scalars())
            endpoints = await _endpoints(conn)
            for fact, events in told:
                if fact.id in ours:
                    for event in events:
                        await self._add(conn, event, endpoints, now)
            await conn.execute(update(outbox).where(outbox.c.id.in_(ours)).values(hooks_at=now))

    async def _add(
        self, conn: AsyncConnection, event: Event, endpoints: Sequence[Endpoint], now: int
    ) -> None:
        wanting = [one for one in endpoints if event.type == TEST_TYPE or one.wants(event.type)]
        if not wanting:
            return
        row = {
            "uid": f"msg_{self._new_id()}",
            "type": event.type,
            "key": event.key,
            "body": event.body,
            "created_at": now,
        }
        made = await conn.execute(insert(webhook_event).values(row).returning(webhook_event.c.id))
        number = made.scalar_one()
        await conn.execute(
            insert(webhook_delivery),
            [
                {
                    "endpoint": one.id,
                    "event": number,
                    "key": event.key,
                    "state": _PENDING,
                    "tries": 0,
                    "next_at": now,
                    "answer": "",
                    "updated_at": now,
                }
                for one in wanting
            ],
        )

    # Endpoints.

    async def endpoints(self) -> list[Endpoint]:
        """All, oldest first."""
        async with self._database.read() as conn:
            return await _endpoints(conn)

    async def endpoint(self, id_: str) -> Endpoint | None:
        """One."""
        async with self._database.read() as conn:
            return await _one(conn, id_)

    async def add_endpoint(self, url: str, types: Sequence[str], now: int) -> Endpoint | None:
        """A new one; None if there are ENDPOINTS_MAX already."""
        made = Endpoint(f"we_{self._new_id()}", url, tuple(types), 1, None, now)
        async with self._database.begin() as conn:
            await self._lock(conn)
            if len(await _endpoints(conn)) >= ENDPOINTS_MAX:
                return None
            await conn.execute(
                insert(webhook_endpoint).values(
                    id=made.id, url=url, types=list(types), generation=1, created_at=now
                )
            )
        return made

    async def change_endpoint(self, id_: str, values: dict[str, Any]) -> Endpoint | None:
        """Sets url, types or stopped; the endpoint afterwards, None if there is none."""
        async with self._database.begin() as conn:
            if values:
                await conn.execute(
                    update(webhook_endpoint).where(webhook_endpoint.c.id == id_).values(**values)
                )
            return await _one(conn, id_)

    async def rotate(self, id_: str, generation: int, now: int) -> Endpoint | None:
        """The next secret, if its present one is of `generation` (a repetition rotates once)."""
        row = webhook_endpoint.c
        async with self._database.begin() as conn:
            await conn.execute(
                update(webhook_endpoint)
                .where(row.id == id_, row.generation == generation)
                .values(generation=generation + 1, rotated_at=now)
            )
            return await _one(conn, id_)

    async def remove_endpoint(self, id_: str) -> bool:
        """With all its deliveries; whether there was one."""
        async with self._database.begin() as conn:
            await conn.execute(delete(webhook_delivery).where(webhook_delivery.c.endpoint == id_))
            done = await conn.execute(delete(webhook_endpoint).where(webhook_endpoint.c.id == id_))
            return done.rowcount == 1

    async def test(self, id_: str, body: str, now: int) -> None:
        """A test event for one endpoint alone, whatever types it wants."""
        async with self._database.begin() as conn:
            await self._lock(conn)
            chosen = await _one(conn, id_)
            if chosen is not None:
                await self._add(conn, Event(TEST_TYPE, id_, body), [chosen], now)

    # Deliveries.

    async def due(self, now: int) -> list[Endpoint]:
        """See `commerce.webhooks.Deliveries`."""
        row = webhook_delivery.c
        some = exists().where(
            row.endpoint == webhook_endpoint.c.id,
            row.state == _PENDING,
            row.next_at <= now,
            row.claimed_until.is_(None) | (row.claimed_until <= now),
        )
        wanted = select(webhook_endpoint).where(webhook_endpoint.c.stopped.is_(None), some)
        async with self._database.read() as conn:
            return [_endpoint(found) for found in await conn.execute(wanted)]

    async def claim(self, endpoint: str, limit: int, now: int, lease_ms: int) -> list[Delivery]:
        """See `commerce.webhooks.Deliveries`."""
        mine, older = webhook_delivery.c, webhook_delivery.alias("older")
        earlier = exists().where(
            and_(
                older.c.endpoint == mine.endpoint,
                older.c.key == mine.key,
                older.c.event < mine.event,
                older.c.state == _PENDING,
            )
        )
        async with self._database.begin() as conn:
            await self._lock(conn)
            found = await _deliveries(
                conn,
                mine.endpoint == endpoint,
                mine.state == _PENDING,
                mine.next_at <= now,
                mine.claimed_until.is_(None) | (mine.claimed_until <= now),
                ~earlier,
                limit=limit,
            )
            if found:
                await conn.execute(
                    update(webhook_delivery)
                    .where(mine.endpoint == endpoint, mine.event.in_([one.event for one in found]))
                    .values(claimed_until=now + lease_ms)
                )
        return found

    async def delivered(self, delivery: Delivery, answer: str, now: int) -> None:
        """See `commerce.webhooks.Deliveries`."""
        async with self._database.begin() as conn:
            await _end(conn, delivery, DeliveryState.DELIVERED, answer, now)
            await conn.execute(
                update(webhook_endpoint)
                .where(webhook_endpoint.c.id == delivery.endpoint)
                .values(delivered_at=now)
            )

    async def failed(self, delivery: Delivery, answer: str, next_at: int | None, now: int) -> None:
        """See `commerce.webhooks.Deliveries`."""
        state = DeliveryState.DEAD if next_at is None else DeliveryState.PENDING
        async with self._database.begin() as conn:
            await _end(conn, delivery, state, answer, now, next_at=next_at)

    async def gone(self, delivery: Delivery, now: int) -> None:
        """See `commerce.webhooks.Deliveries`."""
        async with self._database.begin() as conn:
            await _end(conn, delivery, DeliveryState.DEAD, "410", now)
            await conn.execute(
                update(webhook_endpoint)
                .where(webhook_endpoint.c.id == delivery.endpoint)
                .values(stopped=Stopped.GONE.value)
            )

    async def deliveries(
        self, endpoint: str, state: DeliveryState | None, after: int | None, limit: int
    ) -> list[Delivery]:
        """Newest first; `after` is the event number of the last one of the page before."""
        row = webhook_delivery.c
        conditions = [row.endpoint == endpoint]
        if state is not None:
            conditions.append(row.state == state.value)
        if after is not None:
            conditions.append(row.event < after)
        async with self._database.read() as conn:
            return await _deliveries(conn, *conditions, limit=limit, newest_first=True)

    async def replay(self, endpoint: str, event: int | None, now: int) -> int:
        """Sends one again (None: all that were given up), from the first try on; how many."""
        row = webhook_delivery.c
        chosen = [row.endpoint == endpoint]
        if event is None:
            chosen.append(row.state == DeliveryState.DEAD.value)
        else:
            chosen += [row.event == event, row.state != _PENDING]
        async with self._database.begin() as conn:
            done = await conn.execute(
                update(webhook_delivery)
                .where(*chosen)
                .values(state=_PENDING, tries=0, next_at=now, claimed_until=None, updated_at=now)
            )
            return done.rowcount

    async def counts(self) -> dict[str, dict[DeliveryState, int]]:
        """Deliveries by endpoint and state."""
        row = webhook_delivery.c
        wanted = select(row.endpoint, row.state, func.count()).group_by(row.endpoint, row.state)
        found: dict[str, dict[DeliveryState, int]] = {}
        async with self._database.read() as conn:
            for endpoint, state, number in await conn.execute(wanted):
                found.setdefault(endpoint, {})[DeliveryState(state)] = number
        return found

    async def prune(self, now: int) -> int:
        """Deletes old events, also what an endpoint that was stopped never heard; how many."""
        row = webhook_delivery.c
        old = (
            select(webhook_event.c.id)
            .where(webhook_event.c.created_at < now - KEEP_MS)
            .limit(PRUNE_MAX)
        )
        async with self._database.begin() as conn:
            numbers = list((await conn.execute(old)).scalars())
            await conn.execute(delete(webhook_delivery).where(row.event.in_(numbers)))
            await conn.execute(delete(webhook_event).where(webhook_event.c.id.in_(numbers)))
        return len(numbers)

    async def _lock(self, conn: AsyncConnection) -> None:
        """Makers and claimers take turns, or a key's second event could overtake its first."""
        if self._database.dialect == "postgresql":
            await conn.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


async def _end(
    conn: AsyncConnection,
    delivery: Delivery,
    state: DeliveryState,
    answer: str,
    now: int,
    *,
    next_at: int | None = None,
) -> None:
    """What a try came to. A courier whose lease was taken over changes nothing."""
    row = webhook_delivery.c
    await conn.execute(
        update(webhook_delivery)
        .where(
            row.endpoint == delivery.endpoint,
            row.event == delivery.event,
            row.state == _PENDING,
            row.tries == delivery.tries,
        )
        .values(
            state=state.value,
            tries=delivery.tries + 1,
            answer=answer,
            next_at=delivery.next_at if next_at is None else next_at,
            claimed_until=None,
            updated_at=now,
        )
    )


async def _endpoints(conn: AsyncConnection) -> list[Endpoint]:
    wanted = select(webhook_endpoint).order_by(webhook_endpoint.c.created_at, webhook_endpoint.c.id)
    return [_endpoint(found) for found in await conn.execute(wanted)]


async def _one(conn: AsyncConnection, id_: str) -> Endpoint | None:
    wanted = select(webhook_endpoint).where(webhook_endpoint.c.id == id_)
    found = (await conn.execute(wanted)).first()
    return None if found is None else _endpoint(found)


def _endpoint(row: Any) -> Endpoint:
    return Endpoint(
        id=row.id,
        url=row.url,
        types=tuple(row.types),
        generation=row.generation,
        rotated_at=row.rotated_at,
        created_at=row.created_at,
        stopped=None if row.stopped is None else Stopped(row.stopped),
        delivered_at=row.delivered_at,
    )


async def _deliveries(
    conn: AsyncConnection, *conditions: Any, limit: int, newest_first: bool = False
) -> list[Delivery]:
    row, event = webhook_delivery.c, webhook_event.c
    wanted = (
        select(
            row.endpoint,
            row.event,
            event.uid,
            event.type,
            row.key,
            event.body,
            row.state,
            row.tries,
            row.next_at,
            row.answer,
            event.created_at,
            row.updated_at,
        )
        .join(webhook_event, event.id == row.event)
        .where(*conditions)
        .order_by(row.event.desc() if newest_first else row.event)
        .limit(limit)
    )
    return [
        Delivery(**{**found._mapping, "state": DeliveryState(found.state)})
        for found in await conn.execute(wanted)
    ]
