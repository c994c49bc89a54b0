"""How often a room speaks and what it leaves out: the tick, the ladder and the egress budget. Pure.

Responsible for three answers that `room` asks for before each frame: how long the tick is, which
step of the ladder the room is on, and how many bytes of comments a frame may carry. It must not
know sockets, brokers or what a comment is; instants are seconds of any monotonic clock, handed in.

* **The tick** is what a fan-out to all members costs, divided by the share of the event loop that
  one room may have (`SHARE`). A viewer costs 8 to 14 us, so a room of 100 has 20 ms, one of 2,000
  about 80 ms and one of 15,000 about 640 ms, on whatever machine: the cost is measured, not
  assumed. Stretching comes first because it takes nothing away from anybody. Within a tick it is
  `fanout` that gives presses of Buy the way (`REST`), which lengthens the fan-out and not its cost.
* **The ladder** (PROTOCOL.md, chapter 6) is published, and so is the step. First numbers that
  nobody acts on become rare, then comments are sampled. Facts, stock, replies and comments of
  those who run the show are on no step.
* **The budget** is in bytes of egress, of a room and of the node, because that is what runs out:
  200 comments a second of 150 bytes are 0.5 Gbit/s at 2,000 viewers and 24 Gbit/s at 100,000.

Both the tick and the step rise at once and fall one notch at a time after a hold, and only when the
need is well below the notch: a room that sits on an edge would otherwise flap, and each change is a
message to everybody.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

TICK_MIN_MS: Final = 20
TICK_MAX_MS: Final = 1000
TICKS_MS: Final = (20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 1000)
"""Notches: half an octave apart, so that a wavering measurement stays on one."""
SHARE: Final = 0.25
"""Of the event loop's time, for the ticks of one room…"""
NODE_SHARE: Final = 0.5
"""…and for those of all rooms together. The rest answers Buy."""
STRETCH_MAX: Final = 50.0
"""How far many rooms may stretch each other's ticks."""

UP: Final = (0.5, 0.75, 1.0)
"""Strain at which the ladder rises to step 1, 2 and 3. Strain 1 is a second's tick, or a budget."""
DOWN: Final = 0.7
"""Share of a threshold below which the need must lie before a notch or a step is given up…"""
HOLD_S: Final = 5.0
"""…for so long."""
SAMPLING: Final = len(UP)
"""The step on which comments are sampled."""

EGRESS_NODE_BYTES_PER_S: Final = 250_000_000
"""2 Gbit/s."""
EGRESS_ROOM_BYTES_PER_S: Final = 200_000_000
BURST_S: Final = 1.0
"""Seconds of budget that may go out at once, and of debt that unsheddable bytes may leave."""
DEMAND_S: Final = 1.0
"""Time constant of the demand for egress, of which comments left out are a part."""
COST_WEIGHT: Final = 0.25
"""Of the newest measured cost per member."""
GRAIN_S: Final = 0.001
"""Timers may fire a little early."""
COST_FIRST_S: Final = 10e-6
"""Per member, before anything is measured."""


class Soft(NamedTuple):
    """A state that becomes rare: from `step` on, at most once in `every_s` seconds."""

    step: int
    every_s: float


SOFT_STATES: Final[Mapping[str, Soft]] = {"likes": Soft(1, 2.0), "viewers": Soft(2, 10.0)}
"""By key. Everything that is not named here goes out with each tick on each step."""


class Notches:
    """A level that rises at once and falls by one after `HOLD_S` of need below it."""

    __slots__ = ("_since", "_up", "level")

    def __init__(self, up: tuple[float, ...]) -> None:
        """`up`: rising thresholds; at or above `up[n]` the level is at least n + 1."""
        self._up = up
        self._since: float | None = None
        self.level = 0

    def move(self, need: float, now_s: float) -> bool:
        """Look at the need; whether the level has changed."""
        before = self.level
        while self.level < len(self._up) and need >= self._up[self.level]:
            self.level += 1
        if self.level > before or not before or need >= DOWN * self._up[before - 1]:
            self._since = None
        elif self._since is None:
            self._since = now_s
        elif now_s - self._since >= HOLD_S:
            self._since = now_s
            self.level -= 1
        return self.level != before


class Budget:
    """Bytes a second, with a burst and a bounded debt."""

    __slots__ = ("_at_s", "_left", "bytes_per_s")

    def __init__(self, bytes_per_s: int) -> None:
        self.bytes_per_s = bytes_per_s
        self._at_s = 0.0
        self._left = bytes_per_s * BURST_S

    def left(self, now_s: float) -> float:
        """Bytes that may go out now; negative while a debt is paid off."""
        most = self.bytes_per_s * BURST_S
        passed, self._at_s = max(0.0, now_s - self._at_s), now_s
        self._left = min(most, self._left + passed * self.bytes_per_s)
        return self._left

    def spend(self, size: int, now_s: float) -> None:
        """They have gone out, whether or not there was room for them."""
        self._left = max(-self.bytes_per_s * BURST_S, self.left(now_s) - size)


class NodePace:
    """What the rooms of one node share: the loop's time and the egress."""

    __slots__ = ("_busy_s", "_window_s", "budget", "room_bytes_per_s", "stretch")

    def __init__(
        self,
        *,
        bytes_per_s: int = EGRESS_NODE_BYTES_PER_S,
        room_bytes_per_s: int = EGRESS_ROOM_BYTES_PER_S,
    ) -> None:
        """Egress of the node, and of each of its rooms."""
        self.budget = Budget(bytes_per_s)
        self.room_bytes_per_s = room_bytes_per_s
        self.stretch = 1.0
        """By so much all ticks are longer than the rooms alone would make them."""
        self._window_s = 0.0
        self._busy_s = 0.0

    def spent(self, busy_s: float, now_s: float) -> None:
        """A fan-out took so much of the loop's time."""
        self._busy_s += busy_s
        passed = now_s - self._window_s
        if passed < 1.0:
            return
        # The rooms were busy at the present stretch; unstretched they would want more.
        wanted = self.stretch * self._busy_s / passed / NODE_SHARE
        wanted = min(max(wanted, self.stretch / 2), self.stretch * 2)
        self.stretch = min(max(1.0, wanted), STRETCH_MAX)
        self._window_s, self._busy_s = now_s, 0.0


class Pace:
    """The pace of one room on one node."""

    __slots__ = (
        "_base_ms",
        "_cost_s",
        "_demand",
        "_demand_s",
        "_ladder",
        "_node",
        "_room",
        "_sent_s",
        "_soft",
        "_tick",
        "need_ms",
    )

    def __init__(
        self,
        node: NodePace,
        *,
        tick_ms: int = TICK_MIN_MS,
        soft: Mapping[str, Soft] = SOFT_STATES,
    ) -> None:
        """`tick_ms`: the shortest tick of this room."""
        self._node = node
        self._base_ms = tick_ms
        self._room = Budget(node.room_bytes_per_s)
        self._soft = soft
        self._sent_s: dict[str, float] = {}
        self._cost_s = COST_FIRST_S
        self._demand = 0.0
        self._demand_s = 0.0
        self._tick = Notches(tuple(float(ms) for ms in TICKS_MS[:-1]))
        self._ladder = Notches(UP)
        self.need_ms = 0.0
        """The tick that the cost asks for, before notches and bounds."""

    @property
    def tick_ms(self) -> int:
        """The room's own shortest (TICK_MIN_MS) … TICK_MAX_MS."""
        if not self._tick.level:
            return self._base_ms
        return min(TICK_MAX_MS, max(self._base_ms, TICKS_MS[self._tick.level]))

    @property
    def step(self) -> int:
        """0: nothing is left out … `SAMPLING`: comments are sampled."""
        return self._ladder.level

    def spent(self, busy_s: float, served: int, members: int, now_s: float) -> None:
        """A fan-out to `served` sockets took so much of the loop's time."""
        self._node.spent(busy_s, now_s)
        if served:
            self._cost_s += COST_WEIGHT * (busy_s / served - self._cost_s)
        self.look(members, now_s)

    def look(self, members: int, now_s: float) -> None:
        """Decide anew; called at each end of a fan-out, and by who waits in a silent room."""
        self.need_ms = 1000 * self._cost_s * members * self._node.stretch / SHARE
        self._tick.move(self.need_ms, now_s)
        self._ladder.move(self.strain(now_s), now_s)

    def strain(self, now_s: float) -> float:
        """The need as a share of what there is: of the longest tick, or of the egress."""
        self._age(now_s)
        most = min(self._room.bytes_per_s, self._node.budget.bytes_per_s)
        return max(self.need_ms / TICK_MAX_MS, self._demand / most)

    def _age(self, now_s: float) -> None:
        passed, self._demand_s = max(0.0, now_s - self._demand_s), now_s
        self._demand *= max(0.0, 1 - passed / DEMAND_S)

    def comments_bytes(self, wanted: int, other: int, members: int, now_s: float) -> int | None:
        """How many bytes of comments the next frame may carry; None: all of the `wanted`.

        `other`: bytes of the frame that are never left out. May raise the step.
        """
        self._age(now_s)
        self._demand += (wanted + other) * members / DEMAND_S
        self._ladder.move(self.strain(now_s), now_s)
        if not members or not wanted:
            return None
        left = min(self._room.left(now_s), self._node.budget.left(now_s))
        if self.need_ms > TICK_MAX_MS:  # the loop is the bottleneck: less for each frame
            left *= TICK_MAX_MS / self.need_ms
        allowed = max(0, int(left / members) - other)
        if wanted <= allowed:
            return None
        self._ladder.move(UP[-1], now_s)
        return allowed

    def sent(self, size: int, takers: int, now_s: float) -> None:
        """A frame of `size` bytes goes out to so many."""
        self._room.spend(size * takers, now_s)
        self._node.budget.spend(size * takers, now_s)

    # States that become rare.

    def held(self, now_s: float) -> dict[str, float]:
        """Soft states that may not go out yet, and the instant when each may."""
        if not self._ladder.level:
            return {}
        due = {
            key: self._sent_s[key] + soft.every_s
            for key, soft in self._soft.items()
            if self._ladder.level >= soft.step and key in self._sent_s
        }
        return {key: at_s for key, at_s in due.items() if at_s > now_s + GRAIN_S}

    def went(self, keys: set[str], now_s: float) -> None:
        """These states went out."""
        for key in self._soft.keys() & keys:
            self._sent_s[key] = now_s
