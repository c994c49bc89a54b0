"""A process that kills itself at a named place: for the kill drill, and for nothing else.

Responsible for counting how often the place was reached and for SIGKILL, which no handler, no
`finally` and no buffer survives: the nearest thing to a power cut that a program can do to itself.
It must not decide whether it is armed (`live/settings.py` does, and refuses by accident): without
`LIVE_CRASH_AT` a node passes `commerce.crash_points.nothing`.
"""

import os
import signal
from collections.abc import Callable
from typing import NamedTuple

from commerce.crash_points import CrashHook, CrashPoint, nothing


class CrashAt(NamedTuple):
    """The n-th time that this place is reached, counted from 1."""

    point: CrashPoint
    nth: int


def kill_self() -> None:
    """kill -9 of this very process."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash_hook(armed: CrashAt | None, die: Callable[[], None] = kill_self) -> CrashHook:
    """What commerce calls at its crash points."""
    if armed is None:
        return nothing
    left = armed.nth

    def reached(point: CrashPoint) -> None:
        nonlocal left
        if point == armed.point:
            left -= 1
            if left == 0:
                die()

    return reached
