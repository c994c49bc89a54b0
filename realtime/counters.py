"""What this node has done since it started, as plain integers that only grow.

Responsible for names and units of realtime's metrics; it must not know how they are exported. Plain
attributes because the fan-out raises some of them per tick: a metrics library's locked counter
costs 0.5 µs, an attribute 0.03 µs.
"""

from collections import Counter


class Counters:
    """Totals of one hub."""

    __slots__ = (
        "bytes_written",
        "closed",
        "drained",
        "entries",
        "failures",
        "frames_encoded",
        "frames_written",
        "gaps",
        "heals",
        "joins",
        "recovered",
        "sampled",
        "shared_recoveries",
        "skipped",
        "slow_ended",
        "snapshots_encoded",
    )

    def __init__(self) -> None:
        self.frames_encoded = 0
        """Shared frames made (one per tick of a room)."""
        self.frames_written = 0
        """Shared frames taken by sockets."""
        self.bytes_written = 0
        """Bytes of shared frames taken by sockets."""
        self.entries = 0
        """Control entries, states and comments put into shared frames."""
        self.skipped = 0
        """Times a congested viewer was left out of a shared frame and began to lag."""
        self.drained = 0
        """Times a lagging viewer was caught up."""
        self.slow_ended = 0
        """Viewers ended because they did not read for too long."""
        self.joins = 0
        self.recovered = 0
        """Joins that were given exactly what they missed instead of a snapshot."""
        self.shared_recoveries = 0
        """Recoveries that another viewer's recovery had already encoded."""
        self.sampled = 0
        """Comments left out of shared frames, each counted once however many viewers there are."""
        self.snapshots_encoded = 0
        self.gaps = 0
        """Batches that did not follow on what the room had."""
        self.heals = 0
        """Loads of a room after a gap, a lost broker connection or a new epoch."""
        self.failures: Counter[str] = Counter()
        """Refused commands by code."""
        self.closed: Counter[int] = Counter()
        """Connections ended by this node, by close code."""
