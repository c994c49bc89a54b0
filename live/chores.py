"""What a node does on the side for as long as it runs, and how its tasks are ended.

Responsible for the slow loops that belong to no part alone: forgetting old answers, comparing the
books with the provider's. It must not know engines. An outage never ends a loop; it waits.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from commerce.errors import CommerceError
from commerce.provider_check import ProviderCheck
from commerce.recovery import Recovery

if TYPE_CHECKING:  # chosen in live/app.py
    from commerce.idempotency_sql import SqlIdempotency

log = logging.getLogger(__name__)

FORGET_S: Final = 3_600.0
COMPARE_S: Final = 900.0
"""Between two comparisons with the provider's books: a few requests and some sums in SQL."""
RECOVER_S: Final = 5.0
"""Between two tries to bring in what was lost with a database, when the provider is away."""
CANCELS_MAX: Final = 5
CANCEL_WAIT_S: Final = 2.0


async def forget_old_keys(keys: "SqlIdempotency") -> None:
    """Without it the answers kept for repetitions would grow for as long as the shop lives."""
    while True:
        try:
            while await keys.prune():
                pass
        except CommerceError as outage:
            log.warning("old keys stay: %s", type(outage).__name__)
        await asyncio.sleep(FORGET_S)


async def compare_books(check: ProviderCheck) -> None:
    """What differs from the provider's books is in the log and the metrics, not in a drawer."""
    while True:
        await asyncio.sleep(COMPARE_S)
        try:
            await check.run()
        except CommerceError as outage:
            log.warning("the books were not compared: %s", type(outage).__name__)


async def recover(recovery: Recovery) -> None:
    """After a restore: until everything the provider knows is known here; then nothing more."""
    while True:
        try:
            done = await recovery.after_restore()
            if done is None:
                return
            if not done.complete:
                log.error("more was sold since the copy than one walk sees: reconcile --recover")
                return
            if not done.undecided:
                return
        except CommerceError as outage:
            log.warning("not recovered yet: %s", type(outage).__name__)
        await asyncio.sleep(RECOVER_S)


async def end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel, and again: one that arrives as a library's wait ends can get lost there."""
    for _ in range(CANCELS_MAX):
        running = [task for task in tasks if not task.done()]
        if not running:
            return
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=CANCEL_WAIT_S)
    names = ", ".join(task.get_name() for task in tasks if not task.done())
    if names:
        log.error("still running at the end: %s", names)
