"""Python's own machinery, tuned to a process that holds many viewers and writes to SQL in a thread.

Responsible for two things: that a full collection does not stop the event loop in the middle of a
storm, and that the loop does not keep the interpreter from the thread that commits for the winners.
It must not know what is collected or committed.

A full collection walks every object that may be in a cycle: 0.17 to 0.34 s with 15,000 viewers.
Python's own thresholds (700, 10, 10) begin one whenever the heap has grown by a quarter, so while
15,000 viewers come back there are about eight. Measured with 15,000 joins in 4 s: loop lag p99
204 ms before, 22 ms after. Reference counting frees almost everything at once in any case; a full
collection still comes once per 5 million objects, some three such storms, so that cycles are found.
What was there before the first viewer (modules, classes, routes) is never walked again.
"""

import gc
import sys
from typing import Final

YOUNG: Final = 10_000
"""New objects between two looks at the young: under a millisecond each."""
MIDDLE: Final = 10
"""Looks at the young between two at the middle-aged: at most 100,000 objects, some 10 ms."""
FULL: Final = 50
"""Looks at the middle-aged between two full collections."""
SWITCH_S: Final = 0.0001
"""How long a thread waits for the interpreter before the one that has it is asked to let go.

Python's own 5 ms are paid at each of the 40 or so times that a batch of winners comes back from
SQLite while a crowd keeps the loop busy: 200 ms, and 4 with this.
"""


def tune() -> None:
    """For a process that is about to serve. Call it once, when everything is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, FULL)
    sys.setswitchinterval(SWITCH_S)
