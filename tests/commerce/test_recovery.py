"""After a restore: what only the provider knows becomes orders again, or goes back."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from commerce import recovery_sql, snapshot
from commerce.disputes_sql import SqlDisputes
from commerce.money_schema_sql import order_event, refund
from commerce.pricing import Adjustment
from commerce.provider_books_sql import SqlProviderBooks
from commerce.provider_check import ProviderCheck
from commerce.recovery import Recovery
from commerce.recovery_sql import SqlRecovery
from commerce.refunding import Refunding
from commerce.schema_sql import orders, sku_stock, stock_ledger
from commerce.settlement import Settlement
from commerce.snapshot import Snapshot
from commerce.stock import HeldLine
from tests.commerce.pay_support import ON_HAND, SUCCEEDS, Api, Till, open_till
from tests.waiting import until

pytest_plugins = ("tests.commerce.pay_fixtures",)


@pytest.fixture
async def copy(sqlite_template: Path, tmp_path: Path, api: Api) -> AsyncIterator[Till]:
    """The shop as an old copy has it: products, and nothing that was sold since."""
    shutil.copy(sqlite_template, tmp_path / "copy.db")
    async with open_till(f"sqlite:///{tmp_path / 'copy.db'}", api) as till:
        yield till


def recovery_of(till: Till) -> Recovery:
    async def settle(_rids: object) -> None: ...

    refunding = Refunding(
        till.provider,
        till.refunds,
        SqlDisputes(till.database),
        clock=till.clock,
        new_id=till.new_id,
    )
    settlement = Settlement(
        till.provider, till.record, clock=till.clock, new_id=till.new_id, settle=settle
    )
    return Recovery(
        till.provider,
        SqlRecovery(till.database, "stripe"),
        settlement,
        refunding,
        clock=till.clock,
        new_id=till.new_id,
    )


def check_of(till: Till) -> ProviderCheck:
    async def look(_payment: str, _intent: str) -> None: ...

    return ProviderCheck(
        till.provider,
        SqlProviderBooks(till.database, "stripe"),
        till.ledger,
        clock=till.clock,
        look_again=look,
    )


async def count_orders(till: Till) -> int:
    async with till.database.read() as conn:
        return int((await conn.execute(select(func.count()).select_from(orders))).scalar_one())


def test_terms_come_back_from_the_metadata_as_they_went(till_terms: Snapshot) -> None:
    written = snapshot.write(till_terms)
    assert all(len(value) <= 500 and len(key) <= 40 for key, value in written.items())
    assert len(written) <= 50
    assert snapshot.read(written) == till_terms
    assert snapshot.read({"rid": "r", "payment": "p"}) is None
    assert snapshot.read({**written, "terms_0": "{"}) is None


@pytest.fixture
def till_terms() -> Snapshot:
    """As many lines as a hold can have."""
    lines = tuple(HeldLine(f"SKU-{n}", "Mug 杯 " * 20, n + 1, 1299) for n in range(20))
    return Snapshot(
        payment="pay",
        rid="rid",
        viewer="v1",
        show="s1",
        drop="d1",
        until_ms=9,
        at=8,
        lines=tuple(replace(line, title=line.title[:120]) for line in lines),
        steps=(Adjustment("shipping", "Shipping", 500, False, {}),),
        shipping=500,
        promise={"source": "list", "pinned": "p1", "pinned_at": 7, "media_ms": 6},
    )


async def test_an_order_that_was_paid_after_the_copy_is_an_order_again(
    till: Till, copy: Till
) -> None:
    lost = await till.paid(quantity=2)
    await recovery_sql.mark(copy.database, till.clock())
    recovery = recovery_of(copy)
    done = await recovery.after_restore()
    assert done is not None
    assert (done.rebuilt, done.undecided, done.without_terms) == (1, 0, 0)
    found = await copy.order_of(lost.order.rid)
    assert (found.order.state, found.order.total) == ("paid", lost.order.total)
    assert found.order.lines == lost.order.lines
    assert await copy.stock() == (0, 2)
    await copy.sound()
    assert await recovery.after_restore() is None, "once"
    again = await recovery.run(0)
    assert (again.rebuilt, await count_orders(copy)) == (0, 1)
    charges = [one for one in await copy.provider.list_charges(0, 100) if one.captured]
    assert len(charges) == 1


async def test_money_without_a_unit_goes_back_by_itself(till: Till, copy: Till) -> None:
    lost = await till.paid(quantity=2)
    async with copy.database.begin() as conn:
        await conn.execute(update(sku_stock).values(held=4))  # somebody else holds them
    await recovery_of(copy).run(0)
    assert await count_orders(copy) == 0
    await copy.settle_refunds(lost.order.rid)
    assert await copy.at_bank(lost.order.rid) == lost.order.total


async def test_what_was_only_reserved_is_taken_if_there_is_a_unit(till: Till, copy: Till) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)  # and the node died before it looked
    await recovery_of(copy).run(0)
    assert (await copy.order_of(rid)).order.state == "paid"
    assert (await copy.at_provider(rid))["status"] == "succeeded"


async def test_a_page_that_is_still_open_is_ended(till: Till, copy: Till) -> None:
    rid = await till.held()
    await till.begin(rid)
    done = await recovery_of(copy).run(0)
    assert (done.ended, done.rebuilt) == (1, 0)
    assert (await till.at_provider(rid))["session"] == "expired"


async def test_refunds_that_were_made_after_the_copy_are_counted_and_not_made_again(
    till: Till, copy: Till
) -> None:
    lost = await till.paid()
    await till.give_back(lost.order.id, amount=300)
    await till.settle_refunds(lost.order.rid)
    done = await recovery_of(copy).run(0)
    assert done.refunds == 1
    found = await copy.order_of(lost.order.rid)
    assert found.refundable == lost.order.total - 300
    await copy.sound()
    async with copy.database.read() as conn:
        states = (await conn.execute(select(refund.c.state))).scalars().all()
    assert list(states) == ["succeeded"]


@pytest.mark.parametrize("arrived", [True, False])
async def test_what_was_given_back_in_part_and_has_no_unit_left_goes_back_as_a_whole(
    till: Till, copy: Till, *, arrived: bool
) -> None:
    lost = await till.paid(quantity=2)
    if not arrived:  # the bank takes its time with the part
        await till.api.arm("refund_pending", ms=300)
    await till.give_back(lost.order.id, amount=300)
    await till.settle_refunds(lost.order.rid)
    async with copy.database.begin() as conn:
        await conn.execute(update(sku_stock).values(on_hand=0))  # sold elsewhere meanwhile
        await conn.execute(update(stock_ledger).values(d_on_hand=0))
    recovery = recovery_of(copy)
    done = await recovery.run(0)
    assert (done.returned, done.rebuilt, done.refunds, done.undecided) == (1, 0, 0, 0)
    assert await count_orders(copy) == 0

    async def all_is_back() -> bool:
        await copy.settle_refunds(lost.order.rid)
        return await copy.at_bank(lost.order.rid) == lost.order.total

    await until(all_is_back)
    await copy.settle_refunds(lost.order.rid)
    await copy.sound()
    async with copy.database.read() as conn:
        rows = (await conn.execute(select(refund.c.amount, refund.c.state))).all()
        told = (await conn.execute(select(order_event.c.kind))).scalars().all()
    assert sorted(rows) == sorted([(300, "succeeded"), (lost.order.total - 300, "succeeded")])
    assert {"payment.restored", "payment.unallocated", "refund.requested"} <= set(told)
    assert await copy.facts("payment", lost.order.rid) == ["unallocated"]
    again = await recovery.run(0)
    assert (again.returned, again.refunds) == (0, 0)
    assert (await check_of(copy).run()).wrong == 0


async def test_a_unit_that_the_copy_still_holds_is_sold_to_who_paid_for_it(
    till: Till, copy: Till
) -> None:
    """Held when the copy was made, paid and given back in part afterwards, and nothing free."""
    lost = await till.paid(quantity=ON_HAND)
    await copy.held(quantity=ON_HAND, rid=lost.order.rid)
    await till.give_back(lost.order.id, amount=300)
    await till.settle_refunds(lost.order.rid)
    done = await recovery_of(copy).run(0)
    assert (done.rebuilt, done.returned, done.refunds) == (1, 0, 1)
    found = await copy.order_of(lost.order.rid)
    assert (found.order.state, found.refundable) == ("paid", lost.order.total - 300)
    assert await copy.stock() == (0, ON_HAND)
    await copy.sound()


async def test_what_was_given_back_whole_is_nobodys_business(till: Till, copy: Till) -> None:
    lost = await till.paid()
    await till.give_back(lost.order.id)
    await till.settle_refunds(lost.order.rid)
    done = await recovery_of(copy).run(0)
    assert (done.rebuilt, await count_orders(copy)) == (0, 0)

    assert (await check_of(copy).run()).wrong == 0
