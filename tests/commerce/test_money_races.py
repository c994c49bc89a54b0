"""Rows of the race table about erasure and the terms of a hold, by number, on both databases."""

import asyncio
import re
from pathlib import Path

import pytest
from sqlalchemy import select, update

from commerce.coupons_sql import SqlCoupons
from commerce.errors import CouponRefused, HoldEnded, TermsFixed
from commerce.payments import PaymentPage
from commerce.people import OrdersUnderWay
from commerce.people_sql import ERASED
from commerce.pricing import Coupon, Discount
from commerce.schema_sql import outbox, reservation, sale_drop
from tests.commerce.pay_support import DELIVERY, PRICE, RETURN_URL, SHIPPING, SUCCEEDS, Till

pytest_plugins = ("tests.commerce.pay_fixtures",)


def coupon(till: Till, uses: int, ends_in_ms: int | None = None) -> Coupon:
    ends_at = None if ends_in_ms is None else till.clock() + ends_in_ms
    return Coupon("HELLO", Discount("Hello", amount=300), uses, ends_at)


async def begin(till: Till, rid: str, viewer: str = "v1", code: str = "HELLO") -> PaymentPage:
    return await till.pay.begin(viewer, rid, DELIVERY, return_url=RETURN_URL, coupon=code)


async def used(till: Till) -> int:
    return (await SqlCoupons(till.database).list())[0].used


async def test_row_38_of_many_checkouts_at_once_as_many_get_the_coupon_as_it_has_uses(
    till: Till,
) -> None:
    await SqlCoupons(till.database).put(coupon(till, 2), till.clock())
    rids = {f"v{n}": await till.held(viewer=f"v{n}") for n in range(4)}
    answers = await asyncio.gather(
        *(begin(till, rid, viewer) for viewer, rid in rids.items()), return_exceptions=True
    )
    pages = [one for one in answers if isinstance(one, PaymentPage)]
    refused = [one for one in answers if isinstance(one, CouponRefused)]
    assert [one.total for one in pages] == [PRICE + SHIPPING - 300] * 2
    assert [one.reason for one in refused] == ["used_up"] * 2
    assert await used(till) == 2
    # Who was refused still holds the unit and pays the full price.
    viewer, rid = next(
        item for item, one in zip(rids.items(), answers, strict=True) if one in refused
    )
    assert (await begin(till, rid, viewer, "")).total == PRICE + SHIPPING


async def test_row_38_a_use_comes_back_with_the_hold_and_stays_with_the_sale(till: Till) -> None:
    await SqlCoupons(till.database).put(coupon(till, 1), till.clock())
    first, second = await till.held(), await till.held(viewer="v2")
    await begin(till, first)
    assert (await begin(till, first)).total == PRICE + SHIPPING - 300, "the same hold, one use"
    with pytest.raises(CouponRefused):
        await begin(till, second, "v2")
    await till.cancel_wish(first)
    await till.pay.once()
    assert (await till.state(first), await used(till)) == ("cancelled", 0)
    page = await begin(till, second, "v2")
    await till.api.press(page.url, card=SUCCEEDS)
    await till.pay.refresh(second)
    order = (await till.order_of(second)).order
    assert (order.state, order.total, order.discount) == ("paid", PRICE + SHIPPING - 300, 300)
    assert await used(till) == 1
    with pytest.raises(TermsFixed):
        await SqlCoupons(till.database).put(coupon(till, 0), till.clock())
    await till.sound()


async def test_a_coupon_is_for_the_first_page_of_a_hold_and_must_be_known(till: Till) -> None:
    rid = await till.held()
    with pytest.raises(CouponRefused) as refused:
        await begin(till, rid)
    assert refused.value.reason == "unknown"
    assert await till.state(rid) == "held", "nothing was begun"
    await SqlCoupons(till.database).put(coupon(till, 5), till.clock())
    await begin(till, rid, code="")
    with pytest.raises(CouponRefused) as refused:
        await begin(till, rid)
    assert (refused.value.reason, await used(till)) == ("fixed", 0)


async def test_row_39_a_coupon_that_ends_while_somebody_pays_is_honoured(till: Till) -> None:
    await SqlCoupons(till.database).put(coupon(till, 9, 30_000), till.clock())
    rid, late = await till.held(), await till.held(viewer="v2")
    first = await begin(till, rid)
    till.clock.ahead_ms += 30_001
    with pytest.raises(CouponRefused) as refused:
        await begin(till, late, "v2")
    assert refused.value.reason == "ended"
    session = (await till.paid_by(rid)).session
    await till.api.post(f"/v1/checkout/sessions/{session}/expire", {})
    await till.pay.refresh(rid)
    again = await begin(till, rid)  # a second page for the same hold
    assert again.url != first.url
    assert again.total == first.total == PRICE + SHIPPING - 300
    await till.api.press(again.url, card=SUCCEEDS)
    await till.pay.refresh(rid)
    assert (await till.order_of(rid)).order.total == first.total
    await till.sound()


async def test_row_39_what_a_sale_took_off_is_honoured_until_the_hold_ends(till: Till) -> None:
    """Its discount ends with the sale; who holds something then pays as they were told."""
    off = Discount("Friday", amount=200)
    await till.terms.put_discount("d1", off, till.clock())
    rid = await till.held()
    async with till.database.begin() as conn:
        await conn.execute(update(sale_drop).values(closed_at=till.clock()))
    with pytest.raises(TermsFixed):
        await till.terms.put_discount("d1", None, till.clock())
    page = await till.begin(rid)
    assert page.total == PRICE - 200 + SHIPPING
    await till.api.press(page.url, card=SUCCEEDS)
    await till.pay.refresh(rid)
    found = await till.order_of(rid)
    assert (found.order.total, found.order.discount) == (page.total, 200)
    await till.sound()


async def test_row_41_who_is_forgotten_gives_back_what_they_hold(till: Till) -> None:
    rid, other = await till.held(), await till.held(viewer="v2")
    await till.people.erase("v1", till.clock())
    assert (await till.state(rid), await till.state(other)) == ("cancelled", "held")
    assert await till.stock() == (1, 0)
    assert await till.facts("hold", rid) == ["cancelled"]  # people and gate hear of it
    async with till.database.read() as conn:
        untold = select(outbox.c.id).where(outbox.c.key == rid, outbox.c.gate_at.is_(None))
        assert (await conn.execute(untold)).first() is not None
        why = select(reservation.c.reason).where(reservation.c.rid == rid)
        assert (await conn.execute(why)).scalar_one() == ERASED
    with pytest.raises(HoldEnded):
        await till.begin(rid)


async def test_row_41_who_is_paying_is_forgotten_when_the_provider_has_ended_the_page(
    till: Till,
) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    with pytest.raises(OrdersUnderWay) as refused:
        await till.people.erase("v1", till.clock())
    assert (refused.value.holds, refused.value.orders) == (1, 0)
    assert await till.state(rid) == "closing"
    await till.pay.once()
    assert (await till.state(rid), await till.stock()) == ("cancelled", (0, 0))
    await till.api.press(page.url, card=SUCCEEDS)
    assert (await till.at_provider(rid))["session"] == "expired"
    await till.people.erase("v1", till.clock())
    assert "person_detail" not in (await till.people.export("v1"))["tables"]
    await till.sound()


async def test_row_41_who_has_paid_keeps_the_order_and_its_address(till: Till) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)  # and the erasure comes before the news
    with pytest.raises(OrdersUnderWay):
        await till.people.erase("v1", till.clock())
    await till.pay.once()
    order = (await till.order_of(rid)).order
    assert order.state == "paid"
    assert await till.orders.customer(rid) is not None
    held = await till.held()
    with pytest.raises(OrdersUnderWay) as refused:
        await till.people.erase("v1", till.clock())
    assert (refused.value.holds, refused.value.orders) == (0, 1)
    assert await till.state(held) == "held", "what is refused changes nothing"
    await till.sound()


async def test_row_41_of_an_erasure_and_a_payment_that_begin_at_once_one_wins(till: Till) -> None:
    rid = await till.held()
    erased, page = await asyncio.gather(
        till.people.erase("v1", till.clock()),
        till.pay.begin("v1", rid, DELIVERY, return_url=RETURN_URL),
        return_exceptions=True,
    )
    if erased is None:
        assert isinstance(page, HoldEnded)
        assert await till.state(rid) == "cancelled"
        assert "person_detail" not in (await till.people.export("v1"))["tables"]
        return
    assert isinstance(erased, OrdersUnderWay)
    assert await till.state(rid) == "closing"
    await till.pay.once()
    assert await till.state(rid) in ("cancelled", "closing")


NUMBERED = set(range(1, 45)) - {32, 33}
"""The wait list has these in `test_waiting`, under names that say what they are."""


def test_every_row_of_the_race_table_is_a_test_by_its_number() -> None:
    here = Path(__file__).parent
    texts = [path.read_text() for path in here.glob("test_*.py")]
    named = {int(n) for text in texts for n in re.findall(r"def test_(?:row_)?(\d\d?)_", text)}
    assert named >= NUMBERED
