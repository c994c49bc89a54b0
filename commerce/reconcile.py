"""Reconciliation: the invariants of stock, looked at all the time, in small pages.

Responsible for going through all SKUs, for what counts as a difference and for the verdict that a
metric and the host's light show. It must not know engines, and it never repairs a number: a gate
that differs is distrusted and loaded anew, a record that differs is a fault for people to see.

No false alarm may come from a moving target. The record is read in one snapshot. The gate is
compared only in a quiet moment: asked before and after the snapshot it must have decided nothing in
between, have nothing that is not durable, and the record nothing that the gate was not told. And a
difference counts when it is found twice, with the same numbers. In a drop there may be no quiet
moment; the light says so when that lasts a minute.

20 SKUs a second cost some milliseconds of one connection; 10,000 SKUs take eight minutes.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from commerce.batcher import Pause
from commerce.errors import Temporary
from commerce.gate import Fenced, GateUnavailable, Numbers
from commerce.gatekeeper import Gatekeeper

logger = logging.getLogger(__name__)

LOOK_MS: Final = 1_000
PAGE: Final = 20
ROUND_MS: Final = 10_000
"""Rest after a round: a small shop has few SKUs and long ledgers."""
SHOWN_MAX: Final = 20
"""Differences that are named; of more only the number is told."""
QUIET_WITHIN_MS: Final = 60_000
"""So long without a quiet moment, and the light says that the gate was not compared."""
REMEMBER_MS: Final = 3_600_000
"""A difference that was healed stays visible for so long."""
OUTAGES: Final = (Temporary, Fenced, GateUnavailable)


class Light(StrEnum):
    """What a host sees."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Difference:
    """Two numbers that must be equal and are not. `key` names the SKU, and more where needed."""

    kind: str
    """ledger, held, drop, viewer: within the record; gate: between gate and record."""
    key: str
    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the record, out of one snapshot."""

    skus: Sequence[str]
    """In order; none: that was all."""
    differences: Sequence[Difference]
    epoch: int
    has_gate: bool
    untold: int
    """Changes that the gate was not told of yet."""
    available: Mapping[str, int]
    """What the gate must have, by SKU."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is a word for the sentence: agrees, differs, healed, starting, unquiet, away."""

    light: Light
    reason: str
    at: int
    """When this node last looked, milliseconds."""
    checked: int
    """SKUs in the last complete round."""
    rounds: int
    differences: Sequence[Difference]
    count: int
    rebuilds: int
    """Gates that were loaded anew because of a difference, since the start."""


class Books(Protocol):
    """The record as far as it can be checked. Raises Unavailable."""

    async def page(self, after: str, limit: int) -> Page:
        """The next SKUs after `after`, checked against each other."""


@dataclass(slots=True)
class _Round:
    checked: int = 0
    found: dict[tuple[str, str], Difference] = field(default_factory=dict)


class Reconciler:
    """One per node; each node looks for itself."""

    def __init__(
        self,
        keeper: Gatekeeper,
        books: Books,
        *,
        clock: Callable[[], int],
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._keeper = keeper
        self._books = books
        self._clock = clock
        self._pause = pause
        self._after = ""
        self._round = _Round()
        self._standing: dict[tuple[str, str], Difference] = {}
        self._looked_at = 0
        self._away = False
        self._checked = self._rounds = self._rebuilds = 0
        self._healed_at: int | None = None
        self._quiet_at = clock()

    async def run(self) -> None:
        """Looks for ever; an outage only makes it wait."""
        while True:
            try:
                await self.look()
                self._away = False
            except OUTAGES:
                self._away = True
            await self._pause((LOOK_MS if self._after else ROUND_MS) / 1000)

    def verdict(self) -> Verdict:
        """What is known now; it costs nothing."""
        light, reason = self._light()
        shown = sorted(self._standing.values(), key=lambda one: (one.kind, one.key))
        return Verdict(
            light,
            reason,
            self._looked_at,
            self._checked,
            self._rounds,
            shown[:SHOWN_MAX],
            len(shown),
            self._rebuilds,
        )

    def _light(self) -> tuple[Light, str]:
        now = self._clock()
        if self._standing:
            return Light.RED, "differs"
        if self._away:
            return Light.AMBER, "away"
        if self._healed_at is not None and now - self._healed_at < REMEMBER_MS:
            return Light.AMBER, "healed"
        if self._rounds == 0:
            return Light.AMBER, "starting"
        if now - self._quiet_at > QUIET_WITHIN_MS:
            return Light.AMBER, "unquiet"
        return Light.GREEN, "agrees"

    async def look(self) -> None:
        """One page: compared, and what differs compared again before it counts."""
        page, found = await self._compare(self._after)
        if found:
            await self._pause(LOOK_MS / 1000)
            again = (await self._compare(self._after))[1]
            found = {key: one for key, one in found.items() if again.get(key) == one}
        self._looked_at = self._clock()
        self._take(page, found)
        if any(one.kind == "gate" for one in found.values()):
            logger.error("the gate differs from the record in %d places: loaded anew", len(found))
            self._keeper.distrust()
            self._rebuilds += 1
            self._healed_at = self._looked_at

    def _take(self, page: Page, found: dict[tuple[str, str], Difference]) -> None:
        """A round that has ended says what still stands; until then a new difference adds to it."""
        for key, one in found.items():
            if key not in self._standing:
                logger.error("stock differs: %s %s", one.kind, one.key)
        self._standing |= found
        self._round.found |= found
        if page.skus:
            self._round.checked += len(page.skus)
            self._after = page.skus[-1]
        if len(page.skus) < PAGE:
            self._standing = dict(self._round.found)
            self._checked = self._round.checked
            self._rounds += 1
            self._round = _Round()
            self._after = ""

    async def _compare(self, after: str) -> tuple[Page, dict[tuple[str, str], Difference]]:
        """A page and its differences. The gate's are left out where the moment was not quiet."""
        before = await self._numbers(None)
        page = await self._books.page(after, PAGE)
        gate = await self._numbers(page.skus)
        differences = list(page.differences)
        quiet = (
            before is not None
            and gate is not None
            and before.version == gate.version
            and before.provisional == gate.provisional == page.untold == 0
            and page.has_gate
            and page.epoch == gate.epoch
        )
        if quiet and gate is not None:
            self._quiet_at = self._clock()
            differences += [
                Difference("gate", sku, page.available[sku], units)
                for sku, units in gate.stock.items()
                if page.available.get(sku, 0) != units
            ]
        return page, {(one.kind, one.key): one for one in differences}

    async def _numbers(self, skus: Sequence[str] | None) -> Numbers | None:
        """What the gate counts; None while it is away."""
        try:
            return await self._keeper.call(
                lambda epoch: self._keeper.gate.numbers(epoch, skus or [], self._clock())
            )
        except GateUnavailable:
            return None
