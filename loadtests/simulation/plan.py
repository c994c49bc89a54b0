"""What a seed means: the shop, the crowd, the nodes, and which faults may happen how often.

Responsible for drawing a seed's circumstances and nothing else. Each seed enables some faults and
not others, at rates of its own ("swarm testing"): a seed with every fault at once finds less,
because one fault hides what another one would have shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Final

STRETCHES: Final = (1.0, *(8.0,) * 4, *(16.0,) * 5, *(24.0,) * 4)
"""How much slower than in production the loops of upkeep turn, so that the steps of a seed are
spent on races and not on looking whether anything is due."""
SLOW_STRETCH: Final = 3.0
"""So that orphans are looked for while their record is being written."""


class Fault(StrEnum):
    """The kinds, as they are counted."""

    KILL = "kill_node"
    CRASH = "kill_at_point"
    FREEZE = "freeze_node"
    CLOCK = "clock_jump"
    GATE_REQUEST = "gate_request_lost"
    GATE_REPLY = "gate_reply_lost"
    GATE_LATE = "gate_request_late"
    GATE_SLOW = "gate_slow"
    GATE_AWAY = "gate_away"
    GATE_FLUSH = "gate_flushed"
    GATE_RESTART = "gate_restarted"
    GATE_STALE = "gate_stale_copy"
    GATE_SPLIT = "gate_split"
    SQL_REQUEST = "sql_request_lost"
    SQL_COMMIT = "sql_lost_before_commit"
    SQL_REPLY = "sql_lost_after_commit"
    SQL_SLOW = "sql_slow"
    SQL_AWAY = "sql_away"
    VIEWER = "viewer_left"
    GATE_APART = "gate_cut_off"
    GATE_DOUBT = "gate_distrusted"
    REBUILD_SLOW = "rebuild_slow"
    HOLD_SLOW = "hold_slow"


PER_CALL: Final[dict[Fault, float]] = {
    Fault.CRASH: 0.05,
    Fault.GATE_REQUEST: 0.02,
    Fault.GATE_REPLY: 0.04,
    Fault.GATE_LATE: 0.02,
    Fault.GATE_SLOW: 0.02,
    Fault.SQL_REQUEST: 0.06,
    Fault.SQL_COMMIT: 0.12,
    Fault.SQL_REPLY: 0.10,
    Fault.SQL_SLOW: 0.05,
    Fault.VIEWER: 0.10,
}
"""The record's are the highest: it tries a batch twice, so one fault alone is never heard of.
Chance that one call (or crash point, or press) meets it, in a seed that has it."""

OF_FOCUS: Final = {Fault.REBUILD_SLOW: 0.5, Fault.HOLD_SLOW: 0.3}
"""Chance that a step of a rebuild is slow, or the writing of a hold, in a seed about that."""

EVENTS: Final = tuple(fault for fault in Fault if fault not in PER_CALL and fault not in OF_FOCUS)
"""Those that happen at an instant of their own."""

REPLACING: Final = frozenset(
    {
        *(Fault.GATE_FLUSH, Fault.GATE_RESTART, Fault.GATE_STALE, Fault.GATE_SPLIT),
        *(Fault.GATE_AWAY, Fault.GATE_APART, Fault.GATE_DOUBT),
    }
)
"""Events after which the gate is loaded anew, and then right again."""
STEADY: Final = 0.3
"""Share of seeds in which none of them happens."""


class Focus(StrEnum):
    """What a seed is about. Chance alone leads too seldom into these corners."""

    ANYTHING = "anything"
    RAFFLE = "raffle"
    """The first drop is drawn, and many enter."""
    APART = "apart"
    """Some nodes or all are without the gate again and again, while people wait for little."""
    REBUILD = "rebuild"
    """Gates are loaded anew under everybody's hands, slowly, and then left alone."""
    SLOW = "slow"
    """The record takes longer than the gate waits for it, and nothing puts that right."""


FOCI: Final = (
    *(Focus.ANYTHING,) * 5,
    *(Focus.RAFFLE,) * 1,
    *(Focus.APART,) * 2,
    *(Focus.REBUILD,) * 2,
    *(Focus.SLOW,) * 1,
)


@dataclass(frozen=True)
class Plan:
    """The circumstances of one seed. Times in seconds of virtual time."""

    seed: int
    focus: Focus
    nodes: int
    stock: dict[str, int]
    units: dict[str, int | None]
    viewers: int
    presses_each: int
    hold_s: int
    per_viewer: int | None
    stretch: float
    lasts_s: float
    rates: dict[Fault, float] = field(default_factory=dict)
    events: tuple[tuple[float, Fault], ...] = ()
    steady: bool = False
    """Nothing replaces the gate and no drop is opened later: what leaks stays leaked."""
    waiters: int = 0
    waits_each: int = 0
    first_is_raffle: bool = False
    alone_at_the_end: bool = False
    """When the faults stop, all nodes but one are killed: it must finish what they left."""


def draw(seed: int) -> Plan:
    """The plan of a seed: the same seed, the same plan."""
    chance = Random(f"plan {seed}")
    skus = [f"sku{number}" for number in range(chance.randint(1, 4))]
    viewers = chance.randint(7, 9)
    lasts_s = chance.uniform(2.5, 5.0)
    share = chance.choice((0.2, 0.4, 0.7))
    rates = {
        fault: rate * chance.choice((0.3, 1.0, 2.0))
        for fault, rate in PER_CALL.items()
        if chance.random() < share
    }
    kinds = [fault for fault in EVENTS if chance.random() < share] or [chance.choice(EVENTS)]
    count = chance.randint(2, 8)
    events = _at_times(chance, lasts_s, kinds, count)
    steady = chance.random() < STEADY
    if steady:
        events = [(at_s, fault) for at_s, fault in events if fault not in REPLACING]
        events = events or [(lasts_s / 2, Fault.KILL)]
        rates = {fault: rate * chance.choice((1.0, 2.5)) for fault, rate in rates.items()}
    hold_s, stretch = chance.randint(1, 3), chance.choice(STRETCHES)
    focus = chance.choice(FOCI)
    first_is_raffle = focus is Focus.RAFFLE or chance.random() < 0.05
    most = chance.choice((2, 4, 9, 9, 20))
    waiters = 4 if first_is_raffle else chance.choice((0, 1, 2, 3, 4))
    if focus is Focus.APART:
        most, waiters, steady = chance.choice((1, 2, 4)), chance.choice((2, 3, 4)), False
        kinds = [Fault.GATE_APART, Fault.GATE_APART, Fault.GATE_AWAY]
        events = _at_times(chance, lasts_s, kinds, chance.randint(3, 8))
        rates |= {fault: PER_CALL[fault] * 2 for fault in (Fault.SQL_REPLY, Fault.VIEWER)}
        skus = skus[:2]
    elif focus is Focus.REBUILD:
        steady = False
        kinds = [Fault.GATE_DOUBT, Fault.GATE_DOUBT, Fault.GATE_FLUSH]
        events = _at_times(chance, lasts_s, kinds, chance.randint(1, 4))
        rates[Fault.REBUILD_SLOW] = OF_FOCUS[Fault.REBUILD_SLOW]
        rates[Fault.SQL_SLOW] = PER_CALL[Fault.SQL_SLOW] * 2
    elif focus is Focus.SLOW:
        steady, hold_s, stretch = True, chance.randint(3, 9), SLOW_STRETCH
        events = _at_times(chance, lasts_s, [Fault.KILL, Fault.FREEZE], chance.randint(1, 2))
        rates = {Fault.HOLD_SLOW: OF_FOCUS[Fault.HOLD_SLOW], Fault.VIEWER: 0.1}
    stock = {sku: chance.randint(1, most) for sku in skus}
    return Plan(
        seed=seed,
        focus=focus,
        nodes=chance.randint(2, 3),
        stock=stock,
        units={
            sku: chance.choice((None, None, chance.randint(1, count + 1)))
            for sku, count in stock.items()
        },
        viewers=viewers,
        presses_each=chance.randint(3, 4),
        hold_s=hold_s,
        per_viewer=chance.choice((None, None, 1, 2, 3)),
        stretch=stretch,
        lasts_s=lasts_s,
        rates=rates,
        events=tuple(events),
        steady=steady,
        waiters=waiters,
        waits_each=chance.randint(1, 2),
        first_is_raffle=first_is_raffle,
        alone_at_the_end=chance.random() < 0.5,
    )


def _at_times(
    chance: Random, lasts_s: float, kinds: Sequence[Fault], count: int
) -> list[tuple[float, Fault]]:
    return sorted((chance.uniform(0.3, lasts_s), chance.choice(kinds)) for _number in range(count))
