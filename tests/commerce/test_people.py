"""What is held about people: sealed, found completely, forgotten for good."""

from pathlib import Path

import pytest
from sqlalchemy import insert, select

import live.schema_sql  # noqa: F401 - joins its tables to commerce's metadata
from commerce.people import Erasure, ErasureList, OrdersUnderWay
from commerce.people_sql import SETTLED_MS, SqlPeople, reach
from commerce.schema_sql import customer_detail, metadata, person_detail, person_key
from commerce.vault import Sealed, Vault
from tests.commerce.pay_support import DELIVERY, MASTER, SUCCEEDS, Till

pytest_plugins = ["tests.commerce.pay_fixtures"]

STRANGER = "another master of thirty-two characters"

NOT_PERSONAL = {
    # The shop's own.
    "account", "sign_in_link", "show", "shop", "product", "product_image", "sku", "sku_stock",
    "sale_drop", "sale_drop_line", "webhook_endpoint", "shop_terms", "drop_discount",
    "coupon",
    # Ids and numbers of things; whose they are stands in `reservation` and `orders`.
    "stock_ledger", "ledger_posting", "psp_inbox", "outbox", "webhook_event", "webhook_delivery",
    "claim_flagged", "restored",
    # Answers to repeated requests, forgotten within days; they repeat what the API said.
    "idempotency",
}  # fmt: skip


async def paid(till: Till) -> str:
    """The rid of an order that was paid."""
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    await till.pay.refresh(rid)
    assert await till.state(rid) == "sold"
    return rid


def test_every_table_is_exported_or_known_to_hold_nothing_about_people() -> None:
    reached = set(reach(metadata.sorted_tables))
    assert reached.isdisjoint(NOT_PERSONAL)
    assert reached | NOT_PERSONAL == set(metadata.tables)


async def test_a_detail_is_sealed_and_opens_with_the_shops_master_alone(
    till: Till, tmp_path: Path
) -> None:
    rid = await till.held()
    await till.begin(rid)
    async with till.database.read() as conn:
        assert await till.people.detail(conn, "nothing") is None
        kept = await till.people.detail(conn, rid)
        row = (await conn.execute(select(person_detail))).one()
    assert kept is not None
    assert kept["email"] == DELIVERY.email
    assert "example" not in str(row)
    stranger = SqlPeople(till.database, Vault([STRANGER]), ErasureList(tmp_path / "none"))
    assert await till.people.readable()
    assert not await stranger.readable()
    with pytest.raises(Sealed):
        async with till.database.read() as conn:
            await stranger.detail(conn, rid)


async def test_a_master_is_changed_and_the_old_one_is_needed_no_more(
    till: Till, tmp_path: Path
) -> None:
    rid = await till.held()
    await till.begin(rid)
    nowhere = ErasureList(tmp_path / "none")
    assert await SqlPeople(till.database, Vault([STRANGER, MASTER]), nowhere).rewrap() == 1
    assert await SqlPeople(till.database, Vault([STRANGER, MASTER]), nowhere).rewrap() == 0
    renewed = SqlPeople(till.database, Vault([STRANGER]), nowhere)
    async with till.database.read() as conn:
        kept = await renewed.detail(conn, rid)
    assert kept is not None
    assert kept["name"] == DELIVERY.name


async def test_an_export_has_everything_and_nothing_of_anybody_else(till: Till) -> None:
    rid, other = await paid(till), await till.held(viewer="v2")
    found = (await till.people.export("v1"))["tables"]
    order = await till.orders.by_rid(rid)
    assert order is not None
    assert [row["rid"] for row in found["reservation"]] == [rid]
    assert [row["id"] for row in found["orders"]] == [order.id]
    assert [row["sku"] for row in found["order_line"]] == ["MUG"]
    assert [row["rid"] for row in found["payment"]] == [rid]
    assert found["person_detail"][0]["detail"]["address"]["city"] == DELIVERY.address.city
    assert other not in str(found)
    assert "wrapped" not in str(found)
    assert (await till.people.export("nobody")) == {"person": "nobody", "tables": {}}


async def test_somebody_who_waits_for_something_is_not_forgotten_by_accident(till: Till) -> None:
    rid = await till.held()
    page = await till.begin(rid)
    await till.api.press(page.url, card=SUCCEEDS)
    await till.pay.refresh(rid)
    with pytest.raises(OrdersUnderWay) as refused:
        await till.people.erase("v1", till.clock())
    assert (refused.value.holds, refused.value.orders) == (0, 1)
    assert await till.orders.customer(rid) is not None
    await till.people.erase("v1", till.clock() + SETTLED_MS + 1)
    assert await till.orders.customer(rid) is None


async def test_an_erasure_leaves_the_books_and_nothing_personal_also_in_old_copies(
    till: Till, tmp_path: Path
) -> None:
    rid = await paid(till)
    async with till.database.read() as conn:
        key = dict((await conn.execute(select(person_key))).one()._mapping)
        detail = dict((await conn.execute(select(person_detail))).one()._mapping)
    before = await till.stock()
    now = till.clock()
    await till.people.erase("v1", now, force=True)
    assert await till.orders.customer(rid) is None
    assert await till.stock() == before
    order = await till.orders.by_rid(rid)
    assert order is not None
    exported = (await till.people.export("v1"))["tables"]
    assert "person_detail" not in exported
    assert DELIVERY.address.city not in str(exported)

    # An old copy comes back: the list outside of it says who was forgotten.
    async with till.database.begin() as conn:
        await conn.execute(person_key.update().values(wrapped=key["wrapped"], destroyed_at=None))
        await conn.execute(insert(person_detail).values(detail))
    assert await till.orders.customer(rid) is not None
    assert await till.people.repeat_erasures() == 1
    assert await till.orders.customer(rid) is None
    assert await till.people.repeat_erasures() == 0

    # Who comes back later is somebody new.
    later = await till.held()
    till.clock.ahead_ms += 1
    await till.begin(later)
    assert await till.people.repeat_erasures() == 0
    assert await till.orders.customer(later) is not None


async def test_what_was_kept_long_enough_is_forgotten_and_the_key_with_it(till: Till) -> None:
    old = await paid(till)
    till.clock.ahead_ms += 100_000
    middle = till.clock()
    recent = await till.held(viewer="v2")
    await till.begin(recent, "v2")
    assert await till.people.retire(middle) == 1
    assert await till.people.retire(middle) == 0
    assert await till.orders.customer(old) is None
    assert await till.orders.customer(recent) is not None
    async with till.database.read() as conn:
        keys = dict((await conn.execute(select(person_key.c.person, person_key.c.wrapped))).all())
    assert keys["v1"] is None
    assert keys["v2"] is not None


async def test_details_of_an_older_version_are_sealed(till: Till) -> None:
    rid = await till.held()
    row = {"rid": rid, "viewer": "v1", "detail": {"name": "Li Wei"}, "updated_at": 1}
    async with till.database.begin() as conn:
        await conn.execute(insert(customer_detail).values(row))
    assert await till.people.seal_old() == 1
    assert await till.people.seal_old() == 0
    assert await till.orders.customer(rid) == {"name": "Li Wei"}
    async with till.database.read() as conn:
        assert (await conn.execute(select(customer_detail))).all() == []


def test_the_list_of_erasures_survives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    erasures = ErasureList(tmp_path / "deep" / "erasures.jsonl")
    assert erasures.read() == []
    erasures.add(Erasure("v1", 5))
    erasures.add(Erasure('"q"\n☃', 6))
    with (tmp_path / "deep" / "erasures.jsonl").open("a") as file:
        file.write('{"person": "v3", "a')
    assert erasures.read() == [Erasure("v1", 5), Erasure('"q"\n☃', 6)]
