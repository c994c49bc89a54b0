"""The words of stock: press, hold, level, drop. Types and ports; no engine, no I/O.

A crowd is made of losers and the winners are bounded by the stock. So the **gate** (Valkey) answers
everybody, only winners reach the **record** (SQL), and "it is yours" is said after the record has
committed. This module names what both sides and their callers exchange.

Units of one SKU are on hand; of those some are **held** (for a while), some **committed** (sold,
not yet shipped), the rest **available**: `held + committed <= on_hand` always. One SKU is in at
most one open drop at a time, which keeps a level a single number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

QUANTITY_MAX: Final = 99
"""Units of one SKU in one press."""
LINES_MAX: Final = 20
"""Lines of one press."""
OPEN_HOLDS_MAX: Final = 3
"""Unpaid holds of one viewer at a time, over all drops (denial of inventory, OWASP OAT-021)."""
VERSION_BITS: Final = 32
"""A level's version is (gate epoch << 32 | n): it fits 2^53 for two million rebuilds."""


class HoldState(StrEnum):
    """Where a reservation is. Moved by compare-and-set along `reservations_sql.MOVES` only."""

    HELD = "held"
    PAYING = "paying"
    CLOSING = "closing"
    SOLD = "sold"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Terminal: it will never move again."""
        return self in (HoldState.SOLD, HoldState.EXPIRED, HoldState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Line:
    """So many units of one SKU."""

    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Promise:
    """What the viewer saw when they pressed; kept with the hold, never part of its identity."""

    pinned: str | None
    """The product the host was showing."""
    pinned_at: int | None
    media_ms: int | None
    """Milliseconds since the show went live: the place in its recording."""


@dataclass(frozen=True, slots=True)
class Press:
    """A viewer pressed Buy. The same `rid` is the same press, however often it is sent."""

    rid: str
    viewer: str
    drop: str
    lines: tuple[Line, ...]
    retry: bool = False
    """An earlier attempt's answer was lost: never answer from a local sold-out flag."""
    total: int | None = None
    """What the page showed, in minor units."""
    promise: Promise | None = None


@dataclass(frozen=True, slots=True)
class HeldLine:
    """One line of a hold with the price that was promised."""

    sku: str
    title: str
    quantity: int
    unit_amount: int


@dataclass(frozen=True, slots=True)
class Hold:
    """A durable reservation, as the record has it."""

    rid: str
    viewer: str
    drop: str
    show: str
    state: HoldState
    until_ms: int
    lines: tuple[HeldLine, ...]
    currency: str
    total: int
    receipt: tuple[int, int]
    """(epoch, n): its place in the order of the gate's decisions."""
    lapses: int = 0
    """Holds of its viewer that had lapsed, if the rule made this one shorter for that; else 0."""


@dataclass(frozen=True, slots=True)
class Level:
    """How many units of a SKU can be bought now. Newest version wins."""

    available: int
    version: int


Levels = Mapping[str, Level]


@dataclass(frozen=True, slots=True)
class DropLine:
    """One SKU of a drop; `units` caps what this drop may sell (None: all there are)."""

    sku: str
    units: int | None = None


@dataclass(frozen=True, slots=True)
class Raffle:
    """A drop that is drawn: entries until `draws_at`, units to the first lots (`raffle`)."""

    draws_at: int
    seed_sha: str
    seed: str | None = None
    """Hex; given when the drop is opened, and read again only once it is drawn."""
    drawn_at: int | None = None
    entries: int | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """A sale that opens at an instant."""

    id: str
    show: str
    title: str
    opens_at: int
    closes_at: int | None
    hold_s: int
    per_viewer: int | None
    lines: tuple[DropLine, ...]
    closed_at: int | None = None
    raffle: Raffle | None = None

    @property
    def undrawn(self) -> Raffle | None:
        """The raffle, while nobody can buy because it is not drawn yet."""
        return self.raffle if self.raffle is not None and self.raffle.drawn_at is None else None


@dataclass(frozen=True, slots=True)
class StockRow:
    """One SKU in the record."""

    sku: str
    on_hand: int
    held: int
    committed: int
    draining: int = 0
    """Of the held, so many will leave the stock when their holds end (`drain_sql`)."""

    @property
    def available(self) -> int:
        """Neither held nor sold nor running down; may be below zero."""
        return self.on_hand - self.held - self.committed - self.draining
