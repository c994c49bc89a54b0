"""Who is killed in the money drill, and when: as orders come in, spread over the whole run.

Responsible for choosing (node or PostgreSQL, a crash point of paying or a random moment) and for
starting again what died. It must not know what is right afterwards. Half of the kills of nodes are
at a crash point where money and record are apart; the others fall where they fall.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from commerce.crash_points import POINTS, CrashPoint
from loadtests.kill_cluster import Cluster, Node, armed
from loadtests.refused import TooLate

MONEY_POINTS: Final[tuple[CrashPoint, ...]] = tuple(
    point
    for point in POINTS
    if point.startswith(("pay:", "inbox:", "sale:", "capture:", "close:", "cancel:", "sweep:"))
)
POSTGRES_EVERY: Final = 5
"""One kill in so many is PostgreSQL's, where there is one."""
POINT_WAIT_S: Final = 12.0
"""A node whose point is not reached by then is killed where it is."""
START_S: Final = 600.0
"""On a machine on which others have the CPU."""
POLL_S: Final = 0.05
NTH_MAX: Final = 3


class Kills:
    """`progress`: the share of orders that are paid, from 0 to 1; `ended`: no more of them."""

    def __init__(
        self,
        cluster: Cluster,
        kills: int,
        random_: random.Random,
        progress: Callable[[], float],
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self._cluster = cluster
        self._kills = kills
        self._random = random_
        self._progress = progress
        self._ended = ended
        self._deck: list[CrashPoint] = []
        self.by_kind: Counter[str] = Counter()
        self.at_work_on: Node | None = None
        """The node that is meant to be dead now, or about to die."""

    @property
    def done(self) -> int:
        """How many there were."""
        return self.by_kind.total()

    async def run(self) -> None:
        """Until all were made. Raises `TooLate` when a node does not come back."""
        for number in range(self._kills):
            while self._progress() < (number + 0.5) / (self._kills + 1):  # noqa: ASYNC110 - shared
                await asyncio.sleep(POLL_S)
            if self._ended():
                return
            if self._cluster.postgres is not None and number % POSTGRES_EVERY == 2:
                await self._postgres()
            else:
                self.at_work_on = self._random.choice(self._cluster.nodes)
                await self._node(self.at_work_on, at_point=number % 2 == 0)
                self.at_work_on = None

    async def _postgres(self) -> None:
        postgres = self._cluster.postgres
        assert postgres is not None
        kill = self._random.random() < 0.5
        await postgres.end("kill" if kill else "stop")
        self.by_kind["postgresql " + ("killed" if kill else "stopped")] += 1
        await postgres.start()

    async def _node(self, node: Node, *, at_point: bool) -> None:
        await node.kill()
        self.by_kind["node at a random moment"] += 1
        if not at_point:
            await start(node)
            return
        if not self._deck:
            self._deck = list(MONEY_POINTS)
            self._random.shuffle(self._deck)
        point = self._deck.pop()
        await node.start(armed(point, self._random.randint(1, NTH_MAX)))
        deadline = time.monotonic() + POINT_WAIT_S
        while (  # noqa: ASYNC110 - another process
            node.pid and time.monotonic() < deadline and self._progress() < 1
        ):
            await asyncio.sleep(POLL_S)
        if node.pid:
            await node.kill()
            self.by_kind["node at a random moment"] += 1
        else:
            self.by_kind[f"node at {point}"] += 1
        await start(node)


async def start(node: Node) -> None:
    """Unarmed and ready, also if an engine is still away. Raises `TooLate`."""
    deadline = time.monotonic() + START_S
    while not await node.ready():
        if not node.pid:
            await node.start()
        if time.monotonic() > deadline:
            raise TooLate(f"{node.name} was not ready within {START_S:g} s: {node.tail()}")
        await asyncio.sleep(POLL_S)
