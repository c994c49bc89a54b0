"""Puts what is published in one room into the order and the batches in which the broker gets it.

Responsible for one publish at a time per room and node, and for what gathers meanwhile going out as
the next one. It must not know what items mean.

Natural batching: at rest a publish leaves at once, under load the batch grows with the broker's
round trip, so a node makes at most one round trip at a time per room and the order in which a
product published is the order that viewers see. The callers of one batch share its fate.

At rest a publish is sent by its caller itself; a task is made only for what gathers behind it. The
task cost a turn of the event loop and 0.1 ms at each publish.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from realtime.broker import BATCH_ITEMS_MAX, Item, Published
from realtime.errors import BUSY, BrokerUnavailable, Rejected

log = logging.getLogger(__name__)

WAITING_MAX: Final = 2_000
"""Publishes waiting for the broker in one room; of more, `busy`. Two seconds of a wild chat."""

Send = Callable[[Sequence[Item]], Awaitable[Published]]
_Asked = tuple[Sequence[Item], asyncio.Future[Published]]


class Publisher:
    """Publishes of one room, in order."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[_Asked] = deque()
        self._task: asyncio.Task[None] | None = None
        self._alone = False
        """A caller is sending for itself."""

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        return self._task is None and not self._alone

    async def publish(self, items: Sequence[Item]) -> Published:
        """What the items were given. Raises BrokerUnavailable, Rejected (busy), ValueError."""
        if not 1 <= len(items) <= BATCH_ITEMS_MAX:
            raise ValueError(f"a publish has 1 to {BATCH_ITEMS_MAX} items, not {len(items)}")
        if len(self._waiting) >= WAITING_MAX:
            raise Rejected(BUSY, "Very busy right now.", retry_after_ms=1000)
        if self.idle:
            return await self._publish_alone(items)
        answer: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, answer))
        return await answer

    async def _publish_alone(self, items: Sequence[Item]) -> Published:
        self._alone = True
        try:
            return await self._send(items)
        except (BrokerUnavailable, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("what a product published cannot be published")
            raise
        finally:
            self._alone = False
            if self._waiting:
                self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._next()
        finally:
            self._task = None
            _fail(self._waiting, BrokerUnavailable("this node is closing"))
            self._waiting.clear()

    async def _next(self) -> None:
        batch: list[_Asked] = []
        size = 0
        while self._waiting and size + len(self._waiting[0][0]) <= BATCH_ITEMS_MAX:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0])
        await self._try(batch)

    async def _try(self, batch: list[_Asked]) -> None:
        items = [item for own, _ in batch for item in own]
        try:
            published = await self._send(items)
        except BrokerUnavailable as wrong:
            _fail(batch, wrong)
        except asyncio.CancelledError:
            _fail(batch, BrokerUnavailable("this node is closing"))
            raise
        except Exception as wrong:
            if len(batch) == 1:
                _fail(batch, wrong)
                log.exception("what a product published cannot be published")
            else:  # one caller's mistake is not the others' fault
                for asked in batch:
                    await self._try([asked])
        else:
            at = 0
            for own, answer in batch:
                if not answer.done():
                    numbers = published.numbers[at : at + len(own)]
                    answer.set_result(Published(published.epoch, numbers))
                at += len(own)

    async def close(self) -> None:
        """Stop; who waits is told that this node is closing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        _fail(self._waiting, BrokerUnavailable("this node is closing"))
        self._waiting.clear()


def _fail(batch: Iterable[_Asked], wrong: Exception) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(wrong)
