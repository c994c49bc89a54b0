"""Where a winner's time goes: instants along the way of a press, taken inside the node of a bench.

Responsible for wrapping what the way goes through and for keeping one instant per stage and rid. It
must not change the way. A winner's whole latency is cut at these instants, so that a stage's share
of the tail is seen and not guessed; taking them costs about 2 µs a press, so it is asked for.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from live.app import App
from loadtests.vitals import percentile

STAGES: Final = (
    *("begun", "gate_asked", "gate_said", "record_asked", "before_commit", "committed"),
    *("answered",),
)
"""In the order of the way. `begun`: `Checkout.begin`; `committed`: back on the loop."""
WAY: Final = ("due", "sent", *STAGES, "read")
"""With what the crowd saw before and after it."""
TAIL: Final = 0.97
"""Whoever waits longer than this share of the winners is its tail."""


def parts_of(
    answers: dict[str, Any], noted: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """By stage the milliseconds from the one before: half of all, 99 %, and the tail's mean.

    `answers` as the crowd gives them (`drop_swarm`), `noted` as `Stages.take`. A press that came
    more than once, or met no gate, is left out.
    """
    rows = []
    told = (answers[name] for name in ("won", "won_due", "won_sent", "won_us"))
    for rid, due, sent, us in zip(*told, strict=True):
        times = noted.get(rid, {})
        if len(times) == len(STAGES):
            rows.append({"due": due, "sent": sent, **times, "read": due + us / 1e6})
    rows.sort(key=lambda row: row["read"] - row["due"])
    found = {}
    for before, stage in itertools.pairwise(WAY):
        ms = [(row[stage] - row[before]) * 1000 for row in rows]
        tail = ms[int(len(ms) * TAIL) :]
        found[stage] = {
            "p50": round(percentile(ms, 50), 1),
            "p99": round(percentile(ms, 99), 1),
            "tail": round(sum(tail) / max(1, len(tail)), 1),
        }
    return found


class Stages:
    """Instants in monotonic seconds, by rid."""

    def __init__(self, app: App) -> None:
        self._times: dict[str, dict[str, float]] = {}
        self._rids: list[str] = []
        checkout: Any = app.trade.checkout
        self._wrap_begin(checkout)
        self._wrap_gate(checkout.keeper.gate)
        self._wrap_record(checkout._record)

    def take(self) -> dict[str, dict[str, float]]:
        """What was noted since the last time."""
        times, self._times = self._times, {}
        return times

    def _note(self, rid: str, stage: str) -> None:
        self._times.setdefault(rid, {})[stage] = time.monotonic()

    def _note_all(self, rids: Sequence[str], stage: str) -> None:
        now = time.monotonic()
        for rid in rids:
            self._times.setdefault(rid, {})[stage] = now

    def _wrap_begin(self, checkout: Any) -> None:
        begin = checkout.begin

        def noted(press: Any, done: Callable[[Any], None]) -> None:
            def answered(answer: Any) -> None:
                done(answer)
                self._note(press.rid, "answered")

            self._note(press.rid, "begun")
            begin(press, answered)

        checkout.begin = noted

    def _wrap_gate(self, gate: Any) -> None:
        reserve = gate.reserve

        async def noted(epoch: int, asks: Sequence[Any], now: int) -> Any:
            rids = [ask.rid for ask in asks]
            self._note_all(rids, "gate_asked")
            answer = await reserve(epoch, asks, now)
            self._note_all(rids, "gate_said")
            return answer

        gate.reserve = noted

    def _wrap_record(self, record: Any) -> None:
        hold, crash_point = record.hold, record._crash_point

        async def noted(epoch: int, winners: Sequence[Any], now: int) -> Any:
            self._rids = rids = [winner.press.rid for winner in winners]
            self._note_all(rids, "record_asked")
            answer = await hold(epoch, winners, now)
            self._note_all(rids, "committed")
            return answer

        def reached(point: str) -> None:
            if point == "record:before_commit":
                self._note_all(self._rids, "before_commit")
            crash_point(point)

        record.hold = noted
        record._crash_point = reached
