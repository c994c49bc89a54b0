"""A till to test at: the real sandbox process, a real database, and hands to use both."""

import asyncio
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from sqlalchemy import insert, select, update

from commerce.crash_points import CrashHook, nothing
from commerce.database_sql import Database
from commerce.disputes_sql import SqlDisputes
from commerce.dossier import Dossier
from commerce.dossier_sql import SqlDossiers
from commerce.fulfilment import Goods, Pick
from commerce.fulfilment_sql import SqlFulfilment
from commerce.inbox_sql import Inbox
from commerce.ledger_sql import SqlLedger
from commerce.money_schema_sql import refund
from commerce.order_desk_sql import SqlOrderDesk
from commerce.orders_sql import SqlOrders
from commerce.pay import Pay
from commerce.payments import Address, Delivery, Payment, PaymentPage
from commerce.payments_sql import SqlPayments
from commerce.payments_stripe import StripeProvider
from commerce.people import ErasureList
from commerce.people_sql import SqlPeople
from commerce.pricing_sql import SqlTerms
from commerce.reconcile_sql import SqlBooks
from commerce.refunding import Refunding
from commerce.refunds_sql import SqlRefunds
from commerce.reservations_sql import find, move
from commerce.schema_sql import (
    metadata,
    outbox,
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
    viewer_use,
)
from commerce.stock import Hold, HoldState
from commerce.vault import Vault

KEY = "sk_test_sandbox"
MASTER = "a master of thirty-two characters or more"
RETURN_URL = "http://shop.example/show/1?tab=a"
SUCCEEDS, DECLINED = "4242424242424242", "4000000000000002"
ASKS, LATE = "4000002500003155", "4000000000000093"
PRICE, SHIPPING, ON_HAND = 1299, 500, 5
LATE_MS = 150
DELIVERY = Delivery(
    "Li Wei", "li@example.com", "", Address("1 Long Road", "", "Wuhan", "", "430000", "CN")
)


class Sandbox:
    """`python -m commerce.sandbox` as a child, killed and started again at will."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = 0
        self._start_number = 0

    def start(self, *extra: str) -> Self:
        """Start, or start again on the same port with the same data."""
        command = [sys.executable, "-m", "commerce.sandbox", "--port", str(self.port)]
        command += ["--data", str(self.data), "--late-ms", str(LATE_MS), *extra]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.said: dict[str, str] = json.loads(self.process.stdout.readline())
        self.url = self.said["url"]
        self.port = int(self.url.rsplit(":", 1)[1])
        return self

    def stop(self, *, kill: bool = False) -> int:
        """SIGTERM, or SIGKILL; the exit status."""
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(10)


class Api:
    """The sandbox by plain HTTP, as a script would use it."""

    def __init__(self, url: str) -> None:
        self.url = url
        headers = {"Authorization": f"Bearer {KEY}"}
        self.http = httpx.AsyncClient(base_url=url, headers=headers, trust_env=False)

    async def reset(self) -> None:
        (await self.http.post("/sandbox/reset")).raise_for_status()

    async def arm(self, kind: str, **values: object) -> None:
        answer = await self.http.post("/sandbox/faults", json={"kind": kind, **values})
        answer.raise_for_status()

    async def press(self, page: str, **form: str) -> httpx.Response:
        """Press a button of the hosted page."""
        return await self.http.post(page, data=form)

    async def get(self, path: str, **params: str) -> Any:
        answer = await self.http.get(path, params=params)
        answer.raise_for_status()
        return answer.json()

    async def post(self, path: str, data: dict[str, Any], key: str = "") -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        return await self.http.post(path, data=data, headers=headers)

    async def events(self, *kinds: str) -> list[dict[str, Any]]:
        """Oldest first."""
        found = (await self.get("/v1/events", limit="100"))["data"]
        return [one for one in reversed(found) if not kinds or one["type"] in kinds]


class Clock:
    """Real time, moved forward by hand."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms


class Till:
    """One node that takes payments, and what a test wants to ask about it."""

    def __init__(self, database: Database, api: Api, clock: Clock, erasures: Path) -> None:
        self.database, self.api, self.clock = database, api, clock
        self.people = SqlPeople(database, Vault([MASTER]), ErasureList(erasures))
        self.settled: list[str] = []
        self.provider = StripeProvider(
            KEY, ["whsec_test"], api_base=api.url, timeout_s=3.0, retries=0
        )
        self.record = SqlPayments(database, "stripe", self.people)
        self.inbox = Inbox(database, "stripe")
        self.orders = SqlOrders(database, self.people)
        self.refunds = SqlRefunds(database, "stripe")
        self.desk = SqlOrderDesk(database)
        self.parcels = SqlFulfilment(database)
        self.dossiers = SqlDossiers(database)
        self.ledger = SqlLedger(database)
        self.terms = SqlTerms(database)
        self._ids = itertools.count(1)
        self._serial = time.monotonic_ns()
        self.pay = self.node(self.provider)

    def node(self, provider: StripeProvider, *, crash_point: CrashHook = nothing) -> Pay:
        return Pay(
            provider,
            self.record,
            self.inbox,
            clock=self.clock,
            new_id=self.new_id,
            settle=self._settle,
            refunding=Refunding(
                provider,
                self.refunds,
                SqlDisputes(self.database),
                clock=self.clock,
                new_id=self.new_id,
            ),
            tick_s=0.02,
            listen_s=0.1,
            crash_point=crash_point,
        )

    def new_id(self) -> str:
        return f"id-{self._serial}-{next(self._ids)}"

    async def _settle(self, rids: Sequence[str]) -> None:
        self.settled.extend(rids)

    async def seed(self) -> None:
        now = self.clock()
        async with self.database.begin() as conn:
            await conn.execute(
                insert(shop).values(
                    id=1, name="Shop", currency="USD", shipping_amount=SHIPPING, gate_epoch=1
                )
            )
            await conn.execute(
                insert(product).values(
                    id="p1",
                    handle="p1",
                    title="Mug",
                    description_html="",
                    vendor="",
                    kind="",
                    tags=[],
                    options=[],
                    published=True,
                    fingerprint="",
                    created_at=now,
                    updated_at=now,
                )
            )
            await conn.execute(
                insert(sku).values(
                    sku="MUG",
                    product="p1",
                    position=0,
                    title="",
                    options={},
                    amount=PRICE,
                    currency="USD",
                    barcode="",
                    image_url="",
                    grams=0,
                    active=True,
                )
            )
            await conn.execute(
                insert(sku_stock).values(sku="MUG", on_hand=ON_HAND, held=0, committed=0)
            )
            await conn.execute(
                insert(stock_ledger).values(
                    sku="MUG",
                    kind="receive",
                    d_on_hand=ON_HAND,
                    d_held=0,
                    d_committed=0,
                    ref="seed",
                    at=now,
                )
            )
            await conn.execute(
                insert(sale_drop).values(
                    id="d1", show="s1", title="", opens_at=now, hold_s=60, created_at=now
                )
            )
            await conn.execute(
                insert(sale_drop_line).values(drop="d1", sku="MUG", position=0, taken=0)
            )

    async def held(
        self, *, quantity: int = 1, viewer: str = "v1", hold_ms: int = 60_000, rid: str = ""
    ) -> str:
        """A hold as the record writes it; its rid."""
        now, rid = self.clock(), rid or self.new_id()
        async with self.database.begin() as conn:
            await conn.execute(
                insert(reservation).values(
                    rid=rid,
                    viewer=viewer,
                    drop="d1",
                    fingerprint="",
                    state="held",
                    until_ms=now + hold_ms,
                    epoch=1,
                    n=1,
                    currency="USD",
                    total=PRICE * quantity,
                    created_at=now,
                )
            )
            await conn.execute(
                insert(reservation_line).values(
                    rid=rid,
                    sku="MUG",
                    position=0,
                    title="Mug",
                    quantity=quantity,
                    unit_amount=PRICE,
                )
            )
            await conn.execute(update(sku_stock).values(held=sku_stock.c.held + quantity))
            await conn.execute(
                update(sale_drop_line).values(taken=sale_drop_line.c.taken + quantity)
            )
            used = await conn.execute(
                update(viewer_use)
                .where(viewer_use.c.viewer == viewer)
                .values(units=viewer_use.c.units + quantity)
            )
            if not used.rowcount:
                await conn.execute(
                    insert(viewer_use).values(drop="d1", viewer=viewer, sku="MUG", units=quantity)
                )
            await conn.execute(
                insert(stock_ledger).values(
                    sku="MUG",
                    kind="hold",
                    d_on_hand=0,
                    d_held=quantity,
                    d_committed=0,
                    ref=rid,
                    at=now,
                )
            )
        return rid

    async def begin(self, rid: str, viewer: str = "v1") -> PaymentPage:
        return await self.pay.begin(viewer, rid, DELIVERY, return_url=RETURN_URL)

    async def hold(self, rid: str) -> Hold:
        async with self.database.read() as conn:
            found = await find(conn, rid)
        assert found is not None
        return found

    async def state(self, rid: str) -> str:
        return (await self.hold(rid)).state.value

    async def paid_by(self, rid: str) -> Payment:
        return (await self.record.of_rid(rid))[0]

    async def cancel_wish(self, rid: str) -> None:
        """What Checkout.cancel does with a hold that is being paid."""
        async with self.database.begin() as conn:
            moved = await move(conn, rid, HoldState.CLOSING, self.clock(), reason="cancelled")
            assert moved is not None

    async def stock(self) -> tuple[int, int]:
        """(held, committed); the ledger must tell the same."""
        async with self.database.read() as conn:
            row = (await conn.execute(select(sku_stock))).one()
            entries = (await conn.execute(select(stock_ledger))).all()
        assert sum(entry.d_on_hand for entry in entries) == row.on_hand
        assert sum(entry.d_held for entry in entries) == row.held
        assert sum(entry.d_committed for entry in entries) == row.committed
        return row.held, row.committed

    async def on_hand(self) -> int:
        await self.stock()
        async with self.database.read() as conn:
            return int((await conn.execute(select(sku_stock.c.on_hand))).scalar_one())

    async def paid(self, *, quantity: int = 1, rid: str = "") -> Dossier:
        """A paid order, the way a buyer makes one."""
        rid = await self.held(quantity=quantity, rid=rid)
        page = await self.begin(rid)
        await self.api.press(page.url, card=SUCCEEDS)
        await self.pay.refresh(rid)
        return await self.order_of(rid)

    async def order_of(self, rid: str) -> Dossier:
        order = await self.orders.by_rid(rid)
        assert order is not None
        return await self.dossiers.get(order.id)

    async def give_back(
        self, order: str, picks: Sequence[Pick] | None = None, amount: int | None = None
    ) -> Dossier:
        return await self.desk.give_back(
            order, picks, amount, reason="", actor="host", new_id=self.new_id(), now=self.clock()
        )

    async def cancel(self, order: str, picks: Sequence[Pick] | None = None) -> Dossier:
        return await self.desk.cancel(
            order, picks, goods=Goods.RESTOCK, reason="", actor="host", new_id=self.new_id(),
            now=self.clock(),
        )  # fmt: skip

    async def ship(self, order: str, picks: Sequence[Pick] | None = None) -> Dossier:
        return await self.parcels.ship(
            order, picks, carrier="DHL", tracking="T1", actor="host", new_id=self.new_id(),
            now=self.clock(),
        )  # fmt: skip

    async def settle_refunds(self, rid: str) -> None:
        """The worker's time has come for every refund of a hold."""
        async with self.database.begin() as conn:
            await conn.execute(
                update(refund)
                .where(refund.c.rid == rid, refund.c.next_at.is_not(None))
                .values(next_at=self.clock())
            )
        await self.pay.once()

    async def at_bank(self, rid: str) -> int:
        """What of a hold's money has gone back, as the provider counts it."""
        known = await self.paid_by(rid)
        found = await self.provider.look_refunds(known.intent or "")
        return sum(one.amount for one in found if one.status == "succeeded")

    async def sound(self) -> None:
        """Everything adds up: money, and the units of holds, drops and viewers."""
        assert await self.ledger.faults() == []
        assert (await SqlBooks(self.database).page("", 100)).differences == []
        for accounts in (await self.ledger.balances()).values():
            assert sum(accounts.values()) == 0

    async def facts(self, topic: str, rid: str) -> list[str]:
        async with self.database.read() as conn:
            rows = await conn.execute(
                select(outbox.c.payload)
                .where(outbox.c.topic == topic, outbox.c.key == rid)
                .order_by(outbox.c.id)
            )
            return [payload["state"] for payload in rows.scalars()]

    async def set_payment(self, id_: str, **values: object) -> None:
        """Reach into the record, to make a situation that is hard to reach."""
        async with self.database.begin() as conn:
            await conn.execute(update(payment).where(payment.c.id == id_).values(**values))

    async def at_provider(self, rid: str) -> dict[str, Any]:
        """The intent of a hold's payment, as the provider has it."""
        known = await self.paid_by(rid)
        session = await self.api.get(
            f"/v1/checkout/sessions/{known.session}", **{"expand[]": "payment_intent"}
        )
        return {"session": session["status"], **(session["payment_intent"] or {})}

    async def make_due(self, rid: str) -> None:
        """The poller's time has come for all payments of a hold."""
        for known in await self.record.of_rid(rid):
            if known.state not in ("captured", "cancelled", "unallocated"):
                await self.set_payment(known.id, next_at=self.clock())


async def make_tables(url: str) -> None:
    """All tables of the record."""
    database = await Database.open(url)
    async with database.begin() as conn:
        await conn.run_sync(metadata.create_all)
    await database.close()


@asynccontextmanager
async def open_till(database_url: str, api: Api) -> AsyncIterator[Till]:
    database = await Database.open(database_url)
    with tempfile.TemporaryDirectory() as folder:
        till = Till(database, api, Clock(), Path(folder) / "erasures.jsonl")
        await till.seed()
        try:
            yield till
        finally:
            await till.provider.close()
            await database.close()


@asynccontextmanager
async def running(pay: Pay) -> AsyncIterator[None]:
    """The workers of a node."""
    task = asyncio.create_task(pay.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
