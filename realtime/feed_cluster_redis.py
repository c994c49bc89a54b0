"""What is published on a cluster: one subscription connection per master that has watched rooms.

Responsible for which room is heard at which master, and for moving rooms when slots move. It must
not know batches nor what rooms do with them; the connections are `feed_redis`'s.

Rooms are grouped by master, not given a connection each (centrifugo counted 25,600 connections
before grouping and 1,200 after). A dead master takes down one connection: its rooms are restored
when it is back, or when the map says that another master has their slots. The map is looked up
when something hints that it is wrong (a connection fell, MOVED, the engine unsubscribed us), and
otherwise now and then, since a hint can get lost together with the connection that carried it.
"""

import asyncio
import contextlib
import logging
from typing import Final

from redis.exceptions import MovedError, RedisError

from realtime.broker import Sink
from realtime.cluster_redis import Address, Cluster
from realtime.errors import BrokerUnavailable
from realtime.feed_redis import Feed
from realtime.link_redis import let_cancel_through

log = logging.getLogger(__name__)

LOOK_S: Final = 10.0
"""The map is looked up this often without any hint…"""
LOOK_AGAIN_S: Final = 1.0
"""…this often while nobody answers or a room is not heard…"""
LOOK_PAUSE_S: Final = 0.25
"""…and not more often than this."""
ADD_TRIES: Final = 3
_FAILURES: Final = (RedisError, OSError, TimeoutError)


class ClusterFeed:
    """The node's subscriptions; used as a `Feed` is."""

    def __init__(self, cluster: Cluster, *, hello: str) -> None:
        self._cluster = cluster
        self._hello = hello
        self._lines: dict[Address, tuple[Feed, asyncio.Task[None]]] = {}
        self._users: dict[Address, int] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._running = False
        self._hint = asyncio.Event()
        cluster.on_change = self._hint.set

    @property
    def up(self) -> bool:
        """Whether every watched room is heard (without any: whether the cluster answers)."""
        failing = any(feed.failing for feed, _ in self._lines.values())
        return self._running and self._cluster.known and not failing

    @property
    def away(self) -> list[str]:
        """Channels that are wanted and not heard."""
        return [channel for feed, _ in self._lines.values() for channel in feed.away]

    async def add(self, channel: str, sink: Sink) -> None:
        """Subscribe; returns when the channel's master confirmed. Raises BrokerUnavailable."""
        if not self._running:
            raise BrokerUnavailable("the subscription is down")
        for left in reversed(range(ADD_TRIES)):
            try:
                address = await self._cluster.owner(channel)
            except _FAILURES as wrong:
                raise BrokerUnavailable("subscribe: " + type(wrong).__name__) from wrong
            self._users[address] = self._users.get(address, 0) + 1
            try:
                await self._line(address).add(channel, sink)
            except BrokerUnavailable:
                if not left or self._cluster.owner_now(channel) == address:
                    raise
            else:
                return
            finally:
                self._users[address] -= 1
                self._drop_if_idle(address)

    def remove(self, channel: str) -> None:
        """Unsubscribe. Never raises."""
        for address, (feed, _) in list(self._lines.items()):
            if channel in feed.channels:
                feed.remove(channel)
                self._drop_if_idle(address)

    async def run(self) -> None:
        """Keep the map and every room where it belongs, until cancelled."""
        self._running = True
        try:
            while True:
                self._hint.clear()
                try:
                    await self._cluster.look()
                    self._settle()
                except _FAILURES as wrong:
                    log.info("the cluster's map cannot be read (%s)", type(wrong).__name__)
                let_cancel_through()
                await asyncio.sleep(LOOK_PAUSE_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S if self.up else LOOK_AGAIN_S):
                        await self._hint.wait()
        finally:
            self._running = False
            tasks = [*self._ending, *(task for _, task in self._lines.values())]
            self._lines.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _line(self, address: Address) -> Feed:
        line = self._lines.get(address)
        if line is None:
            feed = Feed(
                self._cluster.node(address),
                hello=self._hello,
                sharded=True,
                on_news=lambda moved: self._on_news(address, moved),
            )
            task = asyncio.get_running_loop().create_task(feed.run(), name=f"feed {address[1]}")
            line = self._lines[address] = feed, task
        return line[0]

    def _on_news(self, address: Address, moved: MovedError | None) -> None:
        if moved is not None:
            self._cluster.learn(moved.slot_id, (moved.host or address[0], moved.port))
        self._hint.set()

    def _settle(self) -> None:
        """Every room to the connection of the master that owns it."""
        for address, (feed, task) in list(self._lines.items()):
            if task.done():
                task.result()  # it ends only by a fault of ours: no reason to limp on
            for channel in feed.channels:
                owner = self._cluster.owner_now(channel) or address
                if owner == address and channel not in feed.lost:
                    continue
                # Adopted again where it was lost, too: that ends with the channel or with MOVED.
                told = channel in feed.lost
                sink = feed.release(channel)
                if sink is not None:
                    self._line(owner).adopt(channel, sink)
                if owner != address and not told:
                    feed.remove(channel)
            self._drop_if_idle(address)

    def _drop_if_idle(self, address: Address) -> None:
        line = self._lines.get(address)
        if line is not None and line[0].idle and not self._users.get(address):
            del self._lines[address]
            self._users.pop(address, None)
            self._ending.add(line[1])
            line[1].add_done_callback(self._ending.discard)
            line[1].cancel()
