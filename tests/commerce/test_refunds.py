"""Giving money back against the real sandbox, on both databases; races by their row's number."""

import asyncio

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from commerce.errors import NotRefundable, OrderMoved, RefundTooLarge, UnknownOrder
from commerce.fulfilment import Pick
from commerce.money_schema_sql import refund as refund_table
from commerce.payments_stripe import StripeProvider
from commerce.pricing import Discount, ShopTerms
from commerce.refunds import MOVES, RefundState, SeenRefund
from commerce.sandbox.webhooks import sign
from commerce.schema_sql import payment
from tests.commerce.pay_support import KEY, PRICE, SHIPPING, Till
from tests.waiting import until

pytest_plugins = ("tests.commerce.pay_fixtures",)


async def states(till: Till, rid: str) -> list[str]:
    async with till.database.read() as conn:
        rows = await conn.execute(
            select(refund_table.c.state)
            .where(refund_table.c.rid == rid)
            .order_by(refund_table.c.created_at, refund_table.c.id)
        )
        return list(rows.scalars())


async def test_units_given_back_one_by_one_are_exactly_what_was_paid(till: Till) -> None:
    await till.terms.put_shop(ShopTerms(1_900, "VAT", 3))
    off = Discount("Tonight", percent_bp=1_111)
    assert await till.terms.put_discount("d1", off, till.clock()) == off
    paid = await till.paid(quantity=3)
    order = paid.order
    assert order.discount == 433
    assert order.total == 3 * PRICE - 433 + SHIPPING
    assert [step.kind for step in paid.steps] == ["discount", "shipping", "tax"]
    intent = await till.at_provider(order.rid)
    assert intent["amount_received"] == order.total
    for n in range(3):
        await till.give_back(order.id, [Pick(0, 1)])
        await till.settle_refunds(order.rid)
        assert len(await states(till, order.rid)) == n + 1
    after = await till.order_of(order.rid)
    assert [unit.refunded for unit in after.units] == [unit.amount for unit in after.units]
    assert (after.order.refunded, after.refundable) == (order.total, 0)
    assert await till.at_bank(order.rid) == order.total
    assert await states(till, order.rid) == ["succeeded"] * 3
    balances = (await till.ledger.balances())["USD"]
    assert (balances["provider_clearing"], balances["tax_payable"]) == (0, 0)
    await till.sound()
    with pytest.raises(NotRefundable):
        await till.give_back(order.id)


async def test_an_amount_is_shared_over_the_units_and_the_rest_can_follow(till: Till) -> None:
    paid = await till.paid(quantity=2)
    await till.give_back(paid.order.id, amount=101)
    await till.give_back(paid.order.id, [Pick(0, 1)], amount=1)
    with pytest.raises(RefundTooLarge) as refused:
        await till.give_back(paid.order.id, amount=paid.order.total)
    assert refused.value.left == paid.order.total - 102
    found = await till.give_back(paid.order.id)
    assert sum(one.amount for one in found.refunds) == paid.order.total
    await till.settle_refunds(paid.order.rid)
    assert await till.at_bank(paid.order.rid) == paid.order.total
    await till.sound()


async def test_what_is_not_paid_or_not_there_is_not_refunded(till: Till) -> None:
    with pytest.raises(UnknownOrder):
        await till.give_back("nothing")
    paid = await till.paid()
    for wrong in ([Pick(0, 2)], [Pick(7, 1)], [Pick(0, 0)], []):
        with pytest.raises(OrderMoved):
            await till.give_back(paid.order.id, wrong)
    for amount in (0, -1):
        with pytest.raises(RefundTooLarge):
            await till.give_back(paid.order.id, amount=amount)
    assert (await till.order_of(paid.order.rid)).refunds == ()


@pytest.mark.parametrize("fault", ["error_before", "error_after", "time_out"])
async def test_a_refund_whose_answer_is_lost_is_made_once(till: Till, fault: str) -> None:
    paid = await till.paid()
    await till.api.arm(fault, match="POST /v1/refunds", ms=10)
    await till.give_back(paid.order.id)
    for _ in range(3):
        await till.settle_refunds(paid.order.rid)
    assert await states(till, paid.order.rid) == ["succeeded"]
    assert await till.at_bank(paid.order.rid) == paid.order.total
    assert len(await till.api.events("refund.created")) == 1
    await till.sound()


async def test_a_slow_bank_is_waited_for_and_one_that_fails_frees_the_money(till: Till) -> None:
    paid = await till.paid(quantity=2)
    await till.api.arm("refund_pending")
    await till.give_back(paid.order.id, [Pick(0, 1)])
    await till.settle_refunds(paid.order.rid)
    assert await states(till, paid.order.rid) == ["submitted"]
    assert (await till.order_of(paid.order.rid)).order.refunded == 0

    async def succeeded() -> bool:
        await till.settle_refunds(paid.order.rid)
        return await states(till, paid.order.rid) == ["succeeded"]

    await until(succeeded)
    await till.api.arm("refund_failed")
    before = await till.give_back(paid.order.id)
    assert before.refundable == 0
    await till.settle_refunds(paid.order.rid)

    async def failed() -> bool:
        await till.settle_refunds(paid.order.rid)
        return (await states(till, paid.order.rid))[1] == "failed"

    await until(failed)
    after = await till.order_of(paid.order.rid)
    assert after.refundable == after.units[1].amount
    await till.sound()


async def test_a_refund_that_the_bank_returns_after_all_is_owed_again(till: Till) -> None:
    paid = await till.paid()
    cancelled = await till.cancel(paid.order.id)
    assert cancelled.order.state == "cancelling"
    await till.settle_refunds(paid.order.rid)
    assert (await till.order_of(paid.order.rid)).order.state == "cancelled"
    known = (await till.order_of(paid.order.rid)).refunds[0]
    answer = await till.api.http.post(
        f"/sandbox/refunds/{known.provider_id}", json={"status": "failed"}
    )
    assert answer.status_code == 200
    await till.pay.listen()
    await till.pay.once()
    after = await till.order_of(paid.order.rid)
    assert (after.order.state, after.order.refunded) == ("cancelling", 0)
    assert after.refundable == paid.order.total
    await till.sound()


async def test_a_viewer_asks_and_the_host_decides(till: Till) -> None:
    paid = await till.paid(quantity=2)

    async def ask(viewer: str = "v1", picks: list[Pick] | None = None) -> str:
        found = await till.desk.ask_back(
            paid.order.id, picks, None, reason="broken", viewer=viewer, new_id=till.new_id(),
            now=till.clock(),
        )  # fmt: skip
        return found.refunds[-1].id

    with pytest.raises(UnknownOrder):
        await ask("stranger")
    no, yes = await ask(picks=[Pick(0, 1)]), await ask(picks=[Pick(0, 1)])
    assert (await till.paid_by(paid.order.rid)).captured == paid.order.total
    await till.desk.decide(no, approve=False, actor="host", now=till.clock())
    await till.desk.decide(yes, approve=True, actor="host", now=till.clock())
    for again in (no, yes):
        with pytest.raises(OrderMoved):
            await till.desk.decide(again, approve=True, actor="host", now=till.clock())
    await till.settle_refunds(paid.order.rid)
    assert await states(till, paid.order.rid) == ["rejected", "succeeded"]
    assert await till.at_bank(paid.order.rid) == paid.units[0].amount
    await till.sound()


async def test_row_28_a_refund_and_its_own_webhooks_are_one_refund(till: Till) -> None:
    paid = await till.paid()
    await till.give_back(paid.order.id)
    other = till.node(StripeProvider(KEY, [], api_base=till.api.url, retries=0))
    await asyncio.gather(till.pay.once(), other.once(), till.pay.listen(), other.listen())
    for event in await till.api.events("refund.created", "charge.refunded", "refund.created"):
        raw = till.api.http.build_request("POST", "http://x", json=event).content
        for _ in range(2):
            await till.pay.accept(raw, sign(raw.decode(), "whsec_test", till.clock() // 1000))
    await till.settle_refunds(paid.order.rid)
    await other._provider.close()
    assert await states(till, paid.order.rid) == ["succeeded"]
    assert await till.at_bank(paid.order.rid) == paid.order.total
    await till.sound()


async def test_row_28_a_refund_made_at_the_provider_is_counted_here(till: Till) -> None:
    paid = await till.paid()
    intent = (await till.at_provider(paid.order.rid))["id"]
    await till.api.post("/v1/refunds", {"payment_intent": intent, "amount": "700"})
    await till.pay.listen()
    await till.pay.once()
    after = await till.order_of(paid.order.rid)
    assert [(one.asked_by, one.amount, one.state) for one in after.refunds] == [
        ("outside", 700, "succeeded")
    ]
    assert (after.order.refunded, after.refundable) == (700, paid.order.total - 700)
    await till.sound()


async def test_row_29_refunds_at_once_never_exceed_what_was_taken(till: Till) -> None:
    paid = await till.paid(quantity=3)
    wants = [till.give_back(paid.order.id, amount=paid.order.total * 2 // 5) for _ in range(6)]
    outcomes = await asyncio.gather(*wants, return_exceptions=True)
    assert sum(isinstance(one, RefundTooLarge) for one in outcomes) == 4
    await till.settle_refunds(paid.order.rid)
    assert await till.at_bank(paid.order.rid) == 2 * (paid.order.total * 2 // 5)
    await till.sound()


async def test_row_29_the_last_wall_is_in_the_tables(till: Till) -> None:
    await till.paid()
    with pytest.raises(IntegrityError):
        async with till.database.begin() as conn:
            await conn.execute(update(payment).values(refunded=payment.c.captured + 1))


async def test_row_31_a_chargeback_freezes_refunds_and_is_booked(till: Till) -> None:
    paid = await till.paid()
    intent = (await till.at_provider(paid.order.rid))["id"]
    made = await till.api.http.post("/sandbox/disputes", json={"intent": intent})
    await till.pay.listen()
    await till.pay.once()
    with pytest.raises(NotRefundable):
        await till.give_back(paid.order.id)
    balances = (await till.ledger.balances())["USD"]
    assert (balances["disputes"], balances["provider_clearing"]) == (paid.order.total, 0)
    await till.sound()
    closing = {"dispute": made.json()["id"], "status": "won"}
    await till.api.http.post("/sandbox/disputes", json=closing)
    await till.pay.listen()
    await till.pay.once()
    await till.give_back(paid.order.id)
    await till.settle_refunds(paid.order.rid)
    assert await till.at_bank(paid.order.rid) == paid.order.total
    await till.sound()


async def test_every_pair_of_refund_states_moves_as_the_table_says(sqlite_till: Till) -> None:
    """By the record itself: what the provider says moves a row along the table or not at all."""
    till = sqlite_till
    status = {RefundState.SUCCEEDED: "succeeded", RefundState.FAILED: "failed"}
    for source in RefundState:
        for to in (RefundState.SUBMITTED, RefundState.SUCCEEDED, RefundState.FAILED):
            paid = await till.paid()
            made = (await till.give_back(paid.order.id)).refunds[0]
            await _put(till, made.id, source)
            seen = SeenRefund(
                f"re_{made.id}", made.id, "pi", status.get(to, "pending"), made.amount, "USD", ""
            )
            moved = await till.refunds.told(made.id, seen, till.clock())
            assert moved == (to in MOVES[source]), (source, to)
            await _put(till, made.id, RefundState.FAILED)
            async with till.database.begin() as conn:  # the shelf is small: take the unit back
                await conn.execute(update(payment).values(refunded=0))
            await till.cancel(paid.order.id)


async def _put(till: Till, id_: str, state: RefundState) -> None:
    async with till.database.begin() as conn:
        await conn.execute(
            update(refund_table).where(refund_table.c.id == id_).values(state=state.value)
        )
