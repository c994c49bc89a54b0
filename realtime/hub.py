"""This node: its rooms, its connections, and what runs beside them.

Responsible for opening rooms once however many ask, for unloading rooms that nobody watches, for
the audience's numbers, and for leaving in an orderly way. It must not know what is sold or said.

Room state lives in the broker and in memory, never in SQL, so a room is opened by subscribing first
and loading second: whatever is published between the two is in the subscription, and offsets tell
what the load had already.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final, cast

from realtime.audience import REPORT_S, Audience
from realtime.broker import BATCH_ITEMS_MAX, Batch, Broker, Gauge, Item, Published, Seed
from realtime.connection import Connection
from realtime.counters import Counters
from realtime.crowd import crowd_waits
from realtime.errors import BUSY, BrokerUnavailable, CloseCode, Rejected
from realtime.fanout import Turns
from realtime.pace import NodePace
from realtime.publisher import Publisher
from realtime.room import HEAL_BATCHES_MAX, TICK_MS, Room
from realtime.wheel import BEAT_MS, Wheel
from realtime.wire import Position

log = logging.getLogger(__name__)

ROOMS_MAX: Final = 2_000
"""Rooms loaded on one node, watched or not."""
ROOM_IDLE_MS: Final = 60_000
"""A room without members is unloaded after this."""
SWEEP_S: Final = 5.0
POSITION_CHECK_MS: Final = 20_000
"""How often a watched room compares its numbers with the broker's (a demoted engine may keep a
subscription open and say nothing)."""
SEED_TIMEOUT_S: Final = 2.0
VIEWERS: Final = "viewers"
"""The state that carries {now, peak, unique}."""
PACE: Final = "pace"
"""The state that carries {step, tick_ms} of the slowest node."""
RUSH: Final = 16
"""Presses under way from which on what is not urgent gives way further (see `fanout`)."""
DRAIN_PER_S: Final = 1_000
"""Viewers sent away in a second: what the nodes that stay can take in."""
DRAIN_STEP_S: Final = 0.05
DRAIN_BATCH: Final = 200
"""Goodbyes between two turns of the event loop."""
DRAIN_SPREAD_SHARE: Final = 0.7
"""Of the grace; the rest is for closing handshakes and for the last commands."""


class _Ear:
    """Keeps what is published between subscribing and the first load."""

    def __init__(self) -> None:
        self.room: Room | None = None
        self._kept: list[Batch] = []
        self._restored = False

    def on_batch(self, batch: Batch) -> None:
        if self.room is not None:
            self.room.on_batch(batch)
        elif len(self._kept) < HEAL_BATCHES_MAX:
            self._kept.append(batch)
        else:
            self._restored = True

    def on_restored(self) -> None:
        if self.room is not None:
            self.room.on_restored()
        else:
            self._restored = True

    def hand_to(self, room: Room) -> None:
        self.room = room
        for batch in self._kept:
            room.on_batch(batch)
        self._kept.clear()
        if self._restored:
            room.on_restored()


class Hub:
    """One node. `run` must be running for rooms to be served."""

    def __init__(
        self,
        broker: Broker,
        audience: Audience,
        *,
        node: str,
        clock: Callable[[], int],
        tick_ms: int = TICK_MS,
        beat_ms: int = BEAT_MS,
        room_idle_ms: int = ROOM_IDLE_MS,
        rooms_max: int = ROOMS_MAX,
        report_s: float = REPORT_S,
        seed: Seed | None = None,
        pace: NodePace | None = None,
    ) -> None:
        """`node` is unique among the nodes; `seed` publishes what a room with a new epoch lacks.

        `pace`: the node's egress budgets.
        """
        self.counters = Counters()
        self.draining = False
        self.broker_stood = False
        """The broker was heard at least once."""
        self._broker = broker
        self._audience = audience
        self._node = node
        self._clock = clock
        self._tick_ms = tick_ms
        self._room_idle_ms = room_idle_ms
        self._rooms_max = rooms_max
        self._report_s = report_s
        self._seed = seed
        self._pace = pace or NodePace()
        self.pressing = 0
        """Commands that were taken without a task and have no answer yet (presses of Buy)."""
        self._turns = Turns(
            lambda: self.pressing > 0 or crowd_waits(), lambda: self.pressing >= RUSH
        )
        self._wheel = Wheel(clock, beat_ms=beat_ms)
        self._rooms: dict[str, Room] = {}
        self._opening: dict[str, asyncio.Task[Room]] = {}
        self._publishers: dict[str, Publisher] = {}
        self._empty_since: dict[str, int] = {}
        self._checked_at: dict[str, int] = {}
        self._seeding: set[asyncio.Task[None]] = set()
        self._emptied: asyncio.Event | None = None
        self._ids = count(1)

    # What others read.

    @property
    def broker_ok(self) -> bool:
        """Whether this node hears the others. False: rooms live on with what they know."""
        return self._broker.ok

    @property
    def rooms_away(self) -> int:
        """Watched rooms that this node cannot hear now."""
        return len(self._broker.away)

    @property
    def connections(self) -> int:
        """Connections on this node, joined or not."""
        return len(self._wheel)

    @property
    def rooms(self) -> list[Room]:
        """Rooms that are loaded."""
        return list(self._rooms.values())

    @property
    def lagging(self) -> int:
        """Members that are congested right now."""
        return sum(room.lagging for room in self._rooms.values())

    # Rooms.

    def loaded(self, name: str) -> Room | None:
        """The room if it is loaded here; without asking anybody."""
        room = self._rooms.get(name)
        if room is not None:
            self._empty_since[name] = self._clock()
        return room

    async def room(self, name: str) -> Room:
        """The room, subscribed, loaded. Raises BrokerUnavailable, Rejected (busy), ValueError."""
        room = self._rooms.get(name)
        if room is not None:
            self._empty_since[name] = self._clock()
            return room
        opening = self._opening.get(name)
        if opening is None:
            if len(self._rooms) + len(self._opening) >= self._rooms_max:
                await self._unload_longest_empty()
            opening = asyncio.get_running_loop().create_task(self._open(name))
            self._opening[name] = opening
            opening.add_done_callback(lambda _: self._opening.pop(name, None))
        # Shielded: one who gives up must not take the room from the others who wait for it.
        return await asyncio.shield(opening)

    async def _open(self, name: str) -> Room:
        ear = _Ear()
        await self._broker.subscribe(name, ear)
        try:
            image = await self._broker.load(name)
            self.broker_stood = True
        except BaseException:
            await self._broker.unsubscribe(name)
            raise
        room = Room(
            name,
            image,
            self._broker,
            self.counters,
            tick_ms=self._tick_ms,
            on_epoch=self._on_epoch,
            node=self._pace,
            turns=self._turns,
        )
        ear.hand_to(room)
        await self._sow(room)
        self._rooms[name] = room
        self._empty_since[name] = self._checked_at[name] = self._clock()
        return room

    async def _sow(self, room: Room) -> None:
        """Ask the product what a room lacks; the first snapshot is to have it already."""
        if self._seed is None:
            return
        try:
            async with asyncio.timeout(SEED_TIMEOUT_S):
                items = await self._seed(room.name, room.facts)
                if items:
                    await self.publish_all(room.name, items)
                    there = await self._broker.position(room.name)
                    if there is not None:
                        await room.reached(there)
        except (BrokerUnavailable, TimeoutError):
            log.warning("a room could not be seeded in time")

    def _on_epoch(self, room: Room) -> None:
        task = asyncio.get_running_loop().create_task(self._sow(room))
        self._seeding.add(task)
        task.add_done_callback(self._seeding.discard)

    async def publish_all(self, room: str, items: Sequence[Item]) -> None:
        """However many items, in as many steps as they take, in their order. Raises as `publish`.

        For whoever cannot know how many there will be: what waited through an outage is told at
        once, and a step has at most `BATCH_ITEMS_MAX`.
        """
        for start in range(0, len(items), BATCH_ITEMS_MAX):
            await self.publish(room, items[start : start + BATCH_ITEMS_MAX])

    async def publish(self, room: str, items: Sequence[Item]) -> Published:
        """Publish in one step, in the order of the calls on this node.

        The room need not be loaded here. Raises BrokerUnavailable, Rejected (busy), ValueError.
        """
        publisher = self._publishers.get(room)
        if publisher is None:
            publisher = Publisher(lambda items: self._broker.publish(room, items))
            self._publishers[room] = publisher
        try:
            return await publisher.publish(items)
        finally:
            if room not in self._rooms and publisher.idle:
                self._publishers.pop(room, None)

    # Connections.

    def next_connection_id(self) -> int:
        """Unique on this node."""
        return next(self._ids)

    def add(self, connection: Connection, *, join_timeout_ms: int) -> None:
        """A connection begins to live."""
        self._wheel.add(connection, join_timeout_ms=join_timeout_ms)

    def remove(self, connection: Connection) -> None:
        """A connection has ended."""
        self._wheel.remove(connection)
        if self._emptied is not None and not self.connections:
            self._emptied.set()
        if connection.room is not None:
            self._empty_since[connection.room.name] = self._clock()

    def close_viewer(self, viewer: str, code: int) -> int:
        """End all connections of a viewer on this node; how many."""
        found = [member for room in self.rooms for member in room.of(f"viewer:{viewer}")]
        for member in found:
            cast("Connection", member).close(code)
        return len(found)

    async def drain(
        self, grace_s: float, *, spread_ms: int = 10_000, url: str | None = None
    ) -> None:
        """Tell all when (spread over `spread_ms`) and where to come back; close each at its time.

        Until then a viewer sees and does everything: nobody sits in the dark waiting for a turn,
        as all but the last would if all were closed at once. A command under way is answered
        before the close. Few viewers are gone in an instant: `DRAIN_PER_S` bounds the spread.
        Returns when all are gone, at the latest a second after `grace_s`.
        """
        self.draining = True
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        everybody = [cast("Connection", connection) for connection in self._wheel.connections()]
        spread_s = min(spread_ms / 1000, len(everybody) / DRAIN_PER_S, grace_s * DRAIN_SPREAD_SHARE)
        turns = [spread_s * number / len(everybody) for number in range(len(everybody))]
        for number, (connection, turn_s) in enumerate(zip(everybody, turns, strict=True)):
            self.say_goodbye(connection, int(turn_s * 1000), url)
            if number % DRAIN_BATCH == DRAIN_BATCH - 1:
                await asyncio.sleep(0)
        for number, (connection, turn_s) in enumerate(zip(everybody, turns, strict=True)):
            if began_s + turn_s > loop.time():
                await asyncio.sleep(DRAIN_STEP_S)
            elif number % DRAIN_BATCH == DRAIN_BATCH - 1:
                await asyncio.sleep(0)
            connection.leave(CloseCode.DRAIN)
        await self._wait_for_the_last(began_s + grace_s, url)
        for late in self._wheel.connections():
            cast("Connection", late).socket.abort()
        await asyncio.sleep(0)

    def say_goodbye(self, connection: Connection, after_ms: int, url: str | None) -> None:
        """Tell one viewer when to come back, and where if elsewhere."""
        goodbye: dict[str, object] = {"after_ms": after_ms}
        if url is not None:
            goodbye["url"] = url
        connection.direct("goodbye", goodbye)

    async def _wait_for_the_last(self, until_s: float, url: str | None) -> None:
        """Those who came in while the others were sent away leave too; then all have left."""
        for late in self._wheel.connections():
            connection = cast("Connection", late)
            if not connection.leaving:
                self.say_goodbye(connection, 0, url)
                connection.leave(CloseCode.DRAIN)
        if self.connections:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until_s):
                    await self._emptied.wait()

    # What runs beside.

    async def run(self) -> None:
        """Serve until cancelled; then rooms are closed, connections are left to `drain`."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._broker.run())
                group.create_task(self._wheel.run())
                group.create_task(self._report())
                group.create_task(self._sweep())
        finally:
            await self._stop()

    async def _stop(self) -> None:
        tasks = [*self._opening.values(), *self._seeding]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for publisher in list(self._publishers.values()):
            await publisher.close()
        for room in self.rooms:
            await room.close()

    async def _report(self) -> None:
        """Say how many watch here, and publish what all nodes have when that changed."""
        reported: set[str] = set()
        while True:
            await asyncio.sleep(self._report_s)
            self.broker_stood = self.broker_stood or self._broker.ok
            away = set(self._broker.away)
            for room in self.rooms:
                if room.name in away or (not room.viewers and room.name not in reported):
                    continue
                reported.discard(room.name)
                if room.viewers:
                    reported.add(room.name)
                try:
                    await self._report_one(room)
                except (BrokerUnavailable, Rejected):
                    continue  # the next round says it
            reported &= self._rooms.keys()

    async def _report_one(self, room: Room) -> None:
        while True:
            share = room.share()
            whole = await self._audience.report(room.name, self._node, share)
            if not room.shared(share):
                break
        values: dict[str, object] = {
            VIEWERS: {"now": whole.now, "peak": whole.peak, "unique": whole.unique},
            PACE: {"step": whole.step, "tick_ms": whole.tick_ms},
        }
        items: list[Item] = []
        for key, value in values.items():
            known = room.state(key)
            if known is None or known[1] != value:
                items.append(Gauge(key, value))
        if items:
            await self.publish(room.name, items)

    async def _sweep(self) -> None:
        """Unload empty rooms, and compare the numbers of the others with the broker's."""
        while True:
            await asyncio.sleep(min(SWEEP_S, self._room_idle_ms / 1000))
            now = self._clock()
            for room in self.rooms:
                if not room.size and now - self._empty_since[room.name] >= self._room_idle_ms:
                    await self._unload(room)
                elif now - self._checked_at[room.name] >= POSITION_CHECK_MS:
                    self._checked_at[room.name] = now
                    await self._check(room)

    async def _check(self, room: Room) -> None:
        before = room.position
        try:
            there = await self._broker.position(room.name)
        except BrokerUnavailable:
            return
        behind = there is not None and (
            there.epoch != before.epoch
            or there.control > before.control
            or there.chat > before.chat
        )
        # Something on its way right now looks like a gap too; it has arrived by the next look.
        if there is None or (behind and not await self._soon(room, there)):
            log.warning("a room has missed something that nobody told it of; healing")
            room.heal()

    async def _soon(self, room: Room, there: Position) -> bool:
        try:
            async with asyncio.timeout(1.0):
                await room.reached(there)
        except TimeoutError:
            return False
        return True

    async def _unload_longest_empty(self) -> None:
        empty = [room for room in self._rooms.values() if not room.size]
        if not empty:
            raise Rejected(BUSY, "This node has no place for another show.", retry_after_ms=5000)
        await self._unload(min(empty, key=lambda room: self._empty_since[room.name]))

    async def _unload(self, room: Room) -> None:
        del self._rooms[room.name]
        self._empty_since.pop(room.name, None)
        self._checked_at.pop(room.name, None)
        publisher = self._publishers.get(room.name)
        if publisher is not None and publisher.idle:
            del self._publishers[room.name]
        await room.close()
        await self._broker.unsubscribe(room.name)
