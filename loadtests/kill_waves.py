"""Who is killed when: the seeded plan of the kill drill, and the list of what was killed.

Responsible for choosing (node, engine, crash point, moment, what a Valkey comes back with), for
starting again what was killed, and for how long it took until a press won again. It must not know
what is right afterwards.

A round has a storm and a calm. In the storm engines die as well, and each rebuild sweeps away what
nobody had made durable; so orphans, which are taken back after five seconds, are only reaped in
the calm, and the crash points of the reaper belong there. Everything else happens at any time.
"""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from commerce.crash_points import POINTS, CrashPoint
from loadtests.kill_cluster import Cluster, Data, Node, armed
from loadtests.refused import TooLate

STORM_SHARE: Final = 0.7
ENGINE_EVERY_S: Final = (1.0, 3.5)
ENGINE_DOWN_S: Final = (0.0, 0.8)
SUPERVISOR_S: Final = (0.2, 0.4)
"""How long a supervisor waits before it starts again what gave up."""
WIN_WAIT_S: Final = 15.0
"""An engine is killed again when a press has won since, or after this long: what is killed must
have been doing something."""
COPY_EVERY_S: Final = 3.0
START_S: Final = 60.0
POLL_S: Final = 0.05
WHILE_STARTING_SHARE: Final = 0.25
WHILE_STARTING_S: Final = 1.0
RANDOM_LIFE_S: Final = (0.3, 3.0)
POINT_LIFE_S: Final = 6.0
"""Once it was ready; a node whose point was not reached by then is killed where it is."""
REAP_LIFE_S: Final = 16.0
DRAW_RANDOM: Final = 4
"""Kills at a random moment per turn through all crash points."""
BUSY_POINTS: Final = ("reserve:", "record:")
AGAIN_MAX: Final = 4
NTH_BUSY: Final = 12
NTH_OTHER: Final = 2
WEBHOOKS_AT: Final = 0
"""The node that the provider tells."""
SHOWN_LAST: Final = 12


@dataclass
class Kill:
    """One of them."""

    at: float
    kind: str
    what: str
    target: str = ""
    """Address of a node; "" for an engine of all."""
    database: str = ""
    back_ms: float | None = None
    """Until a press that was sent after it (to that node) had won."""


@dataclass
class Record:
    """Everything that was killed."""

    kills: list[Kill] = field(default_factory=list)
    failed_starts: Counter[str] = field(default_factory=Counter)
    """Nodes that gave up while an engine was away, by their last word; they are started again."""
    surprises: list[str] = field(default_factory=list)
    """Nodes that had started and ended although nobody killed them."""
    database: str = ""
    """What the cluster of the present kills stands on."""
    won_at: float = 0.0
    """When a press had won last (monotonic, s)."""
    _open: list[Kill] = field(default_factory=list)

    def note(self, kind: str, what: str, target: str = "") -> None:
        """It is dead as of now."""
        kill = Kill(time.monotonic(), kind, what, target, self.database)
        self.kills.append(kill)
        self._open = [one for one in self._open if one.target != target]
        self._open.append(kill)

    def won(self, address: str, asked_at: float) -> None:
        """A press sent at `asked_at` to this address has won."""
        now = self.won_at = time.monotonic()
        for kill in self._open:
            if asked_at >= kill.at and kill.target.partition(":")[2] in address:
                kill.back_ms = (now - kill.at) * 1000
        self._open = [kill for kill in self._open if kill.back_ms is None]

    def missed(self, database: str) -> list[CrashPoint]:
        """Crash points at which nobody has died on this database."""
        seen = {kill.what for kill in self.kills if kill.database == database}
        return [point for point in POINTS if point not in seen]

    def last(self) -> list[str]:
        """The newest, for a person."""
        now = time.monotonic()
        return [
            f"{now - kill.at:.1f} s ago {kill.kind} {kill.what} {kill.target}".strip()
            for kill in self.kills[-SHOWN_LAST:]
        ]

    def summary(self) -> dict[str, Any]:
        """Counts, and how long it took."""
        points = Counter(kill.what for kill in self.kills if kill.kind == "crash point")
        whats = Counter(
            f"{kill.kind} {kill.what}".strip() for kill in self.kills if kill.kind != "crash point"
        )
        kinds = sorted({kill.kind for kill in self.kills})
        return {
            "kills": {
                "total": len(self.kills),
                "by_kind": dict(Counter(kill.kind for kill in self.kills)),
                "by_crash_point": dict(sorted(points.items())),
                "others": dict(sorted(whats.items())),
                "crash_points_missed": {
                    database: self.missed(database)
                    for database in sorted({kill.database for kill in self.kills})
                },
            },
            "recovery_ms_p50": _percentile(self._backs(""), 50),
            "recovery_ms_p99": _percentile(self._backs(""), 99),
            "recovery_ms": {
                kind: {
                    "p50": _percentile(self._backs(kind), 50),
                    "p99": _percentile(self._backs(kind), 99),
                    "measured": len(self._backs(kind)),
                }
                for kind in kinds
            },
            "failed_starts": dict(self.failed_starts),
            "ended_by_themselves": self.surprises,
        }

    def _backs(self, kind: str) -> list[float]:
        return sorted(
            kill.back_ms
            for kill in self.kills
            if kill.back_ms is not None and kind in ("", kill.kind)
        )


class Deck:
    """Crash points in turns, each turn in another order, with random moments between them."""

    def __init__(self, random_: random.Random) -> None:
        self._random = random_
        self._cards: dict[bool, list[CrashPoint | None]] = {False: [], True: []}
        self._again: Counter[CrashPoint] = Counter()
        self._only: tuple[CrashPoint, ...] = POINTS

    def draw(self, node: int, *, calm: bool) -> CrashPoint | None:
        """The next point for this node; None: a random moment."""
        cards = self._cards[calm]
        if not cards:
            fits = [point for point in self._only if calm or not point.startswith("reap")]
            cards += [*fits, *[None] * (DRAW_RANDOM if len(fits) > DRAW_RANDOM else 1)]
            self._random.shuffle(cards)
        for place in range(len(cards)):
            if cards[place] != "inbox:after_commit" or node == WEBHOOKS_AT:
                return cards.pop(place)
        return None

    def missed(self, point: CrashPoint, *, calm: bool) -> None:
        """The node did not get there in time: once more in this turn, but not for ever."""
        self._again[point] += 1
        if self._again[point] <= AGAIN_MAX:
            self._cards[calm].append(point)

    def only(self, points: tuple[CrashPoint, ...]) -> None:
        """From now on nothing but these."""
        self._only = points
        self._cards = {False: [], True: []}

    def nth(self, point: CrashPoint) -> int:
        """Which time at the point."""
        if self._again[point]:
            return 1
        most = NTH_BUSY if point.startswith(BUSY_POINTS) else NTH_OTHER
        return self._random.randint(1, most)


class Waves:
    """Kills in one cluster; `set_calm` tells the crowd."""

    def __init__(
        self,
        cluster: Cluster,
        record: Record,
        random_: random.Random,
        set_calm: Callable[[bool], None],
    ) -> None:
        self._cluster = cluster
        self._record = record
        self._random = random_
        self._deck = Deck(random_)
        self._set_calm = set_calm
        self._calm = False
        self._over = asyncio.Event()

    async def start(self) -> None:
        """All nodes, unarmed, ready."""
        await asyncio.gather(*(self._start_for_good(node) for node in self._cluster.nodes))

    def insist(self) -> int:
        """From now on only at crash points that this database has missed; how many there are."""
        missed = tuple(self._record.missed(self._record.database))
        if missed:
            self._deck.only(missed)
        return len(missed)

    async def round(self, kills: int) -> None:
        """At least so many kills; afterwards everything runs, unarmed."""
        first = len(self._record.kills)
        self._over.clear()
        self._turn_calm(False)
        work = [asyncio.create_task(self._node(n)) for n in range(len(self._cluster.nodes))]
        work += [asyncio.create_task(self._copies()), asyncio.create_task(self._valkeys())]
        if self._cluster.postgres is not None:
            work.append(asyncio.create_task(self._postgreses()))
        try:
            while (done := len(self._record.kills) - first) < kills:
                self._turn_calm(done >= kills * STORM_SHARE)
                await asyncio.wait(work, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
                for task in work:
                    if task.done():
                        task.result()
        finally:
            self._over.set()
            await asyncio.gather(*work)

    def _turn_calm(self, calm: bool) -> None:
        self._calm = calm
        self._set_calm(calm)

    async def _pause(self, bounds: tuple[float, float]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._random.uniform(*bounds)):
                await self._over.wait()

    # Nodes.

    async def _node(self, number: int) -> None:
        node, url = self._cluster.nodes[number], self._cluster.urls[number]
        await node.kill()
        while not self._over.is_set():
            await self._life(node, number, url)
            await self._files_between()
        await self._start_for_good(node)

    async def _start_for_good(self, node: Node) -> None:
        """Unarmed and ready, also if an engine is still away. Raises `TooLate`."""
        deadline = time.monotonic() + START_S
        while not await node.ready():
            if not node.pid:
                await node.start()
            if time.monotonic() > deadline:
                raise TooLate(f"{node.name} was not ready within {START_S:g} s: {node.tail()}")
            await asyncio.sleep(POLL_S)

    async def _life(self, node: Node, number: int, url: str) -> None:
        """From one start to its death."""
        point = self._deck.draw(number, calm=self._calm)
        await node.start(armed(point, self._deck.nth(point)) if point else None)
        ended = asyncio.create_task(node.ended())
        over = asyncio.create_task(self._over.wait())
        was_ready = True
        if point is None and self._random.random() < WHILE_STARTING_SHARE:
            life_s = self._random.uniform(0, WHILE_STARTING_S)
        else:
            was_ready = await self._wait_ready(node, ended, over)
            life_s = self._life_s(point)
        await asyncio.wait({ended, over}, timeout=life_s, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if not ended.done():
            await node.kill()
            self._record.note("node", "at a random moment", url)
            if point is not None and not self._over.is_set():
                self._deck.missed(point, calm=self._calm)
        elif ended.result() == -signal.SIGKILL and point is not None:
            self._record.note("crash point", point, url)
        elif was_ready:
            self._record.surprises.append(f"{node.name} ended with {ended.result()}: {node.tail()}")
        else:
            self._record.failed_starts[node.last_word()] += 1
            if point is not None:
                self._deck.missed(point, calm=self._calm)
            await self._pause(SUPERVISOR_S)
        await ended

    def _life_s(self, point: CrashPoint | None) -> float:
        if point is None:
            return self._random.uniform(*RANDOM_LIFE_S)
        return REAP_LIFE_S if point.startswith("reap") else POINT_LIFE_S

    async def _wait_ready(
        self, node: Node, ended: "asyncio.Task[int]", over: "asyncio.Task[bool]"
    ) -> bool:
        deadline = time.monotonic() + START_S
        while not (ended.done() or over.done()) and time.monotonic() < deadline:
            if await node.ready():
                return True
            await asyncio.sleep(POLL_S)
        return False

    async def _files_between(self) -> None:
        """An embedded Valkey died with its node; perhaps it comes back with less than it had."""
        files = self._cluster.files
        if self._cluster.valkey is not None or files is None or self._calm:
            return
        how = self._draw_data()
        if how == "kept":
            return
        if await self._cluster.embedded_is_gone():
            await asyncio.to_thread(files.restore, how)
            self._record.note("valkey", how)

    # Engines.

    def _draw_data(self) -> Data:
        return self._random.choice(("kept", "empty", "stale"))

    async def _copies(self) -> None:
        while not self._over.is_set():
            if self._cluster.files is not None:
                await asyncio.to_thread(self._cluster.files.keep_copy)
            await self._pause((COPY_EVERY_S, COPY_EVERY_S))

    async def _until_won(self) -> None:
        since = time.monotonic()
        while self._record.won_at < since and time.monotonic() < since + WIN_WAIT_S:
            await self._pause((POLL_S, POLL_S))
            if self._over.is_set():
                return

    async def _valkeys(self) -> None:
        while not self._over.is_set():
            await self._until_won()
            await self._pause(ENGINE_EVERY_S)
            if self._calm or self._over.is_set():
                continue
            if self._cluster.valkey is None:
                if (pid := self._cluster.embedded_valkey()) != 0:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    self._record.note("valkey", "kept")
                continue
            how = self._draw_data()
            await self._cluster.valkey.kill()
            self._record.note("valkey", how)
            await self._pause(ENGINE_DOWN_S)
            await asyncio.to_thread(self._cluster.valkey.files.restore, how)
            await self._cluster.valkey.start()

    async def _postgreses(self) -> None:
        postgres = self._cluster.postgres
        assert postgres is not None
        while not self._over.is_set():
            await self._until_won()
            await self._pause((ENGINE_EVERY_S[0] * 2, ENGINE_EVERY_S[1] * 2))
            if self._over.is_set():
                return
            how = self._random.choice(("stop", "kill"))
            await postgres.end("kill" if how == "kill" else "stop")
            self._record.note("postgres", how)
            await self._pause(ENGINE_DOWN_S)
            await postgres.start()


def _percentile(ordered: list[float], percent: int) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 1)
