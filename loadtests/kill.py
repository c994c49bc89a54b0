"""`kill`: processes are killed under a buying crowd, and afterwards every unit is where it belongs.

Real `serve` nodes, real sockets, real engines: two nodes on PostgreSQL and a Valkey, and one node
as a newcomer starts it (SQLite, a Valkey of its own). Nodes die at random moments and at every
crash point by name. Valkey comes back with its data, with none or with an old copy; PostgreSQL is
stopped at once or killed, and recovers. The crowd repeats each press until it is decided. After
every round all is left alone until nothing moves, and then three numbers must be 0:

    oversold           units in orders that were never there
    lost_acknowledged  people who were told something that the record does not know
    unaccounted        units, gate entries or money that nothing explains

A seed fixes what is killed and what people do, not how the machine interleaves them.
"""

import argparse
import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

from live.identity import Role
from loadtests import kill_cluster
from loadtests.api import Api
from loadtests.bench import folder_of_a_bench, machine
from loadtests.kill_cluster import Cluster
from loadtests.kill_shoppers import Buyer, Crowd, Desk
from loadtests.kill_truth import Truth, Verdict
from loadtests.kill_waves import Record, Waves
from loadtests.shopper import Host
from loadtests.stage import CSV_COLUMNS
from loadtests.steps import StepFailed, Steps

KILLS: Final = 200
ROUND: Final = 50
BUYERS: Final = 24
SKUS: Final = 6
UNITS: Final = 12
SQLITE_SHARE: Final = 0.25
"""One node has a start of its own after each kill; a cluster gets through twice as many."""
HOST: Final = "drill-host"
RESTOCKERS: Final = 2
EVERY_POINT_FROM: Final = 50
"""A run of so many kills on one database goes on until every crash point has had its turn."""
EXTRA_ROUNDS_MAX: Final = 3
CALM_DOWN_S: Final = 60.0
STORIES_MAX: Final = 5


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--kills", type=int, default=KILLS, help="at least so many in total")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--round", type=int, default=ROUND, help="kills between two quiets")
    parser.add_argument("--buyers", type=int, default=BUYERS)


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    return asyncio.run(_run(options_))


class Totals:
    """Sums over both databases."""

    def __init__(self) -> None:
        self.record = Record()
        self.presses = self.winners = self.orders = self.adjustments = self.drops = 0
        self.oversold = self.lost = self.unaccounted = 0
        self.rounds = 0
        self.stories: list[dict[str, Any]] = []
        self.failures: list[str] = []


async def _run(options_: argparse.Namespace) -> dict[str, Any]:
    seed = secrets.randbits(32) if options_.seed is None else options_.seed
    steps, totals = Steps(quiet=options_.quiet), Totals()
    shares = {"sqlite": SQLITE_SHARE, "postgresql": 1 - SQLITE_SHARE}
    if options_.database != "both":
        shares = {options_.database: 1.0}
    with contextlib.suppress(StepFailed):
        for database, share in shares.items():
            kills = max(1, round(options_.kills * share))
            drill = Drill(steps, totals, options_, random.Random(f"{seed} {database}"))
            await drill.run(database, kills)
    steps.check(totals.oversold == 0, "more was sold than there was")
    steps.check(totals.lost == 0, "people were told what the record does not know")
    steps.check(totals.unaccounted == 0, "something is explained by nothing")
    steps.check(totals.winners > 0, "nobody bought")
    steps.check(not totals.failures, "buyers were sent away for good")
    steps.check(not totals.record.surprises, "nodes ended by themselves")
    return steps.result(
        seed=seed,
        **totals.record.summary(),
        rounds=totals.rounds,
        presses=totals.presses,
        winners=totals.winners,
        orders=totals.orders,
        stock_changes=totals.adjustments,
        drops=totals.drops,
        oversold=totals.oversold,
        lost_acknowledged=totals.lost,
        unaccounted=totals.unaccounted,
        violations=totals.stories,
        failures=totals.failures[:STORIES_MAX],
        **machine(),
    )


class Drill:
    """One cluster from its first start to its last quiet."""

    def __init__(
        self,
        steps: Steps,
        totals: Totals,
        options_: argparse.Namespace,
        random_: random.Random,
    ) -> None:
        self._steps = steps
        self._totals = totals
        self._options = options_
        self._random = random_

    async def run(self, database: str, kills: int) -> None:
        """So many kills, with a quiet after each round. Raises `StepFailed`."""
        self._totals.record.database = database
        shape = kill_cluster.embedded if database == "sqlite" else kill_cluster.cluster
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(folder_of_a_bench())
            with self._steps.step(f"{database}: start"):
                cluster = await stack.enter_async_context(shape(folder))
                crowd = await self._crowd(stack, cluster)
                waves = Waves(
                    cluster,
                    self._totals.record,
                    random.Random(self._random.getrandbits(64)),
                    lambda calm: setattr(crowd, "calm", calm),
                )
                await waves.start()
                await _open_shop(cluster, crowd)
            given = dict.fromkeys(crowd.skus, UNITS)
            truth = await stack.enter_async_context(Truth(cluster, HOST, given))
            buyers = [Buyer(crowd, number) for number in range(self._options.buyers)]
            await stack.enter_async_context(_staying(buyers))
            desk = Desk(crowd, cluster.token(HOST, Role.HOST))
            every = kills >= EVERY_POINT_FROM
            for number in _rounds(kills, self._options.round):
                await self._round(database, waves, truth, crowd, buyers, desk, number)
            for _ in range(EXTRA_ROUNDS_MAX if every else 0):
                if missed := waves.insist():
                    await self._round(database, waves, truth, crowd, buyers, desk, 2 * missed)
            await self._count(truth, crowd, buyers, desk)

    async def _crowd(self, stack: AsyncExitStack, cluster: Cluster) -> Crowd:
        crowd = Crowd(
            urls=cluster.urls,
            show="",
            skus=[f"KILL-{number}" for number in range(SKUS)],
            token=cluster.token,
            random=random.Random(self._random.getrandbits(64)),
            on_win=self._totals.record.won,
        )
        crowd.apis = [await stack.enter_async_context(Api(url)) for url in cluster.urls]
        return crowd

    async def _round(
        self,
        database: str,
        waves: Waves,
        truth: Truth,
        crowd: Crowd,
        buyers: list[Buyer],
        desk: Desk,
        kills: int,
    ) -> None:
        crowd.pressing = True
        working = [asyncio.create_task(buyer.shop()) for buyer in buyers]
        working += [asyncio.create_task(desk.sell())]
        working += [asyncio.create_task(desk.restock()) for _ in range(RESTOCKERS)]
        try:
            with self._steps.step(f"{database}: {kills} kills"):
                await waves.round(kills)
            crowd.pressing = False
            with self._steps.step(f"{database}: quiet"):
                await asyncio.wait(working, timeout=CALM_DOWN_S)
                moving = await truth.quiet()
                self._steps.check(not moving, f"it does not come to rest: {moving}")
        finally:
            for task in working:
                task.cancel()
            done = await asyncio.gather(*working, return_exceptions=True)
        for outcome in done:
            if isinstance(outcome, Exception):
                raise outcome
        for buyer in buyers:
            buyer.collect()
        self._totals.rounds += 1
        await self._judge(truth, crowd, await truth.judge(crowd))

    async def _judge(self, truth: Truth, crowd: Crowd, verdict: Verdict) -> None:
        self._totals.oversold = max(self._totals.oversold, verdict.oversold)
        self._totals.lost += len(verdict.lost)
        self._totals.unaccounted += len(verdict.unaccounted)
        for violation in verdict.all[:STORIES_MAX]:
            story = await truth.story(violation.rid, crowd) if violation.rid else {}
            found = {"what": violation.what, "last_kills": self._totals.record.last(), **story}
            self._totals.stories.append(found)
            self._steps.wrong(f"{violation.what} {violation.rid}".strip())
        if verdict.oversold or verdict.all:
            self._steps.stop("a violation: what follows would only repeat it")

    async def _count(self, truth: Truth, crowd: Crowd, buyers: list[Buyer], desk: Desk) -> None:
        books = await truth.look()
        self._totals.presses += len(crowd.presses)
        self._totals.winners += sum(buyer.held for buyer in buyers)
        self._totals.orders += len(books.rows["orders"])
        self._totals.adjustments += len(crowd.adjustments)
        self._totals.drops += desk.opened
        self._totals.failures += [failure for buyer in buyers for failure in buyer.failures]


def _rounds(kills: int, most: int) -> list[int]:
    return [min(most, kills - done) for done in range(0, kills, most)]


async def _open_shop(cluster: Cluster, crowd: Crowd) -> None:
    """Products, a show, live."""
    token = cluster.token(HOST, Role.HOST)
    async with Api(crowd.urls[0], token) as api:
        currency = (await api.get("/api/v1/shop"))["currency"]
        rows = "\n".join(
            f"{sku.lower()},{sku},<p>Not for sale.</p>,Check,Check,,FALSE,Title,"
            f"Default Title,{sku},100,{UNITS},5,TRUE,"
            for sku in crowd.skus
        )
        await api.send_csv(f"/api/v1/imports?currency={currency}", f"{CSV_COLUMNS}\n{rows}\n")
        body = {"title": "Synthetic check", "hidden": True}
        show = await api.call("POST", "/api/v1/shows", body, key="the-show")
        crowd.show = show["id"]
    async with Host(crowd.urls[0], crowd.show, token) as host:
        await host.take_console()
        await host.act("go_live")


@contextlib.asynccontextmanager
async def _staying(buyers: list[Buyer]) -> AsyncIterator[None]:
    """In the show, whatever happens to it."""
    tasks = [asyncio.create_task(buyer.stay()) for buyer in buyers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
