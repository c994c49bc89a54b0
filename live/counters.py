"""Numbers at the room's pace: units left, likes.

Responsible for publishing the newest level of each SKU and the sum of likes, a few times a second
however many sales and likes there are: in a drop 2,000 presses a second would otherwise be 2,000
broadcasts times every viewer. It must not decide anything. Levels carry the gate's version, so two
nodes may publish in any order and an older number never replaces a newer one.
"""

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from commerce.checkout import Checkout
from commerce.errors import CommerceError
from commerce.stock import Level
from commerce.waiting import Waitlist
from live.stage import Stage
from realtime.broker import Item, State, Tally
from realtime.errors import BrokerUnavailable, Rejected
from realtime.hub import Hub

log = logging.getLogger(__name__)

PACE_S: Final = 0.1
"""Ten times a second is as fast as a person reads a falling number."""
CROWD_EVERY: Final = 10
"""While a crowd buys, levels go out every tenth round: to say a number to 15,000 viewers takes as
much of the loop (140 ms) as to answer 500 presses. That nothing is left, or something again, is
said at once."""
LIKES_EVERY: Final = 5
"""Likes go out every fifth round (TikTok and Tencent aggregate for seconds)."""
HEAL_EVERY: Final = 20
"""Every 2 s all levels on stage are asked for again, in case a publication was lost."""


class Counters:
    """This node's numbers that wait to be published."""

    def __init__(self, hub: Hub, stage: Stage) -> None:
        self._hub = hub
        self._stage = stage
        self._levels: dict[str, Level] = {}
        self._likes: Counter[str] = Counter()
        self._out: set[str] = set()
        self._waiting: dict[str, int] = {}
        self._rare_until = 0
        """The round from which levels go out in each again."""

    def mark(self, levels: Mapping[str, Level]) -> None:
        """Levels that this node has learnt; the newest of each SKU goes out at the next round."""
        for sku, level in levels.items():
            known = self._levels.get(sku)
            if known is None or level.version > known.version:
                self._levels[sku] = level

    def like(self, show: str, n: int) -> None:
        """`n` likes for a show."""
        self._likes[show] += n

    async def run(self, checkout: Checkout, waits: Waitlist, clock: Callable[[], int]) -> None:
        """Publish at the pace, for ever."""
        for turn in itertools.count(1):
            await asyncio.sleep(PACE_S)
            try:
                if turn % HEAL_EVERY == 0 and (skus := self._stage.skus()):
                    self.mark(await checkout.levels(skus))
                    await self._publish_waiting(await waits.counts(sorted(skus)), clock())
                await self.say_levels(turn, crowded=checkout.crowded)
                if turn % LIKES_EVERY == 0:
                    await self._publish_likes()
            except (BrokerUnavailable, CommerceError, Rejected) as outage:
                log.warning("counters wait: %s", type(outage).__name__)

    async def say_levels(self, turn: int, *, crowded: bool) -> None:
        """Publish what has changed, unless a crowd has been buying within the last second."""
        if crowded:
            self._rare_until = turn + CROWD_EVERY
        if turn >= self._rare_until or turn % CROWD_EVERY == 0 or self._turns():
            await self._publish_levels()

    def _turns(self) -> bool:
        """Whether a SKU has run out or come back since that was last said."""
        return any(
            (level.available <= 0) != (sku in self._out) for sku, level in self._levels.items()
        )

    async def _publish_levels(self) -> None:
        batch, self._levels = self._levels, {}
        items: dict[str, list[Item]] = {}
        for sku, level in batch.items():
            for show in self._stage.shows_of(sku):
                items.setdefault(show, []).append(
                    State(f"stock:{sku}", max(level.available, 0), level.version)
                )
        try:
            for show, states in items.items():
                await self._hub.publish_all(show, states)
        except (BrokerUnavailable, Rejected):
            self.mark(batch)
            raise
        self._tell_stage(batch)

    async def _publish_waiting(self, counts: Mapping[str, int], now: int) -> None:
        """How many wait for each SKU, where that has changed. Versions are milliseconds."""
        changed = {sku: n for sku, n in counts.items() if self._waiting.get(sku, 0) != n}
        for sku, n in changed.items():
            for show in self._stage.shows_of(sku):
                await self._hub.publish(show, [State(f"waiting:{sku}", n, now)])
        self._waiting = dict(counts)

    def _tell_stage(self, batch: Mapping[str, Level]) -> None:
        """A SKU that ran out or came back changes its drop from open to sold out, or back."""
        for sku, level in batch.items():
            gone = level.available <= 0
            if gone != (sku in self._out):
                (self._out.add if gone else self._out.discard)(sku)
                for show in self._stage.shows_of(sku):
                    self._stage.refresh_soon(show)

    async def _publish_likes(self) -> None:
        likes, self._likes = self._likes, Counter()
        for show, n in likes.items():
            try:
                await self._hub.publish(show, [Tally("likes", n)])
            except (BrokerUnavailable, Rejected):
                self._likes[show] += n
                raise
