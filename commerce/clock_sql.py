"""One clock for every node: the database's, carried on by this machine's steady one.

Responsible for the time that decides (a drop opens, a hold ends): milliseconds since 1970 by the
database's clock. It must not decide anything itself.

Why so: deadlines are compared on whichever node looks first, so a node whose wall clock jumps by an
hour would end everybody's holds. A steady clock never jumps; only its distance to the database's
clock is measured, again every ten seconds. With SQLite the database is on this machine and has no
clock of its own: the distance to the wall clock is taken once, at the start.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from sqlalchemy import text

from commerce.batcher import Pause
from commerce.database_sql import Database
from commerce.errors import Unavailable

MEASURE_S: Final = 10.0
"""Crystals drift by some 50 ppm: half a millisecond in this time."""
TRIP_MAX_MS: Final = 200
"""A measurement that took longer says too little; it is made again next time."""


class DatabaseClock:
    """Call it for the time. `wall` and `steady` give milliseconds; it never goes backwards."""

    def __init__(
        self,
        database: Database,
        *,
        wall: Callable[[], int],
        steady: Callable[[], int],
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._database = database
        self._steady = steady
        self._pause = pause
        self._offset = wall() - steady()
        self._last = 0

    def __call__(self) -> int:
        now = self._steady() + self._offset
        if now > self._last:  # not max(): every press asks three times
            self._last = now
        return self._last

    async def measure(self) -> None:
        """Takes the distance to the database's clock. Raises Unavailable."""
        if self._database.dialect == "sqlite":
            return
        asked = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
        async with self._database.read() as conn:
            before = self._steady()
            theirs = int((await conn.execute(text(asked))).scalar_one())
            after = self._steady()
        if after - before <= TRIP_MAX_MS:
            self._offset = theirs - (before + after) // 2

    async def run(self) -> None:
        """Measures again and again until cancelled; an outage leaves the last distance."""
        while True:
            await self._pause(MEASURE_S)
            try:
                await self.measure()
            except Unavailable:
                continue
