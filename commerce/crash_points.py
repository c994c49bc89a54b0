"""The places at which a process is killed on purpose, by name: the list that drills work through.

Responsible for the names and for nothing else. Each stands between two effects that no transaction
joins (gate and record, record and provider, record and answer), because that is where a crash can
leave one without the other. It must not know how a process is killed: production passes `nothing`,
a test raises, the kill drill sends itself SIGKILL (`live/crash.py`). A mistyped name does not pass
the type checker, and `tests/commerce/test_crash_points.py` kills a process at each of them.
"""

from collections.abc import Callable
from typing import Final, Literal, get_args

CrashPoint = Literal[
    "reserve:before_gate",  # a press has arrived
    "reserve:after_gate",  # the gate has decided, nothing is durable
    "record:before_commit",
    "record:after_commit",
    "reserve:after_commit",  # durable, and the gate does not know
    "reserve:after_mark",  # durable and marked, and the viewer does not know
    "cancel:after_commit",
    "sweep:before_commit",
    "sweep:after_commit",
    "release:after_gate",
    "relay:after_gate",  # the gate was told, and the outbox does not know
    "reap:before_commit",
    "reap:after_commit",
    "rebuild:after_epoch",
    "rebuild:after_snapshot",
    "rebuild:after_load",
    "adjust:after_commit",
    "drop:after_commit",  # a drop is stored, and no gate was loaded with it
    "wait:before_commit",
    "wait:after_commit",  # somebody waits, and the gate does not know
    "offer:after_gate",  # the gate has given a unit to who waited, nothing is durable
    "offer:before_commit",
    "offer:after_commit",  # durable, and neither the gate nor the viewer knows
    "offer:after_mark",
    "pay:before_provider",  # the payment is committed, no page was asked for
    "pay:after_provider",  # there is a page, and the record does not know
    "inbox:after_commit",  # a webhook is stored, and was not answered
    "sale:after_commit",  # sold, and neither captured nor told
    "capture:before_provider",
    "capture:after_provider",  # the money was taken, and the record does not know
    "close:after_provider",  # nobody can pay any more, and the record does not know
]
CrashHook = Callable[[CrashPoint], None]
"""Called at each of them."""

POINTS: Final[tuple[CrashPoint, ...]] = get_args(CrashPoint)


def nothing(_point: CrashPoint) -> None:
    """What production does at a crash point."""
