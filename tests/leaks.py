"""What a test must not leave behind: child processes and asyncio tasks.

Both get a short grace, because ending takes a moment (a reaped process, a cancelled task's last
step); the grace is spent only when something is there.
"""

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

GRACE_S = 2.0
POLL_S = 0.01


@dataclass(frozen=True)
class Stray:
    id: int
    text: str


def stray_children(known: set[int], grace_s: float = GRACE_S) -> list[Stray]:
    """Unknown children of this process, zombies included. Reads /proc: elsewhere it sees none."""
    deadline = time.monotonic() + grace_s
    while True:
        found = [child for child in _children() if child not in known]
        if not found or time.monotonic() >= deadline:
            return [Stray(pid, f"process {pid} {_command(pid)}") for pid in found]
        time.sleep(POLL_S)


async def stray_tasks(grace_s: float = GRACE_S) -> list[Stray]:
    """Tasks of this loop that are not finished, without the asking one."""
    deadline = time.monotonic() + grace_s
    while True:
        found = asyncio.all_tasks() - {asyncio.current_task()}
        if not found or time.monotonic() >= deadline:
            return [Stray(id(task), repr(task)) for task in found]
        await asyncio.sleep(POLL_S)


def _children() -> list[int]:
    if sys.platform != "linux":
        return []
    found = []
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        try:
            found += [int(pid) for pid in (task / "children").read_text().split()]
        except FileNotFoundError:  # a thread that ended meanwhile
            continue
    return found


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except FileNotFoundError:
        return "(gone)"
    return " ".join(words)[:200] or "(ended, but nobody waited for it)"
