"""Setting stock to a number, and stock that runs down as holds end; on both databases."""

import pytest
from sqlalchemy import select

from commerce import reservations_sql
from commerce.errors import BadQuantity, SoldOut, StockChanged, StockHeld, UnknownSku
from commerce.schema_sql import stock_ledger
from commerce.stock import HoldState
from tests.commerce.stock_support import Node, Shop
from tests.waiting import until


async def sell(shop: Shop, node: Node, rid: str) -> None:
    async with shop.database.begin() as conn:
        await reservations_sql.move(conn, rid, HoldState.SOLD, shop.clock())
    await node.checkout.settle([rid])


async def draining(node: Node) -> tuple[int, int]:
    """On hand, and how many of them are to go."""
    row = await node.checkout.stock_row("A")
    return row.on_hand, row.draining


async def test_stock_is_set_if_it_is_what_was_expected(shop: Shop) -> None:
    await shop.add_skus({"A": 52})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("r", "v", ("A", 5))
        with pytest.raises(StockChanged) as changed:
            await node.checkout.set_on_hand("A", 40, 50, ref="a")
        assert changed.value.details() == {"on_hand": 52, "held": 5, "committed": 0}
        for _ in range(2):  # the second time it is the same change
            row, level = await node.checkout.set_on_hand("A", 40, 52, ref="b")
            assert (row.on_hand, level.available) == (40, 35)
        with pytest.raises(StockHeld) as held:
            await node.checkout.set_on_hand("A", 4, 40, ref="c")
        assert held.value.details() == {"on_hand": 40, "held": 5, "committed": 0}
        with pytest.raises(UnknownSku):
            await node.checkout.set_on_hand("nothing", 4, 40, ref="d")
        with pytest.raises(BadQuantity):
            await node.checkout.set_on_hand("A", -1, 40, ref="e")
        await shop.check_gate(node)


async def test_stock_runs_down_as_holds_end_and_nothing_is_sold_on_the_way(shop: Shop) -> None:
    await shop.add_skus({"A": 10})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        for n in range(4):
            await node.buy(f"r{n}", f"v{n}", ("A", 2))
        _row, level = await node.checkout.set_on_hand("A", 3, 10, ref="x", drain=True)
        assert (await draining(node), level.available) == ((8, 5), 0)
        await node.checkout.cancel("v0", "r0")
        assert await draining(node) == (6, 3)
        with pytest.raises(SoldOut):
            await node.buy("p", "p")
        await node.checkout.keeper.rebuild()
        assert await node.level("A") == 0
        await node.checkout.cancel("v1", "r1")
        assert await draining(node) == (4, 1)
        await node.checkout.cancel("v2", "r2")
        assert await draining(node) == (3, 0)
        assert await node.level("A") == 1
        await shop.check_gate(node)
        async with shop.database.read() as conn:
            row = stock_ledger.c
            entries = await conn.execute(
                select(row.kind, row.ref, row.d_on_hand).where(row.d_on_hand < 0).order_by(row.id)
            )
            assert [tuple(entry) for entry in entries] == [
                ("set", "x", -2),
                ("drain", "r0", -2),
                ("drain", "r1", -2),
                ("drain", "r2", -1),
            ]


async def test_what_is_sold_meanwhile_does_not_run_down(shop: Shop) -> None:
    await shop.add_skus({"A": 6})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        for n in range(3):
            await node.buy(f"r{n}", f"v{n}", ("A", 2))
        await node.checkout.set_on_hand("A", 0, 6, ref="x", drain=True)
        await sell(shop, node, "r0")
        assert await draining(node) == (6, 4)
        await node.checkout.adjust("A", 3, ref="more")
        assert await node.level("A") == 0  # kept back until it has run down
        await sell(shop, node, "r1")
        await node.checkout.cancel("v2", "r2")
        assert await draining(node) == (7, 0)
        await until(lambda: node.levels["A"].available == 3)
        await shop.check_gate(node)


async def test_running_down_can_be_stopped_and_the_rest_is_sold_again(shop: Shop) -> None:
    await shop.add_skus({"A": 4})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        for n in range(4):
            await node.buy(f"r{n}", f"v{n}")
        await node.checkout.set_on_hand("A", 1, 4, ref="x", drain=True)
        await node.checkout.cancel("v0", "r0")
        for _ in range(2):
            row, level = await node.checkout.cancel_drain("A", ref="y")
            assert (row.on_hand, row.draining, level.available) == (3, 0, 0)
        await node.checkout.cancel("v1", "r1")
        assert await node.level("A") == 1
        await shop.check_gate(node)


async def test_a_unit_that_runs_down_is_offered_to_nobody_who_waits(shop: Shop) -> None:
    await shop.add_skus({"A": 2})
    async with shop.node(upkeep=False) as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        for n in range(2):
            await node.buy(f"r{n}", f"v{n}")
        await node.wait("w", "w")
        await node.checkout.set_on_hand("A", 1, 2, ref="x", drain=True)
        await node.checkout.cancel("v0", "r0")
        await node.waits.work_off()
        assert await shop.rows() == {"A": (1, 1, 0)}
        await node.checkout.cancel("v1", "r1")
        await node.waits.work_off()
        assert (await shop.states())["w"] == "held"
        await node.checkout.upkeep.relay()
        await shop.check_gate(node)
