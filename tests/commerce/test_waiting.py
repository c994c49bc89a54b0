"""The wait list: who is served when, and every race around an offer, on both databases."""

import asyncio

import pytest
from redis.asyncio import Redis
from sqlalchemy import select

from commerce import reservations_sql
from commerce.errors import (
    AlreadyWaiting,
    BadQuantity,
    DropClosed,
    HoldEnded,
    LimitReached,
    RidConflict,
    SoldOut,
    UnknownDrop,
    UnknownSku,
    UnknownWait,
)
from commerce.gate import Ask, End, Verdict
from commerce.schema_sql import outbox, waiting
from commerce.stock import HoldState
from commerce.waiting import Wait, Waiter, WaitState
from tests.commerce.stock_support import KEYS, Killed, Node, OwnValkey, Shop
from tests.waiting import until


async def states(shop: Shop) -> dict[str, str]:
    async with shop.database.read() as conn:
        return dict((await conn.execute(select(waiting.c.rid, waiting.c.state))).all())  # type: ignore[arg-type]


async def told(shop: Shop, topic: str) -> list[tuple[str, str]]:
    """(rid, state) of what viewers will hear."""
    async with shop.database.read() as conn:
        wanted = select(outbox.c.payload).where(outbox.c.topic == topic, outbox.c.sent_at.is_(None))
        facts = (await conn.execute(wanted.order_by(outbox.c.id))).scalars()
        return [(fact["rid"], fact["state"]) for fact in facts]


async def offered(shop: Shop, *rids: str) -> None:
    """Until these have their holds."""

    async def true() -> bool:
        found = await states(shop)
        return all(found[rid] == "offered" for rid in rids)

    await until(true)


async def sold_out(shop: Shop, node: Node, units: int = 1, **drop: object) -> None:
    """A drop of A of which every unit is held by "first"."""
    await shop.add_skus({"A": units})
    await node.checkout.open_drop(shop.drop(("A", None), **drop))
    await node.buy("held", "first", ("A", units))


async def test_32_a_unit_that_comes_back_goes_to_the_first_who_waits_not_to_the_public(
    shop: Shop,
) -> None:
    async with shop.node() as one, shop.node() as two:
        await sold_out(shop, one)
        assert [(await one.wait(f"w{n}", f"v{n}")).position for n in range(3)] == [1, 2, 3]
        assert (await two.wait("w2", "v2")).position == 3  # the same again
        await two.checkout.cancel("first", "held")
        await offered(shop, "w0")
        assert (await two.wait("w1", "v1")).position == 1
        hold = await two.checkout.find("v0", "w0")
        assert hold is not None
        assert (hold.state, hold.until_ms) == (HoldState.HELD, shop.clock() + 60_000)
        assert await told(shop, "wait") == [("w0", "offered")]
        assert ("w0", "held") in await told(shop, "hold")
        with pytest.raises(SoldOut):
            await two.buy("public", "somebody")
        assert await one.buy("w0", "v0", retry=True) == hold  # its rid is a press like any other
        await shop.check_gate(one)


async def test_an_offer_that_lapses_or_is_declined_goes_to_the_next_and_then_to_all(
    shop: Shop,
) -> None:
    async with shop.node() as node:
        await sold_out(shop, node)
        for n in range(2):
            await node.wait(f"w{n}", f"v{n}")
        shop.clock.advance(60_000)
        await offered(shop, "w0")
        await node.checkout.cancel("v0", "w0")
        await offered(shop, "w1")
        assert await node.level("A") == 0
        shop.clock.advance(60_000)
        await until(lambda: node.levels["A"].available == 1)
        await node.buy("r", "v0")
        await shop.check_gate(node)


async def test_stock_that_is_added_is_offered_and_never_free_while_somebody_waits(
    shop: Shop,
) -> None:
    async with shop.node() as node:
        await sold_out(shop, node)
        for n in range(3):
            await node.wait(f"w{n}", f"v{n}")
        seen: list[int] = []
        node.checkout.board._on_levels = lambda levels: seen.extend(
            level.available for level in levels.values()
        )
        _row, level = await node.checkout.adjust("A", 2, ref="x")
        assert level.available == 0
        await offered(shop, "w0", "w1")
        assert not any(seen)
        assert (await states(shop))["w2"] == "waiting"
        _row, level = await node.checkout.adjust("A", 3, ref="y")
        assert level.available == 2
        await shop.check_gate(node)


async def test_who_waits_for_two_gets_two_although_they_come_one_by_one(shop: Shop) -> None:
    await shop.add_skus({"A": 2})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("a", "x")
        await node.buy("b", "y")
        await node.wait("two", "v", quantity=2)
        await node.wait("one", "w")
        await node.checkout.cancel("x", "a")
        assert await node.level("A") == 0  # kept for the first
        assert await node.checkout.left("d") == {"A": 0}
        with pytest.raises(SoldOut):
            await node.buy("public", "z")
        await node.checkout.cancel("y", "b")
        await offered(shop, "two")
        assert await shop.rows() == {"A": (2, 2, 0)}
        await shop.check_gate(node)


async def test_who_asks_for_more_than_can_come_is_told_and_blocks_nobody(shop: Shop) -> None:
    await shop.add_skus({"A": 2})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("a", "x")
        await node.buy("b", "y")
        with pytest.raises(SoldOut) as too_many:
            await node.wait("three", "v", quantity=3)
        assert too_many.value.left == 2
        await node.wait("two", "v", quantity=2)
        await node.wait("one", "w")
        async with shop.database.begin() as conn:
            await reservations_sql.move(conn, "a", HoldState.SOLD, shop.clock())
        await node.checkout.settle(["a"])
        await node.checkout.cancel("y", "b")
        await offered(shop, "one")
        assert (await states(shop))["two"] == "passed"
        assert ("two", "passed") in await told(shop, "wait")
        await shop.check_gate(node)


async def test_stock_lowered_behind_an_offer_lets_nobody_overtake_who_stood_first(
    shop: Shop,
) -> None:
    """The gate had three units to give, and when it is written down there is one."""
    async with shop.node(upkeep=False) as node:
        await sold_out(shop, node, 3)
        await node.wait("two", "v", quantity=2)
        await node.wait("one", "w")
        await node.checkout.cancel("first", "held")  # the gate has made both offers
        await node.record.adjust("A", -2, ref="broken", kind="adjust", now=shop.clock())
        await node.waits.work_off()
        assert await states(shop) == {"two": "waiting", "one": "waiting"}
        assert await shop.rows() == {"A": (1, 0, 0)}
        await node.checkout.keeper.watch()  # a gate with one unit: the first cannot have two…
        await node.waits.work_off()
        assert await states(shop) == {"two": "waiting", "one": "waiting"}
        await node.waits.end_lists()  # …ever, and is told so
        await node.waits.work_off()
        assert await states(shop) == {"two": "passed", "one": "offered"}
        await node.checkout.upkeep.relay()
        await shop.check_gate(node)


async def test_who_may_not_have_it_any_more_is_passed_over(shop: Shop) -> None:
    await shop.add_skus({"A": 3, "B": 9})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None), ("B", None), per_viewer=1))
        await node.buy("held", "first")
        await node.buy("held2", "second")
        await node.buy("held3", "third")
        with pytest.raises(LimitReached):
            await node.wait("again", "first")
        await node.wait("w0", "v0")
        await node.wait("w1", "v1")
        for n, sku in enumerate(("B",)):
            await node.buy(f"b{n}", "v0", (sku, 1))
        await node.checkout.cancel("first", "held")
        await offered(shop, "w0")
        await node.wait("w2", "third2")
        await node.checkout.cancel("second", "held2")
        await offered(shop, "w1")
        await shop.check_gate(node)


async def test_too_many_unpaid_holds_pass_a_waiter_over(shop: Shop) -> None:
    await shop.add_skus({"A": 1, "B": 9})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None), ("B", None)))
        await node.buy("held", "first")
        await node.wait("w0", "busy")
        await node.wait("w1", "idle")
        for n in range(3):
            await node.buy(f"b{n}", "busy", ("B", 1))
        await node.checkout.cancel("first", "held")
        await offered(shop, "w1")
        assert (await states(shop))["w0"] == "passed"
        assert ("w0", "passed") in await told(shop, "wait")
        await shop.check_gate(node)


async def test_a_join_is_refused_with_its_reason(shop: Shop) -> None:
    await shop.add_skus({"A": 1, "B": 1})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("held", "first")
        for wait, error in (
            (Wait("r", "v", "nowhere", "A", 1), UnknownDrop),
            (Wait("r", "v", "d", "B", 1), UnknownSku),
            (Wait("r", "v", "d", "A", 0), BadQuantity),
        ):
            with pytest.raises(error):
                await node.waits.join(wait)
        await node.wait("w", "v")
        with pytest.raises(RidConflict):
            await node.wait("w", "stranger")
        with pytest.raises(AlreadyWaiting) as already:
            await node.wait("another", "v")
        assert already.value.rid == "w"
        with pytest.raises(UnknownWait):
            await node.waits.leave("stranger", "w")
        await node.checkout.close_drop("d")
        with pytest.raises(DropClosed):
            await node.wait("late", "z")


async def test_two_joins_of_one_viewer_at_once_are_one(shop: Shop) -> None:
    async with shop.node() as one, shop.node() as two:
        await sold_out(shop, one)
        joins = [(one, two)[n % 2].wait(f"w{n % 3}", "v") for n in range(9)]
        answers = await asyncio.gather(*joins, return_exceptions=True)
        assert len({getattr(answer, "rid", "") for answer in answers}) == 1
        assert len(await states(shop)) == 1


async def test_who_leaves_is_served_no_more(shop: Shop) -> None:
    async with shop.node() as node:
        await sold_out(shop, node)
        await node.wait("w0", "v0")
        await node.wait("w1", "v1")
        assert (await node.waits.leave("v0", "w0")).state is WaitState.LEFT
        assert (await node.waits.leave("v0", "w0")).state is WaitState.LEFT
        await node.checkout.cancel("first", "held")
        await offered(shop, "w1")
        assert (await node.waits.leave("v1", "w1")).state is WaitState.OFFERED
        assert (await states(shop))["w0"] == "left"
        await node.wait("w2", "v0")  # at the end, under another id
        await shop.check_gate(node)


async def test_a_join_that_arrives_after_the_leave_brings_nobody_back(shop: Shop) -> None:
    async with shop.node(upkeep=False) as node:
        await sold_out(shop, node)
        waiter = await node.wait("w0", "v0")
        await node.waits.leave("v0", "w0")
        await node.gate.enqueue(node.checkout.keeper.epoch, [waiter.queued], shop.clock())
        await node.checkout.cancel("first", "held")
        assert await node.level("A") == 1


async def test_a_join_that_arrives_at_a_later_gate_brings_nobody_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate knows who has left it, but not who had left before it was loaded."""
    async with shop.node(upkeep=False) as node:
        await sold_out(shop, node)
        record = node.waits._waits
        join = record.join

        async def slow(wait: Wait, mark: str, now: int) -> Waiter:
            waiter = await join(wait, mark, now)
            await node.waits.leave(wait.viewer, wait.rid)
            await node.checkout.keeper.rebuild()
            return waiter

        monkeypatch.setattr(record, "join", slow)
        await node.wait("w", "v")
        assert await states(shop) == {"w": "left"}
        client = Redis.from_url(shop.valkey_url)
        try:
            assert await client.zcard(KEYS + "queue") == 0
        finally:
            await client.aclose()


async def test_who_leaves_while_the_offer_is_under_way_leaves_the_unit_to_the_next(
    shop: Shop,
) -> None:
    async with shop.node(upkeep=False) as node:
        await sold_out(shop, node)
        await node.wait("w0", "v0")
        await node.wait("w1", "v1")
        await node.checkout.cancel("first", "held")  # the gate has made the offer to w0
        await node.waits.leave("v0", "w0")
        await node.waits.work_off()
        await node.waits.work_off()
        assert await states(shop) == {"w0": "left", "w1": "offered"}
        await node.checkout.upkeep.relay()
        await shop.check_gate(node)


async def test_an_offer_made_before_the_close_counts_and_the_close_ends_the_rest(
    shop: Shop,
) -> None:
    async with shop.node(upkeep=False) as node:
        await sold_out(shop, node)
        await node.wait("w0", "v0")
        await node.wait("w1", "v1")
        await node.checkout.cancel("first", "held")
        shop.clock.advance(5)
        await node.checkout.close_drop("d")
        await node.waits.work_off()
        await node.waits.end_lists()
        assert await states(shop) == {"w0": "offered", "w1": "closed"}
        assert ("w1", "closed") in await told(shop, "wait")
        await node.checkout.cancel("v0", "w0")
        await node.waits.work_off()
        assert (await states(shop))["w1"] == "closed"
        assert await node.level("A") == 1
        await node.checkout.upkeep.relay()
        await shop.check_gate(node)


async def test_a_drop_that_closes_by_time_ends_its_list(shop: Shop) -> None:
    async with shop.node() as node:
        await sold_out(shop, node, closes_at=shop.clock() + 10_000)
        await node.wait("w0", "v0")
        shop.clock.advance(10_000)

        async def closed() -> bool:
            return await states(shop) == {"w0": "closed"}

        await until(closed)
        await node.checkout.cancel("first", "held")
        assert await node.level("A") == 1


@pytest.mark.parametrize("when", ["before the offer", "after the offer"])
async def test_a_gate_that_is_lost_serves_the_list_again(shop: Shop, when: str) -> None:
    async with shop.node(upkeep=False) as node:
        await sold_out(shop, node)
        await node.wait("w0", "v0")
        await node.wait("w1", "v1")
        if when == "after the offer":
            await node.checkout.cancel("first", "held")
        await node.checkout.keeper.rebuild()
        if when == "before the offer":
            await node.checkout.cancel("first", "held")
        with pytest.raises(SoldOut):
            await node.buy("public", "z")
        assert await node.level("A") == 0
        await node.waits.work_off()
        assert await states(shop) == {"w0": "offered", "w1": "waiting"}
        await node.checkout.upkeep.relay()
        await shop.check_gate(node)


@pytest.mark.parametrize("point", ["offer:after_gate", "offer:before_commit", "offer:after_commit"])
async def test_a_node_that_dies_with_an_offer_in_hand_leaves_it_to_another(
    shop: Shop, point: str
) -> None:
    def die(at: str) -> None:
        if at == point:
            raise Killed

    async with shop.node(upkeep=False) as well:
        async with shop.node(crash_point=die, upkeep=False) as ill:
            await sold_out(shop, ill)
            await ill.wait("w0", "v0")
            await ill.checkout.cancel("first", "held")
            with pytest.raises(Killed):
                await ill.waits.work_off()
        await well.waits.work_off()
        assert await states(shop) == {"w0": "offered"}
        assert await shop.rows() == {"A": (1, 1, 0)}
        await well.checkout.upkeep.relay()
        await shop.check_gate(well)


async def test_a_node_that_dies_after_the_commit_of_a_join_has_not_lost_it(shop: Shop) -> None:
    def die(at: str) -> None:
        if at == "wait:after_commit":
            raise Killed

    async with shop.node(upkeep=False) as well, shop.node(crash_point=die, upkeep=False) as ill:
        await sold_out(shop, well)
        with pytest.raises(Killed):
            await ill.wait("w0", "v0")
        await well.checkout.upkeep.relay()
        await well.checkout.cancel("first", "held")
        await well.waits.work_off()
        assert await states(shop) == {"w0": "offered"}


async def test_without_a_gate_people_wait_and_nobody_overtakes_them(
    shop: Shop, own_valkey: OwnValkey
) -> None:
    await own_valkey.start()
    shop.gate_url = shop.valkey_url = own_valkey.url
    async with shop.node() as node:
        await sold_out(shop, node)
        own_valkey.kill()
        await node.wait("w0", "v0")
        await node.checkout.cancel("first", "held")
        with pytest.raises(SoldOut):
            await node.buy("public", "z")
        assert await node.level("A") == 0
        await own_valkey.start()
        await offered(shop, "w0")
        with pytest.raises(SoldOut):
            await node.buy("public2", "z")
        await shop.check_gate(node)


async def test_many_leave_join_cancel_and_buy_at_once_on_two_nodes(shop: Shop) -> None:
    await shop.add_skus({"A": 4})
    async with shop.node() as one, shop.node() as two:
        nodes = (one, two)
        await one.checkout.open_drop(shop.drop(("A", None)))
        for n in range(4):
            await one.buy(f"h{n}", f"f{n}")
        for n in range(12):
            await nodes[n % 2].wait(f"w{n:02d}", f"v{n}")
        await asyncio.gather(
            *(nodes[n % 2].checkout.cancel(f"f{n}", f"h{n}") for n in range(4)),
            *(nodes[n % 2].waits.leave(f"v{n}", f"w{n:02d}") for n in range(0, 12, 3)),
            *(nodes[n % 2].buy(f"p{n}", f"p{n}") for n in range(10)),
            return_exceptions=True,
        )

        async def settled() -> bool:
            found = list((await states(shop)).values())
            return found.count("offered") >= 4 and (await shop.rows())["A"] == (4, 4, 0)

        await until(settled)
        found = await states(shop)
        in_order = [found[rid] for rid in sorted(found) if found[rid] != "left"]
        assert in_order == sorted(in_order)  # "offered" before "waiting"
        assert not any(rid.startswith("p") for rid in await shop.states())
        await shop.check_gate(one)


async def test_33_an_offer_that_lapsed_before_it_was_accepted_is_over(shop: Shop) -> None:
    async with shop.node() as node:
        await sold_out(shop, node)
        await node.wait("w0", "v0")
        await node.checkout.cancel("first", "held")
        await offered(shop, "w0")
        assert await node.waits.of_viewers(["v0"]) == {}
        shop.clock.advance(60_000)
        await until(lambda: node.levels["A"].available == 1)
        with pytest.raises(HoldEnded):
            await node.buy("w0", "v0", retry=True)
        assert (await node.waits.counts(["A"])) == {"A": 0}


async def test_an_offer_that_was_pressed_for_stays_a_hold_in_the_next_gate(shop: Shop) -> None:
    """The entry still waits in the record when the next gate is loaded with entry and hold."""
    async with shop.node(upkeep=False) as node:
        await sold_out(shop, node, 2)
        await node.wait("w", "v")
        await node.checkout.cancel("first", "held")  # the gate offers; nobody makes it durable
        hold = await node.buy("w", "v", retry=True)
        assert (await states(shop))["w"] == "waiting"
        await node.checkout.keeper.rebuild()
        await node.waits.work_off()
        assert (await states(shop))["w"] == "offered"
        assert await node.level("A") == 1
        assert await node.checkout.find("v", "w") == hold
        await node.checkout.upkeep.relay()
        await shop.check_gate(node)


async def test_an_entry_whose_id_was_pressed_for_something_else_is_passed_over(shop: Shop) -> None:
    """What the gate has of the id is the press's: passing the entry over must not give it back."""
    await shop.add_skus({"A": 1, "B": 1})
    async with shop.node(upkeep=False) as node:
        await node.checkout.open_drop(shop.drop(("A", None), ("B", None)))
        await node.buy("held", "first")
        await node.wait("w", "v")
        await node.buy("w", "v", ("B", 1))
        await node.checkout.cancel("first", "held")
        await node.waits.work_off()
        assert (await states(shop))["w"] == "passed"
        assert await shop.rows() == {"A": (1, 0, 0), "B": (1, 1, 0)}
        assert (await node.level("A"), await node.level("B")) == (1, 0)
        await node.checkout.upkeep.relay()
        await shop.check_gate(node)


async def test_who_leaves_after_pressing_their_id_for_something_else_stands_in_no_list(
    shop: Shop,
) -> None:
    """A win that is not durable yet is no offer, although it has the entry's id."""
    await shop.add_skus({"A": 1, "B": 1})
    async with shop.node(upkeep=False) as node:
        await node.checkout.open_drop(shop.drop(("A", None), ("B", None)))
        await node.buy("held", "first")
        await node.wait("w", "v")
        ask = Ask("w", "of a press", "v", "d", (("B", 1),))
        epoch = node.checkout.keeper.epoch
        (won,), _levels = await node.gate.reserve(epoch, [ask], shop.clock())
        assert won.verdict is Verdict.WON
        await node.waits.leave("v", "w")
        client = Redis.from_url(shop.valkey_url)
        try:
            assert await client.zcard(KEYS + "queue") == 0
        finally:
            await client.aclose()
        await node.gate.release(epoch, [("w", End.FORGOTTEN)], shop.clock())
        await node.checkout.upkeep.relay()
        await shop.check_gate(node)
