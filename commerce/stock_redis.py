"""The gate on Valkey or Redis: counters and open reservations, decided by Lua in one step.

Responsible for the scripts of `commerce/lua`, their keys and bytes, and for loading an image. It
must not know SQL nor decide what to do when an answer is missing.

Keys of one shop share a hash tag, so any basket is one script on one slot. On a cluster the gate is
on the master that owns it (`slot_redis`) and stands and falls with that master; a slot that moves
or a replica that is promoted is another engine process, so the gate is loaded anew:

    cfg     n, engine, epoch          rsv     rid → a reservation
    stock   sku → units available     orphan  rid by the time an unmarked win is taken back
    drops   drop → times, limits      used    drop, viewer, sku → units
    lines   drop, sku → units left    open    viewer → open holds
    in      sku → its open drop       ended   rid by the time it ended · ops: refs by time
    log     what was numbered and is not yet in the record (`log_redis`)
    wait    rid → one who waits       queue   drop, sku, place, rid as text, in that order
    offered rid by time: served out of the queue, and the record has not heard

A call for 64 presses costs about what two single ones cost, so everything takes lists. The client
library must not repeat a call by itself behind our back; every script may safely be repeated, so a
call is repeated here, once: a pooled connection may be dead, an answer may come just too late.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import astuple
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self, cast

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from commerce.gate import (
    NEVER_MS,
    ORPHAN_AFTER_MS,
    RECENT_MS,
    Ask,
    Change,
    Decision,
    End,
    Entry,
    Fenced,
    GateUnavailable,
    Image,
    Numbers,
    Offer,
    Orphan,
    Stale,
    Verdict,
    Waiting,
)
from commerce.hold_rule import DEFAULT_RULE, HOLD_MS_MIN, HoldRule
from commerce.log_redis import GateLog
from commerce.slot_redis import (
    Home,
    Line,
    OneEngine,
    SlotOwner,
    WithLine,
    is_cluster_url,
    node_urls,
)
from commerce.stock import OPEN_HOLDS_MAX, VERSION_BITS, Drop, Level, Levels

logger = logging.getLogger(__name__)

ANSWER_WAIT_S: Final = 2.0
"""A script takes below a millisecond; whoever needs two seconds, twice, is not there."""
CONNECTIONS_MAX: Final = 8
CHUNK: Final = 1_000
"""Fields per command while an image is staged."""
STAGED_S: Final = 60
"""A staged image that nobody took over disappears."""
OPS_KEEP_MS: Final = 86_400_000
TRIM_MAX: Final = 500

_KEYS: Final = ("cfg", "stock", "drops", "lines", "in", "rsv", "orphan", "used", "open", "ended")
_KEYS_ALL: Final = (*_KEYS, "ops", "queue", "wait", "offered")
_SORTED: Final = frozenset({"orphan", "ended", "ops", "queue", "offered"})
_READ_ONLY: Final = frozenset({"levels", "orphans", "epoch", "numbers"})
_SCRIPTS: Final = (
    *("reserve", "mark", "release", "adjust", "close_drops", "trim", "load"),
    *("enqueue", "dequeue", "offers"),
    *sorted(_READ_ONLY),
)
_SEP: Final = "\x1f"
_FOLDER: Final = Path(__file__).parent / "lua"
_NOT_NOW: Final = (
    *(OutOfMemoryError, ReadOnlyError),
    *(ClusterDownError, MovedError, AskError, TryAgainError),
)
_LOST: Final = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)
_FAILURES: Final = (RedisError, OSError, TimeoutError)

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class RedisGate:
    """The gate on an engine. `shop` names its keys, so that several shops may share one."""

    def __init__(
        self, home: Home, *, shop: str = "shop", node: str = "", rule: HoldRule = DEFAULT_RULE
    ) -> None:
        self._home = home
        self._prefix = _prefix(shop)
        self._keys = [self._prefix + name for name in _KEYS_ALL]
        self._log_key = self._prefix + "log"
        self.log = GateLog(home, self._log_key)
        """What it decided and the record has not stored yet."""
        self._node = node
        self._rule = _rule(rule)
        self._limits = (OPEN_HOLDS_MAX, self._rule)
        self._text = _scripts()
        self._sha: dict[str, str] = {}

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        cluster: bool = False,
        wait_s: float = ANSWER_WAIT_S,
        node: str = "",
        rule: HoldRule = DEFAULT_RULE,
        line: Callable[[Redis], Line] | None = None,
    ) -> Self:
        """A gate at `redis://host:port/0` or `unix:///path`; it connects at the first call.

        `redis+cluster://host:port,host:port` (rediss too, with TLS) names nodes of a cluster;
        `cluster` makes that of a redis:// one. `node` stands in the log beside what this node
        asked. `line` opens a shorter way for the scripts to where a client leads; without one they
        go through the client. Raises ValueError for an URL without sense.
        """

        def connect(url: str) -> Redis:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS_MAX,
                timeout=wait_s,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=wait_s,
                socket_connect_timeout=wait_s,
                protocol=2,
            )
            client = Redis.from_pool(pool)
            return client if line is None else cast("Redis", WithLine(client, line(client)))

        if cluster or is_cluster_url(url):
            return cls(SlotOwner(node_urls(url), _prefix("shop"), connect), node=node, rule=rule)
        return cls(OneEngine(connect(url)), node=node, rule=rule)

    async def close(self) -> None:
        """Closes the connections."""
        await self._home.aclose()

    async def reserve(
        self, epoch: int, asks: Sequence[Ask], now: int
    ) -> tuple[list[Decision], Levels]:
        """See `Gate.reserve`."""
        presses = [
            (
                ask.rid,
                ask.fingerprint,
                ask.viewer,
                ask.drop,
                _flat(ask.lines),
                ask.price_ok,
                ask.pressed_at,
            )
            for ask in asks
        ]
        limits = (OPEN_HOLDS_MAX, ORPHAN_AFTER_MS)
        levels, rows = await self._run(
            "reserve", epoch, now, *limits, presses, self._rule, self._node
        )
        return [_decision(epoch, row) for row in rows], levels

    async def mark(self, epoch: int, rids: Sequence[str], now: int) -> None:
        """See `Gate.mark`."""
        await self._run("mark", epoch, now, list(rids))

    async def release(self, epoch: int, ends: Sequence[tuple[str, End]], now: int) -> Levels:
        """See `Gate.release`."""
        rows = [(rid, how) for rid, how in ends]
        return (await self._run("release", epoch, now, rows, self._limits))[0]

    async def adjust(self, epoch: int, changes: Sequence[Change], now: int) -> Levels:
        """See `Gate.adjust`."""
        rows = [(change.ref, change.sku, change.delta) for change in changes]
        return (await self._run("adjust", epoch, now, rows, OPS_KEEP_MS, self._limits))[0]

    async def close_drops(self, epoch: int, drops: Sequence[str], now: int) -> Levels:
        """See `Gate.close_drops`."""
        return (await self._run("close_drops", epoch, now, list(drops)))[0]

    async def enqueue(self, epoch: int, waiting: Sequence[Waiting], now: int) -> Levels:
        """See `Gate.enqueue`."""
        rows = [astuple(one) for one in waiting]
        return (await self._run("enqueue", epoch, now, rows, self._limits))[0]

    async def dequeue(self, epoch: int, rids: Sequence[str], now: int) -> Levels:
        """See `Gate.dequeue`."""
        return (await self._run("dequeue", epoch, now, list(rids), self._limits))[0]

    async def offers(self, epoch: int, now: int, limit: int) -> tuple[list[Offer], Levels]:
        """See `Gate.offers`."""
        levels, rows = await self._run("offers", epoch, now, limit, self._limits)
        return [Offer(*row) for row in rows], levels

    async def levels(self, epoch: int, skus: Sequence[str] | None, now: int) -> tuple[int, Levels]:
        """See `Gate.levels`."""
        wanted = False if skus is None else list(skus)
        version, levels, _rest = await self._ask("levels", epoch, now, wanted)
        return version, levels

    async def numbers(self, epoch: int, skus: Sequence[str], now: int) -> Numbers:
        """See `Gate.numbers`."""
        version, _levels, rows = await self._ask("numbers", epoch, now, list(skus))
        stock = dict(zip(rows[1::2], rows[2::2], strict=True))
        return Numbers(epoch, version, rows[0], stock)

    async def orphans(self, epoch: int, now: int, limit: int) -> list[Orphan]:
        """See `Gate.orphans`."""
        _levels, rows = await self._run("orphans", epoch, now, limit)
        return [
            Orphan(rid, fingerprint, viewer, drop, epoch, n, until_ms, at)
            for rid, fingerprint, viewer, drop, n, until_ms, at in rows
        ]

    async def trim(self, epoch: int, now: int) -> int:
        """See `Gate.trim`."""
        _levels, rows = await self._run("trim", epoch, now, now - RECENT_MS, TRIM_MAX)
        return cast("int", rows[0])

    async def epoch(self) -> int | None:
        """See `Gate.epoch`."""
        stored, same_engine = _unpack(await self._script("epoch", self._keys, [0, 0]))
        return stored if same_engine and stored > 0 else None

    async def load(self, epoch: int, image: Image, now: int) -> None:
        """See `Gate.load`. Staged in pieces beside the live keys, then taken over in one step."""
        staged = [f"{self._prefix}new:{epoch}:{name}" for name in _KEYS_ALL[1:]]
        content = _content(image, now)
        sizes = [len(content[name]) for name in _KEYS_ALL[1:]]
        async with _answers():
            keys = dict(zip(_KEYS_ALL[1:], staged, strict=True))
            await self._home.ask(lambda client: _stage(client, keys, content))
        _stop_if_cancelled()
        reply = await self._script(
            "load", self._keys + staged, [epoch, now, sizes, _summary(image)]
        )
        verdict, stored = _unpack(reply)
        if verdict == "stale":
            raise Stale(stored)
        if verdict != "ok":
            raise GateUnavailable

    async def _run(
        self, name: str, epoch: int, now: int, *rest: object
    ) -> tuple[Levels, list[Any]]:
        _version, levels, rows = await self._ask(name, epoch, now, *rest)
        return levels, rows

    async def _ask(
        self, name: str, epoch: int, now: int, *rest: object
    ) -> tuple[int, Levels, list[Any]]:
        answer = _unpack(await self._script(name, self._keys, [epoch, now, *rest]))
        if answer is False:
            raise Fenced
        n, flat, rows = answer
        version = epoch << VERSION_BITS | n
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return version, {sku: Level(units, version) for sku, units in pairs}, rows

    async def _script(self, name: str, keys: Sequence[str], arguments: list[object]) -> bytes:
        packed = _pack(arguments)
        try:
            return await self._evaluate(name, keys, packed)
        except _LOST:
            # Perhaps the engine has gone and come back, perhaps this node was stalled.
            async with _answers():
                return await self._evaluate(name, keys, packed)
        except _FAILURES as error:
            raise _unavailable(error) from error

    async def _evaluate(self, name: str, keys: Sequence[str], packed: bytes) -> bytes:
        keys = [*keys, self._log_key]
        return await self._home.ask(lambda client: self._evaluate_at(client, name, keys, packed))

    async def _evaluate_at(
        self, client: Any, name: str, keys: Sequence[str], packed: bytes
    ) -> bytes:
        reply = None
        if (sha := self._sha.get(name)) is not None:
            # A restarted engine has forgotten its scripts.
            with suppress(NoScriptError):
                reply = await client.evalsha(sha, len(keys), *keys, packed)
        if reply is None:
            self._sha[name] = sha = await client.script_load(self._text[name])
            reply = await client.evalsha(sha, len(keys), *keys, packed)
        _stop_if_cancelled()
        return cast("bytes", reply)


async def _stage(
    client: Redis, keys: Mapping[str, str], content: Mapping[str, Mapping[str, bytes | int]]
) -> None:
    pipe: Any = client.pipeline(transaction=False)
    pipe.delete(*keys.values())
    for name, fields in content.items():
        for piece in _pieces(fields):
            if name in _SORTED:
                pipe.zadd(keys[name], piece)
            else:
                pipe.hset(keys[name], mapping=piece)
        if fields:
            pipe.expire(keys[name], STAGED_S)
    await pipe.execute()


def _prefix(shop: str) -> str:
    return f"vitrine:{{stock:{shop}}}:"


@asynccontextmanager
async def _answers() -> AsyncIterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise _unavailable(error) from error


def _stop_if_cancelled() -> None:
    """The library sends through `asyncio.wait_for`, which before Python 3.12 loses a cancellation
    that arrives with the result; a loop would then run on for ever."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _unavailable(error: Exception) -> GateUnavailable:
    if isinstance(error, ResponseError) and not isinstance(error, _NOT_NOW):
        # Full disk, missing rights, a fault in a script: worth a line, and no reason to stop.
        logger.error("the gate's engine refused a script: %s", str(error)[:200])
    return GateUnavailable(type(error).__name__)


@cache
def _scripts() -> dict[str, str]:
    shared = (_FOLDER / "gate.lua").read_text()
    texts = {}
    for name in _SCRIPTS:
        flags = " flags=no-writes" if name in _READ_ONLY else ""
        head = f"#!lua{flags}\nlocal SCRIPT = '{name}'"
        texts[name] = f"{head}\n{shared}\n{(_FOLDER / name).with_suffix('.lua').read_text()}"
    return texts


def _flat(pairs: Iterable[tuple[str, int]]) -> list[str | int]:
    return [value for pair in pairs for value in pair]


def _decision(epoch: int, row: Sequence[Any]) -> Decision:
    verdict, n, sku, number, until_ms, at = row
    return Decision(Verdict(verdict), epoch, n, sku or None, number, until_ms, at)


def _content(image: Image, now: int) -> dict[str, dict[str, bytes | int]]:
    """The image as fields by key; `drops` also say which SKU is in which open drop."""
    content: dict[str, dict[str, bytes | int]] = {name: {} for name in _KEYS_ALL[1:]}
    content["stock"].update(image.stock)
    for drop in image.drops:
        content["drops"][drop.id] = _drop(drop)
    for (drop_id, sku), units in image.left.items():
        content["lines"][drop_id + _SEP + sku] = b"" if units is None else units
        content["in"][sku] = drop_id.encode()
    for (drop_id, viewer, sku), units in image.used.items():
        content["used"][drop_id + _SEP + viewer + _SEP + sku] = units
    for entry in image.entries:
        content["rsv"][entry.rid] = _entry(entry)
        if entry.ended is None:
            content["open"][entry.viewer] = int(content["open"].get(entry.viewer, 0)) + 1
        else:
            content["ended"][entry.rid] = entry.ended
    for viewer, times in image.lapses.items():
        content["open"][_SEP + viewer] = _pack(list(times))
    for ref, sku in image.changes:
        content["ops"][ref + _SEP + sku] = now
    for one in image.waiting:
        member = _SEP.join((one.drop, one.sku, f"{one.place:016d}", one.rid))
        content["queue"][member] = 0
        who = (one.fingerprint, one.viewer, one.quantity, one.drop, one.sku, member)
        content["wait"][one.rid] = _pack(who)
    return content


def _summary(image: Image) -> tuple[list[str | int], list[tuple[str, str, int]], list[Any]]:
    """What the log keeps of an image: units, what capped drops may still sell, what has a list."""
    caps = [(drop, sku, units) for (drop, sku), units in image.left.items() if units is not None]
    listed = sorted({(one.drop, one.sku) for one in image.waiting})
    return _flat(image.stock.items()), caps, listed


def _rule(rule: HoldRule) -> list[object]:
    steps = [(step.lapses, step.percent, step.holds) for step in rule.steps]
    return [rule.window_ms, HOLD_MS_MIN, *steps]


def _drop(drop: Drop) -> bytes:
    return _pack(
        (
            NEVER_MS if drop.undrawn else drop.opens_at,
            drop.closes_at or 0,
            drop.closed_at is not None,
            drop.hold_s * 1000,
            drop.per_viewer or 0,
            [line.sku for line in drop.lines],
        )
    )


def _entry(entry: Entry) -> bytes:
    state = "M" if entry.ended is None else "P" if entry.sold else "X"
    what = _flat(entry.lines)
    return _pack((entry.fingerprint, state, entry.viewer, entry.drop, what, entry.until_ms, 0, 0))


def _pieces(
    fields: Mapping[str, bytes | int],
) -> Iterator[dict[str, bytes | int]]:
    rest = iter(fields.items())
    while piece := dict(islice(rest, CHUNK)):
        yield piece
