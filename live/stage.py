"""What viewers see of a show: computed from the record, published where it differs.

Responsible for keeping a room's facts (show, pin, announcement, drops) equal to what the record
says. Every cause (a host's action, a drop that opens by time, the last unit sold, a Valkey that
lost the room) ends in the same call, `refresh(show)`: compute all facts, compare with the room's,
publish the differences in one batch. So nothing can be published that the record does not say, and
a crash between the two heals at the next refresh.

It holds the show's row lock while it publishes: two nodes that refresh at once do it one after the
other, and the second reads what the first one's cause has written.

`watch` is the clockwork of a node: it knows when a drop next opens or closes, refreshes all active
shows every few seconds in case a node died in between, and tells the counters which SKUs are on
which stage.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from commerce.catalog import Catalog, Product, SkuCard
from commerce.checkout import Checkout
from commerce.errors import CommerceError, UnknownProduct
from commerce.stock import Drop, Levels
from live.shop import ShopDesk
from live.shows import (
    Show,
    Shows,
    ShowState,
    announcement_fact,
    drop_fact,
    next_change_at,
    pin_fact,
    show_fact,
)
from realtime.broker import Control, Item, State
from realtime.errors import BrokerUnavailable, Rejected
from realtime.hub import Hub

log = logging.getLogger(__name__)

REFRESH_S: Final = 5.0
"""Every active show is compared with its room this often, whatever happened."""
LOOK_S: Final = 0.25
"""How late a drop's opening may be published by the clockwork. Buying does not wait for it."""
CLOSED_DROPS_SHOWN: Final = 3
"""Closed drops of a show that stay facts: the page says "closed" instead of nothing."""


class Stage:
    """The facts of all shows. `clock` in milliseconds."""

    def __init__(
        self,
        hub: Hub,
        shows: Shows,
        catalog: Catalog,
        checkout: Checkout,
        shop: ShopDesk,
        clock: Callable[[], int],
    ) -> None:
        self._hub = hub
        self._shows = shows
        self._catalog = catalog
        self._checkout = checkout
        self._shop = shop
        self._clock = clock
        self._skus: dict[str, frozenset[str]] = {}
        self._due: dict[str, int] = {}
        self._look = asyncio.Event()

    def shows_of(self, sku: str) -> list[str]:
        """The shows in which this SKU is pinned or on sale, as far as this node knows."""
        return [show for show, skus in self._skus.items() if sku in skus]

    def skus(self) -> frozenset[str]:
        """Every SKU on any stage."""
        return frozenset().union(*self._skus.values())

    def refresh_soon(self, show_id: str) -> None:
        """Ask the clockwork for a refresh at its next look."""
        self._due[show_id] = 0
        self._look.set()

    async def refresh(self, show_id: str) -> None:
        """Make the room's facts what the record says. Raises `BrokerUnavailable`."""
        room = await self._hub.room(show_id)
        # Asked before the lock, because either may have to write to the record itself.
        currency = await self._shop.currency()
        levels = await self._levels(await self._checkout.drops(show_id))
        try:
            show = await self._shows.get(show_id)
        except Rejected:
            return  # there is no such show
        now = self._clock()
        facts, drops = await self._facts(show, currency, levels, now)
        if _changes(room.facts, facts):
            # Only what is published has to be as the record is at that instant. On SQLite the lock
            # is the one writer, and a look every five seconds kept winners waiting for 0.5 s.
            async with self._shows.locked(show_id) as locked:
                if locked is None:
                    return
                show, now = locked, self._clock()
                facts, drops = await self._facts(show, currency, levels, now)
                changes = _changes(room.facts, facts)
                if changes:
                    await self._hub.publish_all(show_id, changes)
        self._skus[show_id] = _skus_of(facts)
        due = next_change_at(drops, now)
        if show.state is ShowState.ENDED:
            self._skus.pop(show_id, None)
            self._due.pop(show_id, None)
        elif due is not None:
            self._due[show_id] = due
        else:
            self._due.pop(show_id, None)

    async def seed(self, show_id: str, known: Mapping[str, object]) -> list[Item]:
        """What a room whose numbering began anew lacks, so that its first snapshot has it."""
        try:
            show = await self._shows.get(show_id)
            levels = await self._levels(await self._checkout.drops(show_id))
            facts, _ = await self._facts(show, await self._shop.currency(), levels, self._clock())
        except (CommerceError, Rejected):
            return []
        states = [
            State(f"stock:{sku}", max(level.available, 0), level.version)
            for sku, level in levels.items()
        ]
        return [*_changes(known, facts), *states]

    async def _facts(
        self, show: Show, currency: str, levels: Levels, now: int
    ) -> tuple[dict[str, object], list[Drop]]:
        drops = await self._checkout.drops(show.id, open_only=False)
        running = [drop for drop in drops if drop.closed_at is None]
        closed = [drop for drop in drops if drop.closed_at is not None][-CLOSED_DROPS_SHOWN:]
        shown = closed + running
        skus = {line.sku for drop in shown for line in drop.lines}
        product = await self._pinned(show)
        cards: Mapping[str, SkuCard] = await self._catalog.by_skus(skus) if skus else {}
        facts: dict[str, object] = {
            "show": show_fact(show, currency),
            "pin": pin_fact(show, product),
            "announcement": announcement_fact(show),
        }
        for drop in shown:
            facts[f"drop:{drop.id}"] = drop_fact(drop, cards, levels, now)
        return facts, running

    async def _pinned(self, show: Show) -> Product | None:
        if show.pinned is None:
            return None
        try:
            return await self._catalog.product(show.pinned)
        except UnknownProduct:
            return None

    async def _levels(self, drops: Iterable[Drop]) -> Levels:
        try:
            return await self._checkout.levels({line.sku for drop in drops for line in drop.lines})
        except CommerceError:
            return {}  # the gate is away; the drop is shown as open and the press decides

    async def watch(self) -> None:
        """Refresh what is due, for ever. One outage never ends it."""
        everything_at = 0
        while True:
            now = self._clock()
            try:
                if now >= everything_at:
                    everything_at = now + int(REFRESH_S * 1000)
                    active = {show.id for show in await self._shows.active()}
                    for gone in self._skus.keys() - active:
                        del self._skus[gone]
                    due = active
                else:
                    due = {show for show, at in self._due.items() if at <= now}
                for show_id in sorted(due):
                    await self.refresh(show_id)
            except (BrokerUnavailable, CommerceError, Rejected) as outage:
                log.warning("stage not refreshed: %s", type(outage).__name__)
            # Not wait_for: before Python 3.12 it can swallow a cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._look.wait()
            self._look.clear()


def _changes(known: Mapping[str, object], facts: Mapping[str, object]) -> list[Item]:
    """What turns the room's facts into these."""
    changes: list[Item] = [
        Control(key, value) for key, value in facts.items() if known.get(key) != value
    ]
    changes += [Control(key, None) for key in known if key.startswith("drop:") and key not in facts]
    return changes


def _skus_of(facts: Mapping[str, object]) -> frozenset[str]:
    found: set[str] = set()
    for key, value in facts.items():
        if not isinstance(value, Mapping):
            continue
        if key == "pin":
            found.update(str(sku["sku"]) for sku in value["skus"])
        elif key.startswith("drop:") and value["state"] != "closed":
            found.update(str(line["sku"]) for line in value["lines"])
    return frozenset(found)
