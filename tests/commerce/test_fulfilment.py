"""Cancelling, shipping and returning on both databases; races by their row's number."""

import asyncio

import pytest
from sqlalchemy import delete, select, update

from commerce.errors import OrderMoved, PaymentPending, TermsFixed, Unavailable
from commerce.fulfilment import Goods, Pick, ShipmentState
from commerce.money_schema_sql import order_adjustment, order_unit
from commerce.orders import UNIT_MOVES, UnitState
from commerce.pricing import Discount, ShopTerms
from commerce.schema_sql import outbox, shop, sku, stock_ledger
from commerce.units_sql import move_units
from tests.commerce.pay_support import DELIVERY, ON_HAND, PRICE, RETURN_URL, SUCCEEDS, Till

pytest_plugins = ("tests.commerce.pay_fixtures",)


async def ledger_kinds(till: Till) -> list[tuple[str, int, int]]:
    async with till.database.read() as conn:
        rows = await conn.execute(select(stock_ledger).order_by(stock_ledger.c.id))
        return [(row.kind, row.d_on_hand, row.d_committed) for row in rows.all()]


async def told_the_gate(till: Till) -> list[int]:
    async with till.database.read() as conn:
        rows = await conn.execute(select(outbox.c.payload).where(outbox.c.topic == "stock"))
        return [payload["delta"] for payload in rows.scalars()]


async def test_a_paid_order_is_cancelled_its_units_are_for_sale_and_its_money_is_back(
    till: Till,
) -> None:
    paid = await till.paid(quantity=2)
    await till.cancel(paid.order.id)
    assert await till.stock() == (0, 0)
    assert await told_the_gate(till) == [2]
    await till.settle_refunds(paid.order.rid)
    after = await till.order_of(paid.order.rid)
    assert (after.order.state, after.order.refunded) == ("cancelled", paid.order.total)
    assert await till.facts("order", paid.order.rid) == [
        "placed", "paid", "cancelling", "cancelled",
    ]  # fmt: skip
    with pytest.raises(OrderMoved):
        await till.cancel(paid.order.id)
    await till.sound()


async def test_what_is_written_off_leaves_the_shop(till: Till) -> None:
    paid = await till.paid(quantity=2)
    await till.desk.cancel(
        paid.order.id, [Pick(0, 1)], goods=Goods.WRITE_OFF, reason="broken", actor="host",
        new_id=till.new_id(), now=till.clock(),
    )  # fmt: skip
    assert (await till.on_hand(), await till.stock()) == (ON_HAND - 1, (0, 1))
    assert await told_the_gate(till) == []
    after = await till.order_of(paid.order.rid)
    assert after.order.state == "paid"
    assert [unit.state for unit in after.units] == ["cancelled", "sold"]
    await till.sound()


async def test_parcels_leave_arrive_and_come_back(till: Till) -> None:
    paid = await till.paid(quantity=3)
    order, rid = paid.order.id, paid.order.rid
    first = await till.ship(order, [Pick(0, 1)])
    assert first.order.state == "partly_shipped"
    assert (await till.on_hand(), await till.stock()) == (ON_HAND - 1, (0, 2))
    second = await till.ship(order)
    assert second.order.state == "shipped"
    assert [len(one.units) for one in second.shipments] == [1, 2]
    with pytest.raises(OrderMoved):
        await till.ship(order)
    for parcel in second.shipments:
        await till.parcels.arrive(
            parcel.id, ShipmentState.DELIVERED, actor="host", now=till.clock()
        )
    with pytest.raises(OrderMoved):
        await till.parcels.arrive(
            second.shipments[0].id, ShipmentState.LOST, actor="host", now=till.clock()
        )
    assert (await till.order_of(rid)).order.state == "delivered"

    asked = await till.parcels.ask_return(
        order, [Pick(0, 2)], reason="too big", actor="v1", new_id=till.new_id(), now=till.clock(),
        viewer="v1",
    )  # fmt: skip
    case = asked.returns[0].id
    with pytest.raises(OrderMoved):  # not before the host has agreed
        await _receive(till, case, Goods.RESTOCK)
    with pytest.raises(OrderMoved):  # those two are on their way back already
        await till.parcels.ask_return(
            order, [Pick(0, 2)], reason="", actor="v1", new_id=till.new_id(), now=till.clock()
        )
    await till.parcels.decide_return(case, approve=True, actor="host", now=till.clock())
    await _receive(till, case, Goods.RESTOCK)
    assert (await till.on_hand(), await till.stock()) == (ON_HAND - 1, (0, 0))
    assert await told_the_gate(till) == [2]
    await till.settle_refunds(rid)
    after = await till.order_of(rid)
    assert after.returns[0].state == "refunded"
    assert after.order.refunded == sum(unit.amount for unit in after.units[:2])
    assert after.order.state == "delivered"

    third = await till.parcels.ask_return(
        order, None, reason="", actor="host", new_id=till.new_id(), now=till.clock()
    )
    last = third.returns[1].id
    await till.parcels.decide_return(last, approve=True, actor="host", now=till.clock())
    await _receive(till, last, Goods.WRITE_OFF)
    await till.settle_refunds(rid)
    closed = await till.order_of(rid)
    assert (closed.order.state, closed.order.refunded) == ("closed", paid.order.total)
    assert await till.on_hand() == ON_HAND - 1
    kinds = [kind for kind, _, _ in await ledger_kinds(till)]
    assert kinds == ["receive", "hold", "commit", "ship", "ship", "restock", "restock", "write_off"]
    await till.sound()


async def _receive(till: Till, case: str, goods: Goods) -> None:
    await till.parcels.receive(
        case, goods, refund=True, actor="host", new_id=till.new_id(), now=till.clock()
    )


async def test_a_return_that_is_refused_can_be_asked_for_again(till: Till) -> None:
    paid = await till.paid()
    await till.ship(paid.order.id)
    for _ in range(2):
        asked = await till.parcels.ask_return(
            paid.order.id, None, reason="", actor="v1", new_id=till.new_id(), now=till.clock()
        )
        await till.parcels.decide_return(
            asked.returns[-1].id, approve=False, actor="host", now=till.clock()
        )
    assert [one.state for one in (await till.order_of(paid.order.rid)).returns] == ["rejected"] * 2


async def test_the_terms_of_a_drop_are_fixed_by_its_first_reservation(till: Till) -> None:
    off = Discount("Friday", amount=200)
    await till.terms.put_discount("d1", off, till.clock())
    paid = await till.paid()
    assert paid.order.total == PRICE - 200 + paid.order.shipping
    assert await till.terms.put_discount("d1", off, till.clock()) == off  # a repetition
    for changed in (None, Discount("Friday", amount=300)):
        with pytest.raises(TermsFixed):
            await till.terms.put_discount("d1", changed, till.clock())


async def test_row_23_a_new_price_or_new_terms_change_nothing_for_who_has_begun_to_pay(
    till: Till,
) -> None:
    rid = await till.held()
    first = await till.begin(rid)
    async with till.database.begin() as conn:
        await conn.execute(update(sku).values(amount=PRICE * 2))
        await conn.execute(update(shop).values(shipping_amount=9_999))
    await till.terms.put_shop(ShopTerms(1_900, "VAT", 0))
    session = (await till.paid_by(rid)).session
    await till.api.post(f"/v1/checkout/sessions/{session}/expire", {})
    await till.pay.refresh(rid)
    again = await till.begin(rid)  # a second page for the same hold
    assert again.url != first.url
    assert (again.total, again.shipping) == (first.total, first.shipping)
    await till.api.press(again.url, card=SUCCEEDS)
    await till.pay.refresh(rid)
    found = await till.order_of(rid)
    assert (found.order.total, found.order.tax) == (first.total, 0)
    await till.sound()


async def test_a_payment_that_was_begun_by_the_first_version_still_becomes_an_order(
    till: Till,
) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    async with till.database.begin() as conn:  # that version knew no steps
        await conn.execute(delete(order_adjustment))
    await till.api.press(page.url, card=SUCCEEDS)
    await till.pay.refresh(rid)
    found = await till.order_of(rid)
    assert (found.order.state, found.order.total) == ("paid", page.total)
    assert [(step.kind, step.amount) for step in found.steps] == [("shipping", page.shipping)]
    await till.sound()


async def test_a_shop_without_any_step_keeps_even_that_for_who_has_begun_to_pay(
    till: Till,
) -> None:
    async with till.database.begin() as conn:
        await conn.execute(update(shop).values(shipping_amount=0))
    rid = await till.held()
    assert (await till.begin(rid)).total == PRICE
    async with till.database.begin() as conn:
        await conn.execute(update(shop).values(shipping_amount=700))
    session = (await till.paid_by(rid)).session
    await till.api.post(f"/v1/checkout/sessions/{session}/expire", {})
    await till.pay.refresh(rid)
    assert (await till.begin(rid)).total == PRICE


async def _authorised(till: Till) -> tuple[str, str]:
    """(rid, order) whose money is reserved and not taken: the capture has not been asked for."""
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    known = await till.record.of_rid(rid)
    seen = await till.provider.look(known[0].session or "")
    assert seen is not None
    await till.record.authorise(known[0], seen, till.new_id(), till.clock())
    return rid, (await till.order_of(rid)).order.id


async def test_row_26_a_cancel_before_the_capture_lets_the_money_go(till: Till) -> None:
    rid, order = await _authorised(till)
    assert (await till.cancel(order)).order.state == "cancelling"
    await till.make_due(rid)
    await till.pay.once()
    await till.pay.once()
    assert (await till.at_provider(rid))["status"] == "canceled"
    after = await till.order_of(rid)
    assert (after.order.state, after.refunds) == ("cancelled", ())
    assert await till.stock() == (0, 0)
    await till.sound()


async def test_row_26_while_the_money_is_being_taken_a_cancel_waits_and_then_refunds(
    till: Till,
) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    await till.api.arm("error_before", match="capture")
    with pytest.raises(Unavailable):
        await till.pay.refresh(rid)
    order = (await till.order_of(rid)).order.id
    with pytest.raises(PaymentPending):
        await till.cancel(order)
    with pytest.raises(PaymentPending):
        await till.ship(order)
    await till.make_due(rid)
    await till.pay.once()
    await till.cancel(order)
    await till.settle_refunds(rid)
    after = await till.order_of(rid)
    assert (after.order.state, after.order.refunded) == ("cancelled", after.order.total)
    await till.sound()


async def test_row_26_cancel_and_capture_at_once_end_without_money_or_with_it_back(
    till: Till,
) -> None:
    rid, order = await _authorised(till)

    async def cancel() -> None:
        while True:
            try:
                await till.cancel(order)
            except PaymentPending:
                await asyncio.sleep(0)
            else:
                return

    await asyncio.gather(cancel(), till.pay.refresh(rid))
    for _ in range(3):
        await till.make_due(rid)
        await till.settle_refunds(rid)
    after = await till.order_of(rid)
    assert after.order.state == "cancelled"
    known = await till.paid_by(rid)
    assert await till.at_bank(rid) == known.captured
    assert await till.stock() == (0, 0)
    await till.sound()


async def test_row_27_of_shipping_and_cancelling_one_wins(till: Till) -> None:
    paid = await till.paid(quantity=2)
    outcomes = await asyncio.gather(
        till.ship(paid.order.id), till.cancel(paid.order.id), return_exceptions=True
    )
    assert sum(isinstance(one, OrderMoved) for one in outcomes) == 1
    await till.settle_refunds(paid.order.rid)
    after = await till.order_of(paid.order.rid)
    shipped = [unit.state for unit in after.units] == ["shipped"] * 2
    assert after.order.state == ("shipped" if shipped else "cancelled")
    assert after.order.refunded == (0 if shipped else after.order.total)
    assert await till.stock() == (0, 0)
    await till.sound()


async def test_row_30_money_and_goods_of_a_return_are_decided_apart(till: Till) -> None:
    paid = await till.paid()
    await till.ship(paid.order.id)
    await till.give_back(paid.order.id)  # the money goes first
    await till.settle_refunds(paid.order.rid)
    asked = await till.parcels.ask_return(
        paid.order.id, None, reason="", actor="host", new_id=till.new_id(), now=till.clock()
    )
    case = asked.returns[0].id
    await till.parcels.decide_return(case, approve=True, actor="host", now=till.clock())
    await _receive(till, case, Goods.RESTOCK)
    with pytest.raises(OrderMoved):
        await _receive(till, case, Goods.RESTOCK)
    assert await till.on_hand() == ON_HAND
    assert await till.at_bank(paid.order.rid) == paid.order.total
    await till.sound()


async def test_row_40_what_is_not_shipped_can_be_cancelled_and_its_money_goes_back(
    till: Till,
) -> None:
    paid = await till.paid(quantity=3)
    await till.ship(paid.order.id, [Pick(0, 1)])
    with pytest.raises(OrderMoved):
        await till.cancel(paid.order.id, [Pick(0, 3)])
    after = await till.cancel(paid.order.id)
    assert [unit.state for unit in after.units] == ["shipped", "cancelled", "cancelled"]
    assert after.order.state == "shipped"
    await till.settle_refunds(paid.order.rid)
    kept = (await till.order_of(paid.order.rid)).units[0].amount
    assert await till.at_bank(paid.order.rid) == paid.order.total - kept
    await till.sound()


async def test_a_reservation_of_money_that_lapses_gives_the_units_back(till: Till) -> None:
    rid, order = await _authorised(till)
    intent = (await till.at_provider(rid))["id"]
    await till.api.post(f"/v1/payment_intents/{intent}/cancel", {})
    await till.make_due(rid)
    await till.pay.once()
    after = await till.order_of(rid)
    assert (after.order.id, after.order.state) == (order, "cancelled")
    assert await till.facts("payment", rid) == ["lost"]
    assert await till.stock() == (0, 0)
    await till.sound()


async def test_every_pair_of_unit_states_moves_as_the_table_says(sqlite_till: Till) -> None:
    till = sqlite_till
    paid = await till.paid()
    for source in UnitState:
        for to in UnitState:
            async with till.database.begin() as conn:
                await conn.execute(update(order_unit).values(state=source.value))
            if to in UNIT_MOVES[source]:
                async with till.database.begin() as conn:
                    await move_units(conn, paid.order.id, [(0, 0)], to)
            else:
                with pytest.raises(OrderMoved):
                    async with till.database.begin() as conn:
                        await move_units(conn, paid.order.id, [(0, 0)], to)


async def test_the_timeline_tells_everything_in_order(till: Till) -> None:
    paid = await till.paid()
    await till.ship(paid.order.id)
    await till.give_back(paid.order.id)
    await till.pay.listen()
    await till.settle_refunds(paid.order.rid)
    told = await till.dossiers.timeline(paid.order.id)
    kinds = [one.kind for one in told]
    for kind in (
        "pressed", "stock.hold", "payment.created", "payment.open", "payment.authorised",
        "order.placed", "stock.commit", "payment.capturing", "payment.captured", "order.paid",
        "shipment.shipped", "stock.ship", "order.shipped", "refund.requested", "refund.succeeded",
        "provider.event", "ledger",
    ):  # fmt: skip
        assert kind in kinds, kind
    assert [one.at for one in told] == sorted(one.at for one in told)
    assert kinds[0] == "pressed"
    everything = str(told)
    for personal in (DELIVERY.name, DELIVERY.email, DELIVERY.address.line1):
        assert personal not in everything
    assert RETURN_URL not in everything
