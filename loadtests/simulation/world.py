"""One seed's world: time, chance, engines, nodes, and the record of what happened.

Responsible for the state that everybody in a simulation shares, for counting steps and faults, and
for the trace. A step is one call of a node to an engine (a script, a transaction), one press or one
fault. It must not know what is right: that is for `judge` and `audit_sql`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Final

from commerce.database_sql import Database
from commerce.errors import CommerceError
from commerce.gate import Image
from commerce.stock import Hold, Levels, Press
from commerce.waiting import Wait, WaitState
from loadtests.simulation.databases_sql import Passing
from loadtests.simulation.node import Node
from loadtests.simulation.plan import Fault, Plan
from loadtests.simulation.valkeys_redis import Copy, Valkeys
from loadtests.simulation.virtual_time import VirtualLoop

START_MS: Final = 1_800_000_000_000
STEPS_MAX: Final = 30_000
"""No seed comes near it; one that does runs in circles."""


class Endless(Exception):
    """A seed took more than STEPS_MAX steps."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a viewer was told. Times are true ones, in seconds."""

    press: Press
    node: str
    sent_s: float
    heard_s: float
    answer: Hold | CommerceError


@dataclass(frozen=True, slots=True)
class Joined:
    """What somebody who waits was told first, and when."""

    wait: Wait
    state: WaitState
    heard_s: float


class _Calm:
    """The port of whoever looks on from outside: nothing is lost, nothing takes time."""

    writing = ()

    def __init__(self, world: "World") -> None:
        self._world = world

    def turn(self) -> AbstractAsyncContextManager[None]:
        return self._world.engine_turn()

    async def enter(self, kind: str) -> None:
        """At once."""

    def before_commit(self) -> None:
        """Always."""

    async def leave(self, kind: str, durable: Collection[str]) -> None:
        """At once."""


class World:
    """Everything one seed has. `faulty` is true until the quiet begins."""

    def __init__(
        self, plan: Plan, loop: VirtualLoop, valkeys: Valkeys, database: Database, *, keep: bool
    ) -> None:
        self.plan = plan
        self.loop = loop
        self.valkeys = valkeys
        self.database = database
        self.chance = Random(f"world {plan.seed}")
        self.control = Passing(database, _Calm(self))
        """The database as an onlooker has it, without faults and without time."""
        self.nodes: list[Node] = []
        self.faulty = True
        self.stretch = plan.stretch
        self.gate_away_until = 0.0
        self.sql_away_until = 0.0
        self.copies: list[Copy] = []
        self.heard: list[Heard] = []
        self.durable: dict[str, float] = {}
        """By rid, when its reservation was first committed."""
        self.given_back: set[str] = set()
        """Rids that somebody has asked to cancel, or begun to pay."""
        self.sold: set[str] = set()
        """Rids of which somebody heard that they are sold."""
        self.paying: set[str] = set()
        """Rids for which somebody can pay now: nobody else may get their units."""
        self.drops: list[str] = []
        """Names of the drops, the newest last."""
        self.adjusted: Counter[str] = Counter()
        self.sets: dict[str, tuple[int, int, bool]] = {}
        """Changes by compare-and-set that were acknowledged: ref: to, from, whether it drains."""
        self.joined: dict[str, Joined] = {}
        """By rid, what those who wait were told first."""
        self.leaving: set[str] = set()
        """Rids of which somebody has said that they wait no more."""
        self.doubled: set[str] = set()
        """Rids of entries that were used for a press of Buy too."""
        self.left: set[str] = set()
        """Those that were acknowledged as left."""
        self.levels: dict[int, dict[str, int]] = {}
        """By version, what the nodes learned of levels."""
        self.opens: dict[int, dict[str, int | None]] = {}
        """By epoch, when each drop opens for the gate of that epoch; None: it is not drawn yet."""
        self.violations: list[str] = []
        self.steps = 0
        self.presses = 0
        self.faults: Counter[Fault] = Counter()
        self.background: set[asyncio.Task[None]] = set()
        self.lines: list[str] | None = [] if keep else None
        self._trace = blake2b(digest_size=16)
        self._named = 0
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def engine_turn(self) -> AsyncIterator[None]:
        """Held while the database is asked: one at a time. The clock stands while it really works.

        SQLite answers without the loop, so it needs no turn.
        """
        if self.database.dialect == "sqlite":
            yield
            return
        async with self._turn:
            with self.loop.really():
                yield

    @property
    def now_ms(self) -> int:
        """True time, in milliseconds since 1970."""
        return START_MS + int(self.loop.now_s * 1000)

    @property
    def trace(self) -> str:
        """A digest of all that happened, in order."""
        return self._trace.hexdigest()

    def step(self, *words: object) -> None:
        """Something happened."""
        self.steps += 1
        line = f"{self.loop.now_s:.6f} {' '.join(map(str, words))}"
        self._trace.update(line.encode())
        if self.lines is not None:
            self.lines.append(line)
        if self.steps > STEPS_MAX:
            raise Endless

    def meets(self, fault: Fault) -> bool:
        """Whether this call meets a fault; it is counted if so."""
        if not self.faulty:
            return False
        rate = self.plan.rates.get(fault)
        if rate is None or self.chance.random() >= rate:
            return False
        self.count(fault)
        return True

    def count(self, fault: Fault) -> None:
        """A fault happens now."""
        self.faults[fault] += 1
        self.step("fault", fault)

    def violated(self, invariant: str, what: str) -> None:
        """Something that must never be so."""
        self.step("violated", invariant)
        self.violations.append(f"{invariant}: {what}")

    def learned(self, levels: Levels) -> None:
        """A node has heard of levels."""
        for sku, level in levels.items():
            self.levels.setdefault(level.version, {})[sku] = level.available

    def loaded(self, epoch: int, image: Image) -> None:
        """A gate may be loaded with this."""
        self.opens[epoch] = {
            drop.id: None if drop.undrawn else drop.opens_at for drop in image.drops
        }

    def travel_s(self) -> float:
        """How long a call is on its way: mostly below 2 ms, sometimes half a second."""
        chance = self.chance.random()
        if chance < 0.80:
            return 0.0002 + 0.0022 * chance
        if chance < 0.97:
            return self.chance.uniform(0.002, 0.04)
        return self.chance.uniform(0.04, 0.5)

    def start_node(self) -> Node:
        """One more node, with nothing in its memory."""
        self._named += 1
        node = Node(self, f"n{self._named}")
        self.nodes.append(node)
        node.start()
        return node

    @property
    def living(self) -> list[Node]:
        """Nodes that have not been killed, oldest first."""
        return [node for node in self.nodes if not node.dead]

    def some_node(self, chance: Random) -> Node:
        """A living node; if there is none, a new one."""
        living = self.living
        return chance.choice(living) if living else self.start_node()

    def later(self, task: "asyncio.Task[None]") -> None:
        """Keeps a task that nobody waits for."""
        self.background.add(task)
        task.add_done_callback(self.background.discard)
