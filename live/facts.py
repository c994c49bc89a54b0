"""Facts without a caller: holds that lapsed, payments that came, orders; from the outbox to people.

Responsible for telling those whom a fact concerns: the viewer (on whichever node), and the show's
consoles for an order. It must not change anything. A fact waits in SQL in the transaction that
made it true, so it is told at least once, after it is durable, even if this node dies in between.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from commerce.checkout import Checkout
from commerce.errors import CommerceError
from commerce.orders import Orders
from commerce.outbox import Fact, Outbox
from live.views import hold_view, order_view
from realtime.broker import Direct, Item
from realtime.errors import BrokerUnavailable, Rejected
from realtime.hub import Hub

log = logging.getLogger(__name__)

TOPICS: Final = ("hold", "order", "payment", "wait")
BATCH_MAX: Final = 200
LOOK_S: Final = 0.15
LEASE_MS: Final = 10_000


class FactTeller:
    """Tells facts as they come. `clock` in milliseconds."""

    def __init__(
        self,
        outbox: Outbox,
        checkout: Checkout,
        orders: Orders,
        hub: Hub,
        clock: Callable[[], int],
    ) -> None:
        self._outbox = outbox
        self._checkout = checkout
        self._orders = orders
        self._hub = hub
        self._clock = clock

    async def run(self) -> None:
        """For ever; an outage only makes facts wait."""
        while True:
            told = 0
            try:
                told = await self.tell()
            except (BrokerUnavailable, CommerceError, Rejected) as outage:
                log.warning("facts wait: %s", type(outage).__name__)
            if told < BATCH_MAX:
                await asyncio.sleep(LOOK_S)

    async def tell(self) -> int:
        """One round; how many facts were told."""
        facts = await self._outbox.claim(TOPICS, BATCH_MAX, self._clock(), LEASE_MS)
        rooms: dict[str, list[Item]] = {}
        for fact in facts:
            show = str(fact.payload["show"])
            rooms.setdefault(show, []).extend(await self._items(fact))
        for show, items in rooms.items():
            await self._hub.publish_all(show, items)
        if facts:
            await self._outbox.done([fact.id for fact in facts], self._clock())
        return len(facts)

    async def _items(self, fact: Fact) -> list[Item]:
        viewer = f"viewer:{fact.payload['viewer']}"
        if fact.topic == "hold":
            hold = await self._checkout.find(str(fact.payload["viewer"]), str(fact.payload["rid"]))
            return [] if hold is None else [Direct(viewer, "hold", hold_view(hold))]
        if fact.topic == "wait":
            names = ("rid", "drop", "sku", "quantity", "state")
            entry = {name: fact.payload[name] for name in names}
            place = int(fact.payload.get("position", 0))
            return [Direct(viewer, "wait", entry | {"position": place})]
        if fact.topic == "payment":
            told = {"rid": fact.payload["rid"], "state": fact.payload["state"]}
            return [Direct(viewer, "payment", told)]
        order = await self._orders.get(str(fact.payload["order"]))
        if order is None:
            return []
        return [
            Direct(viewer, "order", order_view(order)),
            # No name: what goes through the broker carries nothing personal.
            Direct("tag:console", "sale", {"order": order_view(order)}),
        ]
