"""Facts: each told at least once, in order per key, by one teller at a time."""

import asyncio

import pytest

from commerce.database_sql import Database
from commerce.outbox_sql import KEEP_MS, SqlOutbox
from commerce.schema_sql import shop as shop_table
from commerce.webhooks_sql import SqlWebhooks

NOW = 1_800_000_000_000


async def _add(database: Database, *facts: tuple[str, str, int]) -> None:
    async with database.begin() as conn:
        for topic, key, number in facts:
            await SqlOutbox.add(conn, topic, key, {"number": number, "text": "ä☃"}, NOW)


async def test_a_fact_of_a_rolled_back_transaction_is_never_told(database: Database) -> None:
    box = SqlOutbox(database)

    async def add_and_fail() -> None:
        async with database.begin() as conn:
            await SqlOutbox.add(conn, "order", "k", {}, NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await add_and_fail()
    assert await box.claim(["order"], 10, NOW, 1_000) == []


async def test_facts_come_in_order_and_until_they_are_done(database: Database) -> None:
    box = SqlOutbox(database)
    await _add(database, ("order", "a", 1), ("hold", "b", 2), ("other", "a", 3), ("order", "a", 4))
    facts = await box.claim(["order", "hold"], 10, NOW, 1_000)
    assert [(fact.topic, fact.key, fact.payload["number"]) for fact in facts] == [
        ("order", "a", 1),
        ("hold", "b", 2),
        ("order", "a", 4),
    ]
    assert facts[0].payload["text"] == "ä☃"
    assert await box.claim(["order", "hold"], 10, NOW + 999, 1_000) == []
    again = await box.claim(["order", "hold"], 10, NOW + 1_000, 1_000)  # the teller died
    assert [fact.id for fact in again] == [fact.id for fact in facts]
    await box.done([fact.id for fact in again], NOW + 1_001)
    assert await box.claim(["order", "hold"], 10, NOW + 9_000, 1_000) == []


async def test_a_later_fact_waits_while_an_earlier_one_of_its_key_is_being_told(
    database: Database,
) -> None:
    box = SqlOutbox(database)
    await _add(database, ("order", "a", 1))
    first = await box.claim(["order"], 10, NOW, 1_000)
    await _add(database, ("order", "a", 2), ("order", "b", 3))
    second = await box.claim(["order"], 10, NOW, 1_000)
    assert [fact.payload["number"] for fact in second] == [3]
    await box.done([fact.id for fact in first], NOW)
    third = await box.claim(["order"], 10, NOW, 1_000)
    assert [fact.payload["number"] for fact in third] == [2]


async def test_tellers_that_ask_at_once_never_hold_the_same_fact(database: Database) -> None:
    await _add(database, *(("order", f"k{n % 5}", n) for n in range(60)))
    boxes = [SqlOutbox(database) for _ in range(4)]
    claims = await asyncio.gather(*(box.claim(["order"], 15, NOW, 60_000) for box in boxes))
    ids = [fact.id for facts in claims for fact in facts]
    assert len(ids) == len(set(ids))
    by_key: dict[str, set[int]] = {}
    for teller, facts in enumerate(claims):
        for fact in facts:
            by_key.setdefault(fact.key, set()).add(teller)
    assert all(len(tellers) == 1 for tellers in by_key.values())


async def test_the_gate_has_its_own_mark_and_only_for_the_present_epoch(
    database: Database,
) -> None:
    box = SqlOutbox(database)
    async with database.begin() as conn:
        await conn.execute(
            shop_table.insert().values(
                id=1, name="Shop", currency="USD", shipping_amount=0, gate_epoch=7
            )
        )
        await SqlOutbox.add(conn, "stock", "A", {"n": 1}, NOW, tell=False)
    await _add(database, ("hold", "r", 2), ("order", "o", 3))
    facts = await box.for_gate(10)
    assert [fact.topic for fact in facts] == ["stock", "hold"]
    assert not await box.gate_done([fact.id for fact in facts], 6, NOW)
    assert await box.for_gate(10) == facts
    assert await box.gate_done([fact.id for fact in facts], 7, NOW)
    assert await box.for_gate(10) == []
    told = await box.claim(["hold", "order", "stock"], 10, NOW, 1_000)
    assert [fact.topic for fact in told] == ["hold", "order"]
    await box.done([fact.id for fact in told[:1]], NOW)
    assert await box.prune(NOW + KEEP_MS) == 0
    assert await box.prune(NOW + KEEP_MS + 1) == 1, "the shop's other systems were not told of one"
    hooks = SqlWebhooks(database, lambda: "x")
    await hooks.tell([(fact, []) for fact in await hooks.facts(10)], NOW)
    assert await box.prune(NOW + KEEP_MS + 1) == 1
    left = await box.claim(["order"], 10, NOW + KEEP_MS, 1_000)
    assert [fact.topic for fact in left] == ["order"]
