"""Keeping the gate in step with the record: epochs, rebuilds, and knowing when it is away.

Responsible for the epoch this node works under, for loading the gate from the record whenever the
gate is not the one that was loaded last, and for a short memory of "it does not answer". It must
not know presses.

A rebuild: the record's epoch moves on by compare-and-set (one of many rebuilders wins, and from
then on every batch of the old epoch is refused), one snapshot is read, the gate is loaded with it.
Whoever is killed in between leaves a gate that is fenced, and the next one to ask rebuilds it.
Whether to rebuild is judged by state (does the gate have the record's epoch, on the same engine
process), never by having seen an event: a watcher that dies loses events, not states.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from commerce.batcher import Pause
from commerce.board import Board
from commerce.crash_points import CrashHook
from commerce.gate import Fenced, Gate, GateUnavailable, Stale
from commerce.record import Record

logger = logging.getLogger(__name__)

R = TypeVar("R")

CALL_TRIES: Final = 4
"""Calls that are fenced again and again: something else is wrong, the caller is told "not now"."""
HEAL_TRIES: Final = 6
OTHERS_MS: Final = 400
"""How long another node's rebuild is waited for before this node starts its own."""
OTHERS_LOOK_MS: Final = 20
FIRST_MS: Final = 60
"""The same for a node that has just started and knows of no epoch."""
AWAY_MS: Final = 250
"""After no answer, the gate is not asked again for this long."""


class Gatekeeper:
    """One per node; everything that asks the gate goes through `call`."""

    def __init__(
        self,
        gate: Gate,
        record: Record,
        board: Board,
        *,
        clock: Callable[[], int],
        pause: Pause,
        chance: Callable[[], float] = random.random,
        crash_point: CrashHook,
    ) -> None:
        self.gate = gate
        self._record = record
        self._board = board
        self._clock = clock
        self._pause = pause
        self._chance = chance
        self._crash_point = crash_point
        self._healing = asyncio.Lock()
        self._away_until = 0
        self._suspect = False
        self._silent = False
        self._made = 0
        self._refused = 0
        self.epoch = 0
        """The epoch this node works under; 0: it does not know yet."""
        self.rebuilds = 0

    @property
    def away(self) -> bool:
        """The gate did not answer a moment ago."""
        return self._clock() < self._away_until

    async def call(self, ask: Callable[[int], Awaitable[R]]) -> R:
        """Asks under the present epoch; heals and asks again when fenced.

        `ask` looks at the clock itself: healing may take a second, and what the gate decides after
        it must not be dated before it.

        Raises GateUnavailable (at once while it is away), Unavailable when healing needs the
        record and that is away.
        """
        if self.away:
            raise GateUnavailable
        try:
            for _attempt in range(CALL_TRIES):
                epoch = self.epoch
                try:
                    if epoch and epoch != self._refused:
                        answer = await ask(epoch)
                        self._silent = False
                        return answer
                except Fenced:
                    pass
                await self.heal(epoch)
        except GateUnavailable:
            self._gone()
            raise
        raise GateUnavailable

    def distrust(self) -> None:
        """The record refused what the gate gave out: rebuild it at the next look."""
        self._suspect = True

    def refused(self, epoch: int) -> None:
        """The record refused a batch of this epoch: it has moved on, and the gate may not know.

        A gate that was silent for a while and is the same as before answers under its old epoch
        for ever; only the record says that its answers count no more.
        """
        if epoch == self.epoch:
            self._refused = epoch

    async def watch(self) -> None:
        """A look at gate and record, whatever else is going on: heals, and learns all levels.

        The record is asked too: whoever moved its epoch on (a node that decided without the gate,
        one that opened a drop and died) may not have reached the gate.
        """
        if self._suspect:
            self._suspect = False
            await self.rebuild()
        self._away_until = 0
        _version, levels = await self.call(
            lambda epoch: self.gate.levels(epoch, None, self._clock())
        )
        self._board.learn(levels)
        epoch = self.epoch
        current = await self._record.epoch()
        if not (current.has_gate and current.number == epoch):
            self.refused(epoch)  # the next call heals

    async def rebuild(self) -> None:
        """Loads the gate anew, also if it seems to be in step. Raises GateUnavailable, Unavailable.

        Returns when a gate is loaded with an image that was read after this call began.
        """
        try:
            await self.gate.epoch()
            seen = (await self._record.epoch()).number
            await self._record.next_epoch(seen, seen + 1)
            await self.heal(self.epoch, wait_for_others=False)
        except GateUnavailable:
            self._gone()
            raise

    async def heal(self, seen: int, *, wait_for_others: bool = True) -> None:
        """Makes gate and record agree, unless this node has moved on from epoch `seen` already.

        Raises GateUnavailable, Unavailable.
        """
        async with self._healing:
            if self.epoch != seen:
                return
            floor = 0
            for attempt in range(HEAL_TRIES):
                patience_ms = OTHERS_MS if wait_for_others or attempt else 0
                current = await self._disagreed(patience_ms)
                if current is None:
                    return
                try:
                    if await self._load(current, floor):
                        return
                except Stale as stale:
                    floor = stale.epoch + 1
            raise GateUnavailable

    async def _disagreed(self, patience_ms: float) -> int | None:
        """The record's epoch if the gate has another one; None if they agree (then it is ours too).

        An epoch that neither this node knew nor made is probably another node's rebuild, so it is
        waited for; how long is left to chance, or all nodes would go on rebuilding each other's.
        """
        if self.epoch == self._made == 0:
            patience_ms = min(patience_ms, FIRST_MS)
        patience_ms *= 0.5 + self._chance()
        waited = 0.0
        while True:
            # The gate first: an epoch is not moved on for a gate that is away.
            found = await self.gate.epoch()
            current = await self._record.epoch()
            if current.has_gate and found == current.number:
                await self._enter(current.number)
                return None
            theirs = current.has_gate and current.number not in (self.epoch, self._made)
            if not theirs or waited >= patience_ms:
                return current.number
            step = OTHERS_LOOK_MS * (0.5 + self._chance())
            await self._pause(step / 1000)
            waited += step

    async def _load(self, current: int, floor: int) -> bool:
        epoch = await self._record.next_epoch(current, floor)
        if epoch is None:
            return False  # somebody else was faster
        self._made = epoch
        self._crash_point("rebuild:after_epoch")
        now = self._clock()
        image = await self._record.image(epoch, now)
        if image is None:
            return False
        self._crash_point("rebuild:after_snapshot")
        await self.gate.load(epoch, image, now)
        self._crash_point("rebuild:after_load")
        self.rebuilds += 1
        logger.info("gate loaded: epoch %d, %d holds", epoch, len(image.entries))
        await self._enter(epoch)
        return True

    async def _enter(self, epoch: int) -> None:
        self.epoch = epoch
        self._refused = 0
        try:
            _version, levels = await self.gate.levels(epoch, None, self._clock())
        except Fenced:
            return  # moved on again already; the next call heals
        self._board.learn(levels)

    def _gone(self) -> None:
        if not self._silent:
            logger.warning("the gate does not answer")
        self._silent = True
        self._away_until = self._clock() + AWAY_MS
