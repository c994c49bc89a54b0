"""What became of the money: our record and the provider's books, read behind everybody's back.

Responsible for waiting (bounded) until nothing moves, for reading both sides, and for judging them
against each other and against what people were answered. `judge` is a function of values alone, so
that a test can plant each kind of loss and see it found. It must not change anything.
"""

import asyncio
import json
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Table, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import money_schema_sql as money
from commerce import schema_sql as tables
from commerce.database_sql import Database
from commerce.errors import CommerceError
from commerce.ledger_sql import SqlLedger
from commerce.reconcile_sql import SqlBooks

QUIET_S: Final = 180.0
"""A payment without a page is given up after 60 s, a page is looked at after 60 s. It counts from
the last change: a busy machine may take long, and a shop that stands still is the finding."""
QUIET_MAX_S: Final = 1_800.0
POLL_S: Final = 0.5
OPEN: Final = ("held", "paying", "closing")
GONE: Final = ("shipped", "delivered", "lost")
STORIES_MAX: Final = 10

Row = dict[str, Any]

_READ: Final[tuple[Table, ...]] = (
    tables.orders,
    tables.payment,
    money.refund,
    money.dispute,
    money.order_unit,
    tables.sku_stock,
)


@dataclass
class Bank:
    """The provider's own books: bodies of its objects."""

    intents: list[Row]
    refunds: list[Row]
    disputes: list[Row]

    @property
    def balance(self) -> int:
        """Taken, less what went back, less what banks took away, in minor units."""
        taken = sum(one["amount_received"] for one in self.intents)
        back = sum(one["amount"] for one in self.refunds if one["status"] == "succeeded")
        away = sum(one["amount"] for one in self.disputes if one["status"] != "won")
        return int(taken - back - away)


@dataclass
class Ours:
    """The record: rows by table, what its own questions found, and its account at the provider."""

    rows: dict[str, list[Row]]
    faults: list[str] = field(default_factory=list)
    stock_faults: list[str] = field(default_factory=list)
    written_off: dict[str, int] = field(default_factory=dict)
    balance: int = 0


@dataclass
class Verdict:
    """What was found, by kind; empty lists when all is well."""

    lost_paid: list[str] = field(default_factory=list)
    double_charges: list[str] = field(default_factory=list)
    double_refunds: list[str] = field(default_factory=list)
    ledger_unbalanced: list[str] = field(default_factory=list)
    units_unexplained: list[str] = field(default_factory=list)
    broken_promises: list[str] = field(default_factory=list)
    provider_balance: int = 0
    our_balance: int = 0

    def summary(self) -> dict[str, Any]:
        """Counts, and the first stories."""
        lists = {name: found for name, found in vars(self).items() if isinstance(found, list)}
        stories = [f"{name}: {one}" for name, found in lists.items() for one in found]
        return {
            **{name: len(found) for name, found in lists.items()},
            "provider_balance_equals_ours": self.provider_balance == self.our_balance,
            "provider_balance": self.provider_balance,
            "our_balance": self.our_balance,
            "violations": stories[:STORIES_MAX],
        }


def judge(
    ours: Ours,
    bank: Bank,
    given: Mapping[str, int],
    paid: Mapping[str, str],
    told: Mapping[str, set[str]],
) -> Verdict:
    """Everything against everything. `given`: units by SKU before anything was sold; `paid`: order
    by rid of who was told "paid"; `told`: refunds by order that somebody was answered."""
    verdict = Verdict(
        ledger_unbalanced=list(ours.faults),
        units_unexplained=[*ours.stock_faults, *_units(ours, given)],
        provider_balance=bank.balance,
        our_balance=ours.balance,
    )
    _charges(ours, bank, verdict)
    _refunds(ours, bank, verdict)
    _promises(ours, paid, told, verdict)
    return verdict


def _charges(ours: Ours, bank: Bank, verdict: Verdict) -> None:
    orders = {row["rid"]: row for row in ours.rows["orders"]}
    payments = {row["intent_id"]: row for row in ours.rows["payment"] if row["intent_id"]}
    back = _sums(bank.refunds, "payment_intent", lambda one: one["status"] != "failed")
    promised = _sums(
        [{**row, "payment_intent": row["payment"]} for row in ours.rows["refund"]],
        "payment_intent",
        lambda row: row["state"] != "rejected",
    )
    charged: defaultdict[str, list[int]] = defaultdict(list)
    for intent in bank.intents:
        name, rid = intent["id"], intent["metadata"].get("rid", "")
        if intent["status"] in ("requires_capture", "processing"):
            verdict.lost_paid.append(f"{name} of {rid} stays {intent['status']}")
        if intent["status"] != "succeeded":
            continue
        row = payments.get(name)
        kept = intent["amount_received"] - back[name]
        if kept > 0:
            charged[rid].append(kept)
        if row is None and kept > 0:
            verdict.lost_paid.append(f"{name} of {rid}: no payment here")
        elif row is not None and row["state"] not in ("captured", "unallocated"):
            verdict.lost_paid.append(f"{name} of {rid}: the payment is {row['state']}")
        elif row is not None and rid not in orders and kept > 0 and not promised[row["id"]]:
            verdict.lost_paid.append(f"{name} of {rid}: neither order nor refund")
        elif row is not None and row["state"] == "captured" and rid not in orders:
            verdict.lost_paid.append(f"{name} of {rid}: captured without an order")
        if row is not None and intent["amount_received"] != row["captured"]:
            verdict.lost_paid.append(f"{name} of {rid}: another amount was captured than we know")
    known = {intent["id"] for intent in bank.intents if intent["status"] == "succeeded"}
    verdict.lost_paid += [
        f"{row['rid']}: we say captured, the provider does not"
        for row in ours.rows["payment"]
        if row["captured"] and row["intent_id"] not in known
    ]
    for rid, amounts in charged.items():
        total = orders[rid]["total"] if rid in orders else 0
        if sum(amounts) > total and (len(amounts) > 1 or rid in orders):
            verdict.double_charges.append(f"{rid}: {amounts} for an order of {total}")


def _refunds(ours: Ours, bank: Bank, verdict: Verdict) -> None:
    known = {row["id"]: row for row in ours.rows["refund"]}
    payments = {row["intent_id"]: row for row in ours.rows["payment"]}
    gone = [one for one in bank.refunds if one["status"] != "failed"]
    by_name = Counter(one["metadata"].get("refund", one["id"]) for one in gone)
    verdict.double_refunds += [
        f"refund {name} was made {times} times" for name, times in by_name.items() if times > 1
    ]
    for one in gone:
        row = known.get(one["metadata"].get("refund", ""))
        if row is None:
            verdict.double_refunds.append(f"{one['id']} is known to the provider alone")
        elif row["amount"] != one["amount"] or row["state"] in ("rejected", "asked", "failed"):
            verdict.double_refunds.append(
                f"{one['id']} of {one['amount']}: we have {row['state']}, {row['amount']}"
            )
    there = {one["metadata"].get("refund", ""): one["status"] for one in bank.refunds}
    verdict.double_refunds += [
        f"refund {name}: we say it went, the provider does not"
        for name, row in known.items()
        if row["state"] == "succeeded" and there.get(name) != "succeeded"
    ]
    for intent in bank.intents:
        back = sum(one["amount"] for one in gone if one["payment_intent"] == intent["id"])
        row = payments.get(intent["id"])
        if row is not None and back > row["refunded"]:
            verdict.double_refunds.append(f"{intent['id']}: {back} back, {row['refunded']} meant")


def _units(ours: Ours, given: Mapping[str, int]) -> list[str]:
    """On the shelf is what was given, less what left the shop, less what was written off."""
    out = Counter(row["sku"] for row in ours.rows["order_unit"] if row["state"] in GONE)
    # What came back and was written off left twice in the ledger: out, in, and out again.
    wrong = []
    for row in ours.rows["sku_stock"]:
        sku = row["sku"]
        expected = given[sku] - out[sku] - ours.written_off.get(sku, 0)
        if row["on_hand"] != expected:
            wrong.append(f"{sku}: {row['on_hand']} on the shelf, {expected} expected")
        if row["held"]:
            wrong.append(f"{sku}: {row['held']} held for nobody")
    return wrong


def _promises(
    ours: Ours, paid: Mapping[str, str], told: Mapping[str, set[str]], verdict: Verdict
) -> None:
    orders = {row["rid"]: row for row in ours.rows["orders"]}
    for rid, order in paid.items():
        row = orders.get(rid)
        if row is None or row["id"] != order or row["state"] == "placed":
            verdict.broken_promises.append(f"{rid}: told paid, we have {row and row['state']}")
    refunds = {row["id"] for row in ours.rows["refund"]}
    for order, ids in told.items():
        verdict.broken_promises += [f"{order}: refund {one} is gone" for one in ids - refunds]


def _sums(rows: Sequence[Row], key: str, counts: Any) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in rows:
        if counts(row):
            found[row[key]] += row["amount"]
    return found


class Truth:
    """Reads one database and the sandbox's file; use as an async context manager."""

    def __init__(self, database_url: str, sandbox: Path) -> None:
        self._url = database_url
        self._sandbox = sandbox

    async def __aenter__(self) -> "Truth":
        self.database = await Database.open(self._url)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.database.close()

    async def quiet(self, within_s: float = QUIET_S) -> str:
        """Waits until nothing is under way; "" or what was still moving when time was up."""
        began = changed = time.monotonic()
        before = ""
        while True:
            try:
                moving = await self._moving()
            except (CommerceError, OSError) as away:
                moving = f"the database is away: {type(away).__name__}"
            now = time.monotonic()
            if moving.partition(";")[0] != before:
                before, changed = moving.partition(";")[0], now
            if not moving or now - changed > within_s or now - began > QUIET_MAX_S:
                return moving
            await asyncio.sleep(POLL_S)

    async def _moving(self) -> str:
        inbox, outbox = tables.psp_inbox.c, tables.outbox.c
        questions = {
            "holds are open": select(func.count()).where(tables.reservation.c.state.in_(OPEN)),
            "payments are unsettled": select(func.count()).where(
                tables.payment.c.next_at.is_not(None)
            ),
            "refunds are on their way": select(func.count()).where(
                money.refund.c.state.in_(("requested", "submitted"))
            ),
            "events wait": select(func.count()).where(inbox.state.in_(("received", "parked"))),
            "facts wait for the gate": select(func.count()).where(outbox.gate_at.is_(None)),
        }
        async with self.database.read() as conn:
            for what, question in questions.items():
                if many := (await conn.execute(question)).scalar_one():
                    return f"{many} {what}" + await _stories(conn)
        waiting = _ask(self._sandbox, "SELECT COUNT(*) FROM delivery WHERE done = 0")[0][0]
        waiting += _ask(self._sandbox, "SELECT COUNT(*) FROM timer")[0][0]
        return f"the provider has {waiting} things to do" if waiting else ""

    async def ours(self) -> Ours:
        """The whole record, as of now."""
        rows: dict[str, list[Row]] = {}
        ledger = SqlLedger(self.database)
        entry = tables.stock_ledger.c
        async with self.database.read() as conn:
            for table in _READ:
                found = await conn.execute(select(table))
                rows[table.name] = [dict(row._mapping) for row in found]
            off = await conn.execute(
                select(entry.sku, func.sum(-entry.d_on_hand))
                .where(entry.kind == "write_off")
                .group_by(entry.sku)
            )
            written_off = {sku: int(units) for sku, units in off}
        faults = await ledger.faults()
        page = await SqlBooks(self.database).page("", 1_000)
        balances = (await ledger.balances()).values()
        return Ours(
            rows,
            [f"{one.kind} {one.what} {one.amount}" for one in faults if "stock" not in one.kind],
            [f"{one.kind} {one.what} {one.amount}" for one in faults if "stock" in one.kind]
            + [str(one) for one in page.differences],
            written_off,
            sum(accounts.get("provider_clearing", 0) for accounts in balances),
        )

    def bank(self) -> Bank:
        """The provider's books, as of now."""
        return Bank(
            *(self._objects(kind) for kind in ("payment_intent", "refund", "dispute")),
        )

    def intent_of(self, rid: str) -> str:
        """The newest paid intent of a hold."""
        found = _ask(
            self._sandbox,
            "SELECT id FROM object WHERE kind = 'payment_intent' AND "
            "json_extract(body, '$.metadata.rid') = ? ORDER BY n DESC",
            rid,
        )
        return str(found[0][0])

    def _objects(self, kind: str) -> list[Row]:
        found = _ask(self._sandbox, "SELECT body FROM object WHERE kind = ?", kind)
        return [json.loads(body) for (body,) in found]


async def _stories(conn: AsyncConnection) -> str:
    """Of the holds and payments that are open: where they stand."""
    hold, paid = tables.reservation.c, tables.payment.c
    wanted = (
        select(hold.rid, hold.state, hold.until_ms, paid.state, paid.next_at, paid.tries)
        .join(tables.payment, paid.rid == hold.rid, isouter=True)
        .where(or_(hold.state.in_(OPEN), paid.next_at.is_not(None)))
        .limit(STORIES_MAX)
    )
    now = time.time_ns() // 1_000_000
    return "".join(
        f"; {rid} {state} until {until_ms - now} ms from now, payment {payment}, "
        f"look {None if next_at is None else next_at - now}, {tries} tries"
        for rid, state, until_ms, payment, next_at, tries in await conn.execute(wanted)
    )


def _ask(file: Path, question: str, *values: str) -> list[Any]:
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)
    try:
        return connection.execute(question, values).fetchall()
    finally:
        connection.close()
