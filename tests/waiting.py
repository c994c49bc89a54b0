"""Waiting on a condition with a deadline: what tests do instead of sleeping."""

import asyncio
import time
from collections.abc import Awaitable, Callable

DEADLINE_S = 20.0
"""Generous on purpose: it is spent only by a test that is failing anyway."""
POLL_S = 0.005


async def until(
    condition: Callable[[], object | Awaitable[object]], deadline_s: float = DEADLINE_S
) -> None:
    """Return when `condition` is true (it may be async). Raises TimeoutError past the deadline."""
    async with asyncio.timeout(deadline_s):
        while True:
            answer = condition()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(POLL_S)


def until_sync(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """The same for tests without a loop."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come true")
        time.sleep(POLL_S)
