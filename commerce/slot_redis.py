"""The master of a cluster that has the gate: all keys of a shop lie in one slot.

Responsible for finding the owner of that slot and for following the slot when it moves. It must not
know the gate's scripts, nor decide what happens while nobody has the slot.

redis-py's cluster client would repeat calls by itself, load each script on every master (so that
any dead one keeps the gate away), and close all pools when the cluster is in doubt. A gate needs
one address. Rooms have a map of all slots for themselves (`realtime/cluster_redis.py`); the two
share no code because rooms and trade share none, and no pool because a wild chat must not take the
connections of Buy.

Only MOVED makes a call go out again: it was not done. A slot that is being moved key by key answers
ASK or TRYAGAIN; then the gate is away for that while and the record decides. The engine process is
another one afterwards, so the gate is loaded anew there.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, MovedError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

MOVES_MAX: Final = 4
ASKED_MAX: Final = 8
"""Nodes asked who owns the slot, in one go."""
FIND_S: Final = 2.0
PORT: Final = 6379
SCHEMES: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_LOST: Final = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)

R = TypeVar("R")


class Home(Protocol):
    """Where the gate's keys are."""

    async def ask(self, call: Callable[[Redis], Awaitable[R]]) -> R:
        """What `call` returns. Raises what it raises."""

    async def aclose(self) -> None:
        """Let go of all connections."""


class Line(Protocol):
    """Commands to one engine over one connection, sent at once and answered in order."""

    async def call(self, *command: str | bytes | int | float) -> Any:
        """The answer. Raises what redis-py would."""

    def close(self) -> None:
        """Let go of the connection; it may be used again."""


class WithLine:
    """A client whose scripts go over a line of their own; for all else it is the client.

    Through the pool a script waits for five turns of the event loop (a lock, a task that sends, a
    stream that reads) and costs 0.5 ms, over a line one turn and 0.2. With a crowd in the room a
    turn takes some ms, and each batch of presses asks twice.
    """

    def __init__(self, client: Redis, line: Line) -> None:
        self._client = client
        self._line = line

    async def evalsha(self, sha: str, keys: int, *words: str | bytes | int | float) -> Any:
        """EVALSHA"""
        return await self._line.call("EVALSHA", sha, keys, *words)

    async def script_load(self, text: str) -> str:
        """SCRIPT LOAD"""
        return cast("str", (await self._line.call("SCRIPT", "LOAD", text)).decode())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def aclose(self) -> None:
        """Let go of the line and of the pool."""
        self._line.close()
        await self._client.aclose()


class OneEngine:
    """An engine without a cluster."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def ask(self, call: Callable[[Redis], Awaitable[R]]) -> R:
        """See `Home.ask`."""
        return await call(self._client)

    async def aclose(self) -> None:
        """Let go of all connections."""
        await self._client.aclose()


class SlotOwner:
    """Whichever master owns the slot of `key`. Connects on first use."""

    def __init__(self, urls: list[str], key: str, connect: Callable[[str], Redis]) -> None:
        """`urls`: some nodes of the cluster; `connect` gives a client that repeats nothing."""
        self._seeds = urls
        self._slot = key_slot(key.encode())
        self._connect = connect
        self._url: str | None = None
        self._clients: dict[str, Redis] = {}
        self._others: list[str] = []
        self._finding = asyncio.Lock()

    async def ask(self, call: Callable[[Redis], Awaitable[R]]) -> R:
        """See `Home.ask`. `call` may be made again, when a node says that the slot has moved."""
        for _ in range(MOVES_MAX):
            url = self._url or await self._find()
            try:
                return await call(self._client(url))
            except MovedError as moved:
                parts = urlsplit(url)
                host = moved.host or parts.hostname or ""
                self._url = _at(url, host, moved.port)
            except (*_LOST, ClusterDownError):
                if self._url == url:
                    self._url = None  # the next call looks whether another one has the slot
                raise
        raise ClusterDownError("the slot moves and moves")

    async def aclose(self) -> None:
        """Let go of all connections."""
        while self._clients:
            client = self._clients.popitem()[1]
            await client.aclose()
            await client.connection_pool.disconnect()

    def _client(self, url: str) -> Redis:
        client = self._clients.get(url)
        if client is None:
            client = self._clients[url] = self._connect(url)
        return client

    async def _find(self) -> str:
        async with self._finding:
            if self._url is None:
                async with asyncio.timeout(FIND_S):
                    self._url = await self._find_owner()
            return self._url

    async def _find_owner(self) -> str:
        wrong: Exception | None = None
        for url in list(dict.fromkeys((*self._others, *self._seeds)))[:ASKED_MAX]:
            try:
                client: Any = self._client(url)
                ranges = await client.execute_command("CLUSTER", "SLOTS")
            except (RedisError, OSError, TimeoutError) as failure:
                wrong = failure
                self._last(url)
                continue
            parts = urlsplit(url)
            named = {
                _at(url, node[0].decode() if node[0] else parts.hostname or "", node[1]): first
                <= self._slot
                <= last
                for first, last, node, *_ in ranges
            }
            self._others = [other for other, owns in named.items() if not owns]
            owners = [other for other, owns in named.items() if owns]
            if owners:
                return owners[0]
            wrong = ClusterDownError("nobody owns the slot")
        raise RedisConnectionError("no node of the cluster answers") from wrong

    def _last(self, url: str) -> None:
        """Who does not answer is asked last from now on."""
        self._seeds = [*(seed for seed in self._seeds if seed != url), url]
        self._others = [other for other in self._others if other != url]


def node_urls(url: str) -> list[str]:
    """The nodes that `redis+cluster://[user@]host:port,host:port/` names, as redis:// URLs.

    Raises ValueError.
    """
    parts = urlsplit(url)
    scheme = SCHEMES.get(parts.scheme, parts.scheme)
    user, at, hosts = parts.netloc.rpartition("@")
    query = f"?{parts.query}" if parts.query else ""
    urls = [f"{scheme}://{user}{at}{host}/{query}" for host in hosts.split(",") if host]
    if scheme not in SCHEMES.values() or not urls:
        raise ValueError("a cluster is at redis+cluster://host:port,host:port")
    return urls


def is_cluster_url(url: str) -> bool:
    """Whether the scheme says so."""
    return urlsplit(url).scheme in SCHEMES


def _at(url: str, host: str, port: int) -> str:
    """`url` with another host and port."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    shown = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=f"{user}{at}{shown}:{port}").geturl()
