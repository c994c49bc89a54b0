"""What is published, as it arrives: one subscription connection to an engine for all rooms there.

Responsible for reading batches, for noticing that the connection is gone (or silent), and for
telling every room to heal once it stands again. It must not know what rooms do with a batch.

One connection and one reader per engine: order per room is then the engine's order (several workers
taken in turn would reorder, as goim's do), and a room of 100,000 costs each node one message. A
batch is with its room in the callback that read it, without a task between (`link_redis`). redis-py
would reconnect a subscription silently; here it may not, because the rooms have to know that
something may be missing. So each session has a connection of its own.

On a master of a cluster the channels are sharded: a publish stays on the master that owns the slot,
whereas a plain PUBLISH goes to all of them (each master added would then cost throughput). Which
rooms a master has is `feed_cluster_redis`'s to decide.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any, Final, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import MovedError, RedisError

from realtime.broker import Batch, ChatEntry, ControlEntry, DirectEntry, Sink, StateEntry
from realtime.errors import BrokerUnavailable
from realtime.link_redis import Link, let_cancel_through, packed
from realtime.wire import Kind

log = logging.getLogger(__name__)

SUBSCRIBE_TIMEOUT_S: Final = 3.0
POLL_S: Final = 1.0
PING_AFTER_S: Final = 5.0
"""Silence after which the connection is asked whether it lives…"""
LOST_AFTER_S: Final = 10.0
"""…and after which it is given up."""
RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 1.0

Entry = ControlEntry | ChatEntry | StateEntry | DirectEntry
E = TypeVar("E", ControlEntry, ChatEntry)


class _Item(msgspec.Struct, array_like=True):
    """[envelope, keep?, retracts?]; control always says whether to keep, a comment only if so."""

    wire: msgspec.Raw
    keep: bool = False
    retracts: int | None = None


_batch = msgspec.msgpack.Decoder(tuple[str, list[_Item]])
_item = msgspec.msgpack.Decoder(_Item)
_control = msgspec.msgpack.Decoder(tuple[int, int, str, Any])
_state = msgspec.msgpack.Decoder(tuple[int, str, int, Any])
_chat = msgspec.msgpack.Decoder(tuple[int, int, msgspec.Raw])
_direct = msgspec.msgpack.Decoder(tuple[int, str, str, Any])


def read_batch(data: bytes) -> Batch:
    """What publish.lua passed on. Raises msgspec.DecodeError (or its child ValidationError)."""
    epoch, items = _batch.decode(data)
    return Batch(epoch, [_entry(item) for item in items])


def read_item_as(kind: type[E], data: bytes) -> E:
    """One item of a stored log. Raises msgspec.DecodeError, TypeError if it is another kind."""
    entry = _entry(_item.decode(data))
    if not isinstance(entry, kind):
        raise TypeError(f"the log holds a {type(entry).__name__}, not a {kind.__name__}")
    return entry


def _entry(item: _Item) -> Entry:
    wire = bytes(item.wire)
    kind = wire[1]  # array header, then the kind as a single byte
    if kind == Kind.CONTROL:
        _, offset, key, value = _control.decode(wire)
        return ControlEntry(offset, key, value, item.keep, item.retracts, wire)
    if kind == Kind.STATE:
        _, key, version, value = _state.decode(wire)
        return StateEntry(key, version, value, wire)
    if kind == Kind.CHAT:
        return ChatEntry(_chat.decode(wire)[1], wire, item.keep)
    _, to, name, value = _direct.decode(wire)
    return DirectEntry(to, name, value)


class Feed:
    """A subscription. `hello` is a channel of no room that is always subscribed.

    `sharded`: to one master of a cluster. `on_news` is then called when a channel has moved, with
    the slot and the new owner if they are known, and when the connection has come or gone.
    """

    def __init__(
        self,
        client: Redis,
        *,
        hello: str,
        sharded: bool = False,
        on_news: Callable[[MovedError | None], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._hello = hello
        self._sharded = sharded
        self._on_news = on_news
        self._sinks: dict[str, Sink] = {}
        self._acks: dict[str, asyncio.Future[None]] = {}
        self._asked: set[str] = set()
        self._adopted: set[str] = set()
        self._link: Link | None = None
        self._heard_s = 0.0
        self.up = False
        self.failing = not sharded
        """It fell, and does not stand again yet."""
        self.lost: set[str] = set()
        """Channels that the engine has taken from this connection."""

    @property
    def channels(self) -> list[str]:
        """What it is to hear, but for those that somebody still waits for."""
        return [channel for channel in self._sinks if channel not in self._acks]

    @property
    def away(self) -> list[str]:
        """Channels that are wanted and not heard."""
        return [name for name in self._sinks if self.failing or name in self.lost]

    @property
    def idle(self) -> bool:
        """Nothing is to be heard here."""
        return not self._sinks

    async def add(self, channel: str, sink: Sink) -> None:
        """Subscribe; returns when the engine confirmed. Raises BrokerUnavailable."""
        if self.failing:
            raise BrokerUnavailable("the subscription is down")
        self._sinks[channel] = sink
        ack = self._acks[channel] = asyncio.get_running_loop().create_future()
        try:
            if self.up:
                self._subscribe([channel])
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
                await ack
        except (RedisError, OSError, TimeoutError) as wrong:
            self.release(channel)
            raise BrokerUnavailable("subscribe: " + type(wrong).__name__) from wrong
        finally:
            self._acks.pop(channel, None)

    def adopt(self, channel: str, sink: Sink) -> None:
        """Take over a channel; its sink hears `on_restored` when it stands here. Never raises."""
        self._sinks[channel] = sink
        self._adopted.add(channel)
        if self.up:
            self._subscribe([channel])

    def release(self, channel: str) -> Sink | None:
        """Hear it no more; its sink, if there was one. The engine is not told: `remove` does."""
        for names in (self._asked, self._adopted, self.lost):
            names.discard(channel)
        return self._sinks.pop(channel, None)

    def remove(self, channel: str) -> None:
        """Unsubscribe. Never raises: a connection that is gone has forgotten the channel anyway."""
        self.release(channel)
        if self.up:
            self._tell("SUNSUBSCRIBE" if self._sharded else "UNSUBSCRIBE", channel)

    async def run(self) -> None:
        """Sessions one after another, until cancelled."""
        pause = RETRY_FIRST_S
        while True:
            try:
                await self._session()
            except (RedisError, OSError, TimeoutError) as wrong:
                if self.up:
                    log.warning("the broker's connection is lost (%s)", type(wrong).__name__)
                    pause = RETRY_FIRST_S
            finally:
                self._down()
            let_cancel_through()
            await asyncio.sleep(pause)
            pause = min(RETRY_MAX_S, pause * 2)

    def _down(self) -> None:
        self.up, self.failing = False, True
        self._asked.clear()
        self._adopted.clear()
        self.lost.clear()
        for ack in self._acks.values():
            if not ack.done():
                ack.set_exception(ConnectionResetError("the subscription fell"))
        self._on_news(None)

    def _subscribe(self, channels: Iterable[str]) -> None:
        """Ask for channels: all in one command, or in one for each slot."""
        wanted = sorted(channels, key=_slot) if self._sharded else list(channels)
        self._asked.update(wanted)
        if self._sharded:
            for _, group in groupby(wanted, key=_slot):
                self._tell("SSUBSCRIBE", *group)
        elif wanted:
            self._tell("SUBSCRIBE", *wanted)

    def _tell(self, *command: str) -> None:
        if self._link is not None:
            self._link.send(packed(command))

    async def _session(self) -> None:
        """One connection: subscribe to everything, then hear it until it fails."""
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[Exception] = loop.create_future()

        def on_lost(wrong: Exception) -> None:
            if not lost.done():
                lost.set_result(wrong)

        self._link = link = await Link.open(self._client, self._on_answer, on_lost)
        try:
            # Confirmed in order, so the confirmation of `hello` stands for all.
            self._subscribe(list(self._sinks))
            self._tell("SUBSCRIBE", self._hello)
            self._heard_s = loop.time()
            while not (await asyncio.wait([lost], timeout=POLL_S))[0]:
                silence_s = loop.time() - self._heard_s
                if silence_s > LOST_AFTER_S:
                    raise TimeoutError("no answer to a ping")
                if silence_s > PING_AFTER_S:
                    self._tell("PING")
            raise lost.result()
        finally:
            self._link = None
            link.end()

    def _on_answer(self, answer: Any) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        match answer:
            case [b"message" | b"smessage", channel, data]:
                self._on_batch(channel.decode(), data)
            case [b"subscribe" | b"ssubscribe", channel, _]:
                self._on_subscribed(channel.decode())
            case [b"sunsubscribe", bytes(channel), _] if channel.decode() in self._sinks:
                self.lost.add(channel.decode())
                self._on_news(None)
            case MovedError():
                self._on_moved(answer)
            case Exception() if self._link is not None:
                self._link.fail(answer)

    def _on_batch(self, channel: str, data: bytes) -> None:
        sink = self._sinks.get(channel)
        if sink is None:
            return
        try:
            batch = read_batch(data)
        except (msgspec.DecodeError, IndexError):
            log.error("something that is no batch was published on a room's channel")
            return
        sink.on_batch(batch)

    def _on_subscribed(self, channel: str) -> None:
        ack = self._acks.get(channel)
        if ack is not None and not ack.done():
            ack.set_result(None)
        self.lost.discard(channel)
        if channel in self._adopted and self.up:
            self._adopted.discard(channel)
            if channel in self._sinks:
                self._sinks[channel].on_restored()
        if channel == self._hello and not self.up:
            self.up, self.failing = True, False
            log.info("the broker's subscription stands")
            for name, sink in list(self._sinks.items()):
                if name in self._asked:
                    self._adopted.discard(name)
                    sink.on_restored()
            self._subscribe(self._sinks.keys() - self._asked)
            self._on_news(None)

    def _on_moved(self, moved: MovedError) -> None:
        """The rooms of a slot are another master's now."""
        for channel in [name for name in self._sinks if _slot(name) == moved.slot_id]:
            self.lost.add(channel)
            ack = self._acks.get(channel)
            if ack is not None and not ack.done():
                ack.set_exception(ConnectionResetError("the room has moved"))
        self._on_news(moved)


def _slot(channel: str) -> int:
    return key_slot(channel.encode())
