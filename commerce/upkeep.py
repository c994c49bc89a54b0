"""What goes on behind the presses: expiry, telling the gate, taking back orphans, watching.

Responsible for the loops that make every promise about time true: a hold's units are free within a
second of its deadline, an orphaned win's within six, a gate that came back old is noticed within a
quarter of a second. It must not know presses. Each step may be repeated and may run on every node
at once; each may be killed anywhere, and the next run finds what it left.

An outage ends no loop: it backs off up to two seconds and goes on.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from commerce.batcher import Pause
from commerce.board import Board
from commerce.crash_points import CrashHook
from commerce.errors import Temporary
from commerce.gate import Change, End, Fenced, GateUnavailable, Waiting
from commerce.gatekeeper import Gatekeeper
from commerce.outbox import Fact
from commerce.record import Record
from commerce.reserving import end_as, end_of
from commerce.stock import Hold, HoldState

logger = logging.getLogger(__name__)

SWEEP_MS: Final = 250
SWEEP_MAX: Final = 500
RELAY_MS: Final = 100
RELAY_MAX: Final = 500
REAP_MS: Final = 500
REAP_MAX: Final = 200
WATCH_MS: Final = 250
PRUNE_MS: Final = 60_000
BACK_OFF_MAX_MS: Final = 2_000
ALONE_EVERY: Final = 4
"""While the gate is away, every fourth look publishes levels by SQL alone (once a second)."""

OUTAGES: Final = (Temporary, Fenced, GateUnavailable)


class GateFacts(Protocol):
    """The outbox as far as the gate is concerned."""

    async def for_gate(self, limit: int) -> list[Fact]:
        """Facts the gate has not heard, oldest first."""

    async def gate_done(self, ids: Sequence[int], epoch: int, now: int) -> bool:
        """The gate of this epoch has heard them; False if the epoch has moved on."""

    async def prune(self, now: int) -> int:
        """Deletes what everybody has heard long ago."""


class Upkeep:
    """The loops, as coroutine functions in `loops`; and each of their steps, to be run alone."""

    def __init__(
        self,
        keeper: Gatekeeper,
        record: Record,
        facts: GateFacts,
        board: Board,
        *,
        clock: Callable[[], int],
        pause: Pause,
        crash_point: CrashHook,
    ) -> None:
        self._keeper = keeper
        self._record = record
        self._facts = facts
        self._board = board
        self._clock = clock
        self._pause = pause
        self._crash_point = crash_point
        self._looks = 0
        self.loops: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (
            lambda: self._every(SWEEP_MS, self.sweep),
            lambda: self._every(RELAY_MS, self.relay),
            lambda: self._every(REAP_MS, self.reap),
            lambda: self._every(WATCH_MS, self.watch),
            lambda: self._every(PRUNE_MS, self.prune),
        )

    async def _every(self, period_ms: int, step: Callable[[], Awaitable[bool]]) -> None:
        """Runs `step` for ever: again at once while it has more to do, later while it cannot."""
        back_off_ms = period_ms
        while True:
            more = False
            try:
                more = await step()
            except OUTAGES:
                back_off_ms = max(period_ms, min(back_off_ms * 2, BACK_OFF_MAX_MS))
            else:
                back_off_ms = period_ms
            await self._pause(0 if more else back_off_ms / 1000)

    async def sweep(self) -> bool:
        """Ends holds whose deadline has passed; whether there may be more."""
        ended = await self._record.expire_due(self._clock(), SWEEP_MAX)
        self._crash_point("sweep:after_commit")
        await self.tell(ended)
        return len(ended) == SWEEP_MAX

    async def tell(self, holds: Sequence[Hold]) -> None:
        """Tells the gate at once that these are over. The relay repeats it, so failing is fine."""
        ends = [(hold.rid, end_of(hold)) for hold in holds if hold.state.over]
        if not ends:
            return
        try:
            await self._release(ends)
        except OUTAGES:
            return
        self._crash_point("release:after_gate")

    async def _release(self, ends: Sequence[tuple[str, End]]) -> None:
        self._board.learn(
            await self._keeper.call(
                lambda epoch: self._keeper.gate.release(epoch, ends, self._clock())
            )
        )

    async def relay(self) -> bool:
        """Tells the gate what the outbox has for it; whether there may be more.

        All under one epoch, read before the facts: if the epoch moves on meanwhile nothing is
        marked, and the new gate is told what its image lacks.
        """
        epoch = await self._keeper.call(self._present)
        facts = await self._facts.for_gate(RELAY_MAX)
        if not facts:
            return False
        gate = self._keeper.gate
        ends = [_end(fact) for fact in facts if fact.topic == "hold"]
        known = [(rid, how) for rid, how in ends if how is not None]
        changes = [_change(fact) for fact in facts if fact.topic == "stock"]
        closed = [fact.key for fact in facts if fact.topic == "drop"]
        if known:
            self._board.learn(await gate.release(epoch, known, self._clock()))
        if changes:
            self._board.learn(await gate.adjust(epoch, changes, self._clock()))
        await self._relay_waits(facts, epoch)
        if closed:
            self._board.learn(await gate.close_drops(epoch, closed, self._clock()))
        self._crash_point("relay:after_gate")
        await self._facts.gate_done([fact.id for fact in facts], epoch, self._clock())
        return len(facts) == RELAY_MAX

    async def _relay_waits(self, facts: Sequence[Fact], epoch: int) -> None:
        """Who waits and who does so no more, whatever the one who wrote it could still tell."""
        told = {fact.key: fact for fact in facts if fact.topic == "wait"}  # the last word counts
        joined = [_waiting(fact) for fact in told.values() if fact.payload["state"] == "waiting"]
        gone = [fact.key for fact in told.values() if fact.payload["state"] != "waiting"]
        gate = self._keeper.gate
        if joined:
            self._board.learn(await gate.enqueue(epoch, joined, self._clock()))
        if gone:
            self._board.learn(await gate.dequeue(epoch, gone, self._clock()))

    async def _present(self, epoch: int) -> int:
        """The epoch, if the gate still answers under it."""
        await self._keeper.gate.levels(epoch, [], self._clock())
        return epoch

    async def reap(self) -> bool:
        """Takes back wins that nobody made durable; whether there may be more.

        The record first: after its tombstone no slow writer can make the rid durable any more.
        """
        now = self._clock()
        orphans = await self._keeper.call(
            lambda epoch: self._keeper.gate.orphans(epoch, now, REAP_MAX)
        )
        if not orphans:
            await self._keeper.call(lambda epoch: self._keeper.gate.trim(epoch, self._clock()))
            return False
        states = await self._record.tombstone(orphans, now)
        self._crash_point("reap:after_commit")
        durable = [rid for rid, state in states.items() if not state.over]
        ends = [
            (orphan.rid, _ended_as(states.get(orphan.rid)))
            for orphan in orphans
            if orphan.rid not in durable
        ]
        gate, epoch = self._keeper.gate, orphans[0].epoch
        if durable:
            await gate.mark(epoch, durable, self._clock())
        if ends:
            self._board.learn(await gate.release(epoch, ends, self._clock()))
        return len(orphans) == REAP_MAX

    async def watch(self) -> bool:
        """Looks whether the gate is in step; while it is away, levels come from the record."""
        self._looks += 1
        try:
            await self._keeper.watch()
        except GateUnavailable:
            if self._looks % ALONE_EVERY == 0:
                self._board.learn(await self._record.levels_without_gate(None, self._clock()))
        return False

    async def prune(self) -> bool:
        """Clears the outbox of what is an hour old."""
        await self._facts.prune(self._clock())
        return False


def _ended_as(state: HoldState | None) -> End:
    if state is None:
        return End.FORGOTTEN
    return end_as(state)


def _end(fact: Fact) -> tuple[str, End | None]:
    """How the gate sees a fact about a hold; None where its numbers do not change."""
    state = HoldState(fact.payload["state"])
    return fact.key, _ended_as(state) if state.over else None


def _waiting(fact: Fact) -> Waiting:
    told = fact.payload
    return Waiting(
        fact.key,
        str(told["fingerprint"]),
        str(told["viewer"]),
        str(told["drop"]),
        str(told["sku"]),
        int(told["quantity"]),
        int(told["place"]),
    )


def _change(fact: Fact) -> Change:
    payload = fact.payload
    return Change(str(payload["ref"]), str(payload["sku"]), int(payload["delta"]))
