"""The order in which the event loop serves what is ready: engines first, the crowd in portions.

Responsible for one thing: how many ready descriptors, and which, a turn of the loop gets to see. It
must not know what they are for; a transport whose extra information has CROWD belongs to the crowd,
all others (Valkey, the database's threads, timers' wake-ups, the listener) do not.

asyncio takes whatever is ready in one turn. When 15,000 viewers are cut at once, that is one turn
with 15,000 ends in it, and Buy, which needs some twenty turns of the loop for its way through
Valkey and the database, stands behind all of them at every step. So

* the crowd has an epoll of its own inside the loop's, which a turn asks for CROWD_AT_ONCE at most.
  The kernel hands out level-triggered events in turns, so nobody starves;
* while more of them wait than that and the turns stay short (a press of Buy that is refused costs
  0.08 ms, a join 0.3), a turn takes more, up to CROWD_MAX: each turn has costs of its own, and so
  has each batch of presses for the gate, which is what one turn has brought;
* connections that have broken are put aside and ended a few in each turn: nobody waits for that.
"""

import asyncio
import contextlib
import math
import select
import selectors
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from typing_extensions import override

CROWD: Final = "vitrine.crowd"
"""Key in a transport's extra information; its value is true for a connection from outside."""
CROWD_AT_ONCE: Final = 32
"""Of those who say something: a frame costs 0.05 to 0.3 ms."""
CROWD_MAX: Final = 128
TURN_S: Final = 0.012
"""A turn that took longer halves the portion, one that took less than half of it doubles it."""
BROKEN_AT_ONCE: Final = 16
"""Of those who are gone: 0.04 ms each, so 15,000 of them take some 3 s beside everything else."""
LOOKS: Final = 16
"""How often one turn asks the kernel while it gets only broken ones."""
ENGINES_AT_ONCE: Final = 256
_BROKEN: Final = select.EPOLLHUP | select.EPOLLERR if hasattr(select, "epoll") else 0


if hasattr(select, "epoll"):

    class CrowdSelector(selectors.EpollSelector):
        """An epoll with another one inside it."""

        def __init__(self) -> None:
            super().__init__()
            self._selector: select.epoll  # the one that the base class works on
            self._outer = self._selector
            self._inner = select.epoll()
            self._outer.register(self._inner.fileno(), select.EPOLLIN)
            self._crowd: set[int] = set()
            """Registered descriptors that are in the inner one."""
            self._broken: deque[int] = deque()
            self._portion = CROWD_AT_ONCE
            self._left_s = 0.0
            """When the last turn began its work."""
            self.crowd_waits = False
            """Whether the last turn left some of the crowd unread."""
            self._keys: Mapping[int, selectors.SelectorKey] = self._fd_to_key  # type: ignore[attr-defined]

        @override
        def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
            crowd = _is_crowd(data)
            self._selector = self._inner if crowd else self._outer
            try:
                key = super().register(fileobj, events, data)
            finally:
                self._selector = self._outer
            if crowd:
                self._crowd.add(key.fd)
            return key

        @override
        def unregister(self, fileobj: Any) -> selectors.SelectorKey:
            fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
            self._selector = self._inner if fd in self._crowd else self._outer
            try:
                return super().unregister(fileobj)
            finally:
                self._selector = self._outer
                self._crowd.discard(fd)

        @override
        def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
            fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
            if fd not in self._crowd:
                return super().modify(fileobj, events, data)
            self._selector = self._inner
            try:
                return super().modify(fileobj, events, data)
            except FileNotFoundError:  # it was put aside as broken, and that unregistered it
                return self.register(fileobj, events, data)
            finally:
                self._selector = self._outer

        @override
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            self._measure()
            try:
                return self._select(timeout)
            finally:
                self._left_s = time.monotonic()

        def _measure(self) -> None:
            """How much of the crowd the next turn may take."""
            if not self.crowd_waits:
                self._portion = CROWD_AT_ONCE
                return
            took_s = time.monotonic() - self._left_s
            if took_s > TURN_S:
                self._portion = max(CROWD_AT_ONCE, self._portion // 2)
            elif took_s < TURN_S / 2:
                self._portion = min(CROWD_MAX, self._portion * 2)

        def _select(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
            wait = 0.0 if self._broken else _whole_ms(timeout)
            ready: list[tuple[selectors.SelectorKey, int]] = []
            try:
                found = self._outer.poll(wait, ENGINES_AT_ONCE)
            except InterruptedError:
                return ready
            inner = self._inner.fileno()
            for fd, mask in found:
                if fd != inner:
                    self._add(ready, fd, mask)
            self.crowd_waits = False
            if any(fd == inner for fd, _ in found):
                self._look_at_crowd(ready)
            for _ in range(min(BROKEN_AT_ONCE, len(self._broken))):
                self._end(ready, self._broken.popleft())
            return ready

        def _look_at_crowd(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
            places = self._portion
            for _ in range(LOOKS):
                asked = places
                found = self._inner.poll(0, asked)
                for fd, mask in found:
                    if mask & _BROKEN:
                        self._inner.unregister(fd)
                        self._broken.append(fd)
                    else:
                        places -= 1
                        self._add(ready, fd, mask)
                if places <= 0 or len(found) < asked:
                    self.crowd_waits = places <= 0
                    return

        def _end(self, ready: list[tuple[selectors.SelectorKey, int]], fd: int) -> None:
            """Hand a broken one out; in the kernel again, since it may have more to read first."""
            key = self._keys.get(fd)
            if key is None or fd not in self._crowd:
                return  # it was ended meanwhile
            mask = select.EPOLLIN if key.events & selectors.EVENT_READ else 0
            mask |= select.EPOLLOUT if key.events & selectors.EVENT_WRITE else 0
            with contextlib.suppress(FileExistsError):  # its number belongs to a new one
                self._inner.register(fd, mask)
            self._add(ready, fd, _BROKEN)

        def _add(self, ready: list[tuple[selectors.SelectorKey, int]], fd: int, mask: int) -> None:
            key = self._keys.get(fd)
            if key is not None:
                events = selectors.EVENT_WRITE if mask & ~select.EPOLLIN else 0
                events |= selectors.EVENT_READ if mask & ~select.EPOLLOUT else 0
                ready.append((key, events & key.events))

        @override
        def close(self) -> None:
            self._inner.close()
            super().close()

    class CrowdLoop(asyncio.SelectorEventLoop):
        """A loop on such a selector."""

        def __init__(self) -> None:
            self.selector = CrowdSelector()
            super().__init__(self.selector)
            self._ready: deque[asyncio.Handle]  # of the base class

        @property
        def idle(self) -> bool:
            """Whether nothing that this turn has brought is still to be run."""
            return not self._ready


def _whole_ms(timeout: float | None) -> float:
    """epoll counts in milliseconds; a timer is never to be woken before its time."""
    if timeout is None:
        return -1
    return math.ceil(timeout * 1000) / 1000 if timeout > 0 else 0


def _is_crowd(data: Any) -> bool:
    """asyncio registers (reader, writer), handles whose callback is a transport's method."""
    handle = data and (data[0] or data[1])
    owner = getattr(getattr(handle, "_callback", None), "__self__", None)
    return isinstance(owner, asyncio.Transport) and bool(owner.get_extra_info(CROWD, False))


def new_loop() -> asyncio.AbstractEventLoop:
    """The loop that a node runs on; where there is no epoll, Python's own."""
    if hasattr(select, "epoll"):
        return CrowdLoop()
    return asyncio.new_event_loop()


def loop_idle() -> bool:
    """Whether this turn of the running loop has nothing else to do. False: it does not say."""
    if not hasattr(select, "epoll"):
        return False
    loop = asyncio.get_running_loop()
    return isinstance(loop, CrowdLoop) and loop.idle


def crowd_waits() -> bool:
    """Whether more viewers have said something than this turn of the running loop took."""
    if not hasattr(select, "epoll"):
        return False
    loop = asyncio.get_running_loop()
    return isinstance(loop, CrowdLoop) and loop.selector.crowd_waits
