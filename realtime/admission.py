"""Who may come in now, who in a moment, and who later: the pace of joins and the size of a node.

Responsible for three bounds: connections of a node, joins a second of one room, joins a second of
one address. Pure arithmetic on a clock that is handed in; it must not know sockets, headers (whose
address it is) or what a join does.

A pace here is a schedule, not a bucket that says no: a join is given the next free place. If that
place is near, the join waits for it on its own connection, so a small burst is only smoothed. If it
is far, the join is refused with the time at which a place will be free, and the *next* one that is
refused is told a later time. So of a storm everybody comes back once, spread at exactly the pace
that the node can serve, instead of all again after the same second. A join costs a node about
0.3 ms; at 500 a second a room of 15,000 is back within 30 s and the loop keeps half of its time for
Buy.

The address bound is against one machine that opens thousands, not against a household or a mobile
network behind one address, hence its long burst. IPv6 counts by /64, which is what one customer
gets. A loopback address is a tool or a proxy on this machine and stands for everybody: no bound.
"""

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

WAIT_MAX_MS: Final = 2_000
"""How long a join may wait for its place on the connection. Well below the deadline of a join."""
HINT_MAX_MS: Final = 60_000
"""The furthest time that a refused one is told."""
ADDRESSES_MAX: Final = 50_000
"""Addresses remembered at once. They are forgotten when their burst has filled up again."""
ADDRESS_CHARS_MAX: Final = 64
UNKNOWN: Final = "?"
"""All whose address cannot be told share one pace."""
ROOM_BURST_S: Final = 1
ADDRESS_BURST_S: Final = 5
_MICRO: Final = 1_000


@dataclass(frozen=True, slots=True)
class JoinLimits:
    """Joins per second, each at least 1."""

    room_per_s: int = 500
    address_per_s: int = 20


class Schedule:
    """Places at a fixed pace, after a burst. Times in milliseconds; microseconds inside."""

    __slots__ = ("_burst", "_gap", "_hint", "_next")

    def __init__(self, per_s: int, burst: int) -> None:
        self._gap = 1_000_000 // per_s
        self._burst = (burst - 1) * self._gap
        self._next = 0
        """When the place after the last one taken is, if there were no burst."""
        self._hint = 0

    def wait_ms(self, now_ms: int) -> int:
        """Until the next free place; 0: there is one now. Takes nothing."""
        return max(0, -(-(self._next - self._burst - now_ms * _MICRO) // _MICRO))

    def take(self, now_ms: int) -> None:
        """Take the next free place."""
        self._next = max(self._next, now_ms * _MICRO) + self._gap

    def later_ms(self, now_ms: int) -> int:
        """When to come instead, for one who was refused; each is told a later time."""
        free = max(self._next - self._burst, now_ms * _MICRO)
        self._hint = max(self._hint, free) + self._gap
        told = (self._hint - now_ms * _MICRO) // _MICRO
        if told > HINT_MAX_MS:  # more are waiting than can be told apart: begin anew
            self._hint = free
        return min(HINT_MAX_MS, max(1, told))

    def idle(self, now_ms: int) -> bool:
        """Nothing is remembered that a new schedule would not say as well."""
        return max(self._next, self._hint) <= now_ms * _MICRO


@dataclass(frozen=True, slots=True)
class Verdict:
    """`admitted` after `wait_ms`, or not, and then `wait_ms` is when to try again."""

    admitted: bool
    wait_ms: int


_NOW: Final = Verdict(True, 0)


class Admission:
    """The bounds of one node. `limits` None: joins are not paced (benches)."""

    def __init__(self, *, connections_max: int, limits: JoinLimits | None = JoinLimits()) -> None:
        self.connections_max = connections_max
        self.waited = self.refused = self.turned_away = 0
        """Joins that waited for their place; that were refused; connections over the maximum."""
        self._limits = limits
        self._rooms: dict[str, Schedule] = {}
        self._addresses: dict[str, Schedule] = {}

    def full(self, connections: int) -> bool:
        """Whether one more connection is too many; counts the ones that were."""
        full = connections >= self.connections_max
        self.turned_away += full
        return full

    def join(self, room: str, address: str, now_ms: int) -> Verdict:
        """Whether a join of `room` from `address` may go on, and when. Takes a place if it may.

        `room` is one that exists, or the rooms would grow with whatever strangers ask for.
        """
        if self._limits is None:
            return _NOW
        schedules = [self._room(room, self._limits, now_ms)]
        key = address_key(address)
        if key:
            schedules.append(self._address(key, self._limits, now_ms))
        waits = [schedule.wait_ms(now_ms) for schedule in schedules]
        longest = max(waits)
        if longest > WAIT_MAX_MS:
            self.refused += 1
            return Verdict(False, schedules[waits.index(longest)].later_ms(now_ms))
        for schedule in schedules:
            schedule.take(now_ms)
        self.waited += longest > 0
        return Verdict(True, longest) if longest else _NOW

    def _room(self, room: str, limits: JoinLimits, now_ms: int) -> Schedule:
        found = self._rooms.get(room)
        if found is None:
            _forget_idle(self._rooms, now_ms)
            found = Schedule(limits.room_per_s, limits.room_per_s * ROOM_BURST_S)
            self._rooms[room] = found
        return found

    def _address(self, key: str, limits: JoinLimits, now_ms: int) -> Schedule:
        found = self._addresses.get(key)
        if found is None:
            if len(self._addresses) >= ADDRESSES_MAX:
                _forget_idle(self._addresses, now_ms)
            if len(self._addresses) >= ADDRESSES_MAX:
                return self._addresses[UNKNOWN]
            if UNKNOWN not in self._addresses:
                self._addresses[UNKNOWN] = _of_address(limits)
            found = self._addresses.setdefault(key, _of_address(limits))
        return found


def _of_address(limits: JoinLimits) -> Schedule:
    return Schedule(limits.address_per_s, limits.address_per_s * ADDRESS_BURST_S)


def _forget_idle(schedules: dict[str, Schedule], now_ms: int) -> None:
    idle = [key for key, one in schedules.items() if key != UNKNOWN and one.idle(now_ms)]
    for key in idle:
        del schedules[key]


@lru_cache(maxsize=4096)
def address_key(address: str) -> str:
    """What an address is counted under: itself, an IPv6's /64; "" for loopback: no bound."""
    if len(address) > ADDRESS_CHARS_MAX:
        return UNKNOWN
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return UNKNOWN
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            if found.is_loopback:
                return ""
            return str(ipaddress.ip_network((found, 64), strict=False))
        found = found.ipv4_mapped
    return "" if found.is_loopback else str(found)
