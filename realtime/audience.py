"""The port to who is watching, over all nodes: viewers now, at most, and how many different ones.

It must not know rooms, sockets or what is done with the numbers. Counts per node, not a list of
viewers: lists and join events die at scale everywhere (Twitch stops them at 1,000 in a room), while
one number per node and room every few seconds costs the same for 10 viewers and for 100,000. A node
that stops reporting takes its viewers with it after `STALE_S`.

Different viewers are counted by a HyperLogLog: 12 KiB a room at most, a standard error of 0.81 %,
and the same viewer on two nodes, in two windows or after ten reconnects is one. A list of them
would be exact, and 100,000 names in memory.

The pace of each node rides on the same report: what consoles are shown is the slowest node's.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

REPORT_S: Final = 2.0
"""How often a node reports a room."""
STALE_S: Final = 10.0
"""Without a report for so long, a node's viewers are gone."""
NEWCOMERS_MAX: Final = 1_000
"""Viewers in one report; of more, report again. Valkey takes 0.1 ms for them."""


class Share(NamedTuple):
    """What one node has in a room."""

    viewers: int
    """Connections; one person with two windows is two."""
    newcomers: Sequence[str]
    """Ids of viewers that have come since the last report, at most NEWCOMERS_MAX."""
    step: int
    tick_ms: int


class Whole(NamedTuple):
    """What all nodes have in a room."""

    now: int
    peak: int
    unique: int
    """Different viewers ever, about."""
    step: int
    """The highest of all nodes."""
    tick_ms: int
    """The longest of all nodes."""


class Audience(Protocol):
    """Counts viewers across nodes."""

    async def report(self, room: str, node: str, share: Share) -> Whole:
        """`node` has `share` in `room`; what all have. Raises BrokerUnavailable."""
