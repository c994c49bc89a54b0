"""The wait list: who waits for units of a SKU after "sold out", and how an offer becomes theirs.

Responsible for joining and leaving, and for making durable what the gate gives to those who wait.
It must not know engines, the wire or how a unit comes free.

An offer is made inside the script that frees the unit (`serve` in gate.lua), so the unit is never
anybody's in between; a press of Buy finds nothing while somebody waits. The id with which a viewer
joins the list becomes the rid of the reservation: an offer is a hold like any other, which expires,
is paid or cancelled as such, and whose end passes the unit on. An entry is served once; who lets an
offer lapse may join again at the end.

    join ─► record commits ─► gate told ─► answered       gate away: every gate is fenced instead,
                                                          so the next one is loaded with the entry
    units come free ─► gate: reserved for the first, named in `offered`
                    ─► any node: record commits hold and entry together ─► marked ─► viewer told

`offered` is a to-do list in the gate that every node works off, so a node that dies leaves nothing
behind. Whoever left before the commit is found gone there, and the unit goes to the next. A gate
that is lost between offer and commit takes the offer with it; the entry still waits in the record
and the next gate makes it again. Without a gate nobody is offered anything and nobody overtakes:
the record then refuses presses for what is waited for (`hold_without_gate`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from commerce.batcher import Pause
from commerce.board import Board
from commerce.crash_points import CrashHook, nothing
from commerce.errors import SoldOut, Temporary
from commerce.gate import End, Fenced, GateUnavailable, Offer
from commerce.gate import Waiting as Queued
from commerce.gatekeeper import Gatekeeper
from commerce.presses import fingerprint, normal
from commerce.record import Outcome, Record
from commerce.reserving import end_of
from commerce.stock import Drop, Hold, Levels, Line, Press

logger = logging.getLogger(__name__)

OFFER_MS: Final = 100
"""How often a node looks for offers that nobody has made durable."""
OFFER_MAX: Final = 200
DRAW_MS: Final = 500
"""How late a raffle may be drawn."""
END_MS: Final = 1_000
"""How often lists are looked through for what has ended by time."""
END_MAX: Final = 500
BACK_OFF_MAX_MS: Final = 2_000
OUTAGES: Final = (Temporary, Fenced, GateUnavailable)


class WaitState(StrEnum):
    """Where an entry is. Only `entered` and `waiting` can still move."""

    ENTERED = "entered"
    """In a raffle that is not drawn yet."""
    WAITING = "waiting"
    OFFERED = "offered"
    """It has become the hold of the same rid."""
    LEFT = "left"
    PASSED = "passed"
    """A limit forbade it when it was its turn, or so many units cannot come any more."""
    CLOSED = "closed"
    """The drop has ended."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A viewer wants so many units of a SKU when they come. `rid` is made by the client."""

    rid: str
    viewer: str
    drop: str
    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Waiter:
    """An entry as the record has it. `position`: how many come before, plus one; 0 if none."""

    rid: str
    viewer: str
    drop: str
    show: str
    sku: str
    quantity: int
    state: WaitState
    position: int
    queued: Queued
    """The same as the gate is told it."""


class WaitRecord(Protocol):
    """The wait list in the record. All raise Unavailable. `now` is milliseconds since 1970."""

    async def join(self, wait: Wait, mark: str, now: int) -> Waiter:
        """Adds an entry, once per rid. Raises what `Waitlist.join` does."""

    async def leave(self, viewer: str, rid: str, now: int) -> Waiter:
        """Ends an entry that still waits; another stays as it is. Raises UnknownWait."""

    async def of_viewers(self, viewers: Sequence[str]) -> dict[str, list[Waiter]]:
        """Entries that still wait, by viewer; who has none is left out."""

    async def counts(self, skus: Sequence[str]) -> dict[str, int]:
        """How many entries wait for each SKU or have entered its raffle."""

    async def offer(self, epoch: int, offers: Sequence[Offer], now: int) -> dict[str, Outcome]:
        """Makes offers durable, each with its entry; by rid the hold or why not. Raises Fenced.

        For an entry that waits no more: UnknownWait, or the reservation that it has become.
        """

    async def draw_due(self, now: int) -> list[Drop]:
        """Draws raffles whose entries are closed; those that were drawn by this call."""

    async def end_lists(self, now: int, limit: int) -> list[str]:
        """Ends entries of drops that are over, and those for which so much can never come."""


class Waitlist:
    """One per node, beside its checkout, whose keeper, record and board it shares."""

    def __init__(
        self,
        keeper: Gatekeeper,
        record: Record,
        waits: WaitRecord,
        board: Board,
        *,
        clock: Callable[[], int],
        pause: Pause = asyncio.sleep,
        crash_point: CrashHook = nothing,
        on_drawn: Callable[[Drop], None] = lambda _drop: None,
    ) -> None:
        self._on_drawn = on_drawn
        self._keeper = keeper
        self._record = record
        self._waits = waits
        self._board = board
        self._clock = clock
        self._pause = pause
        self._crash_point = crash_point

    async def run(self) -> None:
        """Works off offers and ends lists, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(OFFER_MS, self.work_off))
            group.create_task(self._every(END_MS, self.end_lists))
            group.create_task(self._every(DRAW_MS, self.draw_due))

    async def _every(self, period_ms: int, step: Callable[[], Awaitable[bool]]) -> None:
        back_off_ms = period_ms
        while True:
            more = False
            try:
                more = await step()
                back_off_ms = period_ms
            except OUTAGES:
                back_off_ms = min(back_off_ms * 2, BACK_OFF_MAX_MS)
            await self._pause(0 if more else back_off_ms / 1000)

    async def join(self, wait: Wait) -> Waiter:
        """Waits from now on. Answered when it is durable and no gate can overlook it.

        The same rid again gives the entry as it stands, with its position now. In a raffle that is
        not drawn it is an entry. Raises BadQuantity, UnknownDrop, UnknownSku, DropNotOpen,
        DropClosed, InRaffle (entries are closed, the draw comes), LimitReached, SoldOut (more than
        can ever come, with the number), RidConflict, AlreadyWaiting, Unavailable (repeat the same).
        """
        press = normal(_press(wait))
        began = self._keeper.epoch
        waiter = await self._waits.join(wait, fingerprint(press), self._clock())
        self._crash_point("wait:after_commit")

        async def enqueue(epoch: int) -> Levels:
            # A gate that was loaded since does not know who has left: the record does.
            if epoch != began and not await self._waits_still(wait):
                return {}
            return await self._keeper.gate.enqueue(epoch, [waiter.queued], self._clock())

        if waiter.state is WaitState.WAITING:
            await self._tell(enqueue, wait.sku)
        return waiter

    async def _waits_still(self, wait: Wait) -> bool:
        theirs = (await self._waits.of_viewers([wait.viewer])).get(wait.viewer, [])
        return any(one.rid == wait.rid and one.state is WaitState.WAITING for one in theirs)

    async def leave(self, viewer: str, rid: str) -> Waiter:
        """Waits no more. What was offered already stays: it is a hold. Raises UnknownWait."""
        now = self._clock()
        waiter = await self._waits.leave(viewer, rid, now)
        self._crash_point("wait:after_commit")
        if waiter.state is WaitState.LEFT:
            await self._tell(
                lambda epoch: self._keeper.gate.dequeue(epoch, [rid], self._clock()), waiter.sku
            )
        return waiter

    async def of_viewers(self, viewers: Sequence[str]) -> dict[str, list[Waiter]]:
        """For what each viewer waits; one question however many. Raises Unavailable."""
        return await self._waits.of_viewers(viewers)

    async def counts(self, skus: Sequence[str]) -> Mapping[str, int]:
        """How many wait for each SKU in its open drop; 0 is told too. Raises Unavailable."""
        if not skus:
            return {}
        found = await self._waits.counts(sorted(skus))
        return {sku: found.get(sku, 0) for sku in skus}

    async def _tell(self, ask: Callable[[int], Awaitable[Levels]], sku: str) -> None:
        """Tells the gate; while it is away every gate is fenced, so none acts on an older list."""
        try:
            levels = await self._keeper.call(ask)
        except GateUnavailable:
            levels = await self._record.levels_without_gate([sku], self._clock())
        self._board.learn(levels)

    async def work_off(self) -> bool:
        """Makes durable what the gate has given to those who wait; whether there may be more."""
        gate = self._keeper.gate

        async def look(epoch: int) -> tuple[int, list[Offer]]:
            offers, levels = await gate.offers(epoch, self._clock(), OFFER_MAX)
            self._board.learn(levels)
            return epoch, offers

        epoch, offers = await self._keeper.call(look)
        if not offers:
            return False
        self._crash_point("offer:after_gate")
        outcomes = await self._waits.offer(epoch, offers, self._clock())
        self._crash_point("offer:after_commit")
        durable: list[str] = []
        ended: list[tuple[str, End]] = []
        passed: list[str] = []
        for offer in offers:
            rid, outcome = offer.rid, outcomes[offer.rid]
            if isinstance(outcome, Hold) and not outcome.state.over:
                durable.append(rid)
            elif isinstance(outcome, SoldOut):
                self._keeper.distrust()  # the gate gave out what is not there
            elif offer.n:
                ended.append((rid, end_of(outcome)))
            else:
                passed.append(rid)  # nothing was given; what the gate has of this rid is a press's
        if durable:
            await gate.mark(epoch, durable, self._clock())
        if ended:
            self._board.learn(await gate.release(epoch, ended, self._clock()))
        done = [*durable, *passed, *(rid for rid, _how in ended)]
        self._board.learn(await gate.dequeue(epoch, done, self._clock()))
        self._crash_point("offer:after_mark")
        return len(offers) == OFFER_MAX

    async def draw_due(self) -> bool:
        """Draws raffles whose entries are closed. The gate learns of the list by a rebuild."""
        drawn = await self._waits.draw_due(self._clock())
        for drop in drawn:  # all of them first: healing can fail, and a draw is told once
            self._on_drawn(drop)
        if drawn:
            await self._keeper.heal(self._keeper.epoch, wait_for_others=False)
        return False

    async def end_lists(self) -> bool:
        """Ends what cannot be served any more; whether there may be more."""
        now = self._clock()
        ended = await self._waits.end_lists(now, END_MAX)
        if ended:
            self._board.learn(
                await self._keeper.call(
                    lambda epoch: self._keeper.gate.dequeue(epoch, ended, self._clock())
                )
            )
        return len(ended) >= END_MAX


def press_of(offer: Offer) -> Press:
    """The press that an offer stands for."""
    line = Line(offer.sku, offer.quantity)
    return Press(offer.rid, offer.viewer, offer.drop, (line,))


def _press(wait: Wait) -> Press:
    return Press(wait.rid, wait.viewer, wait.drop, (Line(wait.sku, wait.quantity),))
