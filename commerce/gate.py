"""The gate: the port between a press of Buy and whatever answers the crowd, and its words.

Responsible for what the gate is asked and what it answers. It must not know an engine (that is
`stock_redis`), nor prices or durable holds (that is the record).

The gate holds counters and the reservations that are not over. It decides in one step, for a batch,
in an order it numbers. It may vanish at any instant, come back empty or come back old; so each call
names the **epoch** under which its numbers were loaded, and a gate of another epoch, or an engine
that is not the very process that was loaded, does nothing and says so (`Fenced`). Everything it is
told has an id (rid, ref) and may be told again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from commerce.stock import Drop, Levels

ORPHAN_AFTER_MS: Final = 5_000
"""A win that is not in the record after this long is taken back: its node died or SQL was away."""
NEVER_MS: Final = 1 << 52
"""When a drop opens for buying that waits for its draw; that loads the gate anew."""
RECENT_MS: Final = 3_600_000
"""Ended reservations stay known for this long, so that a late repeat is answered, not judged."""


class GateUnavailable(Exception):
    """The engine did not answer. What was asked may or may not have happened; ask again."""


class Fenced(Exception):
    """The gate or the record is of another epoch; nothing was done. Heal, then ask again."""


class Stale(Exception):
    """The gate was loaded under `epoch` already, which is not older than the one offered."""

    def __init__(self, epoch: int) -> None:
        super().__init__(epoch)
        self.epoch = epoch


@dataclass(frozen=True, slots=True)
class Ask:
    """A press as the gate sees it. Lines are summed and sorted: each SKU once."""

    rid: str
    fingerprint: str
    viewer: str
    drop: str
    lines: tuple[tuple[str, int], ...]
    price_ok: bool = True
    """False: the page showed another total than the price known here. A repeat does not mind."""
    pressed_at: int = 0
    """When it arrived at its node; only the log of claims wants to know."""


class Verdict(StrEnum):
    """What the gate decided."""

    WON = "won"
    """Reserved, not yet durable. The same press again gets the same decision again."""
    KNOWN = "known"
    """Decided and durable: the record has the answer."""
    CONFLICT = "conflict"
    UNKNOWN_DROP = "unknown_drop"
    NOT_OPEN = "not_open"
    CLOSED = "closed"
    UNKNOWN_SKU = "unknown_sku"
    PRICE = "price"
    SOLD_OUT = "sold_out"
    LIMIT = "limit"
    LAPSED = "lapsed"
    """Too many open holds for a viewer whose holds lapse (`hold_rule`)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer. `n` is its place in the order of this epoch (0 for repeats of older ones).

    `sku` and `number` say more of a refusal: units left, units or holds allowed, the opening in
    milliseconds. A win has `until_ms` (the hold's deadline), `at` (when it was decided) and in
    `number` the lapses that made it shorter. Of LAPSED, `until_ms` is when the rule gets milder.
    """

    verdict: Verdict
    epoch: int
    n: int = 0
    sku: str | None = None
    number: int = 0
    until_ms: int = 0
    at: int = 0


class End(StrEnum):
    """How a reservation ends in the gate."""

    FREED = "freed"
    """Cancelled: the units are everybody's again."""
    LAPSED = "lapsed"
    """Expired: the same, and the viewer's record has a lapse more."""
    SOLD = "sold"
    FORGOTTEN = "forgotten"
    """The record refused it: the units are free and the rid may be judged anew."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of stock by the host or an ERP. The same `ref` of a SKU changes it once."""

    ref: str
    sku: str
    delta: int


@dataclass(frozen=True, slots=True)
class Orphan:
    """A win that nobody made durable."""

    rid: str
    fingerprint: str
    viewer: str
    drop: str
    epoch: int
    n: int
    until_ms: int
    at: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One durable reservation in an image. `ended`: milliseconds, None while it is open."""

    rid: str
    fingerprint: str
    viewer: str
    drop: str
    lines: tuple[tuple[str, int], ...]
    until_ms: int
    sold: bool
    ended: int | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """One who waits for units of a SKU in a drop; served by rising `place`.

    `rid` becomes the reservation's, `fingerprint` is that of a press with this rid.
    """

    rid: str
    fingerprint: str
    viewer: str
    drop: str
    sku: str
    quantity: int
    place: int


@dataclass(frozen=True, slots=True)
class Offer:
    """What the gate has given to one who waited, until the record has heard of it.

    `n` 0: nothing; passed over, because a limit forbids it. `at` and `until_ms` as in a Decision.
    """

    rid: str
    fingerprint: str
    viewer: str
    drop: str
    sku: str
    quantity: int
    n: int
    at: int
    until_ms: int
    lapses: int


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a gate counts, to be compared with the record. `version` grows with each decision."""

    epoch: int
    version: int
    provisional: int
    """Reservations that are not durable yet."""
    stock: Mapping[str, int]
    """Units, of the SKUs that were asked for and that the gate has; may be below zero."""


@dataclass(frozen=True, slots=True)
class Image:
    """Everything a gate must know, one snapshot of the record."""

    drops: Sequence[Drop]
    left: Mapping[tuple[str, str], int | None]
    """(drop, SKU) to the units the drop may still sell; None: no cap."""
    stock: Mapping[str, int]
    """Units neither held nor sold."""
    used: Mapping[tuple[str, str, str], int]
    """(drop, viewer, SKU) to the viewer's units, held or bought."""
    entries: Sequence[Entry]
    changes: Sequence[tuple[str, str]] = field(default=())
    """(ref, SKU) of changes that are in these numbers though the gate may be told of them again."""
    lapses: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Viewer to the times at which holds of theirs have lapsed lately, oldest first."""
    waiting: Sequence[Waiting] = field(default=())


class Gate(Protocol):
    """All of these raise Fenced and GateUnavailable. `now` is milliseconds since 1970."""

    async def reserve(
        self, epoch: int, asks: Sequence[Ask], now: int
    ) -> tuple[list[Decision], Levels]:
        """Decides each ask by itself, in order; a decision per ask, and the levels it changed."""

    async def mark(self, epoch: int, rids: Sequence[str], now: int) -> None:
        """These wins are durable."""

    async def release(self, epoch: int, ends: Sequence[tuple[str, End]], now: int) -> Levels:
        """These reservations are over. Each gives its units back once; unknown ones do nothing."""

    async def adjust(self, epoch: int, changes: Sequence[Change], now: int) -> Levels:
        """Stock was changed in the record. SKUs that are not in the gate do nothing."""

    async def close_drops(self, epoch: int, drops: Sequence[str], now: int) -> Levels:
        """These drops take no more presses."""

    async def enqueue(self, epoch: int, waiting: Sequence[Waiting], now: int) -> Levels:
        """These wait: nobody else gets the unit before them. Who waits or was served: nothing."""

    async def dequeue(self, epoch: int, rids: Sequence[str], now: int) -> Levels:
        """These wait no more. A reservation that was made of one stays."""

    async def offers(self, epoch: int, now: int, limit: int) -> tuple[list[Offer], Levels]:
        """Who was given or refused a unit they waited for, until `dequeue`."""

    async def levels(self, epoch: int, skus: Sequence[str] | None, now: int) -> tuple[int, Levels]:
        """The present version and the levels of those SKUs that the gate has (None: all)."""

    async def numbers(self, epoch: int, skus: Sequence[str], now: int) -> Numbers:
        """What it counts, changing nothing."""

    async def orphans(self, epoch: int, now: int, limit: int) -> list[Orphan]:
        """Wins older than ORPHAN_AFTER_MS that were never marked."""

    async def trim(self, epoch: int, now: int) -> int:
        """Forgets reservations that ended more than RECENT_MS ago; how many."""

    async def epoch(self) -> int | None:
        """The epoch of a gate that can be trusted; None: it must be loaded. Never Fenced."""

    async def load(self, epoch: int, image: Image, now: int) -> None:
        """Replaces everything. Raises Stale if the gate has this epoch or a newer one."""

    async def close(self) -> None:
        """Closes the connections."""
