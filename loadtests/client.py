"""A client of the wire, written from PROTOCOL.md alone: bytes in, a room out. No socket, no clock.

Responsible for encoding commands, decoding frames, the room that results from them (chapter 3) and
the reconnect rule (chapter 8). It must not import anything of the server: it stands on `msgpack`,
because a codec shared with the server would agree with it about every mistake. Shoppers (asyncio),
Locust users (gevent) and tests put their own socket and clock around it.

It also keeps the books that a page does not need: entries that came twice, entries that never came,
comments that were left out. That is what makes it a measuring instrument.
"""

import copy
import random as random_
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]

SUBPROTOCOL: Final = "live.v1"
REPLY, FAILURE, CONTROL, STATE, CHAT, DIRECT, SKIPPED, BEAT, SNAPSHOT = range(9)

COMMENTS_KEPT: Final = 1000
"""What a page would scroll through; the oldest go first."""
ID_MAX: Final = 2**31 - 1
BACKOFF_FIRST_MS: Final = 500
BACKOFF_MOST_MS: Final = 20_000
RECONNECT_STANDARD: Final = frozenset({1001, 1005, 1006, 1011, 1012, 1013})

Envelope = list[Any]


class BadServerFrame(Exception):
    """What the server sent is not the protocol. Close, and come back."""


def encode(id_: int, name: str, params: dict[str, Any]) -> bytes:
    """One client frame."""
    packed: bytes = msgpack.packb([id_, name, params])
    return packed


def decode(frame: bytes) -> list[Envelope]:
    """All envelopes of one server frame. Raises `BadServerFrame`, and then nothing of it counts."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(frame)
    try:
        envelopes = list(unpacker)
        whole: bool = unpacker.tell() == len(frame)
    except (ValueError, msgpack.UnpackException) as wrong:
        raise BadServerFrame(type(wrong).__name__) from None
    if not whole:
        raise BadServerFrame("truncated")
    for envelope in envelopes:
        if not isinstance(envelope, list) or not envelope or type(envelope[0]) is not int:
            raise BadServerFrame("an envelope is an array that begins with its kind")
    return envelopes


def reconnects(close_code: int) -> bool:
    """Whether a client comes back by itself after this close code (chapter 8)."""
    return close_code in RECONNECT_STANDARD or 4000 <= close_code <= 4499


def backoff_ceiling_ms(attempt: int) -> int:
    """The longest wait before this attempt, counted from 0; the wait is random from 0 to it."""
    return min(BACKOFF_MOST_MS, BACKOFF_FIRST_MS << min(attempt, 16))


def new_rid(now_ms: int, random: random_.Random) -> str:
    """A UUIDv7: made when Buy is pressed, kept for every repetition."""
    bits = (now_ms & (2**48 - 1)) << 80 | 0x7 << 76 | random.getrandbits(12) << 64
    text = f"{bits | 0b10 << 62 | random.getrandbits(62):032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@dataclass
class Room:
    """Everything a viewer knows of a show. Compare two with `picture()`."""

    epoch: str | None = None
    control: int = 0
    chat: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    states: dict[str, tuple[int, Any]] = field(default_factory=dict)
    comments: deque[tuple[int, Any]] = field(default_factory=lambda: deque(maxlen=COMMENTS_KEPT))
    skipped: int = 0
    """Comments that the server says it left out, since the last snapshot."""
    ignored: int = 0
    """Envelopes that changed nothing because they, or something newer, were known."""
    duplicates: int = 0
    """Control entries and comments among the ignored: each should have come once."""
    missing_control: int = 0
    """Control entries that never came. The law says 0."""
    snapshots: int = 0
    _retracted: set[int] = field(default_factory=set)
    _chat_start: int = 0
    _chat_received: int = 0

    @property
    def position(self) -> list[Any] | None:
        """What to join with after a cut; None before the first snapshot."""
        return None if self.epoch is None else [self.epoch, self.control, self.chat]

    @property
    def missing_comments(self) -> int:
        """Comments up to our chat offset that neither came nor were said to be left out.

        A marker may follow the comments between which others were left out, so this is 0 whenever
        the server has nothing more to say, not after each single envelope.
        """
        known = self._chat_received + self.skipped + len(self._retracted)
        return max(0, self.chat - self._chat_start - known)

    def value(self, key: str) -> Any:
        """The newest value of a state; None if it never came."""
        return self.states.get(key, (0, None))[1]

    def picture(self) -> dict[str, Any]:
        """The room in the shape of a snapshot."""
        return copy.deepcopy(
            {
                "epoch": self.epoch,
                "control": self.control,
                "chat": self.chat,
                "facts": self.facts,
                "states": {key: list(state) for key, state in self.states.items()},
                "comments": [list(comment) for comment in self.comments],
            }
        )

    def apply(self, envelope: Envelope) -> None:
        """Take one envelope in. Kinds that do not concern the room, or are unknown, do nothing."""
        match envelope:
            case [2, int(offset), str(key), value, *_]:
                self._apply_control(offset, key, value)
            case [3, str(key), int(version), value, *_]:
                if key in self.states and self.states[key][0] >= version:
                    self.ignored += 1
                else:
                    self.states[key] = (version, value)
            case [4, int(offset), comment, *_]:
                self._apply_comment(offset, comment)
            case [6, int(count), int(offset), *_]:
                if offset <= self.chat:
                    self.ignored += 1
                else:
                    self.skipped += count
                    self.chat = offset
            case [8, dict(snapshot), *_]:
                self._replace(snapshot)

    def _apply_control(self, offset: int, key: str, value: Any) -> None:
        if offset <= self.control:
            self.ignored += 1
            self.duplicates += 1
            return
        self.missing_control += offset - self.control - 1
        self.control = offset
        if key == "retracted":
            self._retract(value["comment"])
        elif value is None:
            self.facts.pop(key, None)
        else:
            self.facts[key] = value

    def _retract(self, offset: int) -> None:
        # Control overtakes chat, so the comment may still be on its way.
        if offset > self.chat:
            self._retracted.add(offset)
        kept = [comment for comment in self.comments if comment[0] != offset]
        self.comments = deque(kept, maxlen=COMMENTS_KEPT)

    def _apply_comment(self, offset: int, comment: Any) -> None:
        if offset <= self.chat:
            self.ignored += 1
            self.duplicates += 1
            return
        self.chat = offset
        if offset not in self._retracted:
            self._chat_received += 1
            self.comments.append((offset, comment))

    def _replace(self, snapshot: dict[str, Any]) -> None:
        self.epoch = snapshot["epoch"]
        self.control = snapshot["control"]
        self.chat = self._chat_start = snapshot["chat"]
        self.facts = dict(snapshot["facts"])
        self.states = {key: (state[0], state[1]) for key, state in snapshot["states"].items()}
        self.comments = deque(map(tuple, snapshot["comments"]), maxlen=COMMENTS_KEPT)
        self.skipped = self._chat_received = 0
        self._retracted = set()
        self.snapshots += 1


@dataclass
class Session:
    """One viewer over all of its connections: the room, its own holds and orders, command ids."""

    show: str
    token: str
    room: Room = field(default_factory=Room)
    you: dict[str, Any] = field(default_factory=dict)
    holds: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Newest word on each own hold, by rid, from replies, joins and pushes."""
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    waits: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The same of entries in wait lists."""
    directs: list[tuple[str, Any]] = field(default_factory=list)
    """Everything said to this viewer alone, in order."""
    server_ms: int = 0
    """The server's clock when it last told it (joins, pings, beats)."""
    _id: int = 0

    def join_params(self, undecided: Sequence[str] = ()) -> dict[str, Any]:
        """Params of `join`: by position if there is one."""
        params: dict[str, Any] = {"show": self.show, "token": self.token}
        if self.room.position is not None:
            params["position"] = self.room.position
        if undecided:
            params["undecided"] = list(undecided)
        return params

    def command(
        self, name: str, params: dict[str, Any], *, reply: bool = True
    ) -> tuple[int, bytes]:
        """A fresh id (0 when no reply is wanted) and the frame to send."""
        if not reply:
            return 0, encode(0, name, params)
        self._id = self._id % ID_MAX + 1
        return self._id, encode(self._id, name, params)

    def receive(self, frame: bytes) -> list[Envelope]:
        """Take a server frame in; the envelopes, of which kinds 0 and 1 answer commands."""
        envelopes = decode(frame)
        for envelope in envelopes:
            match envelope:
                case [0, _, dict(result), *_]:
                    self._learn(result)
                case [5, str(name), value, *_]:
                    self.directs.append((name, value))
                    if name == "hold":
                        self.holds[value["rid"]] = value
                    elif name == "wait":
                        self.waits[value["rid"]] = value
                    elif name == "order":
                        self.orders[value["id"]] = value
                case [7, int(now_ms), *_]:
                    self.server_ms = now_ms
                case _:
                    self.room.apply(envelope)
        return envelopes

    def _learn(self, result: dict[str, Any]) -> None:
        self.server_ms = result.get("now_ms", self.server_ms)
        if "you" in result:
            self.you = result["you"]
            for hold in (*result["holds"], *result["decided"]):
                self.holds[hold["rid"]] = hold
            for order in result["orders"]:
                self.orders[order["id"]] = order
            for wait in result.get("waits", ()):
                self.waits[wait["rid"]] = wait
        elif "until_ms" in result:
            self.holds[result["rid"]] = result
        elif "position" in result and "rid" in result:
            self.waits[result["rid"]] = result
