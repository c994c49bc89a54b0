"""The record: the port between the stock half of commerce and SQL, and its words.

Responsible for what the record is asked and what it answers. It must not know SQL nor the gate's
engine. The record is right: what it has committed is so, whatever the gate says or forgets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from commerce.errors import Refused
from commerce.gate import Image, Orphan
from commerce.keep import Keep
from commerce.stock import Drop, Hold, HoldState, Levels, Line, Press, StockRow


@dataclass(frozen=True, slots=True)
class Price:
    """What a SKU costs now, in minor units."""

    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class Winner:
    """A press that the gate let through. Its lines are summed: each SKU once.

    `until_ms` None: from the drop, counted from `at` (there was no gate to say).
    """

    press: Press
    fingerprint: str
    n: int
    at: int
    until_ms: int | None
    lapses: int = 0
    """See `Hold.lapses`, as the gate counted them."""
    pressed_at: int = 0
    """When it arrived at its node; written down where the record decides alone."""


Outcome = Hold | Refused


@dataclass(frozen=True, slots=True)
class Epoch:
    """The number that fences. Without `has_gate`, SQL has been deciding alone under it."""

    number: int
    has_gate: bool


class Record(Protocol):
    """All of these raise Unavailable. `now` is milliseconds since 1970."""

    async def epoch(self) -> Epoch:
        """The present epoch; makes the shop's row at the first call."""

    async def next_epoch(self, seen: int, at_least: int) -> int | None:
        """Moves on from epoch `seen`; None if somebody else has. One rebuilder wins."""

    async def image(self, epoch: int, now: int) -> Image | None:
        """All that a gate must know, one snapshot; None if the epoch has moved on."""

    async def prices(self, skus: Sequence[str]) -> dict[str, Price]:
        """Of those SKUs that exist."""

    async def hold(self, epoch: int, winners: Sequence[Winner], now: int) -> dict[str, Outcome]:
        """Makes wins durable, in one transaction; by rid the hold or why not. Raises Fenced.

        For a rid that is there already: the hold as it stands, in whatever state.
        """

    async def hold_without_gate(
        self, winners: Sequence[Winner], now: int
    ) -> tuple[dict[str, Outcome], Levels]:
        """Judges presses by SQL alone and fences every gate. Numbers them itself."""

    async def levels_without_gate(self, skus: Sequence[str] | None, now: int) -> Levels:
        """Levels by SQL alone (None: of all open drops). Fences every gate."""

    async def find(self, rid: str) -> Hold | None:
        """One hold."""

    async def find_many(self, rids: Sequence[str]) -> dict[str, tuple[str, Hold]]:
        """Those that exist: fingerprint and hold."""

    async def open_holds(self, viewer: str) -> list[Hold]:
        """What a viewer holds and has not paid."""

    async def open_holds_of(self, viewers: Sequence[str]) -> dict[str, list[Hold]]:
        """The same for many at once, in one snapshot; viewers who hold nothing are left out."""

    async def cancel(self, viewer: str, rid: str, now: int) -> Hold:
        """Ends a hold for its viewer. Raises UnknownHold, HoldEnded (it is sold)."""

    async def expire_due(self, now: int, limit: int) -> list[Hold]:
        """Ends holds whose deadline has passed."""

    async def tombstone(self, orphans: Sequence[Orphan], now: int) -> dict[str, HoldState]:
        """Closes the rids of wins that never became durable; each rid's state in the record."""

    async def adjust(
        self,
        sku: str,
        delta: int,
        *,
        ref: str,
        kind: str,
        now: int,
        keep: Keep[StockRow] | None = None,
    ) -> StockRow:
        """Changes stock once per ref. Raises UnknownSku, StockHeld, KeyConflict."""

    async def set_on_hand(
        self,
        sku: str,
        to: int,
        expected: int,
        *,
        drain: bool,
        ref: str,
        now: int,
        keep: Keep[StockRow] | None = None,
    ) -> StockRow:
        """Compare-and-set, once per ref. Raises UnknownSku, StockChanged, StockHeld."""

    async def cancel_drain(
        self, sku: str, *, ref: str, now: int, keep: Keep[StockRow] | None = None
    ) -> StockRow:
        """What has not run down yet stays. Raises UnknownSku."""

    async def stock_rows(self, skus: Sequence[str]) -> dict[str, StockRow]:
        """Of those SKUs that exist."""

    async def open_drop(self, drop: Drop, now: int) -> None:
        """Stores a drop and fences every gate. Raises SkuInDrop, UnknownSku."""

    async def close_drop(self, drop: str, now: int) -> Drop:
        """Closes it, once. Raises UnknownDrop."""

    async def drops(self, show: str, now: int, *, open_only: bool) -> list[Drop]:
        """A show's drops, oldest first."""

    async def left(self, drop: str) -> Mapping[str, int]:
        """Units that can still be bought in a drop, by SKU. Raises UnknownDrop."""


def total_of(lines: Sequence[Line], prices: Mapping[str, Price]) -> int | None:
    """What these lines cost, in minor units; None if a price is not known."""
    total = 0
    for line in lines:
        price = prices.get(line.sku)
        if price is None:
            return None
        total += price.amount * line.quantity
    return total
