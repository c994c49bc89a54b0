"""From a press to its answer: gate, record, mark. The way of every press of Buy.

Responsible for the order of the steps and for what each missing answer means. It must not know an
engine, nor who pressed by what connection.

    put ─► gate batch (256, 2 to 4 ms) ─► refused: answered
                                      ─► known:   looked up in the record, answered
                                      ─► won:     record batch (512, 5 ms) ─► answered ─► marked
           gate away: the record alone, 32 at a time, the rest hear "busy"

"Write to the record last, answer after it": a reservation in the gate is a promise to nobody until
the record has committed. A step whose answer is missing is never undone here: the same rid asked
again finds whatever it did, and what nobody asks for again is taken back after five seconds.
The steps run in tasks of their own, so a viewer who leaves in the middle interrupts nothing.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from commerce.batcher import Batcher, Pause, Rest
from commerce.board import Board
from commerce.crash_points import CrashHook
from commerce.errors import (
    Busy,
    CommerceError,
    DropClosed,
    DropNotOpen,
    HoldEnded,
    HoldsLimited,
    InRaffle,
    LimitReached,
    PriceChanged,
    Refused,
    RidConflict,
    SoldOut,
    Unavailable,
    UnknownDrop,
    UnknownSku,
)
from commerce.gate import NEVER_MS, Ask, Decision, End, Fenced, GateUnavailable, Verdict
from commerce.gatekeeper import Gatekeeper
from commerce.places import Places
from commerce.record import Price, Record, Winner, total_of
from commerce.stock import Hold, HoldState, Levels, Press

logger = logging.getLogger(__name__)

GATE_BATCH: Final = 256
GATE_WAIT_MS: Final = 2.0
GATE_RUSH: Final = 4
"""Presses in a call from which on the next call waits a little longer…"""
GATE_RUSH_WAIT_MS: Final = 4.0
"""…because fewer calls are what a node in a rush has more time by: at 3,000 winners a second on
SQLite the p99 of their wait was 52 ms with 2 ms here and 34 ms with 4."""
GATE_ENOUGH: Final = 64
"""So many are worth a second call while one is under way; a call alone costs this side 0.5 ms."""
RECORD_BATCH: Final = 512
RECORD_WAIT_MS: Final = 5.0
RECORD_WAITING_MAX: Final = RECORD_BATCH
"""Winners that may wait for the record before the gate is asked for more; others wait before it.

What the gate has given out is taken back after five seconds. On a PostgreSQL that wrote 700 a
second, 15,000 winners at once waited for up to twenty, and half of them were taken back in between.
"""
ROOM_S: Final = 0.005
"""Between two looks for room in the record's queue."""
LOOKUP_BATCH: Final = 512
WITHOUT_GATE_MAX: Final = 32
"""Presses that the record judges alone in one go; with a commit of 5 ms about 3,000 a second."""
TRIES: Final = 6
"""Rounds of one press through gate and record while epochs move on under it."""
RETRY_MS: Final = 300
"""What a press is told to wait when this node ends before it was decided."""
PRICE_MS: Final = 1_000
"""A price is remembered this long, to spare presses with an old page the way to the record."""
WON_KEPT: Final = 10_000
"""Rids of this node's last wins: their repeats skip the sold-out flag."""

Answer = Hold | CommerceError


@dataclass(slots=True, eq=False)
class Case:
    """One press on its way, answered once. No future and no task of its own: a call is a tenth."""

    press: Press
    key: str
    """By which its node finds it while it is on its way."""
    fingerprint: str
    ended: Callable[["Case"], None]
    """Called when it is answered; `waiters` hear the answer after it."""
    since: float
    """When the first of the present waiters came, by the loop's clock."""
    pressed_at: int
    """When the press arrived here; milliseconds."""
    waiters: list[Callable[[Answer], None]] = field(default_factory=list)
    marked: bool = False
    """Somebody who waits has marked this press as a retry: no flag may answer it."""
    closed: bool = False
    tries: int = 0
    decision: Decision | None = None
    refusal: CommerceError | None = field(default=None)
    """What a retry hears unless the record knows better."""

    def close(self, answer: Answer) -> None:
        """Answers the press, unless it was answered."""
        if not self.closed:
            self.closed = True
            self.ended(self)
            self.tell(answer)

    def tell(self, answer: Answer) -> None:
        """An answer to those who wait now; the press itself goes on."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter(answer)


class Reserving:
    """The steps, as batchers. `run` one task per entry of `tasks`."""

    def __init__(
        self,
        keeper: Gatekeeper,
        record: Record,
        board: Board,
        places: Places,
        *,
        clock: Callable[[], int],
        pause: Pause,
        crash_point: CrashHook,
    ) -> None:
        self._keeper = keeper
        self._record = record
        self._board = board
        self._places = places
        self._clock = clock
        self._pause = pause
        self._crash_point = crash_point
        self._prices: dict[str, Price] = {}
        self._prices_until = 0
        self._won: OrderedDict[str, None] = OrderedDict()
        self._gate_queue = Batcher(
            self._ask_gate,
            size=GATE_BATCH,
            wait_ms=GATE_WAIT_MS,
            pause=pause,
            enough=GATE_ENOUGH,
            rush=GATE_RUSH,
            rush_wait_ms=GATE_RUSH_WAIT_MS,
        )
        self._record_queue = Batcher(
            self._write,
            size=RECORD_BATCH,
            wait_ms=RECORD_WAIT_MS,
            pause=pause,
            enough=RECORD_BATCH,
        )
        self._lookup_queue = Batcher(self._look_up, size=LOOKUP_BATCH, wait_ms=0, pause=pause)
        self.tasks = (
            *(self._gate_queue.run, self._gate_queue.run),
            *(self._record_queue.run, self._record_queue.run),  # one commits, one marks
            self._lookup_queue.run,
        )

    def put(self, case: Case) -> None:
        """Starts a press on its way."""
        self._gate_queue.put(case)

    def look_up(self, case: Case) -> None:
        """The record alone answers it, with its hold or else with the case's refusal."""
        self._lookup_queue.put(case)

    def won_here(self, rid: str) -> bool:
        """Whether this node has given this rid a hold not long ago."""
        return rid in self._won

    # The gate.

    async def _ask_gate(self, cases: list[Case]) -> None:
        while len(self._record_queue) >= RECORD_WAITING_MAX:
            await self._pause(ROOM_S)  # each batch there ends: written, refused or put off
        now = self._clock()
        cases = [case for case in cases if not self._gone(case, now)]
        if not cases:
            return
        await self._learn_prices(cases, now)
        asks = [self._ask(case) for case in cases]
        self._crash_point("reserve:before_gate")
        try:
            decisions, levels = await self._keeper.call(
                lambda epoch: self._keeper.gate.reserve(epoch, asks, self._clock())
            )
        except GateUnavailable:
            await self._without_gate(cases)
            return
        except Unavailable:
            self._put_off(cases)
            return
        self._crash_point("reserve:after_gate")
        self._board.learn(levels)
        for case, decision in zip(cases, decisions, strict=True):
            if decision.verdict is Verdict.WON:
                self._last_one(case.press, decision, levels, now)
            self._sort(case, decision, now)

    def _gone(self, case: Case, now: int) -> bool:
        """Whether the sold-out flag, raised while this press waited for its batch, answers it."""
        if case.marked or case.tries or self.won_here(case.press.rid):
            return False
        sku = self._board.sold_out(case.press, self._keeper.epoch, now)
        if sku is not None:
            case.close(SoldOut(sku, 0))
        return sku is not None

    def _last_one(self, press: Press, decision: Decision, levels: Levels, now: int) -> None:
        """The batch that takes the last unit raises the flag: the next need not ask."""
        for line in press.lines:
            level = levels.get(line.sku)
            if level is not None and level.available == 0:
                self._board.none_left(line.sku, press.drop, decision.epoch, now)

    def _sort(self, case: Case, decision: Decision, now: int) -> None:
        case.decision = decision
        if decision.verdict is Verdict.WON:
            self._record_queue.put(case)
            return
        if decision.verdict is Verdict.KNOWN:
            case.refusal = None
            self._lookup_queue.put(case)
            return
        if decision.verdict is Verdict.SOLD_OUT and decision.number == 0 and decision.sku:
            self._board.none_left(decision.sku, case.press.drop, decision.epoch, now)
        refusal = self._refusal(case.press, decision, now)
        if decision.n:
            refusal.receipt = (decision.epoch, decision.n)
        if case.marked or decision.verdict is Verdict.CONFLICT:
            # Its first attempt may have won and been forgotten by the gate, and a stranger may have
            # used the rid since; the record knows whose it is.
            case.refusal = refusal
            self._lookup_queue.put(case)
        else:
            case.close(refusal)

    def _refusal(self, press: Press, decision: Decision, now: int) -> Refused:
        sku = decision.sku
        match decision.verdict:
            case Verdict.CONFLICT:
                return RidConflict()
            case Verdict.NOT_OPEN if decision.number == NEVER_MS:
                return InRaffle()
            case Verdict.NOT_OPEN:
                return DropNotOpen(decision.number, max(decision.number - now, 0))
            case Verdict.CLOSED:
                return DropClosed()
            case Verdict.UNKNOWN_SKU:
                return UnknownSku(sku or "")
            case Verdict.PRICE:
                return PriceChanged(total_of(press.lines, self._prices) or 0)
            case Verdict.SOLD_OUT:
                return SoldOut(sku or "", decision.number)
            case Verdict.LIMIT:
                return LimitReached(sku, decision.number)
            case Verdict.LAPSED:
                return HoldsLimited(decision.number, decision.until_ms)
            case _:
                return UnknownDrop(press.drop)

    def _ask(self, case: Case) -> Ask:
        press = case.press
        total = None if press.total is None else total_of(press.lines, self._prices)
        return Ask(
            press.rid,
            case.fingerprint,
            press.viewer,
            press.drop,
            tuple((line.sku, line.quantity) for line in press.lines),
            price_ok=total is None or total == press.total,
            pressed_at=case.pressed_at,
        )

    async def _learn_prices(self, cases: Sequence[Case], now: int) -> None:
        """Prices for presses that name a total. What cannot be read is checked by the record."""
        if now >= self._prices_until:
            self._prices.clear()
            self._prices_until = now + PRICE_MS
        missing = {
            line.sku
            for case in cases
            if case.press.total is not None
            for line in case.press.lines
            if line.sku not in self._prices
        }
        if missing:
            with suppress(Unavailable):
                self._prices |= await self._record.prices(sorted(missing))

    # The record.

    async def _write(self, cases: list[Case]) -> Rest:
        """Winners of one epoch at a time: a rebuild may lie between two decisions.

        Returns the telling of the gate, which the next batch need not wait for.
        """
        by_epoch: dict[int, list[Case]] = {}
        for case in cases:
            assert case.decision is not None
            by_epoch.setdefault(case.decision.epoch, []).append(case)
        written = [
            (epoch, *await self._write_epoch(epoch, group)) for epoch, group in by_epoch.items()
        ]

        async def tell() -> None:
            for epoch, durable, ended in written:
                if durable or ended:
                    await self._tell(epoch, durable, ended)
                    self._crash_point("reserve:after_mark")

        return tell

    async def _write_epoch(
        self, epoch: int, cases: list[Case]
    ) -> tuple[list[str], list[tuple[str, End]]]:
        """(rids that are durable now, rids that ended and how)."""
        winners = [_winner(case) for case in cases]
        try:
            outcomes = await self._record.hold(epoch, winners, self._clock())
        except Fenced:
            self._keeper.refused(epoch)
            for case in cases:
                self._again(case)
            return [], []
        except Unavailable:
            self._put_off(cases)  # perhaps committed: the same rid will tell
            return [], []
        self._crash_point("reserve:after_commit")
        durable: list[str] = []
        ended: list[tuple[str, End]] = []
        for case in cases:
            outcome = outcomes[case.press.rid]
            if isinstance(outcome, SoldOut):
                self._keeper.distrust()
            if isinstance(outcome, Hold) and not outcome.state.over:
                durable.append(outcome.rid)
            else:
                ended.append((case.press.rid, end_of(outcome)))
        # Durable is enough: who asks again before the gate is told finds it in the record.
        for case in cases:
            self._close(case, outcomes[case.press.rid])
        return durable, ended

    async def _tell(self, epoch: int, durable: list[str], ended: list[tuple[str, End]]) -> None:
        """Tells the gate; if that fails it is rebuilt or asks again, and the record stands."""
        gate = self._keeper.gate
        try:
            if durable:
                await gate.mark(epoch, durable, self._clock())
            if ended:
                self._board.learn(await gate.release(epoch, ended, self._clock()))
        except (Fenced, GateUnavailable):
            pass

    async def _without_gate(self, cases: list[Case]) -> None:
        """The gate is away: SQL decides, few at a time."""
        for case in cases[WITHOUT_GATE_MAX:]:
            case.close(Busy(self._places.take()))
        cases = cases[:WITHOUT_GATE_MAX]
        now = self._clock()
        winners = [
            Winner(case.press, case.fingerprint, 0, now, None, pressed_at=case.pressed_at)
            for case in cases
        ]
        try:
            outcomes, levels = await self._record.hold_without_gate(winners, now)
        except Unavailable:
            self._put_off(cases)
            return
        self._crash_point("reserve:after_commit")
        self._board.learn(levels)
        for case in cases:
            self._close(case, outcomes[case.press.rid])

    async def _look_up(self, cases: list[Case]) -> None:
        """What the record says to rids that were decided before."""
        try:
            found = await self._record.find_many([case.press.rid for case in cases])
        except Unavailable:
            self._put_off(cases)
            return
        for case in cases:
            known = found.get(case.press.rid)
            if known is None:
                await self._unknown(case)
            elif known[0] != case.fingerprint:
                case.close(RidConflict())
            else:
                self._close(case, known[1])

    async def _unknown(self, case: Case) -> None:
        """The gate remembers a rid that the record does not have: forget it and ask anew."""
        if case.refusal is not None:
            case.close(case.refusal)
            return
        assert case.decision is not None
        await self._tell(case.decision.epoch, [], [(case.press.rid, End.FORGOTTEN)])
        self._again(case)

    # Answers.

    def _again(self, case: Case) -> None:
        case.tries += 1
        if case.tries < TRIES:
            self._gate_queue.put(case)
        else:
            self._put_off([case])

    def _put_off(self, cases: Sequence[Case]) -> None:
        """An engine did not answer: each may ask again, in its turn."""
        for case in cases:
            case.close(Unavailable(self._places.take()))

    def _close(self, case: Case, outcome: Answer) -> None:
        if isinstance(outcome, Hold):
            if outcome.state in (HoldState.EXPIRED, HoldState.CANCELLED):
                case.close(HoldEnded(outcome.state.value))
                return
            self._won[outcome.rid] = None
            if len(self._won) > WON_KEPT:
                self._won.popitem(last=False)
        case.close(outcome)


def end_of(outcome: Answer) -> End:
    """How a reservation that is over in the record ends in the gate."""
    if not isinstance(outcome, Hold):
        return End.FORGOTTEN
    return end_as(outcome.state)


def end_as(state: HoldState) -> End:
    """The same, by the state alone."""
    if state is HoldState.EXPIRED:
        return End.LAPSED
    return End.SOLD if state is HoldState.SOLD else End.FREED


def _winner(case: Case) -> Winner:
    decision = case.decision
    assert decision is not None
    return Winner(
        case.press,
        case.fingerprint,
        decision.n,
        decision.at,
        decision.until_ms,
        lapses=decision.number,
    )
