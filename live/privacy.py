"""The promise to forget, kept while the shop is open.

Responsible for what must happen by itself: details of an older version are sealed, erasures that a
crash or a restored copy has left undone are repeated, keys move to the newest master, and what the
shop need not keep any longer is forgotten. It must not know tables or ciphers.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from commerce.errors import CommerceError

log = logging.getLogger(__name__)

ROUND_S: Final = 3_600.0
DAY_MS: Final = 86_400_000


class Kept(Protocol):
    """What is kept about people. All methods raise Unavailable."""

    async def seal_old(self) -> int: ...

    async def repeat_erasures(self) -> int: ...

    async def rewrap(self) -> int: ...

    async def retire(self, before: int) -> int: ...


class Retention:
    """One per node; several do each other no harm. `days` 0: nothing is forgotten by age."""

    def __init__(self, kept: Kept, days: int, clock: Callable[[], int]) -> None:
        self._kept = kept
        self._days = days
        self._clock = clock

    async def run(self) -> None:
        """For ever; an outage only delays."""
        while True:
            try:
                await self.round()
            except CommerceError as outage:
                log.warning("retention waits: %s", type(outage).__name__)
            await asyncio.sleep(ROUND_S)

    async def round(self) -> None:
        """One round. Raises Unavailable."""
        if sealed := await self._kept.seal_old():
            log.info("%d details of an older version are sealed now", sealed)
        if repeated := await self._kept.repeat_erasures():
            log.info("%d persons were forgotten again, as the list of erasures says", repeated)
        if renewed := await self._kept.rewrap():
            log.info("%d keys are under the newest master now", renewed)
        if self._days:
            while await self._kept.retire(self._clock() - self._days * DAY_MS):
                pass
