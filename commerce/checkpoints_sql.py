"""Moving what SQLite has committed from its log into its file, between the crowds.

Responsible for when that happens. It must not know any table.

A commit appends to the write-ahead log and waits for the disk once. SQLite moves the log into the
file by itself when it has 1,000 pages, inside the commit of whoever happens to be the next: two
more waits for the disk and as many writes as there are pages. A crowd of winners fills 1,000 pages
in under a second, so one batch of them in twenty waited several times as long, and all behind it.

So each connection leaves the log alone until it has LOG_PAGES, and it is moved here, in a thread
and on a connection of its own, when nobody has written for a while. Readers and writers go on
meanwhile (PASSIVE waits for nobody). If this never runs, the log is bounded all the same.
"""

import asyncio
import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # which imports this module
    from commerce.database_sql import Database

logger = logging.getLogger(__name__)

LOG_PAGES: Final = 16_384
"""64 MB. A log of this size is moved by a commit after all."""
LOOK_S: Final = 1.0
"""A second without a commit is quiet."""
LOOKS_MAX: Final = 30
"""In a shop that is never quiet the log is moved after so many looks."""


class Checkpoints:
    """Of one database. `step` is one look."""

    def __init__(self, database: "Database") -> None:
        self._database = database
        self._seen = self._moved = database.writes
        self._waited = 0

    async def run(self) -> None:
        """For ever; on PostgreSQL, which has a process for this, not at all."""
        while self._database.dialect == "sqlite":
            await asyncio.sleep(LOOK_S)
            await self.step()

    async def step(self) -> bool:
        """Moves the log if something was written and it is quiet now; whether it did."""
        writes, seen = self._database.writes, self._seen
        self._seen = writes
        if writes == self._moved:
            return False
        self._waited += 1
        if writes != seen and self._waited < LOOKS_MAX:
            return False
        self._moved, self._waited = writes, 0
        await asyncio.to_thread(_move, self._database.engine.url.database or "")
        return True


def _move(path: str) -> None:
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        logger.warning("the database's log was not moved: %s", type(error).__name__)
