"""HTTP for orders, against a whole node and the real sandbox: who may what, once per key."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, select, text, update

from commerce import money_sql, orders_sql, pricing_sql, reservations_sql
from commerce.database_sql import Database
from commerce.idempotency_sql import SqlIdempotency
from commerce.money_schema_sql import coupon, hold_promise
from commerce.order_states_sql import follow
from commerce.orders import Order
from commerce.outbox import Fact
from commerce.people_sql import SqlPeople
from commerce.schema_sql import (
    payment,
    product,
    reservation,
    reservation_line,
    sale_drop,
    sale_drop_line,
    shop,
    sku,
    sku_stock,
    stock_ledger,
)
from commerce.stock import HoldState
from live.csv_text import guarded, row
from live.facts import BATCH_MAX, FactTeller
from realtime.broker import BATCH_ITEMS_MAX
from tests.live.conftest import Node
from tests.live.test_api import bearer, problem
from tests.live.test_commands import CSV

EVIL = '=HYPERLINK("http://evil.example","Mug")'


@dataclass
class Counter:
    """A node with a paid order of three units of one line."""

    node: Node
    http: httpx.AsyncClient
    database: Database
    order: str

    def host(self, key: str = "") -> dict[str, str]:
        return bearer(self.node.host_token, **({"idempotency-key": key} if key else {}))

    def viewer(self, key: str = "", id_: str = "g_ada") -> dict[str, str]:
        more = {"idempotency-key": key} if key else {}
        return bearer(self.node.token(id_=id_), **more)

    async def post(self, path: str, who: dict[str, str], **body: Any) -> httpx.Response:
        return await self.http.post(f"/api/v1{path}", json=body, headers=who)

    async def get(self, path: str, who: dict[str, str]) -> Any:
        answer = await self.http.get(f"/api/v1{path}", headers=who)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def counter(node: Node, sqlite_url: str) -> AsyncIterator[Counter]:
    database = await Database.open(sqlite_url)
    async with httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=60) as http:
        await node.app.shop.read()
        await node.app.shows.create(title="Tonight", id_="s1")
        yield Counter(node, http, database, await _paid(database, node.app.people, node.app.now()))
    await database.close()


async def _paid(database: Database, people: SqlPeople, now: int) -> str:
    """A paid order as the record writes it; its page at a provider is tested elsewhere."""
    async with database.begin() as conn:
        await conn.execute(update(shop).values(shipping_amount=400))
        await conn.execute(
            insert(product).values(
                id="p1", handle="p1", title="Mug", description_html="", vendor="", kind="",
                tags=[], options=[], published=True, fingerprint="", created_at=now,
                updated_at=now,
            )
        )  # fmt: skip
        await conn.execute(
            insert(sku).values(
                sku="MUG", product="p1", position=0, title="", options={}, amount=999,
                currency="USD", barcode="", image_url="", grams=0, active=True,
            )
        )  # fmt: skip
        await conn.execute(insert(sku_stock).values(sku="MUG", on_hand=5, held=3, committed=0))
        entry = {"sku": "MUG", "d_committed": 0, "at": now}
        await conn.execute(
            insert(stock_ledger),
            [
                {**entry, "kind": "receive", "d_on_hand": 5, "d_held": 0, "ref": "seed"},
                {**entry, "kind": "hold", "d_on_hand": 0, "d_held": 3, "ref": "r1"},
            ],
        )
        await conn.execute(
            insert(sale_drop).values(
                id="d1", show="s1", title="", opens_at=now, hold_s=60, created_at=now
            )
        )
        await conn.execute(insert(sale_drop_line).values(drop="d1", sku="MUG", position=0, taken=3))
        await conn.execute(
            insert(reservation).values(
                rid="r1", viewer="g_ada", drop="d1", fingerprint="", state="held",
                until_ms=now + 60_000, epoch=1, n=1, currency="USD", total=2997, created_at=now,
            )
        )  # fmt: skip
        await conn.execute(
            insert(reservation_line).values(
                rid="r1", sku="MUG", position=0, title=EVIL, quantity=3, unit_amount=999
            )
        )
        address = {"line1": "-1 Long Road", "city": "Wuhan", "postcode": "430000", "country": "CN"}
        detail = {"name": "@Li Wei", "email": "", "phone": "+86 1", "address": address}
        await people.keep(conn, "g_ada", "r1", detail, now)
        sold = await reservations_sql.move(conn, "r1", HoldState.SOLD, now)
        assert sold is not None
        steps = await pricing_sql.fix_steps(conn, sold, 400, now)
        await orders_sql.place(conn, "o1", sold, steps, now)
        await conn.execute(
            insert(payment).values(
                id="pay1", rid="r1", provider="stripe", session_id="cs_1", intent_id="pi_1",
                state="captured", amount=3397, currency="USD", shipping=400, captured=3397,
                refunded=0, url="", created_at=now, updated_at=now, next_at=None, tries=0,
            )
        )  # fmt: skip
        await money_sql.book_capture(conn, "pay1", "r1", 3397, now)
        await follow(conn, "r1", now)
    return "o1"


class Backlog:
    """An outbox with more than is told at once."""

    def __init__(self, payload: dict[str, object]) -> None:
        self._payload = payload
        self.told: list[int] = []

    async def claim(self, _topics: object, limit: int, now: int, _lease_ms: int) -> list[Fact]:
        return [Fact(n, "order", "r1", self._payload, now) for n in range(limit)]

    async def done(self, ids: Sequence[int], _now: int) -> None:
        self.told += ids


class OneOrder:
    """Orders of which there is one."""

    def __init__(self, order: Order) -> None:
        self._order = order

    async def get(self, _id: str) -> Order:
        return self._order


async def test_facts_that_waited_through_an_outage_are_told_however_many_they_are(
    counter: Counter,
) -> None:
    """Two items of each: more than one publish may have, and that once ended the node."""
    app = counter.node.app
    order = await app.trade.orders.get("o1")
    assert order is not None
    backlog = Backlog({"order": "o1", "rid": "r1", "viewer": "g_ada", "show": "s1"})
    outbox: Any = backlog
    orders: Any = OneOrder(order)
    teller = FactTeller(outbox, app.trade.checkout, orders, app.hub, app.now)
    assert 2 * BATCH_MAX > BATCH_ITEMS_MAX
    assert await teller.tell() == BATCH_MAX
    assert backlog.told == list(range(BATCH_MAX))


async def test_a_host_ships_refunds_and_takes_back(counter: Counter) -> None:
    parcel = {"carrier": "DHL", "tracking": "T1", "units": [{"position": 0, "quantity": 2}]}
    shipped = await counter.post("/orders/o1/shipments", counter.host("a"), **parcel)
    assert shipped.status_code == 201
    assert shipped.json()["order"]["state"] == "partly_shipped"
    again = await counter.post("/orders/o1/shipments", counter.host("a"), **parcel)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == shipped.json()
    other = await counter.post("/orders/o1/shipments", counter.host("a"), carrier="UPS")
    problem(other, 422, "key_conflict")

    id_ = shipped.json()["shipments"][0]["id"]
    arrived = await counter.http.post(f"/api/v1/shipments/{id_}/deliver", headers=counter.host("b"))
    assert arrived.json()["shipments"][0]["state"] == "delivered"

    asked = await counter.post(
        "/orders/o1/returns", counter.viewer("c"), units=[{"position": 0, "quantity": 1}]
    )
    case = asked.json()["returns"][0]["id"]
    forbidden = await counter.http.post(
        f"/api/v1/returns/{case}/approve", headers=counter.viewer("d")
    )
    problem(forbidden, 403, "forbidden")
    await counter.http.post(f"/api/v1/returns/{case}/approve", headers=counter.host("e"))
    back = await counter.post(f"/returns/{case}/receive", counter.host("f"), goods="restock")
    assert back.json()["refunds"][0]["amount"] == 1133
    assert back.json()["refundable"] == 3397 - 1133

    given = await counter.post("/orders/o1/refunds", counter.host("g"), amount=100, reason="sorry")
    assert given.json()["refundable"] == 3397 - 1233
    more = await counter.post("/orders/o1/refunds", counter.host("h"), amount=3_000)
    assert problem(more, 409, "refund_too_large")["details"] == {"left": 3397 - 1233}
    left = await counter.post("/orders/o1/cancel", counter.host("i"), goods="write_off")
    assert [unit["state"] for unit in left.json()["units"]] == [
        "returned", "delivered", "cancelled",
    ]  # fmt: skip
    gone = await counter.post("/orders/o1/cancel", counter.host("j"))
    problem(gone, 409, "order_moved")
    stock = await counter.get("/stock/MUG", counter.host())
    assert (stock["on_hand"], stock["committed"]) == (5 - 2 + 1 - 1, 0)


async def test_a_viewer_sees_asks_and_cancels_only_their_own(counter: Counter) -> None:
    stranger = counter.viewer("x", id_="g_eve")
    for answer in (
        await counter.http.get("/api/v1/orders/o1", headers=stranger),
        await counter.http.get("/api/v1/orders/o1/receipt", headers=stranger),
        await counter.post("/orders/o1/cancel", stranger),
        await counter.post("/orders/o1/refunds", {**stranger, "idempotency-key": "y"}),
        await counter.post("/orders/o1/returns", {**stranger, "idempotency-key": "z"}),
    ):
        problem(answer, 404, "unknown_order")
    assert await counter.get("/orders", stranger) == {"orders": [], "next": None}
    assert len((await counter.get("/orders?viewer=g_eve", counter.viewer()))["orders"]) == 1

    mine = await counter.get("/orders/o1", counter.viewer())
    assert mine["customer"]["name"] == "@Li Wei"
    assert (mine["cancellable"], mine["refundable"]) == (True, 3397)
    wish = await counter.post("/orders/o1/refunds", counter.viewer("a"), reason="late")
    assert wish.json()["refunds"][0]["state"] == "asked"
    assert "customer" not in wish.json()
    id_ = wish.json()["refunds"][0]["id"]
    waiting = (await counter.get("/waiting", counter.host()))["waiting"]
    assert [(one["kind"], one["id"], one["state"]) for one in waiting] == [("refund", id_, "asked")]
    yes = await counter.http.post(f"/api/v1/refunds/{id_}/approve", headers=counter.host("b"))
    assert yes.json()["refunds"][0]["state"] == "requested"
    no = await counter.http.post(f"/api/v1/refunds/{id_}/reject", headers=counter.host("c"))
    problem(no, 409, "order_moved")
    cancelled = await counter.post("/orders/o1/cancel", counter.viewer("d"), goods="write_off")
    assert cancelled.json()["order"]["state"] == "cancelling"
    stock = await counter.get("/stock/MUG", counter.host())
    assert (stock["on_hand"], stock["available"]) == (5, 5)  # goods are not a viewer's to write off


async def test_orders_are_found_by_what_is_known_of_them(counter: Counter) -> None:
    host = counter.host()
    for query, found in (
        ("text=hyperlink", 1), ("text=mug", 1), ("text=O1", 1), ("text=%25", 0), ("text=_", 0),
        ("show=s1&state=paid&viewer=g_ada", 1), ("state=placed", 0), ("since=1", 1),
        ("until=1", 0), ("viewer=g_eve", 0),
    ):  # fmt: skip
        assert len((await counter.get(f"/orders?{query}", host))["orders"]) == found, query


async def test_the_timeline_is_for_the_host(counter: Counter) -> None:
    denied = await counter.http.get("/api/v1/orders/o1/timeline", headers=counter.viewer())
    problem(denied, 403, "forbidden")
    events = (await counter.get("/orders/o1/timeline", counter.host()))["events"]
    assert [one["kind"] for one in events][:2] == ["pressed", "stock.hold"]
    assert "order.paid" in [one["kind"] for one in events]
    missing = await counter.http.get("/api/v1/orders/o2/timeline", headers=counter.host())
    problem(missing, 404, "unknown_order")


async def test_lists_for_spreadsheets_run_nothing(counter: Counter) -> None:
    exported = await counter.http.get("/api/v1/order-export.csv", headers=counter.host())
    assert exported.headers["content-type"].startswith("text/csv")
    assert "attachment" in exported.headers["content-disposition"]
    paths = (await counter.http.get("/openapi.json")).json()["paths"]
    described = paths["/api/v1/order-export.csv"]["get"]["responses"]["200"]["content"]
    assert described == {"text/csv": {"schema": {"type": "string"}}}
    rows = list(csv.DictReader(io.StringIO(exported.text.removeprefix("\ufeff"))))
    assert [(r["order"], r["total"], r["title"], r["quantity"]) for r in rows] == [
        ("o1", "33.97", f"'{EVIL}", "3")
    ]
    packed = await counter.http.get("/api/v1/shows/s1/packing-list.csv", headers=counter.host())
    row_ = next(csv.DictReader(io.StringIO(packed.text.removeprefix("\ufeff"))))
    assert (row_["name"], row_["phone"], row_["line1"]) == ("'@Li Wei", "'+86 1", "'-1 Long Road")
    parcels = (await counter.get("/shows/s1/packing-list", counter.host()))["parcels"]
    assert [(p["order"], p["lines"][0]["quantity"]) for p in parcels] == [("o1", 3)]
    await counter.post("/orders/o1/shipments", counter.host("k"), carrier="DHL")
    assert (await counter.get("/shows/s1/packing-list", counter.host()))["parcels"] == []
    for path in ("/order-export.csv", "/shows/s1/packing-list", "/shows/s1/packing-list.csv"):
        denied = await counter.http.get(f"/api/v1{path}", headers=counter.viewer())
        problem(denied, 403, "forbidden")


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1"])
def test_a_cell_is_never_a_formula(cell: str) -> None:
    assert guarded(cell).startswith("'")
    assert next(csv.reader(io.StringIO(row([cell, "a,b", 'say "hi"', -5])))) == [
        f"'{cell}", "a,b", 'say "hi"', "-5",
    ]  # fmt: skip


async def test_the_receipt_is_a_page_that_runs_nothing(counter: Counter) -> None:
    async with counter.database.begin() as conn:
        await conn.execute(update(shop).values(name="<script>alert(1)</script>"))
    answer = await counter.http.get(
        "/api/v1/orders/o1/receipt", headers={**counter.viewer(), "accept-language": "zh-CN"}
    )
    assert answer.headers["content-type"].startswith("text/html")
    assert "收据" in answer.text
    assert "33.97 USD" in answer.text
    assert "<script" not in answer.text


async def test_what_runs_out_is_listed(counter: Counter) -> None:
    assert (await counter.get("/low-stock", counter.host()))["skus"] == [
        {"sku": "MUG", "on_hand": 5, "held": 0, "committed": 3, "available": 2}
    ]
    terms = {"tax_bp": 1900, "tax_title": "VAT", "low_stock": 1}
    answer = await counter.http.put("/api/v1/terms", json=terms, headers=counter.host())
    assert answer.json() == terms
    assert (await counter.get("/low-stock", counter.host()))["skus"] == []
    assert len((await counter.get("/low-stock?at_most=2", counter.host()))["skus"]) == 1


async def test_the_discount_of_a_sale_is_for_all_to_see_and_fixed_once_somebody_has_reserved(
    counter: Counter,
) -> None:
    path = "/api/v1/drops/d1/discount"
    body = {"title": "Tonight", "percent_bp": 1000}
    fixed = await counter.http.put(path, json=body, headers=counter.host())
    problem(fixed, 409, "terms_fixed")
    async with counter.database.begin() as conn:
        await conn.execute(
            insert(sale_drop).values(
                id="d2", show="s1", title="", opens_at=0, hold_s=60, created_at=0
            )
        )
    path = "/api/v1/drops/d2/discount"
    both = {**body, "amount": 5}
    problem(await counter.http.put(path, json=both, headers=counter.host()), 422, "bad_params")
    assert (await counter.http.put(path, json=body, headers=counter.host())).status_code == 200
    assert (await counter.http.get(path)).json()["discount"]["percent_bp"] == 1000
    assert (await counter.http.delete(path, headers=counter.host())).json() == {"discount": None}
    problem(await counter.http.get("/api/v1/drops/d3/discount"), 404, "unknown_drop")


async def test_a_hold_remembers_what_the_host_was_showing(node: Node, sqlite_url: str) -> None:
    async with node.api(node.host_token) as api:
        await api.send_csv("/api/v1/imports?currency=EUR", CSV)
        made = await api.call("POST", "/api/v1/shows", {"title": "Tonight"})
        shown = (await api.get("/api/v1/products"))["products"][0]["id"]
    async with node.host(made["id"]) as host, node.viewer(made["id"]) as ada:
        await host.act("go_live")
        await host.act("pin_product", product=shown)
        await ada.wait_for(lambda: ada.room.facts.get("pin"), what="the pin")
        drop = (await host.act("open_drop", lines=[{"sku": "MUG-S"}]))["drop"]
        await ada.wait_for(lambda: f"drop:{drop}" in ada.room.facts, what="the sale")
        held = await ada.buy(str(drop), [("MUG-S", 1)])
    database = await Database.open(sqlite_url)
    async with database.read() as conn:
        kept = (await conn.execute(select(hold_promise))).one()
    await database.close()
    assert (kept.rid, kept.source, kept.pinned) == (held["rid"], "list", shown)
    assert kept.pinned_at is not None
    assert 0 <= kept.media_ms < 600_000


async def test_whether_the_books_differ_is_a_metric(counter: Counter) -> None:
    answer = await counter.http.get("/metrics")
    assert "vitrine_books_wrong -1.0" in answer.text  # none was made yet


class _Dies(SqlIdempotency):
    """A process that dies right after the effect is durable: nothing after it is carried out."""

    async def finish(self, *args: Any, **more: Any) -> None:
        if more.get("conn") is None:
            raise RuntimeError("killed")
        await super().finish(*args, **more)

    async def abandon(self, scope: str, key: str) -> None:
        raise RuntimeError("killed")


EFFECTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "/shows", {"title": "Once"}),
    ("POST", "/orders/o1/cancel", {"units": [{"position": 0, "quantity": 1}]}),
    ("POST", "/orders/o1/refunds", {"amount": 5}),
    ("POST", "/orders/o1/shipments", {"carrier": "DHL"}),
    ("PUT", "/terms", {"tax_bp": 1, "tax_title": "", "low_stock": 1}),
    ("DELETE", "/drops/d1/discount", {}),
)


@pytest.mark.parametrize(("method", "path", "body"), EFFECTS, ids=[row[1] for row in EFFECTS])
async def test_an_answer_is_stored_with_its_effect_also_if_the_process_dies_right_after(
    counter: Counter, method: str, path: str, body: dict[str, Any]
) -> None:
    keys = counter.node.app.trade.idempotency
    headers = counter.host("once")

    async def ask() -> httpx.Response:
        json = body if method != "DELETE" else None
        return await counter.http.request(method, f"/api/v1{path}", json=json, headers=headers)

    keys.__class__ = _Dies
    try:
        first = await ask()
    finally:
        keys.__class__ = SqlIdempotency
    assert first.status_code in (200, 201), first.text  # kept in time, so nothing was left to do
    before = await _everything(counter.database)
    again = await ask()
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert await _everything(counter.database) == before


async def _everything(database: Database) -> list[int]:
    async with database.read() as conn:
        return [
            (await conn.execute(text(f"SELECT COUNT(*) FROM {name}"))).scalar_one()
            for name in (
                "show",
                "refund",
                "shipment",
                "order_event",
                "stock_ledger",
                "ledger_entry",
            )
        ]


async def test_a_host_makes_a_coupon_once_and_never_below_what_is_used(counter: Counter) -> None:
    url, body = "/api/v1/coupons/hello", {"title": "Hello", "amount": 300, "uses_max": 2}
    made = await counter.http.put(url, json=body, headers=counter.host("a"))
    assert made.json() == {
        "code": "HELLO", "title": "Hello", "percent_bp": None, "amount": 300, "uses_max": 2,
        "used": 0, "ends_at": None,
    }  # fmt: skip
    again = await counter.http.put(url, json=body, headers=counter.host("a"))
    assert (again.headers["idempotent-replayed"], again.content) == ("true", made.content)
    async with counter.database.begin() as conn:
        await conn.execute(update(coupon).values(used=2))
    fewer = await counter.http.put(url, json={**body, "uses_max": 1}, headers=counter.host("b"))
    problem(fewer, 409, "terms_fixed")
    both = await counter.http.put(url, json={**body, "percent_bp": 1}, headers=counter.host("c"))
    problem(both, 422, "bad_params")
    name = await counter.http.put(url + "!", json=body, headers=counter.host("d"))
    problem(name, 422, "bad_params")
    strange = await counter.http.put(url, json=body, headers=counter.viewer("e"))
    problem(strange, 403, "forbidden")
    found = await counter.get("/coupons", counter.host())
    assert [(one["code"], one["used"]) for one in found["coupons"]] == [("HELLO", 2)]
