"""How often the number of units left is said: ten times a second, and once while a crowd buys."""

from collections.abc import Sequence
from typing import Any, cast

from commerce.stock import Level
from live.counters import CROWD_EVERY, Counters
from realtime.broker import State


class _Room:
    """A hub with one show and a stage with one SKU on it; keeps what was published."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.refreshed = 0

    async def publish_all(self, _show: str, items: Sequence[State]) -> None:
        self.said += [item.value for item in items]

    def shows_of(self, _sku: str) -> list[str]:
        return ["show"]

    def refresh_soon(self, _show: str) -> None:
        self.refreshed += 1


class _Sale:
    """Rounds of the counters, one after another, with a level that falls by one in each."""

    def __init__(self, left: int) -> None:
        self.room = _Room()
        self.counters = Counters(cast("Any", self.room), cast("Any", self.room))
        self._left = left
        self._turn = 0

    async def rounds(self, count: int, *, crowded: bool) -> list[object]:
        """What was said in the next so many rounds."""
        before = len(self.room.said)
        for _ in range(count):
            self._turn += 1
            self._left -= 1
            self.counters.mark({"A": Level(self._left, self._turn)})
            await self.counters.say_levels(self._turn, crowded=crowded)
        return self.room.said[before:]


async def test_without_a_crowd_each_round_says_the_level() -> None:
    sale = _Sale(100)
    assert await sale.rounds(5, crowded=False) == [99, 98, 97, 96, 95]


async def test_while_a_crowd_buys_only_each_tenth_round_does_and_it_says_the_newest() -> None:
    sale = _Sale(100)
    assert await sale.rounds(3 * CROWD_EVERY, crowded=True) == [90, 80, 70]


async def test_a_crowd_that_breathes_for_a_moment_is_still_one() -> None:
    sale = _Sale(100)
    await sale.rounds(CROWD_EVERY + 1, crowded=True)
    assert await sale.rounds(CROWD_EVERY - 2, crowded=False) == []
    assert await sale.rounds(4, crowded=False) == [80, 79, 78, 77]


async def test_that_the_last_unit_is_gone_or_one_is_back_is_said_at_once() -> None:
    sale = _Sale(3)
    assert await sale.rounds(4, crowded=True) == [0]
    assert sale.room.refreshed == 1
    sale.counters.mark({"A": Level(2, 1_000)})
    await sale.counters.say_levels(5, crowded=True)
    assert (sale.room.said[-1], sale.room.refreshed) == (2, 2)
