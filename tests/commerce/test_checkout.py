"""The answers to a press, levels, drops and the crowd."""

import asyncio

import pytest
from sqlalchemy import update

from commerce import reservations_sql
from commerce.errors import (
    BadQuantity,
    Busy,
    DropClosed,
    DropNotOpen,
    HoldEnded,
    PriceChanged,
    SkuInDrop,
    SoldOut,
    UnknownDrop,
    UnknownHold,
    UnknownSku,
)
from commerce.schema_sql import sku
from commerce.stock import VERSION_BITS, Hold, HoldState, Line, Press
from tests.commerce.stock_support import START, Shop
from tests.waiting import until


@pytest.mark.parametrize("quantity", [0, -1, 100, 10**18])
async def test_an_impossible_quantity_is_refused(shop: Shop, quantity: int) -> None:
    await shop.add_skus({"A": 500})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        with pytest.raises(BadQuantity):
            await node.buy("r", "v", ("A", quantity))
        with pytest.raises(BadQuantity):
            await node.buy("r", "v", ("A", 60), ("A", 40))
        assert await node.level("A") == 500


async def test_names_that_nothing_can_have_reach_no_engine(shop: Shop) -> None:
    await shop.add_skus({"A": 5})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        for name in ("A\x00", "x" * 65, "A\x1fB", ""):
            with pytest.raises(UnknownSku):
                await node.buy("r", "v", (name, 1))
        with pytest.raises(BadQuantity):
            await node.checkout.reserve(Press("r", "v", "d", ()))
        lines = tuple(Line(f"S{n}", 1) for n in range(21))
        with pytest.raises(BadQuantity):
            await node.checkout.reserve(Press("r", "v", "d", lines))
        with pytest.raises(ValueError, match="64 characters"):
            await node.buy("r" * 65, "v")
        await node.buy("r", "v")


async def test_a_drop_opens_and_closes_by_time(shop: Shop) -> None:
    await shop.add_skus({"A": 5})
    async with shop.node() as node:
        drop = shop.drop(("A", None), opens_at=START + 1_000, closes_at=START + 2_000)
        await node.checkout.open_drop(drop)
        with pytest.raises(DropNotOpen) as early:
            await node.buy("r1", "v1")
        assert (early.value.opens_at, early.value.retry_after_ms) == (START + 1_000, 1_000)
        shop.clock.advance(1_000)
        held = await node.buy("r1", "v1")
        assert held.until_ms == START + 61_000
        shop.clock.advance(1_000)
        with pytest.raises(DropClosed):
            await node.buy("r2", "v2")
        assert await node.checkout.drops("show") == []
        assert [found.id for found in await node.checkout.drops("show", open_only=False)] == ["d"]
        with pytest.raises(UnknownDrop):
            await node.buy("r3", "v3", drop="nowhere")
        # a drop that is over leaves its SKUs to the next one
        await node.checkout.open_drop(shop.drop(("A", 2), id="d2", opens_at=START))
        assert await node.level("A") == 2
        await shop.check_gate(node)


async def test_a_sku_is_in_one_open_drop_at_a_time(shop: Shop) -> None:
    await shop.add_skus({"A": 5, "B": 5})
    async with shop.node() as one, shop.node() as two:
        drops = [shop.drop(("A", None), ("B", None), id=f"d{n}") for n in range(4)]
        opened = await asyncio.gather(
            *((one, two)[n % 2].checkout.open_drop(drop) for n, drop in enumerate(drops)),
            return_exceptions=True,
        )
        assert sum(outcome is None for outcome in opened) == 1
        assert sum(isinstance(outcome, SkuInDrop) for outcome in opened) == 3
        first = (await one.checkout.drops("show"))[0]
        await one.checkout.open_drop(first)  # repeating is harmless
        with pytest.raises(UnknownSku):
            await one.checkout.open_drop(shop.drop(("nothing", None), id="d9"))


async def test_a_level_is_what_can_be_bought_and_its_version_grows(shop: Shop) -> None:
    await shop.add_skus({"A": 9, "B": 4})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", 3)))
        levels = await node.checkout.levels(["A", "B", "nothing"])
        assert {name: level.available for name, level in levels.items()} == {"A": 3, "B": 4}
        assert levels["A"].version >> VERSION_BITS == node.checkout.keeper.epoch
        held = await node.buy("r", "v", ("A", 2))
        assert held.receipt == (node.checkout.keeper.epoch, levels["A"].version % 2**32 + 1)
        after = (await node.checkout.levels(["A"]))["A"]
        assert (after.available, await node.checkout.left("d")) == (1, {"A": 1})
        assert after.version > levels["A"].version
        assert node.levels["A"] == after
        _row, outside = await node.checkout.adjust("B", 1, ref="x")
        assert outside.available == 5
        assert outside.version > levels["B"].version
        await node.checkout.close_drop("d")
        assert await node.level("A") == 7  # no drop, no cap
        assert await node.checkout.levels([]) == {}


async def test_the_price_is_the_one_at_the_press_and_an_old_page_is_told(shop: Shop) -> None:
    await shop.add_skus({"A": 5}, amount=1_500)
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        held = await node.buy("r", "v", ("A", 2), total=3_000)
        assert [line.unit_amount for line in held.lines] == [1_500]
        assert (held.total, held.currency, held.lines[0].title) == (
            3_000,
            "USD",
            "product-A – Small",
        )
        async with shop.database.begin() as conn:
            await conn.execute(update(sku).values(amount=1_700))
        with pytest.raises(PriceChanged) as changed:
            await node.buy("r2", "v", total=1_500)  # the price known here is still the old one
        assert changed.value.total == 1_700
        shop.clock.advance(1_000)
        with pytest.raises(PriceChanged) as changed:
            await node.buy("r2", "v", total=1_500)
        assert changed.value.total == 1_700
        assert await node.buy("r", "v", ("A", 2), total=3_000) == held
        await node.buy("r2", "v", total=1_700)
        await shop.check_gate(node)


async def test_a_hold_lapses_and_its_unit_is_free_within_a_second(shop: Shop) -> None:
    await shop.add_skus({"A": 1})
    async with shop.node() as one, shop.node() as two:
        await one.checkout.open_drop(shop.drop(("A", None), hold_s=30))
        await one.buy("r", "v")
        shop.clock.advance(29_999)
        await one.checkout.upkeep.sweep()
        assert await two.level("A") == 0
        shop.clock.advance(1)
        async with asyncio.timeout(5):  # the sweepers look four times a second
            await until(lambda: two.levels["A"].available == 1)
        with pytest.raises(HoldEnded) as ended:
            await two.buy("r", "v", retry=True)
        assert ended.value.state == "expired"
        assert (await two.checkout.cancel("v", "r")).state is HoldState.EXPIRED
        await two.buy("r2", "w")
        await shop.check_gate(one)


async def test_a_hold_is_not_sold_twice_nor_paid_after_its_deadline(shop: Shop) -> None:
    await shop.add_skus({"A": 3})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("r", "v", ("A", 2))
        for rid, to, moved in (
            ("r", HoldState.CLOSING, False),
            ("r", HoldState.PAYING, True),
            ("r", HoldState.PAYING, False),
            ("r", HoldState.EXPIRED, False),
            ("r", HoldState.SOLD, True),
            ("r", HoldState.SOLD, False),
            ("r", HoldState.EXPIRED, False),
            ("unknown", HoldState.SOLD, False),
        ):
            async with shop.database.begin() as conn:
                hold = await reservations_sql.move(conn, rid, to, shop.clock())
            assert (hold is not None) is moved, to
        await node.checkout.settle(["r"])
        assert await shop.rows() == {"A": (3, 0, 2)}
        with pytest.raises(HoldEnded):
            await node.checkout.cancel("v", "r")
        assert (await node.buy("r", "v", ("A", 2), retry=True)).state is HoldState.SOLD
        await node.buy("late", "w")
        shop.clock.advance(60_000)
        async with shop.database.begin() as conn:
            assert not await reservations_sql.move(conn, "late", HoldState.PAYING, shop.clock())

        async def swept() -> bool:
            return await shop.rows() == {"A": (3, 0, 2)}

        await until(swept)
        await shop.check_gate(node)


async def test_a_stranger_sees_and_cancels_nothing(shop: Shop) -> None:
    await shop.add_skus({"A": 3})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("r", "v")
        with pytest.raises(UnknownHold):
            await node.checkout.cancel("stranger", "r")
        with pytest.raises(UnknownHold):
            await node.checkout.cancel("v", "nothing")
        assert await node.checkout.open_holds("stranger") == []
        own = await node.checkout.open_holds("v")
        assert [hold.rid for hold in own] == ["r"]
        assert await node.checkout.open_holds_of(["stranger", "v"]) == {"v": own}
        assert await node.checkout.open_holds_of(["stranger"]) == {}
        assert await node.checkout.find_all(["r", "nothing"]) == {"r": own[0]}


async def test_a_crowd_never_buys_more_than_there_is(shop: Shop) -> None:
    await shop.add_skus({"A": 20, "B": 500})
    async with shop.node() as one, shop.node() as two:
        await one.checkout.open_drop(shop.drop(("A", None), ("B", 30)))
        await two.level("A")
        presses = [
            (one, two)[n % 2].buy(f"r{n}", f"v{n}", ("A" if n % 3 else "B", 1 + n % 2))
            for n in range(200)
        ]
        answers = await asyncio.gather(*presses, return_exceptions=True)
        won = [answer for answer in answers if isinstance(answer, Hold)]
        assert all(isinstance(answer, Hold | SoldOut) for answer in answers)
        units = {"A": 0, "B": 0}
        for hold in won:
            units[hold.lines[0].sku] += hold.lines[0].quantity
        assert units == {"A": 20, "B": 30}
        assert len({hold.receipt for hold in won}) == len(won)
        await shop.check_gate(one)


async def test_too_many_presses_at_once_hear_busy_and_the_rest_their_answer(shop: Shop) -> None:
    await shop.add_skus({"A": 50})
    async with shop.node(inflight_max=10) as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        answers = await asyncio.gather(
            *(node.buy(f"r{n}", f"v{n}") for n in range(30)), return_exceptions=True
        )
        busy = [answer for answer in answers if isinstance(answer, Busy)]
        assert (len(busy), sum(isinstance(answer, Hold) for answer in answers)) == (20, 10)
        assert all(200 <= answer.retry_after_ms <= 1_000 for answer in busy)
        await node.buy("r29", "v29")


async def test_a_winner_whose_answer_was_lost_never_hears_sold_out(shop: Shop) -> None:
    await shop.add_skus({"A": 1})
    async with shop.node() as one, shop.node() as two:
        await one.checkout.open_drop(shop.drop(("A", None)))
        held = await one.buy("r", "v")
        for node in (one, two):
            with pytest.raises(SoldOut):
                await node.buy("loser" + str(id(node)), "w")
        assert await one.buy("r", "v") == held  # this node remembers its winners
        assert await two.buy("r", "v", retry=True) == held
        await one.checkout.keeper.rebuild()
        assert await two.buy("r", "v", retry=True) == held
