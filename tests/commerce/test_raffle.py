"""Raffles: entering, the draw, the winners and those after them; on both databases."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select

from commerce.errors import AlreadyWaiting, DropNotOpen, InRaffle, SoldOut, UnknownDrop
from commerce.raffle import commitment, ranking
from commerce.schema_sql import outbox
from commerce.stock import Drop, Raffle
from commerce.waiting import WaitState
from commerce.waiting_sql import SqlWaitlist
from tests.commerce.stock_support import Node, Shop
from tests.commerce.test_waiting import offered, states
from tests.waiting import until

SEED = "5a" * 32
ENTRY_MS = 10_000


def raffled(shop: Shop, **more: object) -> Drop:
    raffle = Raffle(shop.clock() + ENTRY_MS, commitment(SEED), SEED)
    return shop.drop(("A", None), raffle=raffle, **more)


async def entered(shop: Shop, node: Node, units: int, entries: int, **drop: object) -> list[str]:
    """A raffle with so many entries; their ids in the order in which they will be drawn."""
    await shop.add_skus({"A": units})
    await node.checkout.open_drop(raffled(shop, **drop))
    for n in range(entries):
        entry = await node.wait(f"e{n}", f"v-e{n}")
        assert (entry.state, entry.position) == (WaitState.ENTERED, 0)
    return ranking(SEED, [f"e{n}" for n in range(entries)])


async def test_the_first_lots_get_the_units_and_who_does_not_pay_is_followed_by_the_next(
    shop: Shop,
) -> None:
    async with shop.node() as one, shop.node() as two:
        order = await entered(shop, one, units=2, entries=5)
        with pytest.raises(InRaffle):
            await two.buy("p", "p")
        with pytest.raises(AlreadyWaiting):
            await two.wait("e9", "v-e0")
        assert await two.waits.counts(["A"]) == {"A": 5}
        shop.clock.advance(ENTRY_MS)
        await offered(shop, *order[:2])
        found = await states(shop)
        assert [found[rid] for rid in order] == ["offered"] * 2 + ["waiting"] * 3
        assert (await two.wait(order[2], f"v-{order[2]}")).position == 1
        with pytest.raises(SoldOut):
            await two.buy("p2", "p")
        late = await two.wait("late", "late")
        assert late.position == 4
        await one.checkout.cancel(f"v-{order[0]}", order[0])
        await offered(shop, order[2])
        shop.clock.advance(60_000)
        await offered(shop, *order[3:])
        await one.checkout.cancel(f"v-{order[3]}", order[3])
        await offered(shop, "late")
        await shop.check_gate(one)


async def test_everybody_is_told_the_rank_and_anybody_can_recompute_the_draw(shop: Shop) -> None:
    lists = SqlWaitlist(shop.database)
    async with shop.node() as node:
        order = await entered(shop, node, units=1, entries=4)
        before = await lists.draw("d")
        assert before.drop.raffle is not None
        assert (before.drop.raffle.seed, before.entered, before.entries) == (None, 4, ())
        assert before.drop.raffle.seed_sha == commitment(SEED)
        assert not before.right
        shop.clock.advance(ENTRY_MS)
        await offered(shop, order[0])
        draw = await lists.draw("d")
        assert draw.drop.raffle is not None
        assert (draw.drop.raffle.seed, draw.drop.raffle.entries) == (SEED, 4)
        assert list(draw.entries) == order
        assert draw.right
        assert not replace(draw, entries=order[::-1]).right
        async with shop.database.read() as conn:
            facts = await conn.execute(
                select(outbox.c.payload).where(outbox.c.topic == "wait").order_by(outbox.c.id)
            )
            ranks = [fact["rid"] for fact in facts.scalars() if fact.get("position")]
        assert ranks == order
        with pytest.raises(UnknownDrop):
            await lists.draw("nowhere")


async def test_two_nodes_draw_once_and_an_entry_is_in_before_or_refused(shop: Shop) -> None:
    async with shop.node(upkeep=False) as one, shop.node(upkeep=False) as two:
        await entered(shop, one, units=1, entries=3)
        shop.clock.advance(ENTRY_MS)
        answers = await asyncio.gather(
            one.waits.draw_due(),
            two.waits.draw_due(),
            two.wait("late", "late"),
            return_exceptions=True,
        )
        joined = await two.wait("late", "late") if isinstance(answers[2], InRaffle) else answers[2]
        assert getattr(joined, "position", 0) == 4  # after the draw: behind all entries
        draw = await SqlWaitlist(shop.database).draw("d")
        assert len(draw.entries) == 3
        assert draw.right
        await one.waits.work_off()
        assert list((await states(shop)).values()).count("offered") == 1


async def test_43_an_entry_before_the_end_is_drawn_and_one_at_the_end_stands_behind_all(
    shop: Shop,
) -> None:
    async with shop.node(upkeep=False) as one, shop.node(upkeep=False) as two:
        await entered(shop, one, units=1, entries=2)
        shop.clock.advance(ENTRY_MS - 1)
        last = await two.wait("last", "v-last")
        assert last.state is WaitState.ENTERED
        shop.clock.advance(1)
        late = {f"late-{n}": node for n, node in enumerate((one, two, one, two))}
        draw, *answers = await asyncio.gather(
            one.waits.draw_due(),
            *(node.wait(rid, rid) for rid, node in late.items()),
            return_exceptions=True,
        )
        assert not isinstance(draw, BaseException)
        for (rid, node), answer in zip(late.items(), answers, strict=True):
            # Refused while the draw is under way: whoever asks again is behind it.
            entry = await node.wait(rid, rid) if isinstance(answer, InRaffle) else answer
            assert not isinstance(entry, BaseException)
            assert (entry.state, entry.position > 3) == (WaitState.WAITING, True)
        drawn = await SqlWaitlist(shop.database).draw("d")
        assert drawn.right
        assert sorted(drawn.entries) == ["e0", "e1", "last"]


async def test_what_nobody_drew_can_be_bought_after_the_draw(shop: Shop) -> None:
    async with shop.node() as node:
        order = await entered(shop, node, units=3, entries=1, opens_at=shop.clock())
        shop.clock.advance(ENTRY_MS)
        await offered(shop, *order)
        await until(lambda: node.levels["A"].available == 2)
        await node.buy("p", "p")
        await shop.check_gate(node)


async def test_entries_open_with_the_drop_end_with_it_and_survive_a_lost_gate(shop: Shop) -> None:
    async with shop.node() as node:
        await shop.add_skus({"A": 1})
        await node.checkout.open_drop(raffled(shop, opens_at=shop.clock() + 1_000))
        with pytest.raises(DropNotOpen):
            await node.wait("early", "early")
        shop.clock.advance(1_000)
        await node.wait("e0", "v0")
        await node.waits.leave("v0", "e0")
        await node.wait("e1", "v1")
        await node.checkout.keeper.rebuild()
        with pytest.raises(InRaffle):
            await node.buy("p", "p")
        await node.checkout.close_drop("d")

        async def closed() -> bool:
            return await states(shop) == {"e0": "left", "e1": "closed"}

        await until(closed)
        shop.clock.advance(ENTRY_MS)
        assert not await node.waits.draw_due()
        draw = await SqlWaitlist(shop.database).draw("d")
        assert draw.drop.raffle is not None
        assert draw.drop.raffle.drawn_at is None
