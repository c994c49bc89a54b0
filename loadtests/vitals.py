"""What a process costs, read from the kernel: CPU time, resident memory, the machine's load.

Responsible for /proc and nothing else. CPU is user and system time of the process itself, not of
its children (Valkey is a process of its own), in clock ticks of 10 ms: measure over a second or
more.
"""

import math
import os
import resource
from collections.abc import Sequence
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time since it started."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Resident memory, as the kernel counts it exactly (not the rounded one of `statm`)."""
    found: dict[str, int] = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if rest.strip().endswith("kB"):
                found[name] = int(rest.split()[0]) * 1024
    return found["Rss"]


def load_average() -> float:
    """Processes that want to run, over the last minute: others on this machine disturb figures."""
    return round(os.getloadavg()[0], 1)


def raise_file_limit() -> int:
    """As many open files as this process is allowed; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` percent do not exceed; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]
