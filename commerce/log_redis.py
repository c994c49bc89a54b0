"""The gate's log on Valkey or Redis: a stream beside the gate's keys, read in pieces.

Responsible for its bytes: what the scripts append (`lua/gate.lua`, `log`), and turning that into
claims. It must not know where they are kept. The stream's length is bounded by the scripts (4,096
calls of at most 64 presses, some 40 MB at the very most); what is cut off is seen as a gap.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from commerce.claims import Claim, Kind, Logged
from commerce.gate import GateUnavailable, Verdict
from commerce.slot_redis import Home

_FAILURES: Final = (RedisError, OSError, TimeoutError)
_KIND_OF: Final = {Verdict.LAPSED.value: Kind.LAPSED_LIMIT}
_KINDS: Final = frozenset(kind.value for kind in Kind)
_MINE: Final = """#!lua
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_unpack = msgspec.msgpack.Decoder().decode
R = TypeVar("R")


class GateLog:
    """See `commerce.claims.ClaimLog`."""

    def __init__(self, home: Home, key: str) -> None:
        self._home = home
        self._key = key

    async def lease(self, holder: str, ms: int) -> bool:
        """See `ClaimLog.lease`."""
        lease = self._key + ":reader"
        mine = await self._ask(lambda client: client.eval(_MINE, 1, lease, holder, ms))
        return bool(mine)

    async def read(self, limit: int) -> list[Logged]:
        """See `ClaimLog.read`."""
        entries: Any = await self._ask(lambda client: client.xrange(self._key, count=limit))
        return [_logged(id_.decode(), fields) for id_, fields in entries]

    async def forget(self, ids: Sequence[str]) -> None:
        """See `ClaimLog.forget`."""
        if ids:
            await self._ask(lambda client: client.xdel(self._key, *ids))

    async def length(self) -> int:
        """See `ClaimLog.length`."""
        return int(await self._ask(lambda client: client.xlen(self._key)))

    async def _ask(self, call: Callable[[Redis], Awaitable[R]]) -> R:
        try:
            answer = await self._home.ask(call)
        except _FAILURES as error:
            raise GateUnavailable(type(error).__name__) from error
        # The library can lose a cancellation that arrives with the result (before Python 3.12).
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        return answer


def _logged(id_: str, fields: Mapping[bytes, bytes]) -> Logged:
    epoch, first, last, now = _unpack(fields[b"h"])
    script = fields[b"s"].decode()
    if script == "load":
        claims = [_load(epoch, now, _unpack(fields[b"a"])[3])]
    else:
        claims = [_event(epoch, now, note) for note in _rows(_unpack(fields[b"x"]))]
        if fields[b"a"]:
            claims += _presses(epoch, first, now, _unpack(fields[b"a"]), _unpack(fields[b"r"]))
    named = {claim.n for claim in claims}
    claims += [Claim(epoch, n, Kind.OTHER, now) for n in range(first, last + 1) if n not in named]
    return Logged(id_, epoch, first, last, tuple(claims))


def _presses(epoch: int, first: int, now: int, asked: Any, said: Any) -> list[Claim]:
    """Questions and answers of one batch; answers with an older number were given before."""
    presses, node = asked[4], asked[6]
    claims = []
    for press, (verdict, n, sku, number, _until, _at) in zip(presses, said[2], strict=True):
        if n < first:
            continue
        rid, _fingerprint, viewer, drop, what, _price_ok, pressed_at = press
        kind = _KIND_OF.get(verdict) or Kind(verdict)
        claims.append(
            Claim(
                *(epoch, n, kind, now, drop, rid, viewer, _pairs(what)),
                sku=sku or "",
                number=number,
                pressed_at=pressed_at,
                node=node,
            )
        )
    # A rid twice in one batch: the second answer repeats the first.
    return list({claim.n: claim for claim in reversed(claims)}.values())


def _event(epoch: int, now: int, note: Sequence[Any]) -> Claim:
    kind, rid, viewer, drop, what, number, n = note
    known = Kind(kind) if kind in _KINDS else Kind.OTHER
    return Claim(epoch, n, known, now, drop, rid, viewer, _pairs(what), number=number)


def _load(epoch: int, now: int, summary: Any) -> Claim:
    stock, caps, listed = summary
    return Claim(
        *(epoch, 0, Kind.LOADED, now),
        lines=_pairs(stock),
        caps={(drop, sku): units for drop, sku, units in caps},
        listed=frozenset((drop, sku) for drop, sku in listed),
    )


def _pairs(flat: Any) -> tuple[tuple[str, int], ...]:
    flat = _rows(flat)
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def _rows(value: Any) -> list[Any]:
    """Lua has one empty table for a list and for a map."""
    return list(value) if value else []
