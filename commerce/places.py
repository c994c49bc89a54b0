"""When those who are sent away may come back: one after another, not all at once.

Responsible for `retry_after_ms` of a press that was not decided. It must not know why it was not.

A crowd of 15,000 that is told "again in half a second" comes 30,000 times a second, and the node
does nothing else than send it away: 555,000 times "busy" in a minute were measured, and a hundred
sales. So each gets the next free place, as many per second as a node decides without effort.
"""

from collections.abc import Callable
from typing import Final

LEAST_MS: Final = 200
MOST_MS: Final = 15_000
PER_MS: Final = 4
"""Places in a millisecond. With MOST_MS there are 60,000; whoever comes then shares the last."""


class Places:
    """One per node. `clock` gives milliseconds, `chance` numbers from 0 to 1."""

    def __init__(self, clock: Callable[[], int], chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._last = 0.0

    def take(self) -> int:
        """Milliseconds until the next free place, which is taken by this."""
        now = self._clock()
        first = now + LEAST_MS * (1 + self._chance())
        self._last = min(max(first, self._last + 1 / PER_MS), now + MOST_MS)
        return int(self._last - now)
