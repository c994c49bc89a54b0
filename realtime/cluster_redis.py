"""The masters of a Valkey Cluster (or Redis Cluster), and which of them a room lives on.

Responsible for the map of slots, one connection for commands per master (`caller_redis`), and for
following a slot that has moved. It must not know rooms, items or subscriptions.

redis-py has a cluster client, and these are why it is not used: it repeats a command after a lost
answer (a `Tally` would count twice); a CLUSTERDOWN or a lost connection makes it close the pools of
*all* masters, so one dead master disturbs the rooms of the others; it loads a script on every
master, so one dead master keeps a script from all; and it sends ASKING over another connection than
the command it is for. What is needed here is less than it has: commands whose keys lie in one slot.

A command is sent again only when the engine said that it did not do it: MOVED, ASK, TRYAGAIN,
NOSCRIPT. After a lost answer the map is looked up anew, and who asked decides.

`cluster-require-full-coverage no` belongs to the servers' settings: with the default `yes` one dead
master without a replica stops every room of the cluster, and nothing here can help that.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    MovedError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from realtime.caller_redis import Caller
from realtime.link_redis import Argument

SLOTS: Final = 16_384
PORT: Final = 6379
REDIRECTS_MAX: Final = 5
TRY_AGAIN_S: Final = 0.05
"""A slot that is being moved key by key has some keys here and some there."""
LOOK_MIN_S: Final = 0.25
"""The map is not looked up more often by those who lost a connection."""
LOOK_TIMEOUT_S: Final = 5.0
WITNESSES_MAX: Final = 16
SCHEMES: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_LOST: Final = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)
_FAILURES: Final = (RedisError, OSError, TimeoutError)

Address: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ClusterUrl:
    """`redis+cluster://[user:password@]host:port,host:port/[?options]`: any of its nodes."""

    scheme: str
    user: str
    seeds: tuple[Address, ...]
    query: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Also takes `redis://`. Raises ValueError."""
        parts = urlsplit(url)
        scheme = SCHEMES.get(parts.scheme, parts.scheme)
        if scheme not in SCHEMES.values():
            raise ValueError("a cluster is at redis+cluster://host:port,host:port")
        user, at, hosts = parts.netloc.rpartition("@")
        seeds = tuple(_address(host) for host in hosts.split(",") if host)
        if not seeds:
            raise ValueError("the URL of a cluster names no host")
        return cls(scheme, user + at, seeds, parts.query)

    def of(self, address: Address) -> str:
        """The URL of one node."""
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{self.user}{host}:{address[1]}/{query}"


def is_cluster_url(url: str) -> bool:
    """Whether the scheme says so."""
    return urlsplit(url).scheme in SCHEMES


async def scheme_found(url: str) -> str | None:
    """`url`, with a cluster's scheme if the server at `redis://…` says that it is of a cluster.

    For who starts a node with an URL that an operator wrote. None: it did not answer within a few
    seconds. Another kind of URL is given back unasked.
    """
    if urlsplit(url).scheme not in SCHEMES.values():
        return url
    client: Redis = Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2, protocol=2)
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S), client:
            enabled = (await client.info("cluster")).get("cluster_enabled")
    except _FAILURES:
        return None
    return url.replace("://", "+cluster://", 1) if enabled else url


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text.strip("[]"), PORT
    return host.strip("[]"), int(port)


class Cluster:
    """Commands on one slot, at whoever owns it. Connects on first use."""

    def __init__(self, seeds: Sequence[Address], open_node: Callable[[Address], Redis]) -> None:
        """`open_node` gives a client that waits in bounds and never repeats a command."""
        self.known = False
        """Whether somebody answered when the map was looked up last."""
        self.on_change: Callable[[], None] = lambda: None
        """The map has changed, or is in doubt."""
        self._seeds = tuple(seeds)
        self._open = open_node
        self._nodes: dict[Address, Redis] = {}
        self._callers: dict[Address, Caller] = {}
        self._owners: list[Address | None] = [None] * SLOTS
        self._members: tuple[Address, ...] = ()
        self._doubted: set[Address] = set()
        self._lock = asyncio.Lock()
        self._looks = 0
        self._looked_s = -LOOK_MIN_S

    def node(self, address: Address) -> Redis:
        """The client of one node."""
        found = self._nodes.get(address)
        if found is None:
            found = self._nodes[address] = self._open(address)
        return found

    def _caller(self, address: Address) -> Caller:
        found = self._callers.get(address)
        if found is None:
            found = self._callers[address] = Caller(self.node(address))
        return found

    def owner_now(self, key: str) -> Address | None:
        """Whose slot it is, as far as is known."""
        return self._owners[key_slot(key.encode())]

    async def owner(self, key: str) -> Address:
        """Whose slot it is. Raises RedisError, OSError, TimeoutError."""
        slot = key_slot(key.encode())
        owner = self._owners[slot]
        if owner is None or (owner in self._doubted and self._may_look()):
            await self.look()
            owner = self._owners[slot]
        if owner is None:
            raise ClusterDownError("nobody owns the slot")
        return owner

    async def call(self, *command: Argument, key: str) -> Any:
        """One command whose keys lie in the slot of `key`.

        Raises RedisError, OSError, TimeoutError; then it may have been done or not, never twice.
        """
        slot = key_slot(key.encode())
        address = await self.owner(key)
        asking = False
        for _ in range(REDIRECTS_MAX):
            caller = self._caller(address)
            try:
                if asking:
                    return await caller.call_asking(*command)
                return await caller.call(*command)
            except MovedError as moved:
                address, asking = (moved.host or address[0], moved.port), False
                self.learn(slot, address)
            except AskError as ask:
                address, asking = (ask.host or address[0], ask.port), True
            except TryAgainError:
                await asyncio.sleep(TRY_AGAIN_S)
                address, asking = self._owners[slot] or address, False
            except (*_LOST, ClusterDownError):
                self.doubt(address)
                raise
        raise ClusterError("a slot is on the move")

    def learn(self, slot: int, address: Address) -> None:
        """A node said who owns a slot."""
        if self._owners[slot] != address:
            self._owners[slot] = address
            self.on_change()

    def doubt(self, address: Address) -> None:
        """A node does not answer: perhaps another one has its slots by now."""
        self._doubted.add(address)
        self.on_change()

    def _may_look(self) -> bool:
        return asyncio.get_running_loop().time() - self._looked_s >= LOOK_MIN_S

    async def look(self) -> None:
        """Read the map anew, one at a time. Raises RedisError, OSError, TimeoutError."""
        seen = self._looks
        async with self._lock:
            if self._looks != seen:
                return  # who held the lock has just done it
            try:
                async with asyncio.timeout(LOOK_TIMEOUT_S):
                    await self._look()
            except _FAILURES:
                self.known = False
                raise
            finally:
                self._looks += 1
                self._looked_s = asyncio.get_running_loop().time()

    async def _look(self) -> None:
        wrong: Exception | None = None
        for address in self._witnesses():
            try:
                ranges = await self._view(address)
            except _FAILURES as failure:
                wrong = failure
                continue
            self._doubted.clear()
            self.known = True
            await self._take(ranges)
            return
        raise RedisConnectionError("no node of the cluster answers") from wrong

    def _witnesses(self) -> list[Address]:
        """Who is asked for the map: another one each time, those in doubt last."""
        members = self._members
        at = self._looks % len(members) if members else 0
        every = dict.fromkeys((*members[at:], *members[:at], *self._seeds))
        return sorted(every, key=self._doubted.__contains__)[:WITNESSES_MAX]

    async def _view(self, address: Address) -> list[tuple[int, int, list[Address]]]:
        node: Any = self.node(address)
        answer = await node.execute_command("CLUSTER", "SLOTS")
        return [
            (first, last, [_named(member, address) for member in members])
            for first, last, *members in answer
        ]

    async def _take(self, ranges: Iterable[tuple[int, int, list[Address]]]) -> None:
        owners: list[Address | None] = [None] * SLOTS
        members: dict[Address, None] = {}
        for first, last, nodes in ranges:
            owners[first : last + 1] = [nodes[0]] * (last + 1 - first)
            members.update(dict.fromkeys(nodes))
        # A slot that nobody claims stays where it was: its master is away, not its keys.
        owners = [new or old for new, old in zip(owners, self._owners, strict=True)]
        self._members = tuple(members)
        changed, self._owners = owners != self._owners, owners
        if changed:
            self.on_change()
        for gone in self._nodes.keys() - members.keys() - set(owners) - set(self._seeds):
            await self._close(gone)

    async def aclose(self) -> None:
        """Let go of all connections."""
        while self._nodes:
            await self._close(next(iter(self._nodes)))

    async def _close(self, address: Address) -> None:
        caller = self._callers.pop(address, None)
        if caller is not None:
            caller.close()
        client = self._nodes.pop(address)
        await client.aclose()
        await client.connection_pool.disconnect()


def _named(node: Sequence[Any], asked: Address) -> Address:
    """A node of CLUSTER SLOTS; without a name (or with "?") it is reached as the one asked."""
    host = node[0].decode() if node[0] else ""
    return (asked[0] if host in ("", "?") else host), int(node[1])
