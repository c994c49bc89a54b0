"""Paying for a hold against the real sandbox, on both databases; races by their row's number."""

import asyncio
import random
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from sqlalchemy import select, update

from commerce.errors import BadCurrency, HoldEnded, Unavailable, UnknownHold
from commerce.payments_stripe import StripeProvider
from commerce.sandbox.webhooks import sign
from commerce.schema_sql import orders, person_detail, psp_inbox, reservation, shop
from tests.commerce.pay_support import (
    ASKS,
    DECLINED,
    DELIVERY,
    KEY,
    LATE,
    ON_HAND,
    PRICE,
    RETURN_URL,
    SHIPPING,
    SUCCEEDS,
    Sandbox,
    Till,
    running,
)
from tests.waiting import until

pytest_plugins = ("tests.commerce.pay_fixtures",)

PAID = ["placed", "paid"]


async def test_a_hold_is_paid_and_becomes_an_order(till: Till) -> None:
    rid = await till.held(quantity=2)
    page = await till.begin(rid)
    assert (page.total, page.shipping, page.currency) == (2 * PRICE + SHIPPING, SHIPPING, "USD")
    assert page.hold.state == "paying"

    pressed = await till.api.press(page.url, card=SUCCEEDS)
    assert pressed.status_code == 303
    back = urlsplit(pressed.headers["location"])
    assert back.hostname == "shop.example"
    assert parse_qs(back.query) == {"tab": ["a"], "payment": ["done"], "rid": [rid]}
    await till.pay.refresh(rid)

    assert await till.state(rid) == "sold"
    assert await till.stock() == (0, 2)
    order = await till.orders.by_rid(rid)
    assert order is not None
    assert (order.state, order.subtotal, order.shipping, order.total) == (
        "paid",
        2 * PRICE,
        SHIPPING,
        2 * PRICE + SHIPPING,
    )
    assert [(line.sku, line.quantity, line.unit_amount) for line in order.lines] == [
        ("MUG", 2, PRICE)
    ]
    assert await till.orders.get(order.id) == order
    assert await till.facts("order", rid) == PAID
    assert await till.facts("hold", rid) == ["paying", "sold"]
    assert till.settled == [rid]
    intent = await till.at_provider(rid)
    assert (intent["status"], intent["amount_received"]) == ("succeeded", page.total)
    known = await till.paid_by(rid)
    assert (known.state, known.captured) == ("captured", page.total)
    assert await till.record.due(till.clock() + 10**9, 10) == []
    detail = await till.orders.customer(rid)
    assert detail is not None
    assert detail["address"]["city"] == "Wuhan"
    async with till.database.read() as conn:
        sealed = (await conn.execute(select(person_detail.c.sealed))).scalar_one()
    assert "Wuhan" not in sealed


async def test_begin_again_gives_the_same_page(till: Till) -> None:
    rid = await till.held()
    first, second = await asyncio.gather(till.begin(rid), till.begin(rid))
    again = await till.begin(rid)
    assert first.url == second.url == again.url
    assert len(await till.record.of_rid(rid)) == 1
    sessions = await till.api.get("/v1/checkout/sessions")
    assert len(sessions["data"]) == 1


async def test_begin_refuses_what_is_not_a_live_hold_of_this_viewer(till: Till) -> None:
    rid = await till.held()
    with pytest.raises(UnknownHold):
        await till.begin("nothing")
    with pytest.raises(UnknownHold):
        await till.pay.begin("stranger", rid, DELIVERY, return_url=RETURN_URL)
    async with till.database.begin() as conn:
        await conn.execute(update(shop).values(currency="EUR"))
    with pytest.raises(BadCurrency):
        await till.begin(rid)
    assert await till.state(rid) == "held"
    till.clock.ahead_ms = 61_000
    with pytest.raises(HoldEnded):
        await till.begin(rid)
    assert await till.record.of_rid(rid) == []


async def test_a_decline_is_told_and_the_same_page_takes_another_card(till: Till) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    answer = await till.api.press(page.url, card=DECLINED)
    assert answer.status_code == 200
    await till.pay.refresh(rid)
    assert (await till.paid_by(rid)).state == "declined"
    assert await till.facts("payment", rid) == ["declined"]
    assert await till.state(rid) == "paying"
    assert (await till.begin(rid)).url == page.url

    await till.api.press(page.url, card=SUCCEEDS)
    await till.pay.refresh(rid)
    assert await till.state(rid) == "sold"
    assert await till.facts("order", rid) == PAID


async def test_a_page_that_ended_with_time_left_gives_the_hold_back_for_a_new_one(
    till: Till,
) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=DECLINED)
    session = (await till.paid_by(rid)).session
    await till.api.post(f"/v1/checkout/sessions/{session}/expire", {})
    await till.pay.refresh(rid)
    assert await till.state(rid) == "held"
    assert await till.facts("payment", rid) == ["ended"]

    second = await till.begin(rid)
    assert second.url != page.url
    await till.api.press(second.url, card=SUCCEEDS)
    await till.pay.refresh(rid)
    assert await till.state(rid) == "sold"


async def test_the_bank_may_ask_first(sqlite_till: Till) -> None:
    till = sqlite_till
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=ASKS)
    await till.pay.refresh(rid)
    assert (await till.paid_by(rid)).state == "requires_action"
    await till.api.press(page.url, action="reject")
    await till.pay.refresh(rid)
    assert (await till.paid_by(rid)).state == "declined"
    await till.api.press(page.url, card=ASKS)
    await till.api.press(page.url, action="approve")
    await till.pay.refresh(rid)
    assert await till.state(rid) == "sold"


async def test_row_1_a_payment_that_was_authorised_wins_against_the_deadline(till: Till) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    till.clock.ahead_ms = 61_000
    await till.pay.once()
    assert await till.state(rid) == "sold"
    assert await till.stock() == (0, 1)
    assert await till.facts("order", rid) == PAID


async def test_row_2_expiry_ends_the_page_first_and_then_frees_the_unit(till: Till) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    await till.pay.once()
    assert await till.state(rid) == "paying"
    till.clock.ahead_ms = 61_000
    await till.pay.once()
    assert (await till.at_provider(rid))["session"] == "expired"
    assert await till.state(rid) == "expired"
    assert await till.facts("hold", rid) == ["paying", "closing", "expired"]
    assert await till.stock() == (0, 0)
    assert till.settled == [rid]
    # and the page is dead: a card given now moves nothing
    answer = await till.api.press(page.url, card=SUCCEEDS)
    assert answer.status_code == 200
    assert await till.api.events("payment_intent.amount_capturable_updated") == []


async def test_row_3_a_buyer_who_is_faster_than_the_closing_has_bought(till: Till) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    till.clock.ahead_ms = 61_000
    known = await till.paid_by(rid)
    assert await till.record.close(known.id, rid, till.clock())
    assert await till.state(rid) == "closing"
    await till.api.press(page.url, card=SUCCEEDS)
    await till.pay.once()
    assert await till.state(rid) == "sold"
    assert await till.facts("order", rid) == PAID


async def test_row_3_a_refused_cancel_is_tried_again(till: Till) -> None:
    rid = await till.held()
    await till.begin(rid)
    await till.api.arm("refuse_cancel", times=2)
    till.clock.ahead_ms = 61_000
    await till.pay.once()
    assert await till.state(rid) == "closing"
    assert await till.stock() == (1, 0)
    await till.make_due(rid)
    await till.pay.once()
    assert await till.state(rid) == "expired"


async def test_row_4_an_unreachable_provider_keeps_the_unit_held(
    mortal_till: Till, mortal_sandbox: Sandbox
) -> None:
    till, sandbox = mortal_till, mortal_sandbox
    rid = await till.held()
    await till.begin(rid)
    till.clock.ahead_ms = 61_000
    sandbox.stop(kill=True)
    try:
        await till.pay.once()
        assert await till.state(rid) == "closing"
        assert await till.stock() == (1, 0)
    finally:
        sandbox.start()
    await till.make_due(rid)
    await till.pay.once()
    assert await till.state(rid) == "expired"
    assert await till.stock() == (0, 0)


async def _released_although_payable(till: Till) -> tuple[str, str]:
    """A provider that cannot cancel: the hold is over and the page is still open."""
    rid = await till.held()
    page = await till.begin(rid)
    await till.cancel_wish(rid)
    known = await till.paid_by(rid)
    await till.record.close(known.id, rid, till.clock())
    assert await till.record.dead(known, till.clock())
    assert await till.state(rid) == "cancelled"
    return rid, page.url


async def test_row_5_late_money_without_a_hold_is_let_go_and_told(till: Till) -> None:
    rid, url = await _released_although_payable(till)
    await till.api.press(url, card=SUCCEEDS)
    assert await till.pay.listen() > 0
    await till.pay.once()
    assert await till.state(rid) == "cancelled"
    assert (await till.at_provider(rid))["status"] == "canceled"
    assert (await till.paid_by(rid)).state == "cancelled"
    assert await till.facts("payment", rid) == ["returned"]
    assert await till.facts("order", rid) == []
    assert await till.stock() == (0, 0)


async def _late_money(till: Till) -> str:
    rid, url = await _released_although_payable(till)
    await till.api.press(url, card=SUCCEEDS)
    intent = (await till.at_provider(rid))["id"]
    await till.api.post(f"/v1/payment_intents/{intent}/capture", {})
    return rid


async def test_row_5_late_money_for_what_was_cancelled_is_told_and_goes_back_by_itself(
    till: Till,
) -> None:
    rid = await _late_money(till)
    await till.pay.listen()
    await till.pay.once()
    known = await till.paid_by(rid)
    assert (known.state, known.captured) == ("unallocated", PRICE + SHIPPING)
    assert await till.facts("payment", rid) == ["unallocated"]
    assert await till.facts("order", rid) == []
    await till.settle_refunds(rid)
    assert await till.at_bank(rid) == PRICE + SHIPPING
    assert await till.stock() == (0, 0)
    await till.sound()


async def test_row_5_late_money_for_a_lapsed_hold_buys_a_unit_that_is_left(till: Till) -> None:
    rid = await _late_money(till)
    async with till.database.begin() as conn:
        await conn.execute(update(reservation).values(state="expired"))
    await till.pay.listen()
    await till.pay.once()
    assert (await till.paid_by(rid)).state == "captured"
    assert await till.facts("payment", rid) == ["unallocated"]
    found = await till.order_of(rid)
    assert (found.order.state, found.order.total) == ("paid", PRICE + SHIPPING)
    assert await till.stock() == (0, 1)
    assert await till.at_bank(rid) == 0
    await till.sound()


async def test_row_5_late_money_for_a_lapsed_hold_goes_back_if_no_unit_is_left(till: Till) -> None:
    rid = await _late_money(till)
    await till.held(quantity=ON_HAND, viewer="v2")
    async with till.database.begin() as conn:
        await conn.execute(
            update(reservation).where(reservation.c.rid == rid).values(state="expired")
        )
    await till.pay.listen()
    await till.pay.once()
    await till.settle_refunds(rid)
    assert (await till.paid_by(rid)).state == "unallocated"
    assert await till.facts("order", rid) == []
    assert await till.at_bank(rid) == PRICE + SHIPPING
    assert await till.stock() == (ON_HAND, 0)
    await till.sound()


async def test_row_6_two_who_hear_of_it_at_once_sell_it_once(till: Till) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    other = till.node(StripeProvider(KEY, [], api_base=till.api.url, retries=0))
    await asyncio.gather(*(node.refresh(rid) for node in (till.pay, other) * 3))
    await other._provider.close()
    assert await till.facts("order", rid) == PAID
    assert await till.stock() == (0, 1)
    assert len(await till.api.events("payment_intent.succeeded")) == 1


async def _inbox(till: Till) -> list[tuple[str, str]]:
    async with till.database.read() as conn:
        rows = (await conn.execute(select(psp_inbox.c.event_id, psp_inbox.c.state))).all()
    return [(row.event_id, row.state) for row in rows]


async def _deliver(till: Till, event: dict[str, object]) -> None:
    raw = httpx.Request("POST", "http://x", json=event).content
    await till.pay.accept(raw, sign(raw.decode(), "whsec_test", till.clock() // 1000))


async def test_row_7_a_webhook_that_comes_twice_is_one_row(till: Till) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    event = (await till.api.events("checkout.session.completed"))[0]
    for _ in range(3):
        await _deliver(till, event)
        await till.pay.once()
    assert await _inbox(till) == [(event["id"], "done")]
    assert await till.facts("order", rid) == PAID


@pytest.mark.parametrize("seed", range(3))
async def test_row_8_any_order_delay_and_repetition_of_events_ends_the_same(
    till: Till, seed: int
) -> None:
    """Deliveries are interleaved with what the buyer does; whatever is left comes at the end."""
    dice = random.Random(seed)
    rid = await till.held()
    page = await till.begin(rid)
    for form in ({"card": DECLINED}, {"card": ASKS}, {"action": "approve"}, {}):
        if form:
            await till.api.press(page.url, **form)
        known = await till.api.events()
        chosen = known * 2 if not form else dice.sample(known, dice.randint(0, len(known)))
        dice.shuffle(chosen)
        for event in chosen:
            await _deliver(till, event)
            if dice.random() < 0.25:
                await till.pay.once()
        await till.pay.once()
    assert await till.state(rid) == "sold"
    assert (await till.paid_by(rid)).state == "captured"
    assert await till.facts("order", rid) == PAID
    assert await till.stock() == (0, 1)
    assert {state for _, state in await _inbox(till)} == {"done"}
    assert len(await till.api.events("payment_intent.succeeded")) == 1


async def test_row_9_an_event_about_an_unknown_payment_waits_for_it(till: Till) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    known = await till.paid_by(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    event = (await till.api.events("checkout.session.completed"))[0]
    # Our INSERT is still running: neither its id nor its session is to be seen.
    await till.set_payment(known.id, id="somewhere-else", session_id=None)
    await _deliver(till, event)
    await till.pay.once()
    assert await _inbox(till) == [(event["id"], "parked")]
    await till.set_payment("somewhere-else", id=known.id, session_id=known.session)
    till.clock.ahead_ms = 1_100
    await till.pay.once()
    assert await _inbox(till) == [(event["id"], "done")]
    assert await till.state(rid) == "sold"


async def test_an_event_about_somebody_elses_object_is_filed_away(sqlite_till: Till) -> None:
    till = sqlite_till
    line = {
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][unit_amount]": "900",
        "line_items[0][price_data][product_data][name]": "Another shop's",
    }
    made = await till.api.post(
        "/v1/checkout/sessions", {"mode": "payment", "success_url": "http://a.example/", **line}
    )
    await till.api.press(made.json()["url"], card=SUCCEEDS)
    for event in await till.api.events():
        await _deliver(till, event)
    await till.pay.once()
    assert {state for _, state in await _inbox(till)} == {"done"}


@pytest.mark.parametrize("wrong", [{"amount": PRICE + SHIPPING + 1}, {"currency": "EUR"}])
async def test_row_10_another_amount_or_currency_never_sells(
    till: Till, wrong: dict[str, object]
) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    await till.set_payment((await till.paid_by(rid)).id, **wrong)
    await till.pay.refresh(rid)
    assert (await till.paid_by(rid)).state == "mismatch"
    assert (await till.at_provider(rid))["status"] == "canceled"
    assert await till.state(rid) == "held"  # theirs until the deadline, to be paid anew
    assert await till.facts("payment", rid) == ["mismatch", "ended"]
    assert await till.facts("order", rid) == []
    assert await till.record.due(till.clock() + 10**9, 10) == []


async def test_row_25_a_cancel_while_paying_is_decided_by_the_provider(till: Till) -> None:
    unpaid, paid = await till.held(), await till.held()
    await till.begin(unpaid)
    page = await till.begin(paid)
    await till.cancel_wish(unpaid)
    await till.cancel_wish(paid)
    await till.api.press(page.url, card=SUCCEEDS)
    await till.pay.once()
    assert await till.state(unpaid) == "cancelled"
    assert await till.state(paid) == "sold"
    assert await till.stock() == (0, 1)


async def test_row_26_once_the_capture_has_begun_a_cancel_is_refused(till: Till) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    await till.api.arm("error_before", match="capture")
    with pytest.raises(Unavailable):
        await till.pay.refresh(rid)
    known = await till.paid_by(rid)
    assert known.state == "capturing"
    assert not await till.record.close(known.id, rid, till.clock())
    assert await till.facts("order", rid) == ["placed"]
    await till.make_due(rid)
    await till.pay.once()
    assert await till.facts("order", rid) == PAID


@pytest.mark.parametrize("fault", ["error_before", "error_after", "time_out"])
@pytest.mark.parametrize("call", ["POST /v1/checkout/sessions", "capture"])
async def test_a_call_whose_outcome_is_unknown_is_finished_once(
    sqlite_till: Till, fault: str, call: str
) -> None:
    till = sqlite_till
    rid = await till.held()
    impatient = StripeProvider(KEY, [], api_base=till.api.url, timeout_s=0.5, retries=0)
    till.pay = till.node(impatient)
    await till.api.arm(fault, match=call, ms=900)
    for _ in range(3):
        try:
            page = await till.begin(rid)
            break
        except Unavailable:
            continue
    await till.api.press(page.url, card=SUCCEEDS)
    for _ in range(3):
        await till.make_due(rid)
        await till.pay.once()
    await impatient.close()
    assert await till.facts("order", rid) == PAID
    assert len((await till.api.get("/v1/checkout/sessions"))["data"]) == 1
    assert len(await till.api.events("payment_intent.succeeded")) == 1
    assert (await till.api.get("/sandbox/faults"))["faults"] == []


async def test_an_unanswered_creation_that_never_was_gives_the_hold_back(sqlite_till: Till) -> None:
    till = sqlite_till
    rid = await till.held(hold_ms=300_000)
    await till.api.arm("error_before", match="POST /v1/checkout/sessions")
    with pytest.raises(Unavailable):
        await till.begin(rid)
    await till.pay.refresh(rid)
    assert await till.state(rid) == "paying"
    till.clock.ahead_ms = 61_000
    await till.pay.once()
    assert await till.state(rid) == "held"
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    await till.pay.refresh(rid)
    assert await till.state(rid) == "sold"


async def test_a_payment_the_provider_refuses_to_open_gives_the_hold_back_at_once(
    sqlite_till: Till,
) -> None:
    till = sqlite_till
    rid = await till.held()
    async with till.database.begin() as conn:
        await conn.execute(update(shop).values(shipping_amount=10**9))
    with pytest.raises(Unavailable):
        await till.begin(rid)
    assert await till.state(rid) == "held"
    assert (await till.paid_by(rid)).state == "cancelled"


async def test_a_slow_bank_keeps_the_unit_past_the_deadline_and_then_sells_it(
    sqlite_till: Till,
) -> None:
    till = sqlite_till
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=LATE)
    till.clock.ahead_ms = 61_000
    await till.pay.once()
    assert await till.state(rid) in ("closing", "sold")

    async def sold() -> bool:
        await till.make_due(rid)
        await till.pay.once()
        return await till.state(rid) == "sold"

    await until(sold)
    assert await till.facts("order", rid) == PAID


async def test_the_workers_hear_of_it_without_any_webhook(till: Till) -> None:
    rids = [await till.held() for _ in range(3)]
    pages = [await till.begin(rid) for rid in rids]
    async with running(till.pay):
        for page in pages:
            await till.api.press(page.url, card=SUCCEEDS)

        async def all_sold() -> bool:
            return [await till.facts("order", rid) for rid in rids] == [PAID] * 3

        await until(all_sold)
    assert await till.stock() == (0, 3)


async def test_a_killed_sandbox_keeps_its_word(mortal_till: Till, mortal_sandbox: Sandbox) -> None:
    till, sandbox = mortal_till, mortal_sandbox
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    sandbox.stop(kill=True)
    try:
        with pytest.raises(Unavailable):
            await till.pay.refresh(rid)
        assert await till.state(rid) == "paying"
    finally:
        sandbox.start()
    await till.pay.refresh(rid)
    assert await till.state(rid) == "sold"
    assert await till.facts("order", rid) == PAID


async def test_orders_are_listed_newest_first_in_pages(till: Till) -> None:
    placed = []
    for n in range(3):
        rid = await till.held()
        page = await till.begin(rid)
        await till.api.press(page.url, card=SUCCEEDS)
        await till.pay.refresh(rid)
        placed.append(rid)
        till.clock.ahead_ms = 10 * (n + 1)
    first = await till.orders.page(show="s1", limit=2)
    assert [order.rid for order in first.orders] == placed[:0:-1]
    rest = await till.orders.page(show="s1", limit=2, after=first.after)
    assert [order.rid for order in rest.orders] == placed[:1]
    assert rest.after is None
    assert (await till.orders.page(state="placed")).orders == ()
    assert (await till.orders.page(show="another")).orders == ()
    assert [order.rid for order in await till.orders.of_viewer("v1")] == placed[::-1]
    assert await till.orders.of_viewer("v2") == []
    own = await till.orders.of_viewer("v1")
    assert await till.orders.of_viewers(["v2", "v1"]) == {"v1": own}
    assert await till.orders.of_viewers(["v1"], 1) == {"v1": own[:1]}
    assert await till.orders.of_viewers(["v2"]) == {}
    assert await till.orders.get("nothing") is None
    async with till.database.read() as conn:
        assert len((await conn.execute(select(orders))).all()) == 3
        states = set((await conn.execute(select(reservation.c.state))).scalars())
    assert states == {"sold"}
