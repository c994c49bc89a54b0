"""Holds that resist hoarders: whose holds lapse gets shorter and fewer ones for a time.

Responsible for the rule alone, as a pure function of a viewer's record: when did their holds lapse.
It must not know where those times are kept (the record has them as reservations that expired, the
gate as a short list per viewer that comes with every image), nor who asks.

Why so: a hold costs its holder nothing, so a few people with scripts can keep a drop "sold out"
without buying (denial of inventory, OWASP OAT-021). Shops answer with no holds at all, which
punishes everybody. Here the price is paid by those who let units lie, it is known beforehand (the
rule is in the hold's sheet), and it ends by itself. A **lapse** is a hold that ran out unpaid, a
payment page left open included, and so is an offer from the wait list: it is a hold like any other,
it keeps the unit from the next in the list just as long, and who does not want it any more can say
so. Giving one back in time is none: it is what we ask for, and whoever presses again competes with
everybody. The same rule shortens offers and passes those over who may not have another hold. It
stands in `lua/gate.lua` too; a test compares the two on random records.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from commerce.stock import OPEN_HOLDS_MAX

LAPSES_KEPT: Final = 16
"""Lapses remembered per viewer; the strictest step is reached long before."""
STEPS_MAX: Final = 8
WINDOW_MS: Final = 86_400_000
HOLD_MS_MIN: Final = 30_000
"""A shortened hold is never shorter than this (or than the drop's own): one must be able to pay."""


@dataclass(frozen=True, slots=True)
class Step:
    """From so many lapses on: holds last `percent` of the drop's time, and `holds` may be open."""

    lapses: int
    percent: int
    holds: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a viewer may have now. `until_ms`: when it gets better by itself; None: it is all."""

    holds: int
    percent: int
    lapses: int
    until_ms: int | None

    def hold_ms(self, full_ms: int) -> int:
        """How long a hold lasts where the drop gives `full_ms`."""
        return max(full_ms * self.percent // 100, min(HOLD_MS_MIN, full_ms))


@dataclass(frozen=True, slots=True)
class HoldRule:
    """Steps in rising order of lapses within `window_ms`; without steps nobody is limited."""

    steps: tuple[Step, ...]
    window_ms: int = WINDOW_MS

    @classmethod
    def parse(cls, text: str) -> "HoldRule":
        """`2:50:2,4:25:1` (lapses : percent of the hold : open holds), or `off`.

        Raises ValueError, with a sentence, for what makes no sense.
        """
        if text.strip().lower() == "off":
            return cls(())
        steps = []
        for part in text.split(","):
            try:
                lapses, percent, holds = (int(number) for number in part.split(":"))
            except ValueError:
                raise ValueError(f"{part.strip()!r} is not lapses:percent:holds") from None
            steps.append(Step(lapses, percent, holds))
        rule = cls(tuple(steps))
        rule.check()
        return rule

    def check(self) -> None:
        """Raises ValueError unless each step is stricter than the one before."""
        before = Step(0, 100, OPEN_HOLDS_MAX)
        if len(self.steps) > STEPS_MAX:
            raise ValueError(f"at most {STEPS_MAX} steps")
        for step in self.steps:
            stricter = 1 <= step.percent <= before.percent and 0 <= step.holds <= before.holds
            if not (before.lapses < step.lapses <= LAPSES_KEPT and stricter):
                raise ValueError(
                    f"lapses must rise (to {LAPSES_KEPT} at most), percent (1 to 100) and open "
                    f"holds (0 to {OPEN_HOLDS_MAX}) must not"
                )
            before = step

    def allowance(self, lapsed_at: Sequence[int], now: int) -> Allowance:
        """For a viewer whose holds lapsed at these times (milliseconds, in any order)."""
        recent = sorted(at for at in lapsed_at if at > now - self.window_ms)[-LAPSES_KEPT:]
        for step in reversed(self.steps):
            if len(recent) >= step.lapses:
                until = recent[len(recent) - step.lapses] + self.window_ms
                return Allowance(step.holds, step.percent, len(recent), until)
        return Allowance(OPEN_HOLDS_MAX, 100, len(recent), None)


DEFAULT_RULE: Final = HoldRule((Step(2, 50, 2), Step(4, 25, 1)))
"""One lapse is a phone call. From two on holds last half as long and two may be open at a time;
from four on a quarter, and one."""
