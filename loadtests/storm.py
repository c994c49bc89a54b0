"""`storm`: the whole crowd is cut off at one instant and comes back, while others buy and talk.

The whole program serves a live show with an open sale. A few shoppers who are not cut press Buy all
the time, the host speaks and pins, so there is always something to miss. After the cut each
listener comes back at a random instant of the spread and asks for what it missed by its position; a
tenth has reloaded the page and needs a snapshot; one that is told to wait waits. Everything is
checked by offsets: a gap is an entry missing, an offset that is known is an entry twice.
"""

import argparse
import asyncio
import contextlib
import itertools
import time
from typing import Any, Final

from live.identity import Role
from loadtests.api import Api
from loadtests.bench import Bench, machine, product_bench, targets
from loadtests.refused import Refused
from loadtests.shopper import Host, Shopper
from loadtests.stage import Stage
from loadtests.steps import FAILURES, StepFailed, Steps
from loadtests.vitals import percentile
from loadtests.workers import merge

UNITS: Final = 100_000
PER_VIEWER: Final = 99
BUYERS: Final = 30
"""A viewer may have three open holds; each is given back at once, which takes its time too."""
BUYS_PER_S: Final = 10.0
TALK_S: Final = 0.5
"""Two comments a second: 500 are remembered, so the longest way back is exact."""
PIN_EVERY: Final = 10
ALL_BACK_S: Final = 60.0
JOIN_S_PER_1000: Final = 20
SPREAD_S: Final = 50.0
"""Those who are told to wait then are back within the minute, too."""
CALM_S: Final = 3.0


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--viewers", type=int, default=2000, help="listeners at once")
    parser.add_argument(
        "--spread-s", type=float, default=SPREAD_S, help="all try again within this"
    )
    parser.add_argument(
        "--newcomers", type=float, default=0.1, help="share that comes back as a reloaded page"
    )
    parser.add_argument("--calm-s", type=float, default=CALM_S, help="measured before the cut")


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    return asyncio.run(_run(options_))


class Trade:
    """Shoppers who press Buy at a steady rate, one after another."""

    def __init__(self, url: str, show: str, drop: str, tokens: list[str], sku: str) -> None:
        self._shoppers = [Shopper(url, show, token) for token in tokens]
        self._drop = drop
        self._sku = sku
        self._tasks: set[asyncio.Task[None]] = set()
        self.ms: list[float] = []
        self.failures: list[str] = []

    async def run(self) -> None:
        """Until cancelled."""
        try:
            for shopper in self._shoppers:
                await shopper.join()
            for shopper in itertools.cycle(self._shoppers):
                task = asyncio.create_task(self._press(shopper))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                await asyncio.sleep(1 / BUYS_PER_S)
        finally:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for shopper in self._shoppers:
                await shopper.close()

    async def _press(self, shopper: Shopper) -> None:
        started = time.monotonic()
        try:
            hold = await shopper.buy(self._drop, [(self._sku, 1)])
            self.ms.append((time.monotonic() - started) * 1000)
            await shopper.command("cancel", rid=hold["rid"])
        except FAILURES as wrong:
            self.failures.append(f"{type(wrong).__name__}: {wrong}")

    def take(self) -> dict[str, Any]:
        """What was measured since the last time."""
        ms, self.ms = self.ms, []
        return {
            "count": len(ms),
            "p50_ms": round(percentile(ms, 50), 1),
            "p99_ms": round(percentile(ms, 99), 1),
            "max_ms": round(max(ms, default=0), 1),
        }


async def _host_talks(host: Host, product: str) -> None:
    for number in itertools.count(1):
        await asyncio.sleep(TALK_S)
        with contextlib.suppress(Refused):
            await host.comment(f"Number {number} of what the host has to say")
            if number % PIN_EVERY == 0:
                await host.act("announce", text=f"Announcement {number}")


async def _run(options_: argparse.Namespace) -> dict[str, Any]:
    steps = Steps(quiet=options_.quiet)
    viewers = options_.viewers
    found: dict[str, Any] = {}
    try:
        async with product_bench(viewers) as bench, Api(bench.url) as api:
            api.token = bench.token("bench-host", Role.HOST)
            stage = Stage(api, units=UNITS)
            async with stage.on_air(per_viewer=PER_VIEWER) as host:
                tokens = [bench.token(f"buyer{number}") for number in range(BUYERS)]
                trade = Trade(bench.url, stage.show, stage.drop, tokens, stage.sku)
                beside = [
                    asyncio.create_task(trade.run(), name="trade"),
                    asyncio.create_task(_host_talks(host, stage.product), name="host"),
                ]
                try:
                    with steps.step("join"):
                        await bench.swarm.join(bench.port, bench.joins(stage.show), returns=True)
                        within_s = 60 + viewers / 1000 * JOIN_S_PER_1000
                        await bench.swarm.wait_live(viewers, within_s=within_s)
                    with steps.step("calm"):
                        await asyncio.sleep(options_.calm_s)
                        trade.take()
                        await asyncio.sleep(options_.calm_s)
                        found["buy_calm"] = trade.take()
                    with steps.step("storm"):
                        found |= await _storm(
                            bench, trade, viewers, options_.spread_s, options_.newcomers
                        )
                finally:
                    for task in beside:
                        task.cancel()
                    await asyncio.gather(*beside, return_exceptions=True)
                with steps.step("equal"):
                    found |= await _equal(bench)
                found["buy_failures"] = trade.failures[:5]
    except StepFailed:
        pass
    else:
        _check(steps, found, viewers)
    return steps.result(
        viewers=viewers, spread_s=options_.spread_s, **found, targets=_targets(found), **machine()
    )


def _targets(found: dict[str, Any]) -> dict[str, Any]:
    return targets(
        buy_p99_ms=(found.get("buy", {}).get("p99_ms"), 250, "most"),
        loop_lag_ms_p99=(found.get("loop_lag_ms_p99"), 100, "most"),
        all_back_s=(found.get("all_back_s"), ALL_BACK_S, "most"),
        recovered=(found.get("recovered"), 1.0, "least"),
    )


def _check(steps: Steps, found: dict[str, Any], viewers: int) -> None:
    steps.check(found["back"] == viewers, "not everybody came back")
    steps.check(found["all_back_s"] <= ALL_BACK_S, "they were not back within a minute")
    steps.check(not found["missing"] and not found["twice"], "entries missing or twice")
    steps.check(found["pictures"] == 1, "viewers do not hold the same room")
    steps.check(
        found["snapshots_encoded"] <= found["versions"] + 1, "a version was encoded more than once"
    )
    steps.check(found["buy"]["count"] > 0, "nobody bought during the storm")
    steps.check(not found["buy_failures"], "Buy failed during the storm")


async def _storm(
    bench: Bench, trade: Trade, viewers: int, spread_s: float, newcomers_share: float
) -> dict[str, Any]:
    swarm = bench.swarm
    await swarm.ask("mark")
    before, totals = await bench.stats(), await swarm.totals()
    cpu = bench.cpu_s()
    trade.take()
    await bench.node.ask("mark")
    newcomers = sum(
        answer["newcomers"]
        for answer in await swarm.ask("cut", spread_s=spread_s, newcomers=newcomers_share)
    )
    back_s = await swarm.wait_live(viewers, within_s=max(ALL_BACK_S, spread_s * 3))
    lag = await bench.node.ask("lag")
    bought = trade.take()
    cpu = bench.cpu_s() - cpu
    after, later = await bench.stats(), await swarm.totals()
    joins = later["joins"] - totals["joins"]
    recovered = later["recovered"] - totals["recovered"]
    return {
        "back": later["live"],
        "all_back_s": round(back_s, 1),
        "joins": joins,
        "newcomers": newcomers,
        "recovered": round(recovered / max(1, joins - newcomers), 4),
        "told_to_wait": sum(later["refused"].values()) - sum(totals["refused"].values()),
        "snapshots_encoded": after["snapshots_encoded"] - before["snapshots_encoded"],
        "versions": after["frames_encoded"] - before["frames_encoded"],
        "cpu_ms_per_join": round(cpu * 1000 / max(1, joins), 3),
        "cpu_s": round(cpu, 2),
        "buy": bought,
        "loop_lag_ms": lag,
        "loop_lag_ms_p99": lag["p99"],
    }


async def _equal(bench: Bench) -> dict[str, Any]:
    """The traffic has ended: everybody must hold one room, having got each entry once."""
    pictures = await bench.one_picture(within_s=10)
    books = merge(await bench.swarm.ask("books", whole=True))
    return {
        "pictures": len(pictures),
        "missing": books["missing_control"] + books["missing_chat"],
        "twice": books["duplicates"],
        "said_to_be_left_out": books["skipped"],
    }
