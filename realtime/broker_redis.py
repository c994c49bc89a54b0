"""The broker on Valkey (or Redis, or a cluster of either): two Lua scripts and a feed.

Responsible for keys, script arguments, time limits and the translation of the engine's errors. It
must not know sockets or rooms' memory. Each room lives under one hash tag, so a publish is one step
on one master. Scripts hold the whole rule (`publish.lua`), because a rule spread over several
commands is torn by every crash between them.

Nothing is retried: after a lost answer a repeat could count a `Tally` twice. Who asked decides.

On a cluster rooms spread over the masters by their names, and each master stands and falls alone:
the rooms of a dead one are away (BrokerUnavailable; `away` lists those that are watched), the
others notice nothing. A room whose slot has moved to another master gets a new epoch there, since
the run of the engine is part of what numbers it.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from realtime.broker import (
    BATCH_ITEMS_MAX,
    IDEMPOTENCY_S,
    KEY_CHARS_MAX,
    LOG_ENTRIES_MAX,
    ROOM_TTL_S,
    VALUE_BYTES_MAX,
    Chat,
    ChatEntry,
    Control,
    ControlEntry,
    Direct,
    Gauge,
    Item,
    Published,
    RoomImage,
    Sink,
    State,
    StateEntry,
    Tally,
)
from realtime.caller_redis import Caller, Script
from realtime.cluster_redis import Cluster, ClusterUrl, is_cluster_url
from realtime.errors import BrokerUnavailable
from realtime.feed_cluster_redis import ClusterFeed
from realtime.feed_redis import Feed, read_item_as
from realtime.link_redis import Argument
from realtime.wire import INT_MAX, Kind, Position, pack, pack_state, unpack

CONNECT_TIMEOUT_S: Final = 1.0
ANSWER_TIMEOUT_S: Final = 2.0
POOL_CONNECTIONS_MAX: Final = 16
POOL_WAIT_S: Final = 2.0
FAILURES: Final = (RedisError, OSError, TimeoutError)
"""All that a client call can raise when the engine is away, slow, full or demoted."""
_ROOM: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

Client: TypeAlias = "Redis | Cluster"


def connect(url: str, *, cluster: bool = False) -> Client:
    """A client with bounded waits and no retries. Raises ValueError for an URL without sense.

    `url`: unix://path, redis://host:port/db, or redis+cluster://host:port,host:port (rediss too,
    with TLS) naming any nodes of a cluster; `cluster` makes the latter of a redis:// one. Connects
    on first use.
    """
    if not cluster and not is_cluster_url(url):
        return _connect(url)
    where = ClusterUrl.parse(url)
    return Cluster(where.seeds, lambda address: _connect(where.of(address)))


def _connect(url: str) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=POOL_CONNECTIONS_MAX,
        timeout=POOL_WAIT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=ANSWER_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    return Redis.from_pool(pool)


class RedisBroker:
    """A `Broker`; see there. `prefix` keeps several shops apart on one engine.

    A `prefix` with braces would take the hash tag from the room: ValueError.
    """

    def __init__(self, client: Client, *, new_id: Callable[[], str], prefix: str = "live") -> None:
        if "{" in prefix or "}" in prefix:
            raise ValueError("a prefix has no braces")
        self._client = client
        self._new_id = new_id
        self._prefix = prefix
        here = Path(__file__).parent
        epoch = (here / "room_epoch.lua").read_text()
        self._engine = client if isinstance(client, Cluster) else Caller(client)
        self._publish = Script(self._engine, epoch + (here / "publish.lua").read_text())
        self._load = Script(self._engine, epoch + (here / "load.lua").read_text())
        hello = f"{prefix}:hello"
        self._feed: Feed | ClusterFeed
        if isinstance(client, Cluster):
            self._verb, self._feed = "SPUBLISH", ClusterFeed(client, hello=hello)
        else:
            self._verb, self._feed = "PUBLISH", Feed(client, hello=hello)

    @property
    def ok(self) -> bool:
        """Whether the subscription stands; on a cluster, that of every watched room."""
        return self._feed.up

    @property
    def away(self) -> list[str]:
        """Watched rooms that this node does not hear: their master is away."""
        return [channel.partition("{")[2].partition("}")[0] for channel in self._feed.away]

    async def publish(self, room: str, items: Sequence[Item]) -> Published:
        """One step. Raises BrokerUnavailable; ValueError for what must never be published."""
        if not 1 <= len(items) <= BATCH_ITEMS_MAX:
            raise ValueError(f"a publish has 1 to {BATCH_ITEMS_MAX} items, not {len(items)}")
        keys = self._keys(room)
        arguments: list[Argument] = [
            self._new_id(),
            ROOM_TTL_S,
            self._channel(room),
            self._verb,
            LOG_ENTRIES_MAX,
            IDEMPOTENCY_S,
        ]
        for item in items:
            arguments += _arguments(item)
            if isinstance(item, Chat):
                keys.append(f"{keys[0]}:rid:{item.rid}")
        try:
            epoch, *numbers = await self._publish(keys, arguments)
        except FAILURES as wrong:
            raise BrokerUnavailable("publish: " + type(wrong).__name__) from wrong
        return Published(epoch.decode(), numbers)

    async def load(self, room: str) -> RoomImage:
        """The room as it is. Raises BrokerUnavailable."""
        try:
            answer = await self._load(self._keys(room), [self._new_id(), ROOM_TTL_S])
        except FAILURES as wrong:
            raise BrokerUnavailable("load: " + type(wrong).__name__) from wrong
        epoch, control, chat, facts, states, control_log, chat_log = answer
        return RoomImage(
            Position(epoch.decode(), control, chat),
            {key.decode(): unpack(value) for key, value in _pairs(facts)},
            [_stored_state(key.decode(), value) for key, value in _pairs(states)],
            [read_item_as(ControlEntry, item) for item in control_log],
            [read_item_as(ChatEntry, item) for item in chat_log],
        )

    async def position(self, room: str) -> Position | None:
        """Its numbers. Raises BrokerUnavailable."""
        try:
            meta = self._keys(room)[0]
            found = await self._engine.call("HMGET", meta, "epoch", "control", "chat", key=meta)
        except FAILURES as wrong:
            raise BrokerUnavailable("position: " + type(wrong).__name__) from wrong
        epoch, control, chat = found
        return Position(epoch.decode(), int(control or 0), int(chat or 0)) if epoch else None

    async def subscribe(self, room: str, sink: Sink) -> None:
        """Returns when it stands. Raises BrokerUnavailable."""
        await self._feed.add(self._channel(room), sink)

    async def unsubscribe(self, room: str) -> None:
        """Hear no more of a room."""
        self._feed.remove(self._channel(room))

    async def run(self) -> None:
        """Read the feed until cancelled."""
        await self._feed.run()

    async def close(self) -> None:
        """Let go of all connections."""
        if isinstance(self._engine, Caller):
            self._engine.close()
        await self._client.aclose()
        if isinstance(self._client, Redis):
            await self._client.connection_pool.disconnect()

    def _keys(self, room: str) -> list[str]:
        if not _ROOM.fullmatch(room):
            raise ValueError("a room's name is 1 to 64 of A-Z a-z 0-9 _ . : -")
        base = f"{self._prefix}:{{{room}}}"
        return [base + part for part in ("", ":facts", ":states", ":control", ":chat")]

    def _channel(self, room: str) -> str:
        return f"{self._prefix}:{{{room}}}:feed"


def _arguments(item: Item) -> list[Argument]:
    """An item as publish.lua reads it. Raises ValueError."""
    match item:
        case Control(key, value, keep, retracts):
            gone = "" if retracts is None else retracts
            return ["C", _key(key), _value(value), int(keep), gone]
        case State(key, value, version):
            return ["S", _key(key), _value(value), _number(version)]
        case Tally(key, by):
            return ["T", _key(key), _number(by)]
        case Gauge(key, value):
            return ["G", _key(key), _value(value)]
        case Chat(value, rid, keep):
            _key(rid)
            return ["H", _value(value), int(keep)]
        case Direct(to, name, value):
            raw = msgspec.Raw(_value(value))
            return ["D", pack([[Kind.DIRECT.value, _key(to), _key(name), raw]])]


def _key(key: str) -> str:
    if not 0 < len(key) <= KEY_CHARS_MAX:
        raise ValueError(f"a key has 1 to {KEY_CHARS_MAX} characters")
    return key


def _number(number: int) -> int:
    if not 0 <= number <= INT_MAX:
        raise ValueError("versions and increments lie between 0 and 2^53 - 1")
    return number


def _value(value: object) -> bytes:
    try:
        encoded = pack(value)
    except (TypeError, OverflowError) as wrong:
        raise ValueError("a value must be encodable as MessagePack") from wrong
    if len(encoded) > VALUE_BYTES_MAX:
        raise ValueError(f"a value has at most {VALUE_BYTES_MAX} bytes encoded")
    return encoded


def _pairs(flat: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _stored_state(key: str, stored: bytes) -> StateEntry:
    """`<kind><version>:<value>` as publish.lua keeps it."""
    head, _, encoded = stored.partition(b":")
    version = int(head[1:])
    return StateEntry(key, version, unpack(encoded), pack_state(key, version, msgspec.Raw(encoded)))
