"""A node that starts while its engines restart waits for them.

Responsible for how long, and for one line in the log however often it asks. It must not know what
is asked. A supervisor that starts everything after a power cut starts the node before PostgreSQL
has recovered; that ended with a stack trace, and the supervisor's own back-off then kept the shop
closed longer than the recovery did. A database that is away for good ends the start with one
sentence. A Valkey that is away does not: the node serves from the record, and merely looks for it
long enough to learn whether it is of a cluster.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from commerce.batcher import Pause
from commerce.errors import Unavailable

logger = logging.getLogger(__name__)

START_WAIT_S: Final = 20.0
"""PostgreSQL recovers from a kill -9 under the drill's load in 1 to 3 s."""
LOOK_EVERY_S: Final = 0.25

R = TypeVar("R")


class EngineAway(Exception):
    """The database did not answer within the time that a start waits; the text is a sentence."""


class Engine(Protocol):
    """A database, as far as a start asks for it."""

    async def answers(self) -> bool:
        """Whether it can be asked anything."""


async def meet_database(
    database: Engine,
    meet: Callable[[], Awaitable[R]],
    *,
    wait_s: float = START_WAIT_S,
    pause: Pause = asyncio.sleep,
) -> R:
    """What `meet` gives, as soon as the database lets it. It may be begun more than once.

    Raises EngineAway after `wait_s` seconds, and whatever `meet` raises but Unavailable.
    """
    deadline = asyncio.get_running_loop().time() + wait_s
    told = False
    while True:
        if await database.answers():
            try:
                return await meet()
            except Unavailable:  # it went away in the middle
                pass
        if asyncio.get_running_loop().time() >= deadline:
            raise EngineAway(
                f"the database did not answer within {wait_s:g} s; "
                "`python -m live doctor` looks for the reason"
            )
        if not told:
            told = True
            logger.warning("the database does not answer yet; waiting up to %g s for it", wait_s)
        await pause(LOOK_EVERY_S)


async def meet_valkey(
    look: Callable[[], Awaitable[str | None]],
    *,
    wait_s: float = START_WAIT_S,
    pause: Pause = asyncio.sleep,
) -> str | None:
    """What `look` finds once Valkey answers it; None: it did not within `wait_s` seconds."""
    deadline = asyncio.get_running_loop().time() + wait_s
    told = False
    while (found := await look()) is None and asyncio.get_running_loop().time() < deadline:
        if not told:
            told = True
            logger.warning("Valkey does not answer yet; waiting up to %g s for it", wait_s)
        await pause(LOOK_EVERY_S)
    return found
