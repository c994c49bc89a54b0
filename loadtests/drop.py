"""`drop`: a crowd stands ready, a sale opens, everybody presses Buy within one second.

Real sockets, the whole program, a database that commits for good. Each buyer has an instant at
which to press; its latency counts from there. A refusal that decides nothing ("busy") is followed
by the same press again, as the protocol says. Then four questions, of one server with one crowd:

* `drop`: few units. Who wins is counted in SQL, not by what was answered.
* `winners`: as many units as buyers. Durable reservations per second.
* `half`: buyers at half of that rate, for four seconds, in a room as full as before: at random
  instants, all of whom win. How long a winner waits when nobody is in a hurry. The rate is that of
  the same run, and so is the crowd that watches; `--stages` says where the time goes.
* `baseline`: the same process, told to answer each Buy by a transaction that locks the row
  (`drop_baseline_sql`), for a shorter crowd: once with few units, once with enough for all.
"""

import argparse
import asyncio
import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from live.identity import Role
from loadtests.api import Api
from loadtests.bench import Bench, folder_of_a_bench, machine, product_bench, targets
from loadtests.drop_postgres_sql import Postgres
from loadtests.drop_stages import parts_of
from loadtests.drop_truth_sql import truth_of
from loadtests.refused import TooLate
from loadtests.shopper import Host
from loadtests.stage import Stage
from loadtests.steps import StepFailed, Steps
from loadtests.vitals import percentile
from loadtests.workers import merge

BUYERS: Final = 15_000
STOCK: Final = 500
WITHIN_S: Final = 1.0
HOLD_S: Final = 86_400
"""Nothing expires while it is counted."""
BASELINE_BUYERS: Final = 3_000
"""A rate needs no longer crowd, and this one takes its time."""
BASELINE_WINNERS: Final = 1_500
HALF_S: Final = 4.0
LEAD_S: Final = 0.5
"""From arming the crowd to the first press."""
SETTLE_S: Final = 1.0
"""What is said about one sale is heard by all before the next."""
ANSWERS_S: Final = 60.0
JOIN_S_PER_1000: Final = 20
POLL_S: Final = 0.05
PARTS: Final = ("drop", "winners", "half", "baseline")
DATABASES: Final = ("sqlite", "postgresql")


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--buyers", type=int, default=BUYERS, help="who press Buy")
    parser.add_argument("--stock", type=int, default=STOCK, help="units there are")
    parser.add_argument("--within-s", type=float, default=WITHIN_S, help="all press within this")
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both")
    parser.add_argument(
        "--parts", default=",".join(PARTS), help=f"which of {','.join(PARTS)}, by commas"
    )
    parser.add_argument("--stages", action="store_true", help="where a winner's time goes at half")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="winners/s of `half`, to look at it alone"
    )
    parser.add_argument("--baseline-buyers", type=int, default=BASELINE_BUYERS)
    parser.add_argument("--baseline-winners", type=int, default=BASELINE_WINNERS)


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    steps = Steps(quiet=options_.quiet)
    names = DATABASES if options_.database == "both" else (options_.database,)
    found: dict[str, Any] = {}
    wanted: dict[str, tuple[float | None, float, str]] = {}
    for name in names:
        with (
            folder_of_a_bench() as folder,
            _database(name, folder) as url,
            contextlib.suppress(StepFailed),
        ):
            found[name] = asyncio.run(_Run(steps, options_, name, url).run())
        wanted |= _wanted(name, found.get(name, {}))
    return steps.result(
        buyers=options_.buyers,
        stock=options_.stock,
        within_s=options_.within_s,
        **found,
        targets=targets(**wanted),
        **machine(),
    )


@contextlib.contextmanager
def _database(name: str, folder: Path) -> Iterator[str]:
    if name == "sqlite":
        yield f"sqlite:///{folder / 'shop.db'}"
        return
    with Postgres(folder / "pg") as server:
        yield server.url


def _wanted(name: str, found: dict[str, Any]) -> dict[str, tuple[float | None, float, str]]:
    return {
        f"{name}_decisions_times_baseline": (found.get("decisions_times_baseline"), 8, "least"),
        f"{name}_winners_times_baseline": (found.get("winners_times_baseline"), 3, "least"),
        f"{name}_half_rate_winner_ms_p99": (found.get("half_rate_winner_ms_p99"), 50, "most"),
    }


class _Run:
    """One server on one database."""

    def __init__(self, steps: Steps, options_: argparse.Namespace, name: str, url: str) -> None:
        self._steps = steps
        self._options = options_
        self._name = name
        self._url = url
        self._sales = 0

    async def run(self) -> dict[str, Any]:
        """All parts that were asked for. Raises `StepFailed`."""
        buyers = self._options.buyers
        async with (
            product_bench(
                buyers,
                node_module="loadtests.drop_node",
                crowd_module="loadtests.drop_swarm",
                settings={"LIVE_DATABASE_URL": self._url},
                database_url=self._url,
            ) as bench,
            Api(bench.url) as api,
        ):
            api.token = bench.token("bench-host", Role.HOST)
            stage = Stage(api, units=1)
            await stage.create_show()
            async with Host(bench.url, stage.show, api.token) as host:
                await host.take_console()
                await host.act("go_live")
                with self._steps.step(f"{self._name} join"):
                    await bench.swarm.join(bench.port, bench.joins(stage.show))
                    within_s = 60 + buyers / 1000 * JOIN_S_PER_1000
                    await bench.swarm.wait_live(buyers, within_s=within_s)
                return await self._parts(bench, api, host, stage.show)

    async def _parts(self, bench: Bench, api: Api, host: Host, show: str) -> dict[str, Any]:
        given, found = self._options, dict[str, Any]()
        parts = given.parts.split(",")

        async def sale(part: str, buyers: int, stock: int, within_s: float) -> dict[str, Any]:
            with self._steps.step(f"{self._name} {part}"):
                return await self._sale(bench, api, host, show, part, buyers, stock, within_s)

        if "winners" in parts:
            found["winners"] = await sale("winners", given.buyers, given.buyers, given.within_s)
        if "drop" in parts:
            found["drop"] = await sale("drop", given.buyers, given.stock, given.within_s)
        if "half" in parts and ("winners" in found or given.rate):
            rate = given.rate or found["winners"]["winners_per_s"] / 2
            count = min(given.buyers, math.ceil(rate * HALF_S))
            found["half"] = await sale("half", count, count, count / rate)
        if "baseline" in parts:
            await bench.node.ask("way", way="row_lock")
            count = min(given.buyers, given.baseline_buyers)
            stock = max(1, given.stock * count // given.buyers)
            found["baseline"] = await sale("baseline", count, stock, given.within_s)
            count = min(given.buyers, given.baseline_winners)
            found["baseline_winners"] = await sale("base-won", count, count, given.within_s)
            await bench.node.ask("way", way="program")
        return {**_compared(found), **found}

    async def _sale(
        self,
        bench: Bench,
        api: Api,
        host: Host,
        show: str,
        part: str,
        buyers: int,
        stock: int,
        within_s: float,
    ) -> dict[str, Any]:
        """Opens a sale, lets the crowd press, and compares what it heard with the record."""
        self._sales += 1
        stage = Stage(api, units=stock, show=show)
        await stage.import_product()
        await stage.open_drop(host, hold_s=HOLD_S)
        await asyncio.sleep(SETTLE_S)
        if part == "half" and self._options.stages:
            await bench.node.ask("watch")
        await bench.node.ask("mark")
        shares = bench.swarm.shares(buyers)
        start = time.monotonic() + LEAD_S
        cpu = (await bench.node.ask("cpu"))["cpu_s"]
        for number, (worker, share) in enumerate(zip(bench.swarm.workers, shares, strict=True)):
            await worker.ask(
                "arm",
                count=share,
                drop=stage.drop,
                sku=stage.sku,
                label=f"rid-{part}-{self._sales:03d}-{number:03d}",
                start=start,
                within_s=within_s,
            )
        await asyncio.sleep(max(0.0, start + within_s - time.monotonic()))
        await self._wait(bench, ANSWERS_S + within_s)
        cpu = (await bench.node.ask("cpu"))["cpu_s"] - cpu
        answers = merge(await bench.swarm.ask("presses"))
        truth = await truth_of(self._url, stage.drop, stage.sku)
        await host.act("close_drop", drop=stage.drop)
        found = _figures(answers, start, cpu)
        found["lag"] = await bench.node.ask("lag")
        if part == "half" and self._options.stages:
            noted = (await bench.node.ask("stages"))["stages"]
            found["stages_ms"] = parts_of(answers, noted)
        won = set(answers["won"])
        found["winners"] = len(truth.rids)
        found["oversold"] = truth.oversold
        found["lost_acknowledged"] = len(won - truth.rids)
        check = self._steps.check
        check(found["winners"] == min(buyers, stock), f"{found['winners']} have won")
        check(found["oversold"] == 0, "oversold")
        check(found["unanswered"] == 0, "somebody got no answer")
        check(not found["other"], f"unexpected refusals: {found['other']}")
        check(not found["lost_acknowledged"], "an answer of which the record knows nothing")
        check(truth.rids <= won, "the record has a winner who was not told")
        check(len(won) == len(answers["won"]), "somebody was answered twice")
        check(truth.agrees, f"reservations, stock and ledger differ: {truth.units}, {truth.held}")
        return found

    async def _wait(self, bench: Bench, within_s: float) -> None:
        """Until everybody has an answer, or time is up (then they count as unanswered)."""
        deadline = time.monotonic() + within_s
        while merge(await bench.swarm.ask("pending"))["pending"]:
            if time.monotonic() > deadline:
                return
            if bench.node.process.poll() is not None:
                raise TooLate("the server has ended")
            await asyncio.sleep(POLL_S)


def _figures(answers: dict[str, Any], start: float, cpu_s: float) -> dict[str, Any]:
    won, lost = answers["won_us"], answers["lost_us"]
    took_s = max(answers["last"]) - start
    decided = len(won) + len(lost) + sum(answers["other"].values())
    return {
        "decided": decided,
        "took_s": round(took_s, 3),
        "decisions_per_s": round(decided / took_s),
        "winners_per_s": round(len(won) / took_s),
        "winner_ms_p50": _ms(won, 50),
        "winner_ms_p99": _ms(won, 99),
        "loser_ms_p50": _ms(lost, 50),
        "loser_ms_p99": _ms(lost, 99),
        "cpu_us_per_decision": round(cpu_s / max(1, decided) * 1e6, 1),
        "pressed_late_ms_p99": _ms(answers["late_us"], 99),
        "undecided": answers["undecided"],
        "other": answers["other"],
        "unanswered": answers["unanswered"],
    }


def _ms(us: list[int], share: float) -> float:
    return round(percentile(us, share) / 1000, 1)


def _compared(found: dict[str, Any]) -> dict[str, Any]:
    """The figures of the issue, out of those of the parts."""
    result: dict[str, Any] = {}
    drop, winners, half = (found.get(part) for part in ("drop", "winners", "half"))
    base, base_won = found.get("baseline"), found.get("baseline_winners")
    if drop:
        names = (
            *("decisions_per_s", "winner_ms_p50", "winner_ms_p99"),
            *("loser_ms_p50", "loser_ms_p99", "oversold", "unanswered"),
        )
        result |= {"winners_exactly": drop["winners"]} | {name: drop[name] for name in names}
    if winners:
        result["winners_per_s"] = winners["winners_per_s"]
        result["cpu_us_per_winner"] = winners["cpu_us_per_decision"]
    if drop and winners:
        whole = drop["cpu_us_per_decision"] * drop["decided"]
        of_winners = result["cpu_us_per_winner"] * drop["winners"]
        losers = max(1, drop["decided"] - drop["winners"])
        result["cpu_us_per_loser"] = round((whole - of_winners) / losers, 1)
    if half and winners:
        result["half_rate_winner_ms_p99"] = half["winner_ms_p99"]
    if base and base_won:
        result["baseline_decisions_per_s"] = base["decisions_per_s"]
        result["baseline_winners_per_s"] = base_won["winners_per_s"]
        if drop:
            times = drop["decisions_per_s"] / base["decisions_per_s"]
            result["decisions_times_baseline"] = round(times, 1)
        if winners:
            times = winners["winners_per_s"] / base_won["winners_per_s"]
            result["winners_times_baseline"] = round(times, 1)
    return result
