"""A numbered log with a bound: the newest entries of one lane, to be handed out again.

Pure; it must not know what the entries mean. Bounded by offsets, not by what it happens to hold:
after top offset T nothing at or below T - max can be asked for. So a node that loaded the log and a
node that lived through it have the same floor, and an entry taken out in the middle (a retracted
comment) is a hole that nobody mistakes for a loss.
"""

from bisect import bisect_right
from typing import Generic, Protocol, TypeVar


class Numbered(Protocol):
    """What a log holds."""

    @property
    def offset(self) -> int:
        """Its number, at least 1."""


T = TypeVar("T", bound=Numbered)


class Log(Generic[T]):
    """Entries by offset, oldest first."""

    __slots__ = ("_entries", "_max", "_offsets", "top")

    def __init__(self, entries_max: int) -> None:
        self._max = entries_max
        self._offsets: list[int] = []
        self._entries: list[T] = []
        self.top = 0
        """The newest offset, whether or not it is still here."""

    @property
    def floor(self) -> int:
        """Entries above this offset are here, except those taken out."""
        return max(0, self.top - self._max)

    def append(self, entry: T) -> None:
        """Add the next entry; its offset must be above `top`."""
        self._offsets.append(entry.offset)
        self._entries.append(entry)
        self.advance(entry.offset)

    def advance(self, top: int) -> None:
        """Offsets up to `top` are taken, even if their entries are not here."""
        self.top = max(self.top, top)
        if len(self._offsets) > self._max + self._max // 4:  # seldom, so that it costs O(1)
            self._trim()

    def _trim(self) -> None:
        gone = bisect_right(self._offsets, self.floor)
        del self._offsets[:gone]
        del self._entries[:gone]

    def take_out(self, offset: int) -> bool:
        """Remove one entry; False if it is not here."""
        at = bisect_right(self._offsets, offset) - 1
        if at < 0 or self._offsets[at] != offset:
            return False
        del self._offsets[at]
        del self._entries[at]
        return True

    def between(self, after: int, upto: int) -> list[T]:
        """Entries with `after` < offset <= `upto` that are above the floor."""
        first = bisect_right(self._offsets, max(after, self.floor))
        return self._entries[first : bisect_right(self._offsets, upto)]

    def at(self, offset: int) -> T | None:
        """The entry with this offset, if it is here."""
        found = self.between(offset - 1, offset)
        return found[0] if found else None

    def last(self, count: int, upto: int) -> list[T]:
        """At most `count` entries with offset <= `upto`, the newest ones."""
        end = bisect_right(self._offsets, upto)
        return self._entries[max(0, end - count) : end]
