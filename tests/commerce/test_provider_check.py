"""Our books beside the provider's, on both databases; and any order of events ends the same."""

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from commerce.ledger_sql import Fault
from commerce.money_schema_sql import ledger_posting, order_unit
from commerce.provider_books_sql import SqlProviderBooks
from commerce.provider_check import Difference, ProviderCheck
from commerce.sandbox.webhooks import sign
from commerce.schema_sql import payment
from tests.commerce.pay_support import PRICE, SHIPPING, SUCCEEDS, Till

pytest_plugins = ("tests.commerce.pay_fixtures",)


def reconciler(till: Till) -> ProviderCheck:
    return ProviderCheck(
        till.provider,
        SqlProviderBooks(till.database, "stripe"),
        till.ledger,
        clock=till.clock,
        look_again=till.pay.look_again,
    )


async def test_books_that_agree_have_nothing_to_report(till: Till) -> None:
    paid = await till.paid(quantity=2)
    await till.give_back(paid.order.id, amount=100)
    await till.settle_refunds(paid.order.rid)
    report = await reconciler(till).run()
    assert (report.charges, report.complete, report.wrong) == (1, True, 0)
    assert report.balances["USD"]["provider_clearing"] == paid.order.total - 100


async def test_news_that_has_not_arrived_is_brought_in(till: Till) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    await till.pay.refresh(rid)
    intent = (await till.at_provider(rid))["id"]
    await till.api.post("/v1/refunds", {"payment_intent": intent, "amount": "300"})
    report = await reconciler(till).run()
    assert report.wrong == 0
    assert (await till.order_of(rid)).order.refunded == 300


async def test_what_differs_is_reported_with_both_numbers(till: Till) -> None:
    paid = await till.paid()
    other = await till.paid()
    total = PRICE + SHIPPING
    intent = (await till.at_provider(paid.order.rid))["id"]
    missing = (await till.at_provider(other.order.rid))["id"]
    async with till.database.begin() as conn:
        row = payment.c
        await conn.execute(
            update(payment).where(row.intent_id == intent).values(captured=total - 1)
        )
        await conn.execute(
            update(payment).where(row.intent_id == missing).values(intent_id="pi_lost")
        )
    report = await reconciler(till).run()
    assert sorted(report.differences, key=lambda one: one.kind) == [
        Difference("captured", intent, total - 1, total, "USD"),
        Difference("missing_charge", "pi_lost", total, 0, "USD"),
        Difference("unknown_charge", missing, 0, total, "USD"),
    ]
    assert report.faults == (Fault("clearing", paid.order.rid, 1),)


async def test_each_question_of_the_auditor_finds_its_fault(sqlite_till: Till) -> None:
    till = sqlite_till
    await till.paid()
    await till.sound()
    async with till.database.begin() as conn:
        await conn.exec_driver_sql("DROP TRIGGER ledger_posting_update")
        await conn.execute(
            update(ledger_posting)
            .where(ledger_posting.c.account == "sales")
            .values(amount=ledger_posting.c.amount - 1)
        )
        await conn.execute(update(order_unit).values(price=1, amount=1 + SHIPPING, refunded=1))
        await conn.execute(update(payment).values(refunded=2))
    kinds = {fault.kind for fault in await till.ledger.faults()}
    assert kinds == {"unbalanced", "refunded", "units", "unit_refunds"}


async def _accept(till: Till, event: dict[str, Any]) -> None:
    raw = httpx.Request("POST", "http://x", json=event).content
    await till.pay.accept(raw, sign(raw.decode(), "whsec_test", till.clock() // 1000))


async def _shuffled(till: Till, data: st.DataObject, events: list[dict[str, Any]]) -> None:
    """Delivers them in any order, some of them more than once, with the workers in between."""
    order = data.draw(st.permutations(range(len(events))))
    again = data.draw(st.lists(st.sampled_from(order), max_size=3))
    pauses = data.draw(st.sets(st.sampled_from(order)))
    for at in (*order, *again):
        await _accept(till, events[at])
        if at in pauses:
            await till.pay.once()
    await till.pay.once()


@pytest.mark.timeout(400)
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
async def test_row_8_any_order_repetition_and_delay_of_all_events_ends_in_the_same_state(
    till: Till, data: st.DataObject
) -> None:
    """Of a payment, its capture, a refund at once and a slow one."""
    await till.api.reset()
    rid = await till.held(quantity=2)
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    await _shuffled(till, data, await till.api.events())
    paid = await till.order_of(rid)
    assert paid.order.state == "paid"

    known = len(await till.api.events())
    await till.give_back(paid.order.id, amount=50)
    await till.pay.once()
    await till.api.arm("refund_pending", ms=60_000)
    await till.cancel(paid.order.id)
    await till.pay.once()
    slow = (await till.order_of(rid)).refunds[-1]
    await till.api.http.post(f"/sandbox/refunds/{slow.provider_id}", json={"status": "succeeded"})
    await _shuffled(till, data, (await till.api.events())[known:])

    ended = await till.order_of(rid)
    assert (ended.order.state, ended.order.refunded) == ("cancelled", ended.order.total)
    assert [(one.state, one.amount) for one in ended.refunds] == [
        ("succeeded", 50),
        ("succeeded", ended.order.total - 50),
    ]
    assert {(unit.state, unit.amount - unit.refunded) for unit in ended.units} == {("cancelled", 0)}
    assert await till.at_bank(rid) == ended.order.total
    assert await till.stock() == (0, 0)
    await till.sound()
