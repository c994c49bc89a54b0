"""The port to what joins nodes: it numbers, remembers and passes on what is published in a room.

It must not know sockets, viewers or the product's words; the engine is the adapter's business
(`broker_redis`). The contract of a publish, which recovery and idempotency rest on:

* All items of one publish happen in **one step** or not at all: numbers are given, the logs, facts
  and states are changed, and the whole is passed to the nodes as one `Batch`.
* Control and chat have offsets of their own, 1, 2, 3 … without holes, within an **epoch**. The
  epoch changes whenever the numbering could have been lost: the engine restarted, was replaced by
  its replica, or the room is new. A new epoch may have fewer facts than the old one had.
* Delivery to nodes is at most once and in order. A node that misses something sees it in the
  offsets, and `load` gives it a consistent image to heal from.
* A publish that raised BrokerUnavailable may or may not have happened. A `Chat` can be repeated
  with the same `rid`, states and facts are absolute: repeating is always safe except for a `Tally`.

The values are encoded once, by the publisher; the engine puts the offset in front of them, and
every node passes the same bytes on to its sockets.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from realtime.wire import Position

LOG_ENTRIES_MAX: Final = 500
"""Control entries, and comments, that a room remembers for recovery. At 20 comments a second a
viewer may be away 25 s and get every one; after that a snapshot is cheaper than the backlog."""
BATCH_ITEMS_MAX: Final = 256
VALUE_BYTES_MAX: Final = 32 * 1024
"""One encoded value. A drop of 50 SKUs is under 12 KiB."""
KEY_CHARS_MAX: Final = 128
IDEMPOTENCY_S: Final = 3600
"""How long a comment's `rid` is remembered."""
ROOM_TTL_S: Final = 7 * 24 * 3600
"""A room nobody publishes to is forgotten after this."""


@dataclass(frozen=True, slots=True)
class Control:
    """A control entry: fact `key` is now `value` (None takes it away).

    `keep` False: an entry that is no fact, so it is in no snapshot. `retracts` is the chat offset
    of a comment that this entry takes out of every log.
    """

    key: str
    value: object
    keep: bool = True
    retracts: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A value with the version its owner gave it; the newest version wins."""

    key: str
    value: object
    version: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Raises a running total by `by`; value and version are the total."""

    key: str
    by: int


@dataclass(frozen=True, slots=True)
class Gauge:
    """A value whose version the broker counts."""

    key: str
    value: object


@dataclass(frozen=True, slots=True)
class Chat:
    """A comment. The same `rid` within IDEMPOTENCY_S gives the same offset and is published once.

    `rid` must be unique in the room, so put the viewer's id into it. `keep`: never left out when
    comments are sampled (those of who runs the show).
    """

    value: object
    rid: str
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Direct:
    """For one viewer (`to` "viewer:<id>") or a group ("tag:<tag>"), on whichever node; not kept."""

    to: str
    name: str
    value: object


Item = Control | State | Tally | Gauge | Chat | Direct


@dataclass(frozen=True, slots=True)
class Published:
    """What each item was given: offset or version; 0 for a Direct, -1 for a stale State."""

    epoch: str
    numbers: list[int]


class ControlEntry(NamedTuple):
    """A numbered control entry and its bytes on the wire."""

    offset: int
    key: str
    value: object
    keep: bool
    retracts: int | None
    wire: bytes


class ChatEntry(NamedTuple):
    """A numbered comment and its bytes on the wire; one to `keep` is never sampled away."""

    offset: int
    wire: bytes
    keep: bool = False


class StateEntry(NamedTuple):
    """The newest value of a key and its bytes on the wire."""

    key: str
    version: int
    value: object
    wire: bytes


class DirectEntry(NamedTuple):
    """A push for one viewer or a group."""

    to: str
    name: str
    value: object


class Batch(NamedTuple):
    """One publish, as a node hears of it."""

    epoch: str
    entries: list[ControlEntry | ChatEntry | StateEntry | DirectEntry]


class RoomImage(NamedTuple):
    """A room at one instant, consistent in itself.

    The logs hold the newest LOG_ENTRIES_MAX offsets; retracted comments are missing from `chat`.
    """

    position: Position
    facts: dict[str, object]
    states: list[StateEntry]
    control: list[ControlEntry]
    chat: list[ChatEntry]


class Sink(Protocol):
    """A room's ear at the broker. Called on the event loop; must not raise or wait."""

    def on_batch(self, batch: Batch) -> None:
        """Something was published."""

    def on_restored(self) -> None:
        """The subscription was interrupted and stands again: load, something may be missing."""


class Broker(Protocol):
    """What a hub needs of its broker. Room names match `[A-Za-z0-9_.:-]{1,64}`."""

    @property
    def ok(self) -> bool:
        """Whether the subscription stands."""

    @property
    def away(self) -> Sequence[str]:
        """Watched rooms that cannot be heard now; on a cluster the others go on."""

    async def publish(self, room: str, items: Sequence[Item]) -> Published:
        """One step, at most BATCH_ITEMS_MAX items. Raises BrokerUnavailable, ValueError."""

    async def load(self, room: str) -> RoomImage:
        """The room as it is; makes its epoch if it has none. Raises BrokerUnavailable."""

    async def position(self, room: str) -> Position | None:
        """Only its numbers; None if it does not exist. Raises BrokerUnavailable."""

    async def subscribe(self, room: str, sink: Sink) -> None:
        """Returns when the subscription stands, so that a `load` after it misses nothing.

        Raises BrokerUnavailable. Survives lost connections until `unsubscribe`.
        """

    async def unsubscribe(self, room: str) -> None:
        """Hear no more of a room. Never raises."""

    async def run(self) -> None:
        """Read the subscription, and stand it up again whenever it falls; until cancelled."""

    async def close(self) -> None:
        """Let go of all connections."""


Seed = Callable[[str, Mapping[str, object]], Awaitable[Sequence[Item]]]
"""(room, its facts) → what the product wants published in a room with a new epoch."""
