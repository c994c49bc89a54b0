"""Idempotency-Key: a request that is sent twice is carried out once and answered twice the same.

Responsible for the rows of `idempotency` and for the decision "replay or proceed". It must not know
HTTP: a scope (who, method and route), a key, a hash of the request, a status and a body.

    begin   commits a row "in progress" BEFORE the effect     -> proceed
    finish  stores the answer: in the effect's own transaction where the caller has one (`conn`)
    abandon takes the row away when nothing was done, so that the key can be used again

`keep` stores the answer in the effect's own transaction, so there is no instant in which the effect
is durable and its answer is not; everything that moves orders, money, stock, products, terms and
shows does that. `finish` after the effect (without `conn`) is left to refusals, to what changed
nothing (an import whose products are there already) and to states that are set (settings of the
shop, of a webhook, a person forgotten): a process that dies in between leaves the row in progress,
so a repetition is told "in progress" until `LEASE_MS` has passed and is then carried out again, to
the same end.

A payment page has its effect in two transactions, with the provider in between: the payment's row,
then the page's address, and with that the answer. Who dies between the two has no answer kept; the
repetition finds the row, asks the provider under the key that follows from the row, and gets the
page of that very payment, so nothing is made twice.

The lease is longer than any request may take, unless the effect may run twice at once too: then
who repeats need not wait so long for a node that died (`lease_ms`).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.database_sql import Database, insert_new
from commerce.errors import KeyConflict, KeyInProgress
from commerce.idempotency import KEY_CHARS_MAX, LEASE_MS, SCOPE_CHARS_MAX, Replay
from commerce.schema_sql import idempotency

KEEP_MS: Final = 72 * 3_600_000
"""How long an answer can be replayed."""
PRUNE_MAX: Final = 5_000


@dataclass(slots=True)
class Attempt:
    """One request under its key; see `SqlIdempotency.attempt`."""

    replay: Replay | None
    finished: bool = False


class SqlIdempotency:
    """Keys of one database. Every method raises Unavailable when it is away."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    async def begin(
        self, scope: str, key: str, sha: str, *, lease_ms: int = LEASE_MS
    ) -> Replay | None:
        """The stored answer, or None: carry it out and call `finish` or `abandon`.

        Raises KeyConflict (the key was used for another request) and KeyInProgress (the first one
        has not ended). Scope and key must be within their limits (ValueError).
        """
        if not 0 < len(key) <= KEY_CHARS_MAX or not 0 < len(scope) <= SCOPE_CHARS_MAX:
            raise ValueError("scope or key has a wrong length")
        now = self._clock()
        row = {"scope": scope, "key": key, "request_sha": sha, "created_at": now}
        columns = idempotency.c
        here = (columns.scope == scope, columns.key == key)
        async with self._database.begin() as conn:
            if await insert_new(conn, idempotency, row, key=("scope", "key")):
                return None
            known = (await conn.execute(select(idempotency).where(*here).with_for_update())).one()
            if known.created_at <= now - KEEP_MS:
                await conn.execute(
                    update(idempotency).where(*here).values(status=None, body=None, **row)
                )
                return None
            if known.request_sha != sha:
                raise KeyConflict
            if known.status is not None:
                return Replay(known.status, known.body or "")
            if known.created_at > now - lease_ms:
                raise KeyInProgress
            await conn.execute(update(idempotency).where(*here).values(created_at=now))
        return None

    async def finish(
        self, scope: str, key: str, status: int, body: str, *, conn: AsyncConnection | None = None
    ) -> None:
        """Stores the answer; with `conn` in the transaction of the effect."""
        done = (
            update(idempotency)
            .where(idempotency.c.scope == scope, idempotency.c.key == key)
            .values(status=status, body=body)
        )
        if conn is not None:
            await conn.execute(done)
            return
        async with self._database.begin() as own:
            await own.execute(done)

    async def keep(
        self, transaction: AsyncConnection, scope: str, key: str, status: int, body: str
    ) -> None:
        """`finish` in the transaction of the effect; see `commerce.keep`."""
        await self.finish(scope, key, status, body, conn=transaction)

    async def abandon(self, scope: str, key: str) -> None:
        """Nothing was done: the key is free again. An answer that was stored stays."""
        columns = idempotency.c
        async with self._database.begin() as conn:
            await conn.execute(
                delete(idempotency).where(
                    columns.scope == scope, columns.key == key, columns.status.is_(None)
                )
            )

    @asynccontextmanager
    async def attempt(self, scope: str, key: str, sha: str) -> AsyncIterator[Attempt]:
        """`begin` at the start; at the end `abandon`, unless the block set `finished`.

        An exception out of the block also abandons: use it for effects that are either done and
        finished, or not done at all, or idempotent by themselves.
        """
        attempt = Attempt(await self.begin(scope, key, sha))
        if attempt.replay is not None:
            yield attempt
            return
        try:
            yield attempt
        finally:
            if not attempt.finished:
                await self.abandon(scope, key)

    async def prune(self) -> int:
        """Deletes answers that are older than KEEP_MS; how many."""
        columns = idempotency.c
        old = (
            select(columns.scope, columns.key)
            .where(columns.created_at < self._clock() - KEEP_MS)
            .limit(PRUNE_MAX)
        )
        async with self._database.begin() as conn:
            rows = (await conn.execute(old)).all()
            for row in rows:
                await conn.execute(
                    delete(idempotency).where(columns.scope == row.scope, columns.key == row.key)
                )
        return len(rows)
