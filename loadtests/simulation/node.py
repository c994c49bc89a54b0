"""A node of the simulation: the production code of stock in one process that may die at any call.

Responsible for what lies between a node and everything else. Each script and each transaction waits
a drawn while, happens, and waits again until its answer arrives; in between it may be lost, late or
repeated, and the node may freeze or die. It must not know who calls it nor what is right.

A killed node's tasks are cancelled where they stand: what it had asked for has happened or has not,
what it knew is gone. Nothing of it may reach an engine afterwards, except a request that was on its
way (`gate_request_late`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

from typing_extensions import override

from commerce.checkout import Checkout
from commerce.database_sql import Database
from commerce.errors import Unavailable
from commerce.gate import Image, Offer
from commerce.outbox_sql import SqlOutbox
from commerce.record import Outcome, Winner
from commerce.record_sql import SqlRecord
from commerce.stock import Levels
from commerce.stock_redis import ANSWER_WAIT_S, RedisGate
from commerce.waiting import Waitlist
from commerce.waiting_sql import SqlWaitlist
from loadtests.simulation import databases_sql, valkeys_redis
from loadtests.simulation.plan import Fault

if TYPE_CHECKING:
    from loadtests.simulation.world import World

R = TypeVar("R")

LOOP_PERIOD_S: Final = 0.1
"""Pauses from here on are those of upkeep's loops, which the plan stretches."""
SLOW_S: Final = (0.5, 9.0)
"""Longer than a hold, an orphan's time and a press's patience, sometimes."""
DAWDLE_S: Final = (0.02, 0.6)
"""About as long as other nodes wait for a rebuild before they begin their own."""
LINGER_S: Final = (4.0, 9.0)
"""About as long as the gate waits for a win to become durable, or longer."""
RETRY_MS: Final = 300

_writing: ContextVar[Sequence[str]] = ContextVar("writing", default=())


class Gone(Exception):
    """The node died, or the viewer's connection broke: nobody answers."""


class Killed(Exception):
    """Raised where a node dies at a named point."""


class Node:
    """One process. Everything it asks of an engine passes through it."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen_until = 0.0
        self.offset_ms = 0
        self.cut_off_until = 0.0
        self.engine: int | None = None
        """Set while a split keeps it at an engine that the others have left."""
        self._world = world
        self._calls: set[asyncio.Task[Any]] = set()
        self._run: asyncio.Task[None] | None = None
        self.database = databases_sql.Passing(world.database, self)
        record = _Telling(self.database, self, world.loaded)
        self.checkout = Checkout(
            _Slow(valkeys_redis.Passing(self, world.valkeys), self),
            record,
            SqlOutbox(self.database),
            clock=self.clock,
            on_levels=world.learned,
            pause=self.pause,
            chance=world.chance.random,
            crash_point=self.crash_point,
        )
        self.waits = Waitlist(
            self.checkout.keeper,
            record,
            _TellingOffers(self.database, crash_point=self.crash_point),
            self.checkout.board,
            clock=self.clock,
            pause=self.pause,
            crash_point=self.crash_point,
        )

    def start(self) -> None:
        """Its loops begin to turn."""
        self._run = asyncio.create_task(self._turn())
        self._run.add_done_callback(self._ended)

    async def _turn(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.checkout.run())
            group.create_task(self.waits.run())

    def _ended(self, run: "asyncio.Task[None]") -> None:
        error = None if run.cancelled() else run.exception()
        if not self.dead:
            self._world.violated("loops_never_end", f"{self.name}: {error!r}")
            self.kill()

    def kill(self) -> None:
        """The process is gone, between two calls or on the way of one."""
        self.dead = True
        for task in (self._run, *self._calls):
            if task is not None:
                task.cancel()

    async def stop(self) -> None:
        """Ends it and waits for its tasks."""
        self.kill()
        tasks = [task for task in (self._run, *self._calls) if task is not None]
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()

    async def call(self, work: Coroutine[Any, Any, R], *, patience_s: float | None = None) -> R:
        """Asks the node something. Raises Gone if it dies or the asker's patience ends first."""
        task = asyncio.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        await asyncio.wait([task], timeout=patience_s)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                raise Gone
        if self.dead or task.cancelled():
            if not task.cancelled():
                task.exception()
            raise Gone
        return task.result()

    # What the node is given.

    def clock(self) -> int:
        """Its clock, which may have jumped."""
        return self._world.now_ms + self.offset_ms

    async def pause(self, seconds: float) -> None:
        """Waits; the loops of upkeep wait longer, as the plan says."""
        if seconds >= LOOP_PERIOD_S:
            seconds *= self._world.stretch
        await self._sleep(seconds)

    def crash_point(self, point: str) -> None:
        """A named place in the production code."""
        if not self.dead and self._world.meets(Fault.CRASH):
            self._world.step("dies at", point)
            self.kill()
            raise Killed(point)

    async def dawdle(
        self, fault: Fault = Fault.REBUILD_SLOW, for_s: tuple[float, float] = DAWDLE_S
    ) -> None:
        """Perhaps this step takes its time, while everybody else goes on."""
        if self._world.meets(fault):
            await self._sleep(self._world.chance.uniform(*for_s))

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        while (rest := self.frozen_until - self._world.loop.now_s) > 0:  # noqa: ASYNC110
            await asyncio.sleep(rest)
        if self.dead:
            raise asyncio.CancelledError

    async def _travel(self) -> None:
        await self._sleep(self._world.travel_s())

    # The gate.

    async def ask_gate(self, real: Callable[[int], Awaitable[R]]) -> R:
        """See `valkeys_redis.GatePort`."""
        world = self._world
        await self._travel()
        if world.meets(Fault.GATE_SLOW):
            await self._sleep(world.chance.uniform(*SLOW_S))
        if world.meets(Fault.GATE_REQUEST):
            await self._lost()
        if world.meets(Fault.GATE_LATE):
            world.later(asyncio.create_task(self._late(real)))
            await self._lost()
        number = await self._reach()
        answer = await real(number)
        world.step(self.name, "gate", number)
        reply_lost = world.meets(Fault.GATE_REPLY)
        await self._travel()
        if reply_lost:
            await self._lost()
        return answer

    async def _reach(self) -> int:
        """The engine's number. Raises when no engine is there."""
        world = self._world
        if self.engine is not None:
            return self.engine
        if world.loop.now_s < max(world.gate_away_until, self.cut_off_until):
            world.step(self.name, "no gate")
            raise valkeys_redis.no_connection()
        return world.valkeys.number

    async def _lost(self) -> None:
        """The connection breaks at once, or nothing is heard until patience ends."""
        if self._world.chance.random() < 0.5:
            raise valkeys_redis.no_connection()
        await self._sleep(ANSWER_WAIT_S)
        raise valkeys_redis.no_answer()

    async def _late(self, real: Callable[[int], Awaitable[Any]]) -> None:
        """What was sent arrives after its sender has stopped waiting, or has died."""
        world = self._world
        await asyncio.sleep(world.chance.uniform(0.05, 4.0))
        with suppress(Exception):
            await real(await self._reach())
        world.step(self.name, "late gate")

    # The record.

    @property
    def writing(self) -> Sequence[str]:
        """See `databases_sql.Port`."""
        return _writing.get()

    def turn(self) -> AbstractAsyncContextManager[None]:
        """See `databases_sql.Port`."""
        return self._world.engine_turn()

    async def enter(self, kind: str) -> None:
        """See `databases_sql.Port`."""
        world = self._world
        await self._travel()
        if world.meets(Fault.SQL_SLOW):
            await self._sleep(world.chance.uniform(*SLOW_S))
        if world.loop.now_s < world.sql_away_until or world.meets(Fault.SQL_REQUEST):
            world.step(self.name, "no record for a", kind)
            raise Unavailable(RETRY_MS)

    def before_commit(self) -> None:
        """See `databases_sql.Port`."""
        if self._world.meets(Fault.SQL_COMMIT):
            raise Unavailable(RETRY_MS)

    async def leave(self, kind: str, durable: Collection[str]) -> None:
        """See `databases_sql.Port`."""
        world = self._world
        world.step(self.name, kind, *sorted(durable))
        for rid in durable:
            world.durable.setdefault(rid, world.loop.now_s)
        hidden = kind == "write" and world.meets(Fault.SQL_REPLY)
        await self._travel()
        if hidden:
            raise Unavailable(RETRY_MS)


class _Slow(RedisGate):
    """The gate, which may take long to be loaded."""

    def __init__(self, home: valkeys_redis.Passing, node: Node) -> None:
        super().__init__(home)
        self._owner = node

    @override
    async def load(self, epoch: int, image: Image, now: int) -> None:
        await self._owner.dawdle()
        await super().load(epoch, image, now)


class _Telling(SqlRecord):
    """The record; it says which rids a transaction is about, so that their commit is seen.

    `loaded` hears each image that a gate may be loaded with.
    """

    def __init__(
        self, database: Database, node: Node, loaded: Callable[[int, Image], None]
    ) -> None:
        super().__init__(database, crash_point=node.crash_point)
        self._node = node
        self._loaded = loaded

    @override
    async def next_epoch(self, seen: int, at_least: int) -> int | None:
        await self._node.dawdle()
        return await super().next_epoch(seen, at_least)

    @override
    async def image(self, epoch: int, now: int) -> Image | None:
        await self._node.dawdle()
        image = await super().image(epoch, now)
        if image is not None:
            self._loaded(epoch, image)
        return image

    @override
    async def hold(self, epoch: int, winners: Sequence[Winner], now: int) -> dict[str, Outcome]:
        await self._node.dawdle(Fault.HOLD_SLOW, LINGER_S)
        _writing.set([winner.press.rid for winner in winners])
        try:
            return await super().hold(epoch, winners, now)
        finally:
            _writing.set(())

    @override
    async def hold_without_gate(
        self, winners: Sequence[Winner], now: int
    ) -> tuple[dict[str, Outcome], Levels]:
        _writing.set([winner.press.rid for winner in winners])
        try:
            return await super().hold_without_gate(winners, now)
        finally:
            _writing.set(())


class _TellingOffers(SqlWaitlist):
    """The wait list; it says which rids a transaction is about."""

    @override
    async def offer(self, epoch: int, offers: Sequence[Offer], now: int) -> dict[str, Outcome]:
        _writing.set([offer.rid for offer in offers])
        try:
            return await super().offer(epoch, offers, now)
        finally:
            _writing.set(())
