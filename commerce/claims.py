"""Claims: whatever the gate gave a number, in the order of the numbers, kept for whoever asks.

Responsible for the words (what a claim is), for reading the gate's log into the record in the
background, and for the count of presses that a node's own sold-out flag has answered. It must not
know an engine, and nothing here is on the way of a press.

    gate script ── one step: decide, number, append to the log ──► log (a stream in the gate)
    ClaimKeeper ── every half second, one node at a time ──► `claim` in the record ──► log trimmed

Why a log in the gate and not a buffer in each node: it is written in the same step as the decision,
so a node that is killed, or an answer that is lost, leaves no hole; and it costs one XADD per batch
of 64 (the bytes of question and answer are there already). Storing is repeatable: (epoch, n) is the
key. What can be lost is what the engine loses when it dies (refusals and releases; winners are in
the record with their numbers), or what outgrows the log while SQL is away for long. Either shows as
a gap in the numbers, and a gap is written down as a row of its own with how many are missing.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from commerce.batcher import Pause
from commerce.errors import (
    BadCurrency,
    CommerceError,
    DropClosed,
    DropNotOpen,
    HoldsLimited,
    LimitReached,
    PriceChanged,
    Refused,
    RidConflict,
    SoldOut,
    Temporary,
    UnknownSku,
)
from commerce.gate import GateUnavailable
from commerce.record import Outcome, Winner
from commerce.stock import Hold, HoldState

logger = logging.getLogger(__name__)

DRAIN_MS: Final = 500
PUT_OFF_MAX_MS: Final = 5_000
"""While presses wait, storing claims gives them the one writer and the loop; for so long in a row.

At 15,000 presses a second that is some 400 calls of the 4,096 that the log holds.
"""
ENTRIES_MAX: Final = 32
"""Script calls read at a time…"""
ENTRIES_MIN: Final = 2
ROWS_MOST: Final = 1_000
"""…and fewer when they are large. A call has up to 256 presses: 32 of them were 8,000 rows, which
kept the loop for 50 ms and SQLite's one writer from the winners for 160."""
BACK_OFF_MAX_MS: Final = 4_000
PRUNE_EVERY: Final = 120
KEEP_MS: Final = 180 * 86_400_000
"""Claims are kept for half a year: as long as a buyer may reasonably ask why."""
RECORD: Final = "record"
"""Stands where the node stands when SQL decided alone."""


class Kind(StrEnum):
    """What took a number. Those of presses are the gate's verdicts."""

    WON = "won"
    UNKNOWN_DROP = "unknown_drop"
    NOT_OPEN = "not_open"
    CLOSED = "closed"
    UNKNOWN_SKU = "unknown_sku"
    PRICE = "price"
    SOLD_OUT = "sold_out"
    LIMIT = "limit"
    LAPSED_LIMIT = "lapsed_limit"
    """Refused because too many holds of this viewer have lapsed."""
    REFUSED = "refused"
    """Refused by the record for another reason."""
    FREED = "freed"
    """Cancelled: units came back."""
    LAPSED = "lapsed"
    """Ran out unpaid: units came back."""
    SOLD = "sold"
    FORGOTTEN = "forgotten"
    """The record refused a win, or its node died: units came back."""
    WAITS = "waits"
    """Somebody waits from now on."""
    LEFT = "left"
    """Somebody waits no more without having had a turn: by their own wish, or the list ended."""
    OFFERED = "offered"
    """What came back was given to the first who waited: a win without a press."""
    PASSED = "passed"
    """The first who waited may not have it: a limit."""
    ADJUSTED = "adjusted"
    """The host or an ERP changed stock by `number`."""
    CLOSED_DROP = "closed_drop"
    LOADED = "loaded"
    """The epoch began: `lines` are the units there were, `number` is 0."""
    OTHER = "other"
    """Something of a later version, or the announcement of a level."""
    LOST = "lost"
    """`number` claims from here on are missing."""


PRESSES: Final = frozenset(
    {
        *(Kind.WON, Kind.UNKNOWN_DROP, Kind.NOT_OPEN, Kind.CLOSED, Kind.UNKNOWN_SKU, Kind.PRICE),
        *(Kind.SOLD_OUT, Kind.LIMIT, Kind.LAPSED_LIMIT, Kind.REFUSED),
    }
)


WINS: Final = frozenset({Kind.WON, Kind.OFFERED})
"""Each has become a reservation, unless the record has refused it."""
TURNS: Final = frozenset({Kind.WAITS, Kind.LEFT, Kind.OFFERED, Kind.PASSED})
"""What becomes of an entry in a wait list. Nobody pressed Buy for it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One number of an epoch. Times in milliseconds; `pressed_at` 0 for what nobody pressed.

    `rid` is a change's ref where stock was changed, `number` what the gate said with its verdict:
    units left, units or holds allowed, the opening.
    """

    epoch: int
    n: int
    verdict: Kind
    decided_at: int
    drop: str = ""
    rid: str = ""
    viewer: str = ""
    lines: tuple[tuple[str, int], ...] = ()
    sku: str = ""
    number: int = 0
    pressed_at: int = 0
    node: str = ""
    caps: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Of LOADED: what each capped (drop, SKU) could still sell."""
    listed: frozenset[tuple[str, str]] = frozenset()
    """Of LOADED: the (drop, SKU) for which somebody waited."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored claim, and of a winner the state of its reservation now."""

    claim: Claim
    state: HoldState | None = None


Place = tuple[int, int]
"""(epoch, n)"""


@dataclass(frozen=True, slots=True)
class Logged:
    """What one call of a script put into the log: numbers `first` to `last` of an epoch."""

    id: str
    epoch: int
    first: int
    last: int
    claims: tuple[Claim, ...]


class ClaimLog(Protocol):
    """The gate's log. All raise GateUnavailable."""

    async def lease(self, holder: str, ms: int) -> bool:
        """Whether `holder` may read for so long; one at a time, so that nobody works twice."""

    async def read(self, limit: int) -> list[Logged]:
        """The oldest calls that are still there, oldest first."""

    async def forget(self, ids: Sequence[str]) -> None:
        """These are stored."""

    async def length(self) -> int:
        """How many calls wait."""


class ClaimStore(Protocol):
    """The record's side. All raise Unavailable."""

    async def store(self, claims: Sequence[Claim]) -> None:
        """Keeps them; those that are there already stay as they are."""

    async def last(self, epoch: int) -> int | None:
        """The highest number kept of an epoch, with what is known to be lost; None: none."""

    async def store_flagged(self, source: str, presses: Mapping[str, int], now: int) -> None:
        """So many presses by drop were answered by the flag in this run of a node."""

    async def prune(self, before: int) -> bool:
        """Deletes some that are older; whether there may be more."""


class ClaimBook(Protocol):
    """What was stored, for viewers, hosts and checks. All raise Unavailable."""

    async def own(self, viewer: str, rid: str) -> list[Kept]:
        """What was decided on a viewer's own rid, oldest first; a stranger's is empty.

        A rid that joined a wait list: its entry, its turn, and what was pressed with it since.
        """

    async def flagged(self, drop: str) -> int:
        """Presses that a node's sold-out flag has answered in a drop."""

    async def span(self, drop: str) -> tuple[int, int] | None:
        """First and last epoch in which anything was decided in a drop; None: nothing was."""

    async def page(
        self, span: tuple[int, int], after: Place, limit: int, *, drop: str | None = None
    ) -> list[Kept]:
        """What took a number in these epochs, in order, after a place; at most `limit`.

        With `drop`: of that drop, and what belongs to none (an epoch's beginning, changes of
        stock, losses).
        """

    async def lapses(self, since: int) -> dict[str, list[int]]:
        """By viewer the times of lapses after `since` (milliseconds)."""


class ClaimKeeper:
    """One per node. `flagged` gives presses answered by this node's flag, by drop, since its start.

    `source` names this run of this node, `busy` says whether presses wait that come first.
    """

    def __init__(
        self,
        log: ClaimLog,
        store: ClaimStore,
        *,
        flagged: Callable[[], Mapping[str, int]],
        source: str,
        clock: Callable[[], int],
        pause: Pause,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._log = log
        self._store = store
        self._busy = busy
        self._flagged = flagged
        self._source = source
        self._clock = clock
        self._pause = pause
        self._told: dict[str, int] = {}
        self._limit = ENTRIES_MIN
        """Calls to be read next."""
        self.kept = 0
        """Claims this node has stored since its start."""
        self.lost = 0
        """Numbers it found missing."""
        self.waiting = 0
        """Calls in the log at the last look."""

    async def run(self) -> None:
        """For ever; an outage makes it slower, and what waits in the log is bounded."""
        back_off_ms, turn, put_off_ms = DRAIN_MS, 0, 0
        while True:
            if self._busy() and put_off_ms < PUT_OFF_MAX_MS:
                put_off_ms += DRAIN_MS
                await self._pause(DRAIN_MS / 1000)
                continue
            put_off_ms = 0
            try:
                while await self.drain() and not self._busy():
                    pass
                await self.tell_flagged()
                turn += 1
                if turn % PRUNE_EVERY == 0:
                    while await self._store.prune(self._clock() - KEEP_MS):
                        pass
            except (Temporary, GateUnavailable):
                back_off_ms = min(back_off_ms * 2, BACK_OFF_MAX_MS)
            else:
                back_off_ms = DRAIN_MS
            await self._pause(back_off_ms / 1000)

    async def drain(self) -> bool:
        """Stores what the log has, a piece of it; whether there may be more."""
        if not await self._log.lease(self._source, 4 * DRAIN_MS):
            return False
        limit = self._limit
        calls = await self._log.read(limit)
        self.waiting = len(calls)
        if not calls:
            return False
        claims = [claim for call in calls for claim in call.claims]
        gaps = await self._gaps(calls)
        await self._store.store([*claims, *gaps])
        await self._log.forget([call.id for call in calls])
        self.kept += len(claims)
        self.lost += sum(gap.number for gap in gaps)
        if gaps:
            logger.warning("%d claims are missing from the log", sum(gap.number for gap in gaps))
        if len(claims) > ROWS_MOST:
            self._limit = max(ENTRIES_MIN, limit // 2)
        elif len(claims) < ROWS_MOST // 2:
            self._limit = min(ENTRIES_MAX, limit * 2)
        self.waiting = await self._log.length() if len(calls) == limit else 0
        return len(calls) == limit

    async def _gaps(self, calls: Sequence[Logged]) -> list[Claim]:
        """A row for each run of numbers that no call in the log has."""
        gaps: list[Claim] = []
        last: dict[int, int] = {}
        for call in calls:
            if call.epoch not in last:
                last[call.epoch] = await self._store.last(call.epoch) or 0
            missing = call.first - last[call.epoch] - 1
            if missing > 0:
                at = call.claims[0].decided_at if call.claims else self._clock()
                gaps.append(Claim(call.epoch, last[call.epoch] + 1, Kind.LOST, at, number=missing))
            last[call.epoch] = max(last[call.epoch], call.last)
        return gaps

    async def tell_flagged(self) -> None:
        """Writes down how many presses this node's flag has answered. Repeatable."""
        counts = {drop: n for drop, n in self._flagged().items() if n != self._told.get(drop)}
        if counts:
            await self._store.store_flagged(self._source, counts, self._clock())
            self._told |= counts


_KIND_OF: Final[Mapping[type[CommerceError], Kind]] = {
    DropNotOpen: Kind.NOT_OPEN,
    DropClosed: Kind.CLOSED,
    UnknownSku: Kind.UNKNOWN_SKU,
    PriceChanged: Kind.PRICE,
    SoldOut: Kind.SOLD_OUT,
    LimitReached: Kind.LIMIT,
    HoldsLimited: Kind.LAPSED_LIMIT,
    BadCurrency: Kind.REFUSED,
    RidConflict: Kind.REFUSED,
}


def numbered_alone(
    epoch: int, winners: Sequence[Winner], outcomes: Mapping[str, Outcome]
) -> list[Claim]:
    """Decisions of the record without a gate, as claims; refusals are given their receipts."""
    claims = []
    for winner in winners:
        outcome = outcomes[winner.press.rid]
        kind, sku, number = _verdict(winner, outcome)
        if isinstance(outcome, Refused):
            outcome.receipt = (epoch, winner.n)
        claims.append(
            Claim(
                epoch,
                winner.n,
                kind,
                winner.at,
                drop=winner.press.drop,
                rid=winner.press.rid,
                viewer=winner.press.viewer,
                lines=tuple((line.sku, line.quantity) for line in winner.press.lines),
                sku=sku,
                number=number,
                pressed_at=winner.pressed_at,
                node=RECORD,
            )
        )
    return claims


def _verdict(winner: Winner, outcome: Outcome) -> tuple[Kind, str, int]:
    if isinstance(outcome, Hold):
        # A rid that was decided before keeps its number of then; this one went to its repetition.
        return (Kind.WON if outcome.receipt[1] == winner.n else Kind.OTHER), "", 0
    match outcome:
        case SoldOut():
            return Kind.SOLD_OUT, outcome.sku, outcome.left
        case LimitReached():
            return Kind.LIMIT, outcome.sku or "", outcome.limit
        case HoldsLimited():
            return Kind.LAPSED_LIMIT, "", outcome.limit
        case DropNotOpen():
            return Kind.NOT_OPEN, "", outcome.opens_at
        case UnknownSku():
            return Kind.UNKNOWN_SKU, outcome.sku, 0
    return _KIND_OF.get(type(outcome), Kind.UNKNOWN_DROP), "", 0
