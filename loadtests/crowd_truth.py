"""What all Locust users of this process have seen together, and what they did.

One viewer cannot know why a counter rose; everybody together can. Responsible for three laws that
need the whole crowd: the same version of a state has the same value for all; nobody shows an old
value for long; stock never rises by more units than the crowd could have given back. Pure.

In a distributed run each worker knows its own users only, and a host or another browser may change
stock as well: then the last law is switched off (`strict=False`).
"""

from dataclasses import dataclass, field
from typing import Any, Final

STALE_S: Final = 5.0
"""A state that somebody has seen for so long must have reached everybody: 100 ticks."""
STOCK: Final = "stock:"


@dataclass
class Newest:
    """The newest version of one state that anybody here has seen."""

    version: int
    value: Any
    seen_s: float


@dataclass
class CrowdTruth:
    """Shared by all users of a process."""

    strict: bool = True
    newest: dict[tuple[str, str], Newest] = field(default_factory=dict)
    """By (epoch, key)."""
    pressed: dict[str, int] = field(default_factory=dict)
    """Units asked for and not refused, by SKU: each may come back once."""
    risen: dict[str, int] = field(default_factory=dict)
    """Units by which the newest stock has risen, by SKU."""

    def see(self, epoch: str, key: str, version: int, value: Any, now_s: float) -> str:
        """A viewer shows this state; "" or what is wrong with it."""
        known = self.newest.get((epoch, key))
        if known is not None and version < known.version:
            return ""
        if known is not None and version == known.version:
            return "" if value == known.value else f"{key} v{version}: {value} and {known.value}"
        self.newest[epoch, key] = Newest(version, value, now_s)
        if not key.startswith(STOCK):
            return ""
        return self._stock(key.removeprefix(STOCK), value, None if known is None else known.value)

    def _stock(self, sku: str, value: int, before: int | None) -> str:
        if value < 0:
            return f"{sku}: stock {value}"
        if before is None or value <= before:
            return ""
        self.risen[sku] = self.risen.get(sku, 0) + value - before
        allowed = self.pressed.get(sku, 0)
        if self.strict and self.risen[sku] > allowed:
            return f"{sku}: rose by {self.risen[sku]} units, {allowed} were taken"
        return ""

    def press(self, sku: str, units: int) -> None:
        """Somebody is about to press Buy; told before the command is sent."""
        self.pressed[sku] = self.pressed.get(sku, 0) + units

    def refused(self, sku: str, units: int) -> None:
        """That press took nothing."""
        self.pressed[sku] -= units

    def stale(self, epoch: str, states: dict[str, tuple[int, Any]], now_s: float) -> str:
        """What a viewer shows although something newer was seen long ago; "" if nothing."""
        for key, (version, value) in states.items():
            known = self.newest.get((epoch, key))
            if known is not None and version < known.version and now_s - known.seen_s > STALE_S:
                return (
                    f"{key}: shows {value}, {known.value} is newer by {now_s - known.seen_s:.0f} s"
                )
        return ""
