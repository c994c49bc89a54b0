"""One room on one node: its members, its tick, and the healing of what the broker lost.

Responsible for who is served up to where. What a room knows is `lanes`, the writing is `fanout`;
this module must not know commands, SQL or what a fact means.

Every member is in exactly one of two places. `_current` members have been given everything up to
the last cut, and the fan-out serves them with nothing kept per member. `_lagging` members have a
mark: they were congested when a frame came, or they have just entered and their reply is not out
yet. When a lagging one can be written to again it gets what lies between its mark and the last cut
and is current. So slow viewers, joiners and recovering ones share one piece of code, and a slow
viewer costs one mark (four integers), however long it sleeps.

How often a frame is cut and what it may carry is `pace`; the room measures what `pace` has to know.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final, Protocol

from realtime.audience import NEWCOMERS_MAX, Share
from realtime.broker import LOG_ENTRIES_MAX, Batch, Broker, DirectEntry, RoomImage
from realtime.counters import Counters
from realtime.errors import BrokerUnavailable
from realtime.fanout import FanOut, Pack, Turns
from realtime.lanes import RECOVERY_COMMENTS_MAX, Lanes, Mark
from realtime.pace import SAMPLING, TICK_MIN_MS, NodePace, Pace
from realtime.socket import Socket, SocketListener
from realtime.wire import Position, pack_direct, ready_frame

log = logging.getLogger(__name__)

TICK_MS: Final = TICK_MIN_MS
"""The shortest tick; `pace` stretches it."""
NEWCOMERS_WAITING_MAX: Final = 100_000
"""Viewers not yet reported as seen; of more, the count of unique ones is too low."""
HEAL_BATCHES_MAX: Final = 1000
"""Batches kept while the room loads; of more, it loads again."""
HEAL_RETRY_FIRST_S: Final = 0.05
HEAL_RETRY_MAX_S: Final = 2.0


class Member(SocketListener, Protocol):
    """What a room needs of a connection."""

    @property
    def socket(self) -> Socket:
        """Where it is written to."""

    @property
    def viewer(self) -> str | None:
        """Direct pushes to `viewer:<id>` are for it."""

    @property
    def tags(self) -> frozenset[str]:
        """Direct pushes to `tag:<tag>` are for it."""

    @property
    def counted(self) -> bool:
        """Whether it is a viewer of the show."""

    def push(self, payload: bytes) -> None:
        """A direct push."""


class Room:
    """A room as this node sees it. Made by the hub; used on the event loop only."""

    def __init__(
        self,
        name: str,
        image: RoomImage,
        broker: Broker,
        counters: Counters,
        *,
        tick_ms: int = TICK_MS,
        on_epoch: Callable[["Room"], None] | None = None,
        node: NodePace | None = None,
        turns: Turns | None = None,
    ) -> None:
        """`node` and `turns` are what the rooms of a node share."""
        self.name = name
        self.viewers = 0
        """Members on this node that are counted as viewers."""
        self.pace = Pace(node or NodePace(), tick_ms=tick_ms)
        self._newcomers: dict[str, None] = {}
        self._broker = broker
        self._counters = counters
        self._on_epoch = on_epoch
        self._lanes = Lanes(image, counters)
        self._current: dict[Socket, Member] = {}
        self._lagging: dict[Socket, Mark] = {}
        self._entering: dict[Socket, Member] = {}
        self._pack: Pack | None = None
        self._viewers: dict[str, Member | tuple[Member, ...]] = {}
        """By the id that the member holds anyway: an address of its own is 130 bytes a viewer."""
        self._tagged: dict[str, tuple[Member, ...]] = {}
        self._members: dict[Socket, Member] = {}
        self._fanout = FanOut(self._missed, self._between, counters, turns)
        self._flush_at: asyncio.TimerHandle | None = None
        self._flush_soon: asyncio.Handle | None = None
        self._flushed_s = 0.0
        self._healing: asyncio.Task[None] | None = None
        self._kept: list[Batch] = []
        self._again = False
        self._waiters: list[tuple[Position, asyncio.Future[None]]] = []

    # What the product reads.

    @property
    def facts(self) -> Mapping[str, object]:
        """Facts by key, as far as this node has received."""
        return self._lanes.facts

    @property
    def states(self) -> Mapping[str, tuple[int, object]]:
        """Version and value by key."""
        return self._lanes.states

    def state(self, key: str) -> tuple[int, object] | None:
        """Version and value of one key."""
        return self._lanes.state(key)

    def comment(self, offset: int) -> object | None:
        """The comment with this offset, if this node has it."""
        return self._lanes.comment(offset)

    @property
    def position(self) -> Position:
        """How far this node has received."""
        return self._lanes.position

    @property
    def size(self) -> int:
        """Members on this node."""
        return len(self._members)

    @property
    def lagging(self) -> int:
        """Members that are congested and will be caught up."""
        return len(self._lagging) - len(self._entering)

    def share(self) -> Share:
        """What this node has to say about the audience."""
        self.pace.look(len(self._current), asyncio.get_running_loop().time())
        newcomers = list(islice(self._newcomers, NEWCOMERS_MAX))
        return Share(self.viewers, newcomers, self.pace.step, self.pace.tick_ms)

    def shared(self, share: Share) -> bool:
        """It was said; whether more newcomers wait."""
        for viewer in share.newcomers:
            self._newcomers.pop(viewer, None)
        return bool(self._newcomers)

    @property
    def members(self) -> Iterable[Member]:
        """Everybody here, in the order of their joins."""
        return list(self._members.values())

    def of(self, to: str) -> tuple[Member, ...]:
        """Members addressed by `viewer:<id>` or `tag:<tag>`."""
        kind, _, name = to.partition(":")
        if kind == "tag":
            return self._tagged.get(name, ())
        found = self._viewers.get(name, ()) if kind == "viewer" else ()
        return found if isinstance(found, tuple) else (found,)

    async def reached(self, position: Position) -> None:
        """Wait until this node has received up to `position`, or is in another epoch."""
        if self._behind(position):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((position, waiter))
            await waiter

    def _behind(self, position: Position) -> bool:
        here = self.position
        return here.epoch == position.epoch and (
            here.control < position.control or here.chat < position.chat
        )

    def _wake(self) -> None:
        """Something was received."""
        if self._waiters:
            for position, waiter in self._waiters:
                if not waiter.done() and not self._behind(position):
                    waiter.set_result(None)
            self._waiters = [pair for pair in self._waiters if not pair[1].done()]

    # Members.

    def enter(self, member: Member, position: Position | None) -> tuple[bool, bytes]:
        """Register; (recovered?, what to send right after the reply). `arrive` completes it."""
        socket = member.socket
        most = RECOVERY_COMMENTS_MAX if self.pace.step >= SAMPLING else LOG_ENTRIES_MAX
        payload = self._lanes.recovery(position, most) if position is not None else None
        recovered = payload is not None
        if payload is None:
            payload = self._lanes.snapshot()
        self._members[socket] = self._entering[socket] = member
        self._lagging[socket] = self._lanes.mark
        if member.viewer is not None:
            others = self.of(f"viewer:{member.viewer}")
            self._viewers[member.viewer] = (*others, member) if others else member
        for tag in member.tags:
            self._tagged[tag] = (*self._tagged.get(tag, ()), member)
        self.viewers += member.counted
        if member.counted and member.viewer and len(self._newcomers) < NEWCOMERS_WAITING_MAX:
            self._newcomers[member.viewer] = None
        self._counters.joins += 1
        self._counters.recovered += recovered
        return recovered, payload

    def arrive(self, member: Member) -> bytes:
        """The reply goes out now: what has come since `enter`. The member is current after it."""
        del self._entering[member.socket]
        payload = self._lanes.since(self._lagging.pop(member.socket))
        self._make_current(member)
        return payload

    def leave(self, member: Member) -> None:
        """Forget a member, in whatever place it is."""
        socket = member.socket
        if self._members.pop(socket, None) is None:
            return
        self._entering.pop(socket, None)
        self._lagging.pop(socket, None)
        if self._current.pop(socket, None) is not None:
            self._pack = None
        if member.viewer is not None:
            self._forget(member, member.viewer)
        for tag in member.tags:
            left = tuple(other for other in self._tagged[tag] if other is not member)
            if left:
                self._tagged[tag] = left
            else:
                del self._tagged[tag]
        self.viewers -= member.counted

    def _forget(self, member: Member, viewer: str) -> None:
        left = tuple(other for other in self.of(f"viewer:{viewer}") if other is not member)
        if left:
            self._viewers[viewer] = left if len(left) > 1 else left[0]
        else:
            del self._viewers[viewer]

    def drained(self, member: Member) -> None:
        """Its socket takes bytes again: catch up, if it was lagging."""
        socket = member.socket
        mark = self._lagging.get(socket)
        if mark is None or socket in self._entering:
            return
        payload = self._lanes.since(mark)
        if payload and not socket.write(ready_frame(payload)):
            return  # congested again already; the next drain tries again
        del self._lagging[socket]
        self._make_current(member)
        self._counters.drained += 1

    def _make_current(self, member: Member) -> None:
        self._current[member.socket] = member
        self._pack = None

    def _missed(self, socket: Socket, before: Mark) -> None:
        """The fan-out could not serve it; where it stands is where it was before that frame."""
        if self._current.pop(socket, None) is not None:
            self._pack = None
            self._lagging[socket] = before
            self._counters.skipped += 1

    # Frames.

    def flush(self) -> None:
        """Cut what waits and send it, now."""
        for handle in (self._flush_at, self._flush_soon):
            if handle is not None:
                handle.cancel()
        self._flush_at = self._flush_soon = None
        if self._fanout.full:
            return  # its end comes back here
        before = self._lanes.mark
        now_s = asyncio.get_running_loop().time()
        takers = len(self._current)

        def allow(comments: int, rest: int) -> int | None:
            return self.pace.comments_bytes(comments, rest, takers, now_s)

        urgent = self._lanes.urgent
        payload = self._lanes.cut(self.pace.held(now_s), allow)
        if not payload:
            self._schedule()
            return
        frame = ready_frame(payload)
        self._counters.frames_encoded += 1
        self._flushed_s = now_s
        self.pace.went(self._lanes.went, now_s)
        self.pace.sent(len(frame), takers, now_s)
        if self._fanout.busy:
            self._fanout.join(frame, before, self._current, urgent=urgent)
        else:
            if self._pack is None or self._pack.stale:
                self._pack = Pack(list(self._current))
            self._fanout.start(frame, before, self._pack, urgent=urgent)

    def _between(self) -> None:
        """Between two slices, and after the last."""
        if not self._fanout.busy:
            now_s = asyncio.get_running_loop().time()
            self.pace.spent(*self._fanout.cost(), len(self._current), now_s)
        if self._lanes.urgent:
            self.flush()
        elif not self._fanout.busy:
            self._schedule()

    def _schedule(self) -> None:
        """Control goes at once (a burst in one turn of the loop shares a frame), others wait."""
        if self._fanout.busy or self._flush_soon is not None or not self._lanes.waiting:
            return  # a fan-out under way looks again between its slices
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        due = self._flushed_s + self.pace.tick_ms / 1000
        if self._lanes.urgent or (due <= now_s and not self.pace.step):
            self._flush_soon = loop.call_soon(self.flush)
            return
        due = max(now_s, due)
        if self._flush_at is not None:
            if self._flush_at.when() <= due:
                return
            self._flush_at.cancel()  # it waits for a state that has become rare; others do not
        if keys := self._lanes.only_states:
            held = self.pace.held(now_s)
            due = max(due, min(held.get(key, 0.0) for key in keys))
        self._flush_at = loop.call_at(due, self.flush)

    # The broker.

    def on_batch(self, batch: Batch) -> None:
        """Something was published."""
        for entry in batch.entries:
            if isinstance(entry, DirectEntry):
                self._deliver(entry)
        if self._healing is not None:
            if len(self._kept) < HEAL_BATCHES_MAX:
                self._kept.append(batch)
            else:
                self._again = True
            return
        if not self._lanes.take(batch):
            self._counters.gaps += 1
            self._kept = [batch]
            self.heal()
            return
        self._wake()
        self._schedule()

    def on_restored(self) -> None:
        """The subscription was down: something may be missing."""
        self.heal()

    def heal(self) -> None:
        """Load and put right what differs; what comes meanwhile is kept and taken after it."""
        if self._healing is None:
            self._healing = asyncio.get_running_loop().create_task(self._heal())
        else:
            self._again = True

    async def _heal(self) -> None:
        pause = HEAL_RETRY_FIRST_S
        while True:
            self._again = False
            try:
                image = await self._broker.load(self.name)
            except Exception as wrong:
                if not isinstance(wrong, BrokerUnavailable):
                    log.exception("a room could not be read; trying again")
                await asyncio.sleep(pause)
                pause = min(HEAL_RETRY_MAX_S, pause * 2)
                continue
            self._counters.heals += 1
            old_epoch = self._lanes.epoch
            self._lanes.heal(image)
            kept, self._kept = self._kept, []
            # A batch that still does not follow on belongs to an older or a newer epoch: one more
            # load tells which, and then there is none of the older left.
            for batch in kept:
                self._again |= not self._lanes.take(batch)
            self._wake()
            self._schedule()
            if self._lanes.epoch != old_epoch:
                log.warning("a room has a new epoch; its viewers get a snapshot")
                if self._on_epoch is not None:
                    self._on_epoch(self)
            if not self._again:
                break
        self._healing = None

    def _deliver(self, direct: DirectEntry) -> None:
        members = self.of(direct.to)
        if members:
            payload = pack_direct(direct.name, direct.value)
            for member in members:
                member.push(payload)

    async def close(self) -> None:
        """Stop timers and healing. Members are the hub's to close."""
        for handle in (self._flush_at, self._flush_soon):
            if handle is not None:
                handle.cancel()
        self._flush_at = self._flush_soon = None
        self._fanout.stop()
        for _, waiter in self._waiters:
            waiter.cancel()
        if self._healing is not None:
            self._healing.cancel()
            await asyncio.gather(self._healing, return_exceptions=True)
            self._healing = None
