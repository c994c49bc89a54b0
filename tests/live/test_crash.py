"""A process armed for a drill dies at the named place and at no other; others never do."""

import signal
import subprocess
import sys

from commerce.crash_points import POINTS
from live.crash import CrashAt, crash_hook

ARMED = """
from live.crash import CrashAt, crash_hook
reached = crash_hook(CrashAt("reserve:after_gate", 2))
for point in ("reserve:after_gate", "reserve:before_gate", "reserve:after_gate"):
    print(point, flush=True)
    reached(point)
print("alive")
"""


def test_nobody_dies_unarmed() -> None:
    reached = crash_hook(None)
    for point in POINTS:
        reached(point)


def test_the_nth_time_at_the_place_counts_and_no_other_place() -> None:
    deaths: list[str] = []
    reached = crash_hook(CrashAt("reap:after_commit", 3), lambda: deaths.append("dead"))
    for point in POINTS:
        reached(point)
    reached("reap:after_commit")
    assert deaths == []
    reached("reap:after_commit")
    assert deaths == ["dead"]
    reached("reap:after_commit")
    assert deaths == ["dead"]


def test_the_death_is_a_kill_nine() -> None:
    run = subprocess.run(
        [sys.executable, "-c", ARMED], capture_output=True, text=True, timeout=30, check=False
    )
    assert run.returncode == -signal.SIGKILL
    assert run.stdout.split() == ["reserve:after_gate", "reserve:before_gate", "reserve:after_gate"]
