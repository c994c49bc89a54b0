"""`restore`: a shop loses its database, gets an older copy back, and no paid order is missing.

Real nodes and engines and the sandbox provider. Orders are paid, a copy is made with
`python -m live backup` while the shop is open, more orders are paid and some money is given back,
somebody is forgotten; then everything is killed and the database is gone (the file deleted, the
schema dropped). `python -m live restore` fills an empty one with the copy, the nodes start, and
what only the provider knows comes in by itself. Afterwards nobody may have paid for nothing:

    paid_orders_missing  holds whose buyers were told "paid", without a paid order
    double_charges, double_refunds, ledger_unbalanced, units_unexplained   as in `money`
    erasures_undone      people who were forgotten after the copy and are known again
"""

import argparse
import asyncio
import contextlib
import os
import random
import secrets
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import select
from typing_extensions import override

from commerce.money_schema_sql import restored
from commerce.schema_sql import person_detail
from live.data_folder import DataFolder
from live.identity import Role
from loadtests import kill_cluster, money, money_kills
from loadtests.bench import folder_of_a_bench, machine
from loadtests.kill_cluster import PROVIDER_KEY, Cluster
from loadtests.kill_shoppers import Crowd
from loadtests.money_shoppers import Bank, Memory
from loadtests.money_truth import Truth, judge
from loadtests.server import ROOT
from loadtests.steps import StepFailed, Steps

ORDERS: Final = 40
BUYERS: Final = 8
COMMAND_S: Final = 120.0
RECOVERED_S: Final = 600.0
POLL_S: Final = 0.2
REFUND: Final = 123
"""Minor units given back of some orders on each side of the copy."""
FORGOTTEN: Final = "buyer-0"
PAID_STATES: Final = ("paid", "partly_shipped", "shipped", "delivered")


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--orders", type=int, default=ORDERS, help="before and after the copy")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--buyers", type=int, default=BUYERS)


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    return asyncio.run(_run(options_))


async def _run(options_: argparse.Namespace) -> dict[str, Any]:
    seed = secrets.randbits(32) if options_.seed is None else options_.seed
    steps = Steps(quiet=options_.quiet)
    both = ("sqlite", "postgresql")
    found: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(StepFailed):
        for database in both if options_.database == "both" else (options_.database,):
            random_ = random.Random(f"{seed} {database}")
            drill = Restore(steps, database, options_.orders, 0, options_.buyers, random_)
            found[database] = await drill.run()
    sums = {name: sum(one[name] for one in found.values()) for name in COUNTED}
    for name, number in sums.items():
        steps.check(not number, f"{name} is {number}")
    steps.check(
        all(one["provider_balance_equals_ours"] for one in found.values()),
        "the provider's balance is not ours",
    )
    return steps.result(seed=seed, **sums, databases=found, **machine())


COUNTED: Final = (
    "paid_orders_missing",
    "lost_paid",
    "double_charges",
    "double_refunds",
    "ledger_unbalanced",
    "units_unexplained",
    "erasures_undone",
)


class Restore(money.Drill):
    """One cluster, before and after."""

    @override
    async def run(self) -> dict[str, Any]:
        """Everything. Raises `StepFailed`."""
        async with AsyncExitStack() as stack:
            folder: Path = stack.enter_context(folder_of_a_bench())
            shape = kill_cluster.embedded if self._name == "sqlite" else kill_cluster.cluster
            with self._steps.step(f"{self._name}: start"):
                cluster = await stack.enter_async_context(shape(folder, money.SETTINGS))
                await asyncio.gather(*(money_kills.start(node) for node in cluster.nodes))
                crowd = await self._crowd(stack, cluster)
                given = await self._open_shop(cluster, crowd)
                bank = Bank(cluster.provider_url, PROVIDER_KEY)
                await stack.enter_async_context(bank)
            copy = folder / "shop.backup"
            before, after = Memory(self._orders, plain=True), Memory(self._orders, plain=True)
            async with Truth(cluster.database_url, cluster.sandbox_file) as truth:
                with self._steps.step(f"{self._name}: {self._orders} orders, a copy"):
                    await self._buy(cluster, crowd, bank, truth, before)
                    await self._command(cluster, "backup", str(copy))
                with self._steps.step(f"{self._name}: {self._orders} orders more"):
                    await self._buy(cluster, crowd, bank, truth, after)
                    await self._give_back(cluster, crowd, [*_some(before), *_some(after)])
                    await self._command(cluster, "person", "erase", FORGOTTEN, "--force")
                    moving = await truth.quiet()
                    self._steps.check(not moving, f"it does not come to rest: {moving}")
            with self._steps.step(f"{self._name}: lost, and the copy restored"):
                await self._lose(cluster)
                await self._command(cluster, "restore", str(copy))
            async with Truth(cluster.database_url, cluster.sandbox_file) as truth:
                with self._steps.step(f"{self._name}: reconciled"):
                    await asyncio.gather(*(money_kills.start(node) for node in cluster.nodes))
                    await self._recovered(truth)
                    moving = await truth.quiet()
                    self._steps.check(not moving, f"it does not come to rest: {moving}")
                return await self._judge(truth, given, {**before.paid, **after.paid})

    async def _command(self, cluster: Cluster, *arguments: str) -> str:
        """`python -m live …` with the settings of the first node."""
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "live", *arguments],
            env=cluster.nodes[0].environ,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if done.returncode:
            self._steps.stop(f"{arguments[0]}: {(done.stdout + done.stderr)[-500:]}")
        return done.stdout

    async def _give_back(self, cluster: Cluster, crowd: Crowd, orders: list[str]) -> None:
        host = cluster.token(money.HOST, Role.HOST)
        for number, order in enumerate(orders):
            path = f"/api/v1/orders/{order}/refunds"
            await crowd.ask("POST", path, {"amount": REFUND}, token=host, key=f"back-{number}")

    async def _lose(self, cluster: Cluster) -> None:
        for node in cluster.nodes:
            await node.kill()
        if cluster.postgres is None:
            await cluster.embedded_is_gone()
            folder = Path(cluster.nodes[0].environ["LIVE_DATA"])
            database = DataFolder(folder).database_url.rpartition("///")[2]
            for name in os.listdir(folder):
                if name.startswith(Path(database).name):
                    (folder / name).unlink()
            return
        async with await psycopg.AsyncConnection.connect(
            cluster.postgres.url, autocommit=True
        ) as connection:
            await connection.execute("DROP SCHEMA public CASCADE")
            await connection.execute("CREATE SCHEMA public")

    async def _recovered(self, truth: Truth) -> None:
        deadline = time.monotonic() + RECOVERED_S
        wanted = select(restored.c.id).where(restored.c.recovered_at.is_(None))
        while True:
            async with truth.database.read() as conn:
                if (await conn.execute(wanted)).first() is None:
                    return
            if time.monotonic() > deadline:
                self._steps.stop(f"not recovered within {RECOVERED_S:g} s")
            await asyncio.sleep(POLL_S)

    async def _judge(
        self, truth: Truth, given: dict[str, int], paid: dict[str, str]
    ) -> dict[str, Any]:
        ours = await truth.ours()
        verdict = judge(ours, truth.bank(), given, {}, {})
        states = {row["rid"]: row["state"] for row in ours.rows["orders"]}
        missing = [rid for rid in paid if states.get(rid) not in PAID_STATES]
        async with truth.database.read() as conn:
            mine = select(person_detail.c.rid).where(person_detail.c.person == FORGOTTEN)
            undone = (await conn.execute(mine)).all()
        return {
            "orders": len(paid),
            "paid_orders_missing": len(missing),
            "erasures_undone": len(undone),
            **verdict.summary(),
        }


def _some(memory: Memory) -> list[str]:
    """A third of the orders."""
    return list(memory.paid.values())[::3]
