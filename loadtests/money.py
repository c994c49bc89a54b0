"""`money`: thousands of orders paid, cancelled, refunded, shipped, under faults and `kill -9`.

Real `serve` nodes, real engines, and the sandbox provider with everything it can do wrong switched
on: slow, twice, out of order, not at all, 500 after acting, refunds that take their time or fail,
banks that take money back. Nodes and PostgreSQL are killed meanwhile, half of the time exactly
between money and record. Then all is left alone until nothing moves, and these must be 0:

    lost_paid          taken (or kept reserved) at the provider, and neither order nor refund
    double_charges     a hold that was paid for more than its order costs
    double_refunds     a refund made twice, unknown, or not what was promised
    ledger_unbalanced  questions of the double-entry ledger that find something
    units_unexplained  units that shelf, ledger, rows and parcels do not explain alike
    broken_promises    people who were told something that the record does not know

Before that, `checkouts_per_s` and `cpu_us_per_checkout` are measured without faults and kills,
after a few checkouts that nobody counts (a node compiles its statements at their first use), and
beside them a bare insert of the same rows into the same database. `--orders 0` measures just that.

The crowd is bounded by what the machine can do, not by patience: whoever has paid looks less and
less often whether it was heard (1.5 s, 3 s, 6 s …), because on a busy machine a crowd that keeps
asking is what keeps it busy.
"""

import argparse
import asyncio
import contextlib
import os
import random
import secrets
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from live.identity import Role
from loadtests import kill_cluster, money_baseline_sql, money_kills
from loadtests.api import Api
from loadtests.bench import folder_of_a_bench, machine
from loadtests.kill_cluster import PROVIDER_KEY, Cluster, Node
from loadtests.kill_shoppers import OUTAGES, Crowd
from loadtests.money_desk import Desk
from loadtests.money_kills import Kills
from loadtests.money_shoppers import Bank, Buyer, Memory
from loadtests.money_truth import Truth, judge
from loadtests.refused import Refused
from loadtests.shopper import Host
from loadtests.stage import CSV_COLUMNS
from loadtests.steps import StepFailed, Steps
from loadtests.vitals import TICKS_PER_S

ORDERS: Final = 5_000
ORDERS_PER_KILL: Final = 100
BUYERS: Final = 32
SKUS: Final = 12
HOLD_S: Final = 12
"""Short, so that deadlines pass in the middle of everything."""
SQLITE_SHARE: Final = 0.3
"""One node with one writer, and half the kills: a cluster gets through the larger part."""
CHECKOUTS: Final = 100
"""Orders that are only counted for their cost."""
WARM_UP: Final = 20
"""Checkouts before that, of which nothing is counted."""
HOST: Final = "drill-host"
SETTINGS: Final = {"LIVE_HOLD_RULE": "off"}
"""The drill's few buyers let many holds lapse; the rule against that is another drill's."""
STALLED_S: Final = 600.0
"""Without one more paid order the run is given up. The longest honest pause is that of a machine
on which others have the CPU: its nodes time out and try again until it is their turn."""
SAY_S: Final = 30.0
POLL_S: Final = 0.2
CALM_DOWN_S: Final = 90.0
FAULTS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("delay", {"every": 10, "ms": 200}),
    ("error_before", {"every": 23}),
    ("error_after", {"every": 17}),
    ("time_out", {"every": 61, "ms": 300}),
    ("time_out", {"every": 997, "ms": 11_000}),  # longer than our own limit
    ("refuse_cancel", {"every": 3}),
    ("webhook_delay", {"every": 4, "ms": 1_500}),
    ("webhook_duplicate", {"every": 3, "copies": 2}),
    ("webhook_reorder", {"every": 3}),
    ("webhook_lose", {"every": 5}),
    ("refund_pending", {"every": 4, "ms": 800}),
    ("refund_failed", {"every": 9, "ms": 600}),
)


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--orders", type=int, default=ORDERS, help="paid orders in total")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--kills", type=int, default=None, help="default: one in 100 orders")
    parser.add_argument("--buyers", type=int, default=BUYERS)
    parser.add_argument(
        "--minutes", type=float, default=None, help="then what was reached is judged"
    )
    parser.add_argument("--checkouts", type=int, default=CHECKOUTS, help="measured for their cost")


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    return asyncio.run(_run(options_))


async def _run(options_: argparse.Namespace) -> dict[str, Any]:
    seed = secrets.randbits(32) if options_.seed is None else options_.seed
    kills = options_.kills if options_.kills is not None else options_.orders // ORDERS_PER_KILL
    steps = Steps(quiet=options_.quiet)
    shares = {"sqlite": SQLITE_SHARE, "postgresql": 1 - SQLITE_SHARE}
    if options_.database != "both":
        shares = {options_.database: 1.0}
    found: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(StepFailed):
        for database, share in shares.items():
            drill = Drill(
                steps,
                database,
                round(options_.orders * share),
                round(kills * share),
                options_.buyers,
                random.Random(f"{seed} {database}"),
                checkouts=options_.checkouts,
                minutes=options_.minutes,
            )
            found[database] = await drill.run()
    sums: Counter[str] = Counter()
    for one in found.values():
        sums.update({name: one[name] for name in SUMMED})
    equal = all(one["provider_balance_equals_ours"] for one in found.values())
    steps.check(equal, "the provider's balance is not ours")
    for name in SUMMED[2:]:
        steps.check(not sums[name], f"{name} is {sums[name]}")
    return steps.result(
        seed=seed,
        **{name: sums[name] for name in SUMMED},
        provider_balance_equals_ours=equal and bool(found),
        databases=found,
        **machine(),
    )


SUMMED: Final = (
    "orders",
    "kills",
    "lost_paid",
    "double_charges",
    "double_refunds",
    "ledger_unbalanced",
    "units_unexplained",
    "broken_promises",
)


class Drill:
    """One cluster from its first start to its verdict."""

    def __init__(
        self,
        steps: Steps,
        database: str,
        orders: int,
        kills: int,
        buyers: int,
        random_: random.Random,
        *,
        checkouts: int = 0,
        minutes: float | None = None,
    ) -> None:
        self._steps = steps
        self._name = database
        self._checkouts = checkouts
        self._minutes = minutes
        self._end_at: float | None = None
        self._orders = orders
        self._kills = kills
        self._buyers = buyers
        self._random = random_
        self._memories: list[Memory] = []

    async def run(self) -> dict[str, Any]:
        """Everything; the figures of this database. Raises `StepFailed`."""
        async with AsyncExitStack() as stack:
            folder: Path = stack.enter_context(folder_of_a_bench())
            shape = kill_cluster.embedded if self._name == "sqlite" else kill_cluster.cluster
            with self._steps.step(f"{self._name}: start"):
                cluster = await stack.enter_async_context(shape(folder, SETTINGS))
                await asyncio.gather(*(money_kills.start(node) for node in cluster.nodes))
                crowd = await self._crowd(stack, cluster)
                given = await self._open_shop(cluster, crowd)
                bank = Bank(cluster.provider_url, PROVIDER_KEY)
                await stack.enter_async_context(bank)
                truth = Truth(cluster.database_url, cluster.sandbox_file)
                await stack.enter_async_context(truth)
            figures: dict[str, Any] = {"orders": 0, "kills": 0}
            if self._checkouts:
                figures |= await self._calm(cluster, crowd, bank, truth)
            if self._orders:
                figures |= await self._storm(cluster, crowd, bank, truth)
            with self._steps.step(f"{self._name}: quiet"):
                await bank.behave()
                await self._revive(cluster)
                moving = await truth.quiet()
                await self._revive(cluster)
                self._steps.check(not moving, f"it does not come to rest: {moving}")
            return {**figures, **await self._verdict(truth, given)}

    async def _crowd(self, stack: AsyncExitStack, cluster: Cluster) -> Crowd:
        crowd = Crowd(
            urls=cluster.urls,
            show="",
            skus=[f"MONEY-{number}" for number in range(SKUS)],
            token=cluster.token,
            random=random.Random(self._random.getrandbits(64)),
            on_win=lambda _address, _at: None,
        )
        crowd.apis = [await stack.enter_async_context(Api(url)) for url in cluster.urls]
        return crowd

    async def _open_shop(self, cluster: Cluster, crowd: Crowd) -> dict[str, int]:
        """Products, terms with tax, a show that is live, and one long sale; units by SKU."""
        token = cluster.token(HOST, Role.HOST)
        units = self._orders * 3 // SKUS + 1_000
        async with Api(crowd.urls[0], token) as api:
            currency = (await api.get("/api/v1/shop"))["currency"]
            rows = "\n".join(
                f"{sku.lower()},{sku},<p>Not for sale.</p>,Check,Check,,FALSE,Title,"
                f"Default Title,{sku},100,{units},{5 + place}.{place:02},TRUE,"
                for place, sku in enumerate(crowd.skus)
            )
            await api.send_csv(f"/api/v1/imports?currency={currency}", f"{CSV_COLUMNS}\n{rows}\n")
            terms = {"tax_bp": 1_900, "tax_title": "VAT", "low_stock": 0}
            await api.call("PUT", "/api/v1/terms", terms)
            body = {"title": "Synthetic check", "hidden": True}
            crowd.show = (await api.call("POST", "/api/v1/shows", body, key="the-show"))["id"]
        async with Host(crowd.urls[0], crowd.show, token) as host:
            await host.take_console()
            await host.act("go_live")
            lines = [{"sku": sku} for sku in crowd.skus]
            await host.act("open_drop", lines=lines, hold_s=HOLD_S)
        return dict.fromkeys(crowd.skus, units)

    async def _calm(
        self, cluster: Cluster, crowd: Crowd, bank: Bank, truth: Truth
    ) -> dict[str, Any]:
        """What a checkout costs, from press to paid, and what its bare rows cost."""
        with self._steps.step(f"{self._name}: warm-up"):
            await self._buy(cluster, crowd, bank, truth, Memory(WARM_UP, plain=True))
        memory = Memory(self._checkouts, plain=True)
        with self._steps.step(f"{self._name}: {self._checkouts} checkouts measured"):
            before, started = Cpu.of(cluster), time.monotonic()
            await self._buy(cluster, crowd, bank, truth, memory)
            took, cpu = time.monotonic() - started, Cpu.of(cluster) - before
        with self._steps.step(f"{self._name}: bare inserts"):
            own, engine = time.process_time(), Cpu.of(cluster).postgres
            rid = next(iter(memory.paid))
            bare = await money_baseline_sql.run(truth.database, rid, self._checkouts)
            bare_cpu = time.process_time() - own + Cpu.of(cluster).postgres - engine
        done = len(memory.paid)
        return {
            "checkouts": done,
            "checkouts_per_s": round(done / took, 1),
            "cpu_us_per_checkout": round(cpu.shop / done * 1e6),
            "bare_inserts_per_s": round(self._checkouts / bare, 1),
            "bare_cpu_us_per_insert": round(bare_cpu / self._checkouts * 1e6),
            "checkout_to_bare_cpu": round(
                cpu.shop / done / max(bare_cpu / self._checkouts, 1e-9), 1
            ),
            "cpu_ms_per_checkout_by_part": cpu.by_part_ms(done),
        }

    async def _storm(
        self, cluster: Cluster, crowd: Crowd, bank: Bank, truth: Truth
    ) -> dict[str, Any]:
        """Everything at once."""
        memory = Memory(self._orders)
        random_ = random.Random(self._random.getrandbits(64))
        kills = Kills(
            cluster,
            self._kills,
            random_,
            lambda: len(memory.paid) / max(memory.target, 1),
            lambda: memory.ended,
        )
        with self._steps.step(f"{self._name}: {self._orders} orders, {self._kills} kills"):
            for kind, values in FAULTS:
                await bank.arm(kind, **values)
            before, started = Cpu.of(cluster), time.monotonic()
            if self._minutes is not None:
                self._end_at = started + self._minutes * 60
            await self._buy(cluster, crowd, bank, truth, memory, kills)
            took, cpu = time.monotonic() - started, Cpu.of(cluster) - before
        return {
            "orders": len(memory.paid),
            "kills": kills.done,
            "killed": dict(kills.by_kind),
            "journeys": dict(memory.counts),
            "orders_per_s_under_faults": round(len(memory.paid) / took, 1),
            "cpu_ms_per_order_under_faults_by_part": cpu.by_part_ms(len(memory.paid)),
        }

    async def _buy(
        self,
        cluster: Cluster,
        crowd: Crowd,
        bank: Bank,
        truth: Truth,
        memory: Memory,
        kills: Kills | None = None,
    ) -> None:
        self._memories.append(memory)
        desk = Desk(crowd, memory, bank, cluster.token(HOST, Role.HOST), truth.intent_of)
        buyers = [Buyer(crowd, memory, bank, desk.after, number) for number in range(self._buyers)]
        staying = [asyncio.create_task(buyer.stay()) for buyer in buyers]
        shopping = [asyncio.create_task(buyer.shop()) for buyer in buyers]
        killing = asyncio.create_task(kills.run()) if kills is not None else None
        try:
            working = [*shopping, *([killing] if killing is not None else [])]
            await self._watch(cluster, memory, working, kills)
            await asyncio.wait(shopping, timeout=CALM_DOWN_S)
            if killing is not None:
                await killing
        finally:
            for task in [*staying, *shopping, *([killing] if killing is not None else [])]:
                task.cancel()
            done = await asyncio.gather(*staying, *shopping, return_exceptions=True)
        for outcome in done:
            if isinstance(outcome, Exception) and not isinstance(outcome, (Refused, *OUTAGES)):
                raise outcome
        failures = [*memory.failures, *(failure for one in buyers for failure in one.failures)]
        self._steps.check(not failures, f"{len(failures)} failures, such as {failures[:3]}")

    async def _watch(
        self,
        cluster: Cluster,
        memory: Memory,
        working: list[asyncio.Task[None]],
        kills: Kills | None,
    ) -> None:
        """Until enough is paid. Raises what a task raises; gives up when nothing moves."""
        paid, moved, said = 0, time.monotonic(), time.monotonic()
        while not memory.done:
            for task in working:
                if task.done():
                    task.result()
            if len(memory.paid) > paid:
                paid, moved = len(memory.paid), time.monotonic()
            if time.monotonic() - moved > STALLED_S:
                self._steps.wrong(f"no order was paid for {STALLED_S:g} s, after {paid}")
                memory.end()
            if self._end_at is not None and time.monotonic() > self._end_at:
                self._steps.wrong(f"{paid} of {memory.target} orders when its time was over")
                memory.end()
            if time.monotonic() - said > SAY_S:
                said = time.monotonic()
                self._steps.say(f"  {paid} paid, {0 if kills is None else kills.done} kills")
            await self._revive(cluster, None if kills is None else kills.at_work_on)
            await asyncio.sleep(POLL_S)

    async def _revive(self, cluster: Cluster, but: Node | None = None) -> None:
        """A node that ended although nobody killed it is a finding, and started again."""
        for node in cluster.nodes:
            if not node.pid and node is not but:
                self._steps.wrong(f"{node.name} ended by itself: {node.last_word()}")
                await money_kills.start(node)

    async def _verdict(self, truth: Truth, given: dict[str, int]) -> dict[str, Any]:
        with self._steps.step(f"{self._name}: judge"):
            paid = {rid: order for one in self._memories for rid, order in one.paid.items()}
            told: dict[str, set[str]] = {}
            for memory in self._memories:
                for order, ids in memory.told.items():
                    told.setdefault(order, set()).update(ids)
            verdict = judge(await truth.ours(), truth.bank(), given, paid, told)
            return verdict.summary()


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds of CPU since the start, also of processes that were killed meanwhile."""

    nodes: float
    """With the Valkey that one of them may have started."""
    valkey: float
    postgres: float
    """Since its own last start: a killed one takes its count along."""
    provider: float
    crowd: float
    """This process."""

    @classmethod
    def of(cls, cluster: Cluster) -> "Cpu":
        """So far."""
        return cls(
            _tree_s(cluster.nursery.pid),
            0.0 if cluster.valkey is None else _tree_s(cluster.valkey.pid),
            0.0 if cluster.postgres is None else _tree_s(cluster.postgres.pid),
            _tree_s(cluster.sandbox.pid),
            time.process_time(),
        )

    def __sub__(self, before: "Cpu") -> "Cpu":
        both = zip(self._all, before._all, strict=True)
        return Cpu(*(max(0.0, now - then) for now, then in both))

    @property
    def shop(self) -> float:
        """What the shop itself has used: the provider and the crowd are not it."""
        return self.nodes + self.valkey + self.postgres

    def by_part_ms(self, orders: int) -> dict[str, float]:
        """Milliseconds an order, by part."""
        names = [one.name for one in fields(self)]
        return {
            name: round(value / max(orders, 1) * 1e3, 1)
            for name, value in zip(names, self._all, strict=True)
        }

    @property
    def _all(self) -> tuple[float, ...]:
        return tuple(getattr(self, one.name) for one in fields(self))


def _tree_s(pid: int) -> float:
    """A process, its children that live, and those it has waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    own = sum(int(stat[place]) for place in (11, 12, 13, 14)) / TICKS_PER_S
    return own + sum(_tree_s(int(child)) for child in children if int(child) != os.getpid())
