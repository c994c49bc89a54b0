"""Asks a Valkey or Redis what `doctor` wants to know; changes nothing there.

Responsible for the facts and for turning every failure into `ProbeFailed`. It must not judge. A
managed server may refuse CONFIG: what it will not say is None. In a cluster every master is asked,
since each keeps the stock of its own slots: one that forgets at a restart or evicts keys would not
be seen from another one. Replicas are not asked; they hold nothing of their own.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from live.doctor import Answers, ProbeFailed, Timing, ValkeyFacts, Version
from realtime.cluster_redis import Address, ClusterUrl, is_cluster_url

PINGS: Final = 20
TIMEOUT_S: Final = 3.0
"""For each answer; the whole probe may take PROBE_TIMEOUT_S."""
PROBE_TIMEOUT_S: Final = 15.0
ASKED_AT_ONCE: Final = 8
"""Masters: enough that fifty of them take a few seconds, few enough that delays are theirs."""


async def probe_all(url: str, *, clock: Callable[[], int]) -> Answers:
    """What each master says, by its address; of a single server just its own. Raises ProbeFailed.

    A master that does not answer is in it with the reason. `clock` gives milliseconds.
    """
    if not is_cluster_url(url):
        first = await probe(url, clock=clock)
        if not first.cluster:
            return {"": first}
    try:
        where = ClusterUrl.parse(url)
    except ValueError as error:
        raise ProbeFailed(f"the URL makes no sense: {error}") from error
    masters = await _masters(where)
    turn = asyncio.Semaphore(ASKED_AT_ONCE)

    async def ask(address: Address) -> ValkeyFacts | ProbeFailed:
        async with turn:
            try:
                return await probe(where.of(address), clock=clock)
            except ProbeFailed as error:
                return error

    answers = await asyncio.gather(*map(ask, masters))
    return {_named(address): answer for address, answer in zip(masters, answers, strict=True)}


async def _masters(where: ClusterUrl) -> list[Address]:
    """Who has slots, as the first node that answers sees it; that node when nobody has any."""
    wrong: ProbeFailed | None = None
    for seed in where.seeds:
        try:
            async with _client(where.of(seed)) as client:
                ranges = await client.execute_command(  # type: ignore[no-untyped-call]
                    "CLUSTER", "SLOTS"
                )
        except ProbeFailed as error:
            wrong = error
            continue
        found = {
            (seed[0] if host in (None, "", "?") else str(host), int(port))
            for _first, _last, (host, port, *_), *_replicas in ranges
        }
        return sorted(found) or [seed]
    raise ProbeFailed(f"no node of the cluster: {wrong}") from wrong


async def probe(url: str, *, clock: Callable[[], int]) -> ValkeyFacts:
    """Facts about the server at `url`. `clock` gives milliseconds. Raises ProbeFailed."""
    async with _client(url) as client:
        return await _facts(client, clock)


@contextlib.asynccontextmanager
async def _client(url: str) -> AsyncIterator[Redis]:
    """Bounded in time and without repeats. Raises ProbeFailed for whatever goes wrong in it."""
    try:
        client: Redis = Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise ProbeFailed(f"the URL makes no sense: {error}") from error
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S), client:
            yield client
    except (RedisError, OSError, TimeoutError) as error:
        raise ProbeFailed(f"no answer: {str(error) or type(error).__name__}") from error


async def _facts(client: Redis, clock: Callable[[], int]) -> ValkeyFacts:
    info: dict[str, Any] = await client.info("everything")
    cluster = bool(info.get("cluster_enabled"))
    memory_max = await _setting(client, "maxmemory")
    valkey = info.get("server_name") == "valkey" or "valkey_version" in info
    return ValkeyFacts(
        server="Valkey" if valkey else "Redis",
        version=_version(str(info.get("valkey_version") or info.get("redis_version", "0"))),
        role=str(info.get("role", "unknown")),
        timing=await _timing(client, clock),
        cluster=cluster,
        cluster_ok=cluster and await _cluster_ok(client),
        append_only=bool(info.get("aof_enabled")),
        append_ok=info.get("aof_last_write_status", "ok") == "ok",
        append_sync=await _setting(client, "appendfsync"),
        eviction=await _setting(client, "maxmemory-policy") or info.get("maxmemory_policy"),
        memory_used=int(info.get("used_memory", 0)),
        memory_max=int(memory_max) if memory_max is not None else info.get("maxmemory"),
    )


async def _timing(client: Redis, clock: Callable[[], int]) -> Timing:
    """The clock is compared in the middle of the fastest trip: there the error is smallest."""
    trips_ms = []
    best_ms, skew_ms = float("inf"), 0.0
    for _ in range(PINGS):
        sent_ms, since = clock(), time.perf_counter()
        seconds, microseconds = await client.time()
        trip_ms = (time.perf_counter() - since) * 1000
        trips_ms.append(trip_ms)
        if trip_ms < best_ms:
            best_ms = trip_ms
            skew_ms = seconds * 1000 + microseconds / 1000 - (sent_ms + trip_ms / 2)
    return Timing(statistics.median(trips_ms), max(trips_ms), round(skew_ms))


async def _setting(client: Redis, name: str) -> str | None:
    try:
        return (await client.config_get(name)).get(name)
    except ResponseError:  # forbidden or renamed
        return None


async def _cluster_ok(client: Redis) -> bool:
    answer = await client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
    return isinstance(answer, dict) and answer.get("cluster_state") == "ok"


def _version(text: str) -> Version:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdecimal())


def _named(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
