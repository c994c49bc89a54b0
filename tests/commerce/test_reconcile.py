"""The check of stock sees what was falsified, and nothing where all is well."""

import asyncio

import pytest
from redis.asyncio import Redis
from sqlalchemy import update

from commerce.reconcile import QUIET_WITHIN_MS, REMEMBER_MS, Light, Reconciler
from commerce.reconcile_sql import SqlBooks
from commerce.schema_sql import sale_drop_line, sku_stock, stock_ledger, viewer_use
from tests.commerce.stock_support import KEYS, Node, Shop
from tests.waiting import until


async def _no_pause(_seconds: float) -> None:
    await asyncio.sleep(0)


def reconciler(shop: Shop, node: Node) -> Reconciler:
    keeper = node.checkout.keeper
    return Reconciler(keeper, SqlBooks(shop.database), clock=shop.clock, pause=_no_pause)


async def busy_shop(shop: Shop, node: Node, skus: int = 3) -> None:
    """Drops, holds, a cancel and somebody who waits."""
    await shop.add_skus({f"S{n:02d}": 5 for n in range(skus)})
    await node.checkout.open_drop(shop.drop(("S00", 4), ("S01", None), per_viewer=4))
    await node.buy("a", "v", ("S00", 3))
    await node.buy("b", "w", ("S00", 1), ("S01", 2))
    await node.buy("c", "v", ("S01", 1))
    await node.checkout.cancel("v", "c")
    await node.wait("q", "x", "S00")


async def test_all_is_well_and_said_after_the_first_round(shop: Shop) -> None:
    async with shop.node() as node:
        await busy_shop(shop, node, skus=45)
        await until(lambda: shop._quiet(node))
        looker = reconciler(shop, node)
        assert (looker.verdict().light, looker.verdict().reason) == (Light.AMBER, "starting")
        for _ in range(3):
            await looker.look()
        found = looker.verdict()
        assert (found.light, found.reason, found.checked, found.rounds) == (
            Light.GREEN,
            "agrees",
            45,
            1,
        )


@pytest.mark.parametrize(
    ("kind", "key", "numbers"),
    [
        ("ledger", "S01 on_hand", (4, 5)),
        ("held", "S01", (2, 3)),
        ("drop", "d S00", (4, 3)),
        ("viewer", "d v S00", (3, 2)),
    ],
)
async def test_a_falsified_record_is_red_until_it_is_right_again(
    shop: Shop, kind: str, key: str, numbers: tuple[int, int]
) -> None:
    change = {
        "ledger": update(stock_ledger).where(stock_ledger.c.ref == "start-S01"),
        "held": update(sku_stock).where(sku_stock.c.sku == "S01"),
        "drop": update(sale_drop_line).where(sale_drop_line.c.sku == "S00"),
        "viewer": update(viewer_use).where(viewer_use.c.viewer == "v", viewer_use.c.sku == "S00"),
    }[kind]
    column = {
        "ledger": stock_ledger.c.d_on_hand,
        "held": sku_stock.c.held,
        "drop": sale_drop_line.c.taken,
        "viewer": viewer_use.c.units,
    }[kind]
    by = 1 if kind == "held" else -1
    async with shop.node(upkeep=False) as node:
        await busy_shop(shop, node)
        await node.checkout.upkeep.relay()
        looker = reconciler(shop, node)
        async with shop.database.begin() as conn:
            await conn.execute(change.values({column.name: column + by}))
        await looker.look()
        found = looker.verdict()
        assert (found.light, found.reason) == (Light.RED, "differs")
        named = {(one.kind, one.key): (one.expected, one.found) for one in found.differences}
        assert named[kind, key] == numbers
        async with shop.database.begin() as conn:
            await conn.execute(change.values({column.name: column - by}))
        await node.checkout.keeper.rebuild()
        await looker.look()
        assert looker.verdict().light is not Light.RED


async def test_a_gate_that_differs_is_loaded_anew_and_stays_visible(shop: Shop) -> None:
    async with shop.node(upkeep=False) as node:
        await busy_shop(shop, node)
        await node.checkout.upkeep.relay()
        looker = reconciler(shop, node)
        client = Redis.from_url(shop.valkey_url)
        await client.hincrby(KEYS + "stock", "S01", 1)
        await client.aclose()
        await looker.look()
        found = looker.verdict()
        assert (found.light, found.rebuilds) == (Light.RED, 1)
        assert [(one.kind, one.key) for one in found.differences] == [("gate", "S01")]
        before = node.checkout.keeper.rebuilds
        await node.checkout.upkeep.watch()
        assert node.checkout.keeper.rebuilds == before + 1
        await looker.look()
        assert (looker.verdict().light, looker.verdict().reason) == (Light.AMBER, "healed")
        shop.clock.advance(REMEMBER_MS)
        await looker.look()
        assert looker.verdict().light is Light.GREEN


async def test_what_is_under_way_is_no_difference_and_a_gate_never_quiet_is_told(
    shop: Shop,
) -> None:
    async with shop.node(upkeep=False) as node:
        await busy_shop(shop, node)
        looker = reconciler(shop, node)
        for _ in range(2):  # changes that the gate was not told of wait in the outbox
            await looker.look()
        assert looker.verdict().light is Light.GREEN
        shop.clock.advance(QUIET_WITHIN_MS + 1)
        await looker.look()
        assert (looker.verdict().light, looker.verdict().reason) == (Light.AMBER, "unquiet")
        await node.checkout.upkeep.relay()
        await looker.look()
        assert looker.verdict().light is Light.GREEN


async def test_no_false_alarm_while_a_crowd_buys_and_gives_back(shop: Shop) -> None:
    await shop.add_skus({"A": 10})
    async with shop.node() as one, shop.node() as two:
        await one.checkout.open_drop(shop.drop(("A", None)))
        looker = reconciler(shop, two)

        async def crowd() -> None:
            for n in range(12):
                node = (one, two)[n % 2]
                await node.buy(f"r{n}", f"v{n}", ("A", 2))
                await node.checkout.cancel(f"v{n}", f"r{n}")

        buying = asyncio.create_task(crowd())
        while not buying.done():
            await looker.look()
            assert looker.verdict().light is not Light.RED
        await buying
        assert looker.verdict().rebuilds == 0


async def test_no_false_alarm_while_stock_runs_down_and_a_list_is_served(shop: Shop) -> None:
    await shop.add_skus({"A": 8})
    async with shop.node() as one, shop.node() as two:
        await one.checkout.open_drop(shop.drop(("A", None)))
        looker = reconciler(shop, two)
        for n in range(4):
            await one.buy(f"h{n}", f"f{n}", ("A", 2))
        for n in range(4):
            await two.wait(f"w{n}", f"v{n}")

        async def traffic() -> None:
            await one.checkout.set_on_hand("A", 5, 8, ref="down", drain=True)
            for n in range(4):
                await (one, two)[n % 2].checkout.cancel(f"f{n}", f"h{n}")
            await two.waits.leave("v3", "w3")
            shop.clock.advance(60_000)  # and what was offered lapses

        moving = asyncio.create_task(traffic())
        while not moving.done():
            await looker.look()
            assert looker.verdict().light is not Light.RED
        await moving
        # An offer that became durable after that is held from then on, so time goes on.
        await until(lambda: shop.clock.advance(5_000) or _free(one, 5))
        await shop.check_gate(one)
        await looker.look()
        assert (looker.verdict().light, looker.verdict().rebuilds) == (Light.GREEN, 0)
        assert (await one.checkout.stock_row("A")).draining == 0


async def _free(node: Node, units: int) -> bool:
    return await node.level("A") == units
