"""What a listener of the swarm knows of its room, shared by all listeners that know the same.

Responsible for splitting bytes into WebSocket frames and for the effect of bytes on a room. It must
not know sockets or time, and nothing of the server: the wire is read with `client.decode`.

Why shared: 15,000 listeners get the same bytes in each tick, and a Python decode of each would cost
more than the server spends on sending them. So a `Picture` is immutable, equal pictures are one
object, and each remembers what bytes lead to which picture. The first listener that gets a chunk
decodes it, the others look it up (0.5 µs), and every one of them is still checked byte for byte.
"""

import hashlib
from array import array
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakValueDictionary

import msgpack  # type: ignore[import-untyped]

from loadtests.client import BEAT, CHAT, CONTROL, SKIPPED, SNAPSHOT, STATE, BadServerFrame, decode

BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
NO_STATUS: Final = 1005
SENT: Final = "t"
"""Key in which benches put the instant (µs, monotonic) at which a fact or comment was sent."""
STOCK: Final = "stock:"
"""States whose version is that instant, in benches that measure them."""

Event = tuple[str, int, int]
"""(lane, offset or version, sent at µs)"""


def split(data: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """(opcode, payload) of each whole unmasked frame, and how many bytes they took."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while len(data) - at >= 2:
        size = data[at + 1]
        start = at + 2
        if size == 126:
            start = at + 4
            size = int.from_bytes(data[at + 2 : start], "big")
        elif size == 127:
            start = at + 10
            size = int.from_bytes(data[at + 2 : start], "big")
        if len(data) < start or len(data) - start < size:
            break
        if not data[at] & 0x80:
            raise BadServerFrame("a frame in pieces")
        found.append((data[at] & 0x0F, data[start : start + size]))
        at = start + size
    return found, at


@dataclass(slots=True, weakref_slot=True)
class Picture:
    """A room as known after some bytes. Never changed after it was made."""

    epoch: str = ""
    control: int = 0
    chat: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    states: dict[str, tuple[int, Any]] = field(default_factory=dict)
    digest: str = ""
    """Of facts and states; the same in every process."""
    next: dict[bytes, "Step"] = field(default_factory=dict)

    @property
    def position(self) -> list[Any] | None:
        """What to join with."""
        return [self.epoch, self.control, self.chat] if self.epoch else None


@dataclass(slots=True)
class Tally:
    """How often one chunk was received, and what was in it."""

    size: int = 0
    frames: int = 0
    events: list[Event] = field(default_factory=list)
    control: int = 0
    states: int = 0
    chat: int = 0
    skipped: int = 0
    duplicates: int = 0
    missing_control: int = 0
    missing_chat: int = 0
    """Offsets passed over without a word. A marker that follows later takes them back."""
    snapshots: int = 0
    pings: int = 0
    other: int = 0
    hits: int = 0
    marked: int = 0
    """Hits before the present phase of the bench."""
    arrivals: "array[int]" = field(default_factory=lambda: array("q"))
    """When, in µs, if it was asked for."""


@dataclass(slots=True)
class Step:
    """The effect of a chunk on a picture."""

    to: Picture
    tally: Tally
    special: bool = False
    """A ping to answer, a close, or something for this listener alone."""
    close: int | None = None
    alone: list[Any] = field(default_factory=list)


class Gallery:
    """All pictures and steps of one process."""

    def __init__(self) -> None:
        self.tallies: list[Tally] = []
        self._known: WeakValueDictionary[tuple[Any, ...], Picture] = WeakValueDictionary()
        self.empty = Picture()

    def __len__(self) -> int:
        """Pictures that somebody holds."""
        return len(self._known)

    def step(self, picture: Picture, chunk: bytes, *, payload: bool = False) -> Step:
        """What `chunk` (whole frames; with `payload` the inside of one) does to `picture`.

        Raises `BadServerFrame`.
        """
        known = picture.next.get(chunk)
        if known is None:
            known = self._make(picture, chunk, [(BINARY, chunk)] if payload else split(chunk)[0])
            picture.next[chunk] = known
        return known

    def _make(self, before: Picture, chunk: bytes, frames: list[tuple[int, bytes]]) -> Step:
        tally = Tally(size=len(chunk), frames=len(frames))
        step = Step(before, tally)
        draft = Picture(
            before.epoch, before.control, before.chat, dict(before.facts), dict(before.states)
        )
        for opcode, data in frames:
            if opcode == BINARY:
                for envelope in decode(data):
                    _apply(draft, envelope, step)
            elif opcode == PING:
                tally.pings += 1
            elif opcode == CLOSE:
                step.close = int.from_bytes(data[:2], "big") if len(data) >= 2 else NO_STATUS
            else:
                raise BadServerFrame(f"opcode {opcode}")
        step.special = bool(tally.pings or step.close is not None or step.alone)
        if tally.control or tally.states or tally.chat or tally.snapshots or tally.skipped:
            step.to = self._intern(draft)
        self.tallies.append(tally)
        return step

    def _intern(self, draft: Picture) -> Picture:
        packed = msgpack.packb([sorted(draft.facts.items()), sorted(draft.states.items())])
        draft.digest = hashlib.blake2b(packed, digest_size=8).hexdigest()
        key = (draft.epoch, draft.control, draft.chat, draft.digest)
        return self._known.setdefault(key, draft)


def _apply(room: Picture, envelope: list[Any], step: Step) -> None:
    tally = step.tally
    match envelope:
        case [int(kind), int(offset), str(key), value, *_] if kind == CONTROL:
            if offset <= room.control:
                tally.duplicates += 1
                return
            tally.missing_control += offset - room.control - 1
            tally.control += 1
            room.control = offset
            _sent(tally, "control", offset, value)
            if value is None:
                room.facts.pop(key, None)
            elif key != "retracted":
                room.facts[key] = value
        case [int(kind), str(key), int(version), value, *_] if kind == STATE:
            if key not in room.states or room.states[key][0] < version:
                room.states[key] = (version, value)
                tally.states += 1
                if key.startswith(STOCK):
                    tally.events.append(("state", version, version))
        case [int(kind), int(offset), value, *_] if kind == CHAT:
            if offset <= room.chat:
                tally.duplicates += 1
                return
            tally.missing_chat += offset - room.chat - 1
            tally.chat += 1
            room.chat = offset
            _sent(tally, "chat", offset, value)
        case [int(kind), int(count), int(offset), *_] if kind == SKIPPED:
            if offset > room.chat:
                tally.missing_chat += offset - room.chat - count
                tally.skipped += count
                room.chat = offset
        case [int(kind), dict(snapshot), *_] if kind == SNAPSHOT:
            tally.snapshots += 1
            room.epoch = snapshot["epoch"]
            room.control, room.chat = snapshot["control"], snapshot["chat"]
            room.facts = dict(snapshot["facts"])
            room.states = {key: (state[0], state[1]) for key, state in snapshot["states"].items()}
        case [0 | 1 | 5, *_]:
            step.alone.append(envelope)
        case [int(kind), *_] if kind == BEAT:
            pass  # counted by the ping that comes with it
        case _:
            tally.other += 1


def _sent(tally: Tally, lane: str, offset: int, value: Any) -> None:
    if isinstance(value, dict) and SENT in value:
        tally.events.append((lane, offset, value[SENT]))
