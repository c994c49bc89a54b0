"""What the composition root adds of its own."""

import asyncio
import contextlib

from sqlalchemy import func, select

from commerce.database_sql import Database
from commerce.idempotency_sql import KEEP_MS, SqlIdempotency
from commerce.schema_sql import idempotency
from live.chores import forget_old_keys
from live.migrate_sql import migrate
from tests.waiting import until


async def test_a_node_forgets_the_answers_that_nobody_can_ask_for_again(sqlite_url: str) -> None:
    database = await Database.open(sqlite_url)
    await migrate(database)
    now = [0]
    keys = SqlIdempotency(database, lambda: now[0])
    await keys.begin("scope", "old", "sha")
    now[0] = KEEP_MS + 1
    await keys.begin("scope", "new", "sha")
    task = asyncio.create_task(forget_old_keys(keys))

    async def forgotten() -> bool:
        async with database.read() as connection:
            counted = select(func.count()).select_from(idempotency)
            return (await connection.execute(counted)).scalar() == 1

    await until(forgotten)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await database.close()
