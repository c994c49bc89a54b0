"""What a room knows, lane by lane, and what of it has gone out: the pure half of a room.

Responsible for order, recovery and snapshots. It must not know sockets, members, time or the
broker's connection, so a property test can drive it through any history.

One idea carries it: the room keeps what it has *received* and how far that has been *cut* into
shared frames. Everything handed to one viewer (a snapshot, a recovery, what a slow one missed)
ends exactly where the last cut ended; everything after that reaches the viewer with the next cut,
like everybody. So a viewer that joins in the middle of a fan-out can neither miss an entry nor get
one twice, and no per-viewer bookkeeping is needed as long as it keeps up.

A snapshot is encoded once per cut, a recovery once per cut and position: a storm of viewers that
were all cut off together costs one encoding. Both are at most tens of microseconds, but 15,000
times 40 µs is a loop that answers nobody for 600 ms.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from realtime.broker import (
    LOG_ENTRIES_MAX,
    Batch,
    ChatEntry,
    ControlEntry,
    RoomImage,
    StateEntry,
)
from realtime.counters import Counters
from realtime.log import Log
from realtime.sampling import sample
from realtime.wire import Position, pack_snapshot, unpack

SNAPSHOT_COMMENTS_MAX: Final = 50
FRAME_COMMENTS_MAX: Final = 256
"""Comments in one tick; of more, the oldest are left out and counted. 5,000 a second."""
CATCH_UP_COMMENTS_MAX: Final = 20
"""Comments for a slow viewer that reads again; the others are only counted."""
AHEAD_MAX: Final = LOG_ENTRIES_MAX
"""A viewer may come from a node that was this far ahead of ours. Further is no honest position."""
RECOVERY_COMMENTS_MAX: Final = 50
"""Comments in a recovery while comments are sampled; a storm must not get what a tick may not."""
SHARED_RECOVERIES_MAX: Final = 256
"""Different positions for which one cut's recovery is kept."""


class Mark(NamedTuple):
    """How far a viewer has been served."""

    generation: int
    control: int
    chat: int
    cut: int


@dataclass(slots=True)
class _Known:
    entry: StateEntry
    cut: int
    """The cut that carries it; one above the last cut while it waits."""


Allow = Callable[[int, int], int | None]
"""(bytes of comments that wait, bytes of the rest of the frame) → bytes of comments that may go;
None: all."""


class Lanes:
    """Facts, states and comments of one room on one node."""

    def __init__(self, image: RoomImage, counters: Counters) -> None:
        self._counters = counters
        self._generation = 0
        self._cut = 0
        self._renew = False
        """Everybody is to get a snapshot with the next cut."""
        self._changed: dict[str, None] = {}
        """Keys of states that wait for a cut, in the order of their coming."""
        self.went: set[str] = set()
        """Keys of the states that the last cut carried."""
        self._take_over(image)

    def _take_over(self, image: RoomImage) -> None:
        self.epoch = image.position.epoch
        self._control: Log[ControlEntry] = Log(LOG_ENTRIES_MAX)
        self._chat: Log[ChatEntry] = Log(LOG_ENTRIES_MAX)
        for control in image.control:
            self._control.append(control)
        for chat in image.chat:
            self._chat.append(chat)
        self._control.advance(image.position.control)
        self._chat.advance(image.position.chat)
        self._out_control = self._control.top
        self._out_chat = self._chat.top
        self.facts = dict(image.facts)
        self._out_facts = dict(image.facts)
        self._states = {entry.key: _Known(entry, self._cut) for entry in image.states}
        self._changed.clear()
        self._forget()

    def _forget(self) -> None:
        self._snapshot: bytes | None = None
        self._recoveries: dict[Position, bytes] = {}

    # What came in.

    @property
    def position(self) -> Position:
        """How far this node has received."""
        return Position(self.epoch, self._control.top, self._chat.top)

    @property
    def states(self) -> Mapping[str, tuple[int, object]]:
        """Newest version and value by key."""
        return {
            key: (known.entry.version, known.entry.value) for key, known in self._states.items()
        }

    def state(self, key: str) -> tuple[int, object] | None:
        """Newest version and value of one key."""
        known = self._states.get(key)
        return (known.entry.version, known.entry.value) if known else None

    def comment(self, offset: int) -> object | None:
        """The value of a comment, if it is in the log."""
        entry = self._chat.at(offset)
        return None if entry is None else unpack(entry.wire)[2]

    def take(self, batch: Batch) -> bool:
        """Receive; False if it does not follow on (another epoch, a gap): load, and `heal`.

        What we have already is ignored, so a batch may be taken again. Direct pushes in it are not
        the lanes' business.
        """
        if batch.epoch != self.epoch:
            return False
        for entry in batch.entries:
            match entry:
                case ControlEntry() if entry.offset > self._control.top:
                    if entry.offset != self._control.top + 1:
                        return False
                    self._take_control(entry)
                case ChatEntry() if entry.offset > self._chat.top:
                    if entry.offset != self._chat.top + 1:
                        return False
                    self._chat.append(entry)
                case StateEntry():
                    self._take_state(entry)
                case _:
                    pass
        return True

    def _take_control(self, entry: ControlEntry) -> None:
        self._control.append(entry)
        _apply(self.facts, entry)
        if entry.retracts is not None and self._chat.take_out(entry.retracts):
            self._forget()

    def _take_state(self, entry: StateEntry) -> None:
        known = self._states.get(entry.key)
        if known is None or entry.version > known.entry.version:
            self._states[entry.key] = _Known(entry, self._cut + 1)
            self._changed[entry.key] = None

    def heal(self, image: RoomImage) -> bool:
        """Take what we missed from an image. False: it could not be exact, so all start anew."""
        old = self.position
        new = image.position
        if (
            new.epoch == old.epoch
            and new.control >= old.control >= new.control - LOG_ENTRIES_MAX
            and new.chat >= old.chat
        ):
            for chat in image.chat:
                if chat.offset > old.chat:
                    self._chat.append(chat)
            self._chat.advance(new.chat)
            for control in image.control:
                if control.offset > old.control:
                    self._take_control(control)
            for entry in image.states:
                self._take_state(entry)
            return True
        self._generation += 1
        self._renew = True
        self._take_over(image)
        return False

    # What goes out to all.

    @property
    def waiting(self) -> bool:
        """Whether the next cut would carry anything."""
        return self.urgent or bool(self._changed) or self._chat.top > self._out_chat

    @property
    def only_states(self) -> Collection[str]:
        """Keys of the states that wait, if nothing else does; else none."""
        return () if self.urgent or self._chat.top > self._out_chat else self._changed.keys()

    @property
    def urgent(self) -> bool:
        """Whether something waits that must not wait for the tick."""
        return self._renew or self._control.top > self._out_control

    def cut(self, held: Collection[str] = (), allow: Allow | None = None) -> bytes:
        """All that has come in since the last cut, for everybody who was served up to that one.

        Control first, then states, then comments. Empty when nothing waits. States whose keys are
        `held` wait on; comments are sampled to what `allow` gives.
        """
        control = self._control.between(self._out_control, self._control.top)
        if self._out_control < self._control.floor:  # more at once than the log holds
            self._generation += 1
            self._renew = True
        states = [self._states[key].entry for key in self._changed if key not in held]
        head = b"".join([*(c.wire for c in control), *(s.wire for s in states)])
        chat = [] if self._renew else self._sampled(len(head), allow)
        if not (head or chat or self._renew):
            self._out_chat = self._chat.top  # only comments that were retracted at once
            return b""
        self._cut += 1
        self._wait_on(held)
        self._out_control = self._control.top
        self._out_chat = self._chat.top
        for entry in control:
            _apply(self._out_facts, entry)
        self._forget()
        if self._renew:
            # Not from the log, which may have lost entries before they were ever cut.
            self._out_facts = dict(self.facts)
            self._renew = False
            return self.snapshot()
        self._counters.entries += len(control) + len(states) + len(chat)
        return b"".join([head, *chat])

    def _wait_on(self, held: Collection[str]) -> None:
        """After a cut: what is held waits for the next one."""
        if self._renew:  # a snapshot has them all
            held = ()
        self.went = {key for key in self._changed if key not in held}
        for key in self.went:
            del self._changed[key]
        for key in self._changed:
            self._states[key].cut = self._cut + 1

    def _sampled(self, head: int, allow: Allow | None) -> list[bytes]:
        """The comments of the next cut, within a frame's bound and the budget."""
        entries = self._chat.between(self._out_chat, self._chat.top)
        if not entries and self._chat.floor <= self._out_chat:
            if allow is not None:
                allow(0, head)
            return []
        allowed = allow(sum(len(e.wire) for e in entries), head) if allow is not None else None
        chat, left_out = self._comments(
            self._out_chat, self._chat.top, FRAME_COMMENTS_MAX, allowed, entries
        )
        self._counters.sampled += left_out
        return chat

    def _comments(
        self,
        after: int,
        upto: int,
        most: int,
        bytes_max: int | None = None,
        entries: Sequence[ChatEntry] | None = None,
    ) -> tuple[list[bytes], int]:
        """Wire bytes of the comments in a range, sampled if need be, and how many are left out."""
        if entries is None:
            entries = self._chat.between(after, upto)
        missing = max(0, min(self._chat.floor, upto) - after)
        if not missing and bytes_max is None and len(entries) <= most:
            return [entry.wire for entry in entries], 0
        return sample(entries, missing=missing, upto=upto, most=most, bytes_max=bytes_max)

    # What goes to one viewer: always up to the last cut.

    @property
    def mark(self) -> Mark:
        """Where the last cut ended; while a renewal waits, that was in another generation."""
        generation = self._generation - self._renew
        return Mark(generation, self._out_control, self._out_chat, self._cut)

    def snapshot(self) -> bytes:
        """The room up to the last cut, as one push; the same bytes until the next cut."""
        if self._snapshot is None:
            self._counters.snapshots_encoded += 1
            self._snapshot = pack_snapshot(
                Position(self.epoch, self._out_control, self._out_chat),
                self._out_facts,
                {
                    key: (known.entry.version, known.entry.value)
                    for key, known in self._states.items()
                },
                _snapshot_comments(self._chat.last(SNAPSHOT_COMMENTS_MAX, self._out_chat)),
            )
        return self._snapshot

    def recovery(self, position: Position, most: int = LOG_ENTRIES_MAX) -> bytes | None:
        """Exactly what a viewer at `position` missed; None when only a snapshot is honest.

        Of more than `most` comments the oldest are counted only.
        """
        if (
            position.epoch != self.epoch
            or not self._control.floor <= position.control <= self._control.top + AHEAD_MAX
            or not self._chat.floor <= position.chat <= self._chat.top + AHEAD_MAX
        ):
            return None
        ready = self._recoveries.get(position)
        if ready is not None:
            self._counters.shared_recoveries += 1
            return ready
        ready = b"".join(
            [
                *(c.wire for c in self._control.between(position.control, self._out_control)),
                *(known.entry.wire for known in self._states.values()),
                *self._comments(position.chat, self._out_chat, most)[0],
            ]
        )
        if len(self._recoveries) < SHARED_RECOVERIES_MAX:
            self._recoveries[position] = ready
        return ready

    def since(self, mark: Mark) -> bytes:
        """What a viewer that was served up to `mark` has to get to be where all are."""
        if mark == self.mark:
            return b""
        if mark.generation != self._generation or mark.control < self._control.floor:
            return self.snapshot()
        return b"".join(
            [
                *(c.wire for c in self._control.between(mark.control, self._out_control)),
                *(k.entry.wire for k in self._states.values() if mark.cut < k.cut <= self._cut),
                *self._comments(mark.chat, self._out_chat, CATCH_UP_COMMENTS_MAX)[0],
            ]
        )


def _apply(facts: dict[str, object], entry: ControlEntry) -> None:
    if entry.keep:
        if entry.value is None:
            facts.pop(entry.key, None)
        else:
            facts[entry.key] = entry.value


def _snapshot_comments(entries: Sequence[ChatEntry]) -> list[tuple[int, object]]:
    """[offset, comment] pairs without opening the comments: cut out of their bytes."""
    return [(entry.offset, msgspec.Raw(_value_of(entry))) for entry in entries]


def _value_of(entry: ChatEntry) -> bytes:
    # [4, offset, value]: array header, kind, then the offset in 1, 2, 3, 5 or 9 bytes.
    head = entry.wire[2]
    size = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}.get(head, 1)
    return entry.wire[2 + size :]
