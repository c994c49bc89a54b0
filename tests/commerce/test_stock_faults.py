"""Valkey killed, emptied, restarted on old data; nodes killed between two steps."""

import asyncio
from collections.abc import Callable

import pytest

from commerce.database_sql import Database
from commerce.errors import Busy, SoldOut, Temporary
from commerce.gate import ORPHAN_AFTER_MS, Ask
from commerce.stock import VERSION_BITS, Hold
from tests.commerce.stock_support import Killed, Node, OwnValkey, Shop
from tests.waiting import until


@pytest.fixture
async def own_shop(database: Database, own_valkey: OwnValkey) -> Shop:
    """A shop whose Valkey the test may treat badly; it is running."""
    await own_valkey.start()
    return Shop(database, own_valkey.url)


async def test_an_emptied_gate_is_loaded_again_with_nothing_lost(
    own_shop: Shop, own_valkey: OwnValkey
) -> None:
    shop = own_shop
    await shop.add_skus({"A": 5})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None), per_viewer=2))
        held = await node.buy("r1", "v", ("A", 2))
        before = node.checkout.keeper.epoch
        await own_valkey.flush()
        assert await node.buy("r1", "v", ("A", 2)) == held
        assert node.checkout.keeper.epoch > before
        assert await node.level("A") == 3
        await node.buy("r2", "w", ("A", 2))
        await shop.check_gate(node)


async def test_a_restarted_gate_is_fenced_and_loaded_even_if_it_remembers(
    own_shop: Shop, own_valkey: OwnValkey
) -> None:
    shop = own_shop
    await shop.add_skus({"A": 5})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        held = await node.buy("r1", "v")
        before = node.checkout.keeper.epoch
        own_valkey.kill()
        await own_valkey.start()
        await until(lambda: node.checkout.keeper.epoch > before)
        assert await node.buy("r1", "v", retry=True) == held
        await node.buy("r2", "w", ("A", 4))
        await shop.check_gate(node)


async def test_a_gate_that_came_back_old_oversells_nothing(
    own_shop: Shop, own_valkey: OwnValkey
) -> None:
    shop = own_shop
    await shop.add_skus({"A": 20})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
    own_valkey.kill()
    own_valkey.keep_copy()  # twenty units left
    await own_valkey.start()
    async with shop.node() as one, shop.node() as two:
        won = [await one.buy(f"early{n}", f"early{n}") for n in range(12)]
        own_valkey.kill()
        own_valkey.restore_copy()
        restart = asyncio.create_task(own_valkey.start())
        answers = await asyncio.gather(
            *((one, two)[n % 2].buy(f"r{n}", f"v{n}") for n in range(60)), return_exceptions=True
        )
        await restart
        more = [answer for answer in answers if isinstance(answer, Hold)]
        assert all(isinstance(answer, Hold | SoldOut | Temporary) for answer in answers)
        undecided = [n for n, answer in enumerate(answers) if isinstance(answer, Temporary)]
        for n in undecided:
            more += await _again_until_decided(one.buy, f"r{n}", f"v{n}")
        assert len(won) + len(more) == 20
        assert (await shop.rows())["A"] == (20, 20, 0)
        for hold in won:
            assert await two.buy(hold.rid, hold.viewer, retry=True) == hold
        await shop.check_gate(one)


async def _again_until_decided(buy: Callable[..., object], rid: str, viewer: str) -> list[Hold]:
    async with asyncio.timeout(30):
        while True:
            try:
                return [await buy(rid, viewer, retry=True)]  # type: ignore[misc, list-item]
            except SoldOut:
                return []
            except Temporary:
                await asyncio.sleep(0.05)


async def test_without_a_gate_the_record_decides_and_fences_it(
    own_shop: Shop, own_valkey: OwnValkey
) -> None:
    shop = own_shop
    await shop.add_skus({"A": 10, "B": 5})
    async with shop.node() as one, shop.node() as two:
        await one.checkout.open_drop(shop.drop(("A", 8), ("B", None), per_viewer=1))
        await one.buy("r0", "v0")
        before = one.checkout.keeper.epoch
        own_valkey.kill()
        answers = await asyncio.gather(
            *((one, two)[n % 2].buy(f"r{n}", f"v{n}") for n in range(1, 101)),
            return_exceptions=True,
        )
        won = [answer for answer in answers if isinstance(answer, Hold)]
        assert len(won) == 7
        assert any(isinstance(answer, Busy) for answer in answers)
        assert any(isinstance(answer, SoldOut) for answer in answers)
        receipts = [hold.receipt for hold in won]
        assert len(set(receipts)) == 7
        assert all(epoch > before for epoch, _n in receipts)
        levels = await one.checkout.levels(["A", "B"])
        assert {name: level.available for name, level in levels.items()} == {"A": 0, "B": 5}
        assert levels["A"].version >> VERSION_BITS > before
        row, level = await two.checkout.adjust("B", -4, ref="x")
        assert (row.on_hand, level.available) == (1, 1)
        await one.checkout.cancel("v0", "r0")
        await own_valkey.start()
        await until(lambda: one.checkout.keeper.epoch > max(receipts)[0])
        await two.buy("last", "w", ("A", 1), ("B", 1))
        await shop.check_gate(two)


async def test_a_drop_that_was_opened_without_a_gate_is_known_to_it_later(
    own_shop: Shop, own_valkey: OwnValkey
) -> None:
    shop = own_shop
    await shop.add_skus({"A": 2, "B": 2})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        own_valkey.kill()
        await node.checkout.open_drop(shop.drop(("B", 1), id="d2"))
        await node.buy("r1", "v1", ("B", 1), drop="d2")
        await own_valkey.start()
        await until(lambda: node.checkout.keeper.epoch > 0 and not node.checkout.keeper.away)
        with pytest.raises(SoldOut):
            await node.buy("r2", "v2", ("B", 1), drop="d2", retry=True)
        await shop.check_gate(node)


@pytest.mark.parametrize("what", ["decided", "opened"])
async def test_a_gate_that_was_only_silent_for_a_while_is_noticed_and_loaded(
    shop: Shop, what: str
) -> None:
    """The same process under its old epoch answers as ever; only the record knows better."""
    await shop.add_skus({"A": 3, "B": 1})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("r1", "v1")
        if what == "decided":
            await node.record.levels_without_gate(None, shop.clock())
        else:  # and the node that opened it died before it reached the gate
            await node.record.open_drop(shop.drop(("B", None), id="d2"), shop.clock())
        before = node.checkout.keeper.epoch
        held = await _again_until_decided(node.buy, "r2", "v2")
        assert len(held) == 1
        await until(lambda: node.checkout.keeper.epoch > before)
        if what == "opened":
            await node.buy("r3", "v3", ("B", 1), drop="d2")
        await shop.check_gate(node)


class DiesAt:
    """A crash point: the node dies when it gets to the named place for the n-th time."""

    def __init__(self, point: str) -> None:
        self.point = point
        self.armed = False

    def __call__(self, point: str) -> None:
        if self.armed and point == self.point:
            self.armed = False
            raise Killed(point)


POINTS = [
    "reserve:before_gate",
    "reserve:after_gate",
    "record:before_commit",
    "record:after_commit",
    "reserve:after_commit",
    "reserve:after_mark",
]


@pytest.mark.parametrize("point", POINTS)
async def test_a_node_killed_during_a_press_loses_and_doubles_nothing(
    shop: Shop, point: str
) -> None:
    await shop.add_skus({"A": 5})
    dies = DiesAt(point)
    async with shop.node() as other:
        await other.checkout.open_drop(shop.drop(("A", None)))
        async with shop.node(crash_point=dies) as node:
            await node.level("A")
            dies.armed = True
            answer = (await asyncio.gather(node.buy("r", "v"), return_exceptions=True))[0]
            await until(lambda: node.dead)
            # What is durable is answered before the gate is told.
            assert isinstance(answer, Hold if point == "reserve:after_mark" else Temporary)
        held = await other.buy("r", "v", retry=True)
        assert (await shop.rows())["A"] == (5, 1, 0)
        shop.clock.advance(ORPHAN_AFTER_MS)
        await other.checkout.upkeep.reap()
        assert await other.checkout.find("v", "r") == held
        await shop.check_gate(other)


@pytest.mark.parametrize("point", POINTS[:4])
async def test_what_a_killed_node_left_is_free_again_if_nobody_asks_for_it(
    shop: Shop, point: str
) -> None:
    await shop.add_skus({"A": 5})
    dies = DiesAt(point)
    async with shop.node() as other:
        await other.checkout.open_drop(shop.drop(("A", None)))
        async with shop.node(crash_point=dies) as node:
            await node.level("A")
            dies.armed = True
            await asyncio.gather(node.buy("r", "v"), return_exceptions=True)
            await until(lambda: node.dead)
        shop.clock.advance(ORPHAN_AFTER_MS)
        durable = point == "record:after_commit"
        await shop.check_gate(other)
        assert await other.level("A") == (4 if durable else 5)


@pytest.mark.parametrize(
    "point",
    [
        "sweep:before_commit",
        "sweep:after_commit",
        "release:after_gate",
        "relay:after_gate",
        "rebuild:after_epoch",
        "rebuild:after_snapshot",
        "rebuild:after_load",
    ],
)
async def test_upkeep_killed_anywhere_is_finished_by_another_node(shop: Shop, point: str) -> None:
    await shop.add_skus({"A": 5})
    dies = DiesAt(point)
    async with shop.node(crash_point=dies) as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("r", "v", ("A", 2))
        dies.armed = True
        shop.clock.advance(60_000)
        if point.startswith("rebuild"):
            node.checkout.keeper.distrust()
        await until(lambda: node.dead)
    async with shop.node() as other:
        await until(lambda: _free(shop))
        await shop.check_gate(other)
        assert await other.level("A") == 5


async def _free(shop: Shop) -> bool:
    return (await shop.rows())["A"] == (5, 0, 0)


async def test_a_reaper_killed_after_the_tombstone_gives_the_unit_back_later(shop: Shop) -> None:
    await shop.add_skus({"A": 1})
    for point in ("reap:before_commit", "reap:after_commit"):
        dies = DiesAt(point)
        async with shop.node(crash_point=dies) as node:
            if point == "reap:before_commit":
                await node.checkout.open_drop(shop.drop(("A", None)))
            epoch = node.checkout.keeper.epoch or await _epoch_of(node)
            asked = Ask(point, "mark", "v", "d", (("A", 1),))
            await node.gate.reserve(epoch, [asked], shop.clock())
            dies.armed = True
            shop.clock.advance(ORPHAN_AFTER_MS)
            await until(lambda: node.dead)
        async with shop.node() as other:
            await shop.check_gate(other)
            assert await other.level("A") == 1


async def _epoch_of(node: Node) -> int:
    await node.level("A")
    return node.checkout.keeper.epoch
