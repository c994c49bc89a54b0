"""What is published, as it arrives: one subscription connection per node for all of its rooms.

Responsible for reading batches, for noticing that the connection is gone (or silent), and for
telling every room to heal once it stands again. It must not know what rooms do with a batch.

One connection and one reader per node: order per room is then the engine's order (several workers
taken in turn would reorder, as goim's do), and a room of 100,000 costs each node one message.
redis-py would reconnect a subscription silently; here it may not, because the rooms have to know
that something may be missing. So each session has a PubSub of its own.
"""

import asyncio
import logging
from typing import Any, Final, TypeVar

import msgspec
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError

from realtime.broker import Batch, ChatEntry, ControlEntry, DirectEntry, Sink, StateEntry
from realtime.errors import BrokerUnavailable
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
    """[envelope, keep?, retracts?]"""

    wire: msgspec.Raw
    keep: bool = True
    retracts: int | None = None


_batch = msgspec.msgpack.Decoder(tuple[str, list[_Item]])
_item = msgspec.msgpack.Decoder(_Item)
_control = msgspec.msgpack.Decoder(tuple[int, int, str, Any])
_state = msgspec.msgpack.Decoder(tuple[int, str, int, Any])
_chat = msgspec.msgpack.Decoder(tuple[int, int, msgspec.Raw])
_direct = msgspec.msgpack.Decoder(tuple[int, str, str, Any])


def let_cancel_through() -> None:
    """Call after awaiting redis-py: it can swallow a cancellation that meets its own time limit.

    Seen in 2 of 24 shutdowns under load: the reader went on and the node never ended.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


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
        return ChatEntry(_chat.decode(wire)[1], wire)
    _, to, name, value = _direct.decode(wire)
    return DirectEntry(to, name, value)


class Feed:
    """The node's subscription. `hello` is a channel of no room that is always subscribed."""

    def __init__(self, client: "Redis | RedisCluster", *, hello: str) -> None:
        self._client = client
        self._hello = hello
        self._sinks: dict[str, Sink] = {}
        self._acks: dict[str, asyncio.Future[None]] = {}
        self._pubsub: Any = None
        self.up = False

    async def add(self, channel: str, sink: Sink) -> None:
        """Subscribe; returns when the engine confirmed. Raises BrokerUnavailable."""
        if not self.up:
            raise BrokerUnavailable("the subscription is down")
        self._sinks[channel] = sink
        ack = self._acks[channel] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
                await self._pubsub.subscribe(channel)
                await ack
        except (RedisError, OSError, TimeoutError) as wrong:
            self._sinks.pop(channel, None)
            raise BrokerUnavailable("subscribe: " + type(wrong).__name__) from wrong
        finally:
            self._acks.pop(channel, None)

    async def remove(self, channel: str) -> None:
        """Unsubscribe. Never raises: a connection that is gone has forgotten the channel anyway."""
        self._sinks.pop(channel, None)
        if self.up:
            try:
                async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
                    await self._pubsub.unsubscribe(channel)
            except (RedisError, OSError, TimeoutError):
                log.info("unsubscribing failed; the connection will notice")

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
        self.up = False
        for ack in self._acks.values():
            if not ack.done():
                ack.set_exception(ConnectionResetError("the subscription fell"))

    async def _session(self) -> None:
        """One connection: subscribe to everything, then read until it fails."""
        pubsub: Any = self._client.pubsub()
        self._pubsub = pubsub
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
                # Confirmed in order, so the confirmation of `hello` stands for all.
                await pubsub.subscribe(*self._sinks, self._hello)
            heard = loop.time()
            while True:
                message = await pubsub.get_message(timeout=POLL_S)
                let_cancel_through()
                now = loop.time()
                if message is not None:
                    heard = now
                    self._on_message(message)
                elif now - heard > LOST_AFTER_S:
                    raise TimeoutError("no answer to a ping")
                elif now - heard > PING_AFTER_S:
                    await pubsub.ping()
        finally:
            self._pubsub = None
            await pubsub.aclose()

    def _on_message(self, message: dict[str, Any]) -> None:
        channel = message["channel"].decode() if message["channel"] else ""
        if message["type"] == "message":
            sink = self._sinks.get(channel)
            if sink is None:
                return
            try:
                batch = read_batch(message["data"])
            except (msgspec.DecodeError, IndexError):
                log.error("something that is no batch was published on a room's channel")
                return
            sink.on_batch(batch)
        elif message["type"] == "subscribe":
            ack = self._acks.get(channel)
            if ack is not None and not ack.done():
                ack.set_result(None)
            if channel == self._hello and not self.up:
                self.up = True
                log.info("the broker's subscription stands")
                for sink in list(self._sinks.values()):
                    sink.on_restored()
