"""Which facts the shop's other systems are told, and in what words.

Responsible for turning facts of the outbox into events and having their deliveries made. It must
not send (that is `commerce.webhook_courier`), nor change anything. Bodies are thin and carry
nothing personal: ids, states, lines, amounts; who wants a name asks the API with a token.

A fact waits in the transaction that made it true; deliveries are made in one transaction with the
mark on the fact, so each fact becomes deliveries exactly once, whatever dies in between.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from commerce.checkout import Checkout
from commerce.errors import CommerceError
from commerce.orders import Order, Orders
from commerce.outbox import Fact
from commerce.stock import StockRow
from commerce.webhooks import TYPES, Event
from live.views import order_view

log = logging.getLogger(__name__)

BATCH_MAX: Final = 200
LOOK_S: Final = 0.5
PRUNE_S: Final = 3_600.0


class Told(Protocol):
    """Where facts are found and deliveries are made. Raises Unavailable."""

    async def facts(self, limit: int) -> list[Fact]: ...

    async def tell(self, told: list[tuple[Fact, list[Event]]], now: int) -> None: ...

    async def prune(self, now: int) -> int: ...


class WebhookTeller:
    """One per node; several do each other no harm. `clock` in milliseconds."""

    def __init__(
        self, told: Told, checkout: Checkout, orders: Orders, clock: Callable[[], int]
    ) -> None:
        self._told = told
        self._checkout = checkout
        self._orders = orders
        self._clock = clock

    async def run(self) -> None:
        """For ever; an outage only makes facts wait."""
        prune_at = 0
        while True:
            made = 0
            try:
                made = await self.tell()
                if self._clock() >= prune_at:
                    await self._told.prune(self._clock())
                    prune_at = self._clock() + int(PRUNE_S * 1000)
            except CommerceError as outage:
                log.warning("webhooks wait: %s", type(outage).__name__)
            if made < BATCH_MAX:
                await asyncio.sleep(LOOK_S)

    async def tell(self) -> int:
        """One round; how many facts were looked at."""
        facts = await self._told.facts(BATCH_MAX)
        told = [(fact, await self._events(fact)) for fact in facts]
        if told:
            await self._told.tell(told, self._clock())
        return len(facts)

    async def _events(self, fact: Fact) -> list[Event]:
        if fact.topic == "stock":
            return await self._stock(fact, [str(fact.payload["sku"])])
        if fact.topic == "show":
            data = {name: fact.payload[name] for name in ("show", "title", "state")}
            return _known(f"show.{fact.payload['state']}", fact.key, fact.at, data)
        order = await self._orders.get(str(fact.payload["order"]))
        if order is None:
            return []
        # The state of the fact, not of the order, which may have moved on since.
        data = {**order_view(order), "state": str(fact.payload["state"])}
        told = _known(f"order.{fact.payload['state']}", order.id, fact.at, data)
        return [*told, *await self._stock(fact, _skus(order))]

    async def _stock(self, fact: Fact, skus: list[str]) -> list[Event]:
        rows = [await self._checkout.stock_row(sku) for sku in skus]
        return [
            event for row in rows for event in _known("stock.changed", row.sku, fact.at, _row(row))
        ]


def _known(type_: str, key: str, at: int, data: dict[str, Any]) -> list[Event]:
    if type_ not in TYPES:
        return []
    return [Event(type_, key, body_of(type_, at, data))]


def body_of(type_: str, at: int, data: dict[str, Any]) -> str:
    """The JSON of an event, in the form that Standard Webhooks recommends."""
    stamp = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
    body = {"type": type_, "timestamp": stamp.replace("+00:00", "Z"), "data": data}
    return msgspec.json.encode(body).decode()


def _skus(order: Order) -> list[str]:
    return sorted({line.sku for line in order.lines})


def _row(row: StockRow) -> dict[str, Any]:
    return {
        "sku": row.sku,
        "on_hand": row.on_hand,
        "held": row.held,
        "committed": row.committed,
        "available": row.available,
    }
