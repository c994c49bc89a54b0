"""Asks the database what `doctor` wants to know; changes nothing there.

Responsible for the facts and for turning every failure into `ProbeFailed`. It must not judge. It
opens the database in the way the program does (`commerce.database_sql`), because SQLite's
durability is a property of the connection, not of the file.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.database_sql import Database
from live.doctor import ProbeFailed, SqlFacts, Timing, Version

ROUNDS: Final = 10
PROBE_TIMEOUT_S: Final = 15.0
SQLITE_SETTINGS: Final = ("journal_mode", "synchronous", "foreign_keys")
POSTGRES_SETTINGS: Final = ("fsync", "full_page_writes", "synchronous_commit", "max_connections")
NOW_MS: Final = {
    "sqlite": "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
}
HAS_REVISION: Final = {
    "sqlite": "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'",
    "postgresql": "SELECT count(*) FROM pg_class WHERE oid = to_regclass('alembic_version')",
}


async def probe(url: str, *, clock: Callable[[], int]) -> SqlFacts:
    """Facts about the database at `url`. `clock` gives milliseconds. Raises ProbeFailed."""
    try:
        if _is_missing_file(url):
            return SqlFacts("sqlite", exists=False)
        database = await Database.open(url, poolsize=1)
    except (SQLAlchemyError, ValueError) as error:
        raise ProbeFailed("the URL makes no sense") from error
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S), database.engine.connect() as conn:
            return await _facts(conn, clock)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        reason = str(getattr(error, "orig", None) or error) or type(error).__name__
        raise ProbeFailed(f"no answer: {reason.splitlines()[0]}") from error
    finally:
        await database.close()


async def _facts(conn: AsyncConnection, clock: Callable[[], int]) -> SqlFacts:
    dialect = conn.dialect.name
    if dialect == "sqlite":
        settings = [(name, await _one(conn, f"PRAGMA {name}")) for name in SQLITE_SETTINGS]
        version = await _one(conn, "SELECT sqlite_version()")
        replica = "0"
    else:
        settings = [(name, await _one(conn, f"SHOW {name}")) for name in POSTGRES_SETTINGS]
        version = (await _one(conn, "SHOW server_version")).split()[0]
        replica = await _one(conn, "SELECT CAST(pg_is_in_recovery() AS INTEGER)")
    revision = None
    if await _one(conn, HAS_REVISION[dialect]) != "0":
        revision = await _one(conn, "SELECT max(version_num) FROM alembic_version")
    return SqlFacts(
        "sqlite" if dialect == "sqlite" else "postgresql",
        exists=True,
        version=_version(version),
        timing=await _timing(conn, clock),
        settings=tuple(settings),
        revision=None if revision == "None" else revision,
        replica=replica == "1",
    )


async def _timing(conn: AsyncConnection, clock: Callable[[], int]) -> Timing:
    """The clock is compared in the middle of the fastest trip: there the error is smallest."""
    trips_ms = []
    best_ms, skew_ms = float("inf"), 0.0
    for _ in range(ROUNDS):
        sent_ms, since = clock(), time.perf_counter()
        now_ms = int(await _one(conn, NOW_MS[conn.dialect.name]))
        trip_ms = (time.perf_counter() - since) * 1000
        trips_ms.append(trip_ms)
        if trip_ms < best_ms:
            best_ms = trip_ms
            skew_ms = now_ms - (sent_ms + trip_ms / 2)
    return Timing(statistics.median(trips_ms), max(trips_ms), round(skew_ms))


async def _one(conn: AsyncConnection, statement: str) -> str:
    return str((await conn.exec_driver_sql(statement)).scalar())


def _is_missing_file(url: str) -> bool:
    parsed = make_url(url)
    file = parsed.database or ""
    return parsed.get_backend_name() == "sqlite" and file != "" and not Path(file).exists()


def _version(text: str) -> Version:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdecimal())
