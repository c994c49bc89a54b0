"""Checkout: what the rest of the program asks of stock. A press of Buy begins and ends here.

Responsible for the questions (reserve, cancel, adjust, open a drop, how many are left) and for
running everything behind them. It must not know engines, the wire or payments: the gate, the
record and the outbox are given to it.

Read on in `reserving` (the way of a press), `gatekeeper` (keeping the gate in step), `upkeep`
(expiry, relay, orphans). Nothing works before `run` runs.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from commerce.batcher import Pause
from commerce.board import Board
from commerce.crash_points import CrashHook, nothing
from commerce.errors import (
    Busy,
    CommerceError,
    RidConflict,
    SoldOut,
    Temporary,
    Unavailable,
    UnknownSku,
)
from commerce.gate import Fenced, Gate, GateUnavailable
from commerce.gatekeeper import Gatekeeper
from commerce.keep import Keep
from commerce.places import Places
from commerce.presses import fingerprint, normal
from commerce.record import Record
from commerce.reserving import RETRY_MS, Answer, Case, Reserving
from commerce.stock import Drop, Hold, HoldState, Level, Press, StockRow
from commerce.upkeep import GateFacts, Upkeep

INFLIGHT_MAX: Final = 16_384
"""Presses on their way in this node, 1 KB each; beyond it the answer is "busy", and no queue grows.

A crowd of 15,000 fits. With room for 1,024 the others came back and back: 555,000 times "busy" in a
minute, which left no time to decide anything.
"""
_BESIDE: Final = "\x1f"
"""No rid has it (`presses.normal`)."""
CROWD: Final = 32
"""Presses on their way from which on those who can wait, wait."""
ANSWER_MAX_S: Final = 10.0
"""A press that has no answer by then hears "not now"; asked again it finds what became of it."""
LATE_LOOK_S: Final = 1.0
"""Between two looks for presses without an answer: one timer for all of them."""


class Checkout:
    """One per node; several nodes share the engines.

    `clock` gives milliseconds since 1970, `on_levels` is called with every level this node learns
    has changed (from within the loop; it must return at once), `pause` waits seconds, `chance`
    gives numbers from 0 to 1, `crash_point` is called at named places.
    """

    def __init__(
        self,
        gate: Gate,
        record: Record,
        outbox: GateFacts,
        *,
        clock: Callable[[], int],
        on_levels: Callable[[Mapping[str, Level]], None],
        pause: Pause = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        crash_point: CrashHook = nothing,
        inflight_max: int = INFLIGHT_MAX,
    ) -> None:
        self._record = record
        self._clock = clock
        self._inflight_max = inflight_max
        self._crash_point = crash_point
        self._cases: dict[str, Case] = {}
        self._late: asyncio.TimerHandle | None = None
        self._places = Places(clock, chance)
        self.board = Board(on_levels)
        self.keeper = Gatekeeper(
            gate,
            record,
            self.board,
            clock=clock,
            pause=pause,
            chance=chance,
            crash_point=crash_point,
        )
        self.reserving = Reserving(
            self.keeper,
            record,
            self.board,
            self._places,
            clock=clock,
            pause=pause,
            crash_point=crash_point,
        )
        self.upkeep = Upkeep(
            self.keeper,
            record,
            outbox,
            self.board,
            clock=clock,
            pause=pause,
            crash_point=crash_point,
        )

    async def run(self) -> None:
        """Batchers, sweeper, relay, reaper and watcher, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for work in (*self.reserving.tasks, *self.upkeep.loops):
                    group.create_task(work())
        finally:
            if self._late is not None:
                self._late.cancel()
                self._late = None
            for case in list(self._cases.values()):
                case.close(Unavailable(RETRY_MS))

    @property
    def crowded(self) -> bool:
        """Whether so many presses are on their way that what can wait should."""
        return len(self._cases) >= CROWD

    async def reserve(self, press: Press) -> Hold:
        """Buy. Returns when the hold is durable. The same press again gets the same answer.

        Raises BadQuantity, UnknownDrop, UnknownSku, DropNotOpen, DropClosed, SoldOut,
        LimitReached, PriceChanged, RidConflict, HoldEnded (its hold has ended meanwhile): decided;
        Busy, Unavailable: not decided, repeat the same press.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        self.begin(press, done)
        answer = await future
        if isinstance(answer, CommerceError):
            raise answer
        return answer

    def begin(self, press: Press, done: Callable[[Answer], None]) -> None:
        """Buy, for a caller who does not wait: `done` hears the hold or the refusal, once.

        It may be called before this returns, and must not raise. For whom a task per press is too
        much: 9 of 10 presses of a drop are answered right here. Raises BadQuantity, UnknownDrop,
        UnknownSku, ValueError for what `presses.normal` refuses; all else is said to `done`.
        """
        press = normal(press)
        case = self._cases.get(press.rid)
        if case is None:
            refused = self._at_once(press)
            if refused is not None:
                done(refused)
                return
            case = self._enter(press)
        elif case.fingerprint != fingerprint(press):
            self._begin_beside(press, done)
            return
        elif not case.waiters:
            case.since = asyncio.get_running_loop().time()  # the first was told to come back
        case.marked |= press.retry
        case.waiters.append(done)

    def _at_once(self, press: Press) -> CommerceError | None:
        """The refusal of who need not be asked about, or for whom there is no room."""
        if not self.reserving.won_here(press.rid):
            sku = self.board.sold_out(press, self.keeper.epoch, self._clock())
            if sku is not None:
                return SoldOut(sku, 0)
        if len(self._cases) >= self._inflight_max:
            return Busy(self._places.take())
        return None

    def _begin_beside(self, press: Press, done: Callable[[Answer], None]) -> None:
        """Its rid is on its way with other lines, or as a stranger's.

        A retry may have won before that one came: of whose the rid is, the record knows.
        """
        if not press.retry:
            done(RidConflict())
            return
        key = f"{press.rid}{_BESIDE}{fingerprint(press)}"
        case = self._cases.get(key)
        if case is None:
            if len(self._cases) >= self._inflight_max:
                done(Busy(self._places.take()))
                return
            case = self._case(press, key)
            case.refusal = RidConflict()
            self.reserving.look_up(case)
        elif not case.waiters:
            case.since = asyncio.get_running_loop().time()  # as in `begin`
        case.waiters.append(done)

    def _enter(self, press: Press) -> Case:
        case = self._case(press, press.rid)
        self.reserving.put(case)
        return case

    def _case(self, press: Press, key: str) -> Case:
        loop = asyncio.get_running_loop()
        case = Case(press, key, fingerprint(press), self._leave, loop.time(), self._clock())
        self._cases[key] = case
        if self._late is None:
            self._late = loop.call_later(LATE_LOOK_S, self._look_for_late)
        return case

    def _leave(self, case: Case) -> None:
        del self._cases[case.key]

    def _look_for_late(self) -> None:
        """Those who wait too long hear "not now"; their presses go on, and a retry joins them."""
        loop = asyncio.get_running_loop()
        since = loop.time() - ANSWER_MAX_S
        for case in list(self._cases.values()):
            if case.since <= since and case.waiters:
                case.tell(Unavailable(self._places.take()))
        self._late = loop.call_later(LATE_LOOK_S, self._look_for_late) if self._cases else None

    async def cancel(self, viewer: str, rid: str) -> Hold:
        """Gives a hold back. What is being paid becomes `closing`: the provider ends it.

        What has ended unpaid is returned as it is. Raises UnknownHold (also for a stranger's),
        HoldEnded (sold), Unavailable.
        """
        hold = await self._record.cancel(viewer, rid, self._clock())
        self._crash_point("cancel:after_commit")
        if hold.state is HoldState.CANCELLED:
            await self.upkeep.tell([hold])
        return hold

    async def find(self, viewer: str, rid: str) -> Hold | None:
        """A viewer's own hold in whatever state, or None. Raises Unavailable."""
        hold = await self._record.find(rid)
        return hold if hold is not None and hold.viewer == viewer else None

    async def open_holds(self, viewer: str) -> list[Hold]:
        """What the viewer holds and has not paid, oldest first. Raises Unavailable."""
        return await self._record.open_holds(viewer)

    async def open_holds_of(self, viewers: Sequence[str]) -> dict[str, list[Hold]]:
        """The same for many viewers in one question; who holds nothing is left out."""
        return await self._record.open_holds_of(viewers)

    async def find_all(self, rids: Sequence[str]) -> dict[str, Hold]:
        """Holds in whatever state and whosever, by rid. Raises Unavailable."""
        return {rid: hold for rid, (_mark, hold) in (await self._record.find_many(rids)).items()}

    async def settle(self, rids: Sequence[str]) -> None:
        """These reservations were moved by somebody else: the gate hears it at once.

        Never fails for an engine that is away: the outbox tells the gate in any case.
        """
        try:
            found = await self._record.find_many(rids)
        except Temporary:
            return
        await self.upkeep.tell([hold for _mark, hold in found.values()])

    async def levels(self, skus: Iterable[str]) -> dict[str, Level]:
        """Units of each SKU that can be bought now; unknown SKUs are left out.

        From the gate for what is in a drop, else from the record. Raises Unavailable.
        """
        wanted = sorted(set(skus))
        if not wanted:
            return {}
        now = self._clock()
        try:
            version, levels = await self.keeper.call(
                lambda epoch: self.keeper.gate.levels(epoch, wanted, now)
            )
        except GateUnavailable:
            return dict(await self._record.levels_without_gate(wanted, now))
        self.board.learn(levels)
        found = dict(levels)
        # The version was read before these numbers, so they are never older than it says.
        missing = [sku for sku in wanted if sku not in found]
        if missing:
            for sku, row in (await self._record.stock_rows(missing)).items():
                found[sku] = Level(max(row.available, 0), version)
        return found

    async def adjust(
        self,
        sku: str,
        delta: int,
        *,
        ref: str,
        kind: str = "adjust",
        keep: Keep[StockRow] | None = None,
    ) -> tuple[StockRow, Level]:
        """Adds units (or takes some), once per `ref`; the row and the level afterwards.

        `keep` stores the answer to a request with the change (`commerce.keep`). Raises UnknownSku,
        BadQuantity (beyond a billion), StockHeld (below what is held or sold, with the numbers),
        KeyConflict (the ref with another delta), Unavailable.
        """
        now = self._clock()
        row = await self._record.adjust(sku, delta, ref=ref, kind=kind, now=now, keep=keep)
        self._crash_point("adjust:after_commit")
        return await self._told(row)

    async def set_on_hand(
        self,
        sku: str,
        to: int,
        expected: int,
        *,
        ref: str,
        drain: bool = False,
        keep: Keep[StockRow] | None = None,
    ) -> tuple[StockRow, Level]:
        """Sets the units on hand if they are `expected`, once per `ref`.

        With `drain`, a number below what is held is reached as holds end. Raises UnknownSku,
        BadQuantity, StockChanged, StockHeld (both with the numbers), Unavailable.
        """
        now = self._clock()
        return await self._told(
            await self._record.set_on_hand(
                sku, to, expected, drain=drain, ref=ref, now=now, keep=keep
            )
        )

    async def cancel_drain(
        self, sku: str, *, ref: str, keep: Keep[StockRow] | None = None
    ) -> tuple[StockRow, Level]:
        """What has not run down yet stays. Raises UnknownSku, Unavailable."""
        now = self._clock()
        return await self._told(await self._record.cancel_drain(sku, ref=ref, now=now, keep=keep))

    async def _told(self, row: StockRow) -> tuple[StockRow, Level]:
        await self._tell_gate()
        levels = await self.levels([row.sku])
        self.board.learn(levels)
        return row, levels[row.sku]

    async def _tell_gate(self) -> None:
        """The relay's own step, now: it tells the gate what the outbox has."""
        with suppress(Temporary, Fenced, GateUnavailable):
            await self.upkeep.relay()

    async def stock_row(self, sku: str) -> StockRow:
        """One SKU in the record. Raises UnknownSku, Unavailable."""
        rows = await self._record.stock_rows([sku])
        if sku not in rows:
            raise UnknownSku(sku)
        return rows[sku]

    async def open_drop(self, drop: Drop) -> None:
        """Stores a drop and loads the gate with it; it opens by time. Repeating is harmless.

        Raises UnknownSku, SkuInDrop, Unavailable.
        """
        await self._record.open_drop(drop, self._clock())
        self._crash_point("drop:after_commit")
        with suppress(GateUnavailable):  # if it is away: every gate is fenced by now
            await self.keeper.heal(self.keeper.epoch, wait_for_others=False)

    async def close_drop(self, drop_id: str) -> Drop:
        """Closes a drop now; what was pressed before still counts. Raises UnknownDrop."""
        closed = await self._record.close_drop(drop_id, self._clock())
        await self._tell_gate()
        return closed

    async def drops(self, show: str, *, open_only: bool = True) -> list[Drop]:
        """A show's drops, oldest first; with `open_only` not those that are over."""
        return await self._record.drops(show, self._clock(), open_only=open_only)

    async def left(self, drop_id: str) -> dict[str, int]:
        """Units that can still be bought in a drop, by SKU. Raises UnknownDrop, Unavailable."""
        return dict(await self._record.left(drop_id))
