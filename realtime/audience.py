"""The port to who is watching: viewers now and at most, over all nodes.

It must not know rooms, sockets or what is done with the numbers. Counts per node, not a list of
viewers: lists and join events die at scale everywhere (Twitch stops them at 1,000 in a room), while
one number per node and room every few seconds costs the same for 10 viewers and for 100,000. A node
that stops reporting takes its viewers with it after `STALE_S`.
"""

from typing import Final, NamedTuple, Protocol

REPORT_S: Final = 2.0
"""How often a node reports a room."""
STALE_S: Final = 10.0
"""Without a report for so long, a node's viewers are gone."""


class Viewers(NamedTuple):
    """Connections over all nodes; one person with two windows is two."""

    now: int
    peak: int


class Audience(Protocol):
    """Counts viewers across nodes."""

    async def report(self, room: str, node: str, viewers: int) -> Viewers:
        """This node has so many in `room`; what all have. Raises BrokerUnavailable."""
