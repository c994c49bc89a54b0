"""Misbehaviour on order: what the control port can make the sandbox do, a bounded number of times.

Responsible for the list of armed faults and for handing them out. It must not carry them out: the
API and the deliveries ask for "a fault of this kind here?" at the points where a real provider
fails. Armed faults are memory: a restarted sandbox behaves.

    before a request acts      delay(ms)  error_before  refuse_cancel
    after it has acted         error_after (500)  time_out(ms, then no answer at all)
    a webhook                  webhook_delay(ms)  webhook_duplicate(copies)
                               webhook_reorder  webhook_lose
    a refund                   refund_pending(ms)   refund_failed(ms): pending, then not
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

from commerce.sandbox.refusals import invalid

KINDS: Final = (
    "delay",
    "error_before",
    "refuse_cancel",
    "error_after",
    "time_out",
    "webhook_delay",
    "webhook_duplicate",
    "webhook_reorder",
    "webhook_lose",
    "refund_pending",
    "refund_failed",
)
ARMED_MAX: Final = 100
TIMES_MAX: Final = 1_000_000
MS_MAX: Final = 120_000
COPIES_MAX: Final = 10


@dataclass(slots=True)
class Fault:
    """`match` is part of "METHOD /path" of a request or of an event's type; empty: any."""

    kind: str
    match: str = ""
    times: int = 1
    every: int = 1
    """Strikes at every n-th opportunity only."""
    ms: int = 0
    copies: int = 1
    seen: int = 0


class Faults:
    """The armed faults, in the order in which they were armed."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []

    def arm(self, body: Any) -> Fault:
        """Add one from a JSON object. Raises `ApiRefused`."""
        if not isinstance(body, dict) or body.get("kind") not in KINDS:
            raise invalid(f"Unknown fault; known: {', '.join(KINDS)}", param="kind")
        if len(self._armed) >= ARMED_MAX:
            raise invalid("Too many faults are armed.")
        fault = Fault(
            kind=str(body["kind"]),
            match=str(body.get("match", "")),
            times=_number(body, "times", 1, TIMES_MAX),
            every=_number(body, "every", 1, TIMES_MAX),
            ms=_number(body, "ms", 0, MS_MAX),
            copies=_number(body, "copies", 1, COPIES_MAX),
        )
        self._armed.append(fault)
        return fault

    def take(self, kind: str, where: str) -> Fault | None:
        """Spend one strike of a fault of this kind that matches `where`."""
        for fault in self._armed:
            if fault.kind != kind or fault.match not in where:
                continue
            fault.seen += 1
            if fault.seen % fault.every:
                continue
            fault.times -= 1
            if fault.times <= 0:
                self._armed.remove(fault)
            return fault
        return None

    def clear(self) -> None:
        """Behave."""
        self._armed.clear()

    def listed(self) -> list[dict[str, Any]]:
        """What is still armed."""
        return [asdict(fault) for fault in self._armed]


def _number(body: dict[str, Any], name: str, default: int, maximum: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
        raise invalid(f"Invalid integer: {name}", param=name)
    return max(value, 1) if name != "ms" else value
