"""What a viewer who joins owns already: open holds, orders, presses that have no answer yet.

Responsible for asking the record once for all who join at the same moment. It must not know
connections or what a join is. Each join asked by itself costs four transactions: of a storm of
5,000 joins 4,087 were refused because the pool of connections ran dry, and the loop stood still for
1.5 s. Asked together, 15,000 joins are some hundred and twenty questions.

Natural batching, as in `realtime.publisher`: at rest a question leaves at once, and while one is
under way the next one gathers. There is one at a time, so a storm takes one connection of the pool
and leaves the others to Buy. Who gives up is not asked about; the question goes on for the rest.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from commerce.checkout import Checkout
from commerce.errors import CommerceError, Unavailable
from commerce.orders import Order, Orders
from commerce.stock import Hold
from commerce.waiting import Waiter, Waitlist
from live.codes import refuse
from live.shows import Show, Shows
from realtime.errors import BUSY

log = logging.getLogger(__name__)

BATCH_VIEWERS_MAX: Final = 128
WAITING_MAX: Final = 20_000
"""Viewers waiting for an answer on this node; of more, `busy`."""
ANSWER_MAX_S: Final = 6.0
"""Less than the deadline of a join: who waited so long is told, not cut."""
RETRY_MS: Final = 1_000
ANSWERS_AT_ONCE: Final = 16
"""Joins that go on in one turn of the loop: 0.15 ms each, up to the snapshot."""
GATHER_S: Final = 0.03
"""Between two questions while viewers come: three questions of five cost 2 ms of CPU, one of a
hundred costs 4, and a storm is when there is none to spare. At rest nobody waits for it."""
OWN_ORDERS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Own:
    """What one viewer has in this shop, of all shows; `decided` by rid, without strangers' rids."""

    holds: Sequence[Hold]
    orders: Sequence[Order]
    decided: dict[str, Hold]
    waits: Sequence[Waiter]


_Asked = tuple[str, Sequence[str], "asyncio.Future[Own]"]


class Belongings:
    """Answers for this node. One per node."""

    def __init__(self, checkout: Checkout, orders: Orders, waits: Waitlist) -> None:
        self._checkout = checkout
        self._waits = waits
        self._orders = orders
        self._waiting: deque[_Asked] = deque()
        self._task: asyncio.Task[None] | None = None
        self.questions = 0
        """Batches asked since the start."""

    @property
    def waiting(self) -> int:
        """Viewers whose question is not under way yet."""
        return len(self._waiting)

    async def of(self, viewer: str, undecided: Sequence[str] = ()) -> Own:
        """Raises `Rejected` (busy) and `Unavailable`, both soon."""
        if len(self._waiting) >= WAITING_MAX:
            raise refuse(BUSY, retry_after_ms=RETRY_MS)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Own] = loop.create_future()
        self._waiting.append((viewer, undecided, answer))
        if self._task is None:
            self._task = loop.create_task(self._work(), name="belongings")
        try:
            async with asyncio.timeout(ANSWER_MAX_S):
                return await answer
        except TimeoutError:
            raise Unavailable(RETRY_MS) from None

    async def close(self) -> None:
        """Stop; who waits hears that it is not available."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        # A task that is cancelled before its first step has no last step either.
        self._task = None
        _fail(self._waiting, Unavailable(RETRY_MS))
        self._waiting.clear()

    async def _work(self) -> None:
        batch: list[_Asked] = []
        try:
            while self._waiting:
                size = min(BATCH_VIEWERS_MAX, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(size)]
                # Who has gone meanwhile is not asked about.
                batch = [asked for asked in batch if not asked[2].done()]
                if batch:
                    await self._answer(batch)
                    if 0 < len(self._waiting) < BATCH_VIEWERS_MAX:
                        await asyncio.sleep(GATHER_S)
        finally:
            self._task = None
            _fail([*batch, *self._waiting], Unavailable(RETRY_MS))
            self._waiting.clear()

    async def _answer(self, batch: Sequence[_Asked]) -> None:
        self.questions += 1
        viewers = sorted({viewer for viewer, _, _ in batch})
        rids = sorted({rid for _, undecided, _ in batch for rid in undecided})
        try:
            holds = await self._checkout.open_holds_of(viewers)
            orders = await self._orders.of_viewers(viewers, OWN_ORDERS_SHOWN)
            decided = await self._checkout.find_all(rids) if rids else {}
            waits = await self._waits.of_viewers(viewers)
        except CommerceError as wrong:
            _fail(batch, wrong)
            return
        except Exception:
            log.exception("what viewers own could not be read")
            _fail(batch, Unavailable(RETRY_MS))
            return
        for number, (viewer, undecided, answer) in enumerate(batch, 1):
            if not answer.done():
                known = ((rid, decided.get(rid)) for rid in undecided)
                own = {rid: hold for rid, hold in known if hold and hold.viewer == viewer}
                answer.set_result(
                    Own(holds.get(viewer, ()), orders.get(viewer, ()), own, waits.get(viewer, ()))
                )
            if number % ANSWERS_AT_ONCE == 0:
                await asyncio.sleep(0)


def _fail(batch: Iterable[_Asked], wrong: CommerceError) -> None:
    for _, _, answer in batch:
        if not answer.done():
            answer.set_exception(wrong)


class ShowReader:
    """Reads a show once however many ask for it at the same moment."""

    def __init__(self, shows: Shows) -> None:
        self._shows = shows
        self._reading: dict[str, asyncio.Task[Show]] = {}

    async def get(self, show_id: str) -> Show:
        """Raises `Rejected` (unknown_show), `Unavailable`."""
        reading = self._reading.get(show_id)
        if reading is None:
            reading = asyncio.get_running_loop().create_task(self._shows.get(show_id))
            self._reading[show_id] = reading
            reading.add_done_callback(lambda _: self._reading.pop(show_id, None))
        # Shielded: one who gives up must not take the answer from the others.
        return await asyncio.shield(reading)

    async def close(self) -> None:
        """Stop what is under way."""
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
