"""An event loop whose clock is virtual: nobody ever waits, and the order of events is the seed's.

Responsible for time. When nothing is ready to run, the clock jumps to the next timer, so a hold of
five seconds costs nothing. While a real operation is under way (an engine that answers through the
loop, as PostgreSQL does) the clock stands still and the loop really waits. It must not know what
runs on it.

Every call that leaves a node waits a while drawn from the seed before and after it happens, so
"which of the operations goes next" is decided by those waits and by nothing else: no thread, no
socket and no real clock has a say.
"""

import asyncio
import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from typing_extensions import override

REAL_WAIT_S: Final = 60.0
"""A real engine that says nothing for this long is stuck, and so would the simulation be."""


class Stuck(Exception):
    """Nothing is ready, no timer is set and no engine is asked: the simulation waits for ever."""


class _Selector(selectors.DefaultSelector):
    """Answers "nothing yet" at once and lets the clock jump instead of waiting."""

    loop: "VirtualLoop"

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.loop.real:
            found = super().select(timeout if timeout == 0 else REAL_WAIT_S)
            if not found and timeout != 0:
                raise Stuck("an engine does not answer")
            return found
        if timeout is None:
            raise Stuck("everybody waits and nothing is under way")
        if timeout > 0:
            self.loop.now_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`now_s` starts at zero. `asyncio.sleep`, `asyncio.timeout` and `call_later` run on it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.real = 0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    @override
    def time(self) -> float:
        return self.now_s

    @contextmanager
    def really(self) -> Iterator[None]:
        """Inside it an engine is asked through the loop: the clock stands still."""
        self.real += 1
        try:
            yield
        finally:
            self.real -= 1
