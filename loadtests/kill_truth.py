"""What is so after the kills: the record, the gate and the provider, read behind the server's back.

Responsible for waiting (on conditions, bounded) until nothing moves any more, for holding the three
stores against each other and against what people were told, and for the whole story of one press
when something does not fit. It must not change anything. It reads tables and keys, not the
program's own answers: a program that lies about itself is what is looked for.
"""

import asyncio
import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import Table, select

from commerce import schema_sql as tables
from commerce.claims import Claim
from commerce.claims_check import Check
from commerce.claims_sql import SqlClaims
from commerce.database_sql import Database
from commerce.errors import CommerceError
from live.api_catalog import reference
from live.engines import socket_url
from loadtests.kill_cluster import Cluster
from loadtests.kill_shoppers import Adjustment, Crowd, Press

QUIET_S: Final = 150.0
"""A payment without a page is given up after 60 s; everything else is decided much earlier."""
POLL_S: Final = 0.25
KEYS: Final = "vitrine:{stock:shop}:"
OPEN: Final = ("held", "paying", "closing")
SEP: Final = "\x1f"
ENTRY_OVER: Final = ("offered", "left", "passed", "closed")
"""States of an entry in a wait list that do not change any more."""
ALL_EPOCHS: Final = (0, 2**31)
CLAIMS_PAGE: Final = 2_000

Row = dict[str, Any]


class Violation(NamedTuple):
    """Something that must not be. `rid` names the press whose story is told, if there is one."""

    what: str
    rid: str = ""


@dataclass
class Verdict:
    """What was found after one quiet."""

    oversold: int = 0
    lost: list[Violation] = field(default_factory=list)
    unaccounted: list[Violation] = field(default_factory=list)

    @property
    def all(self) -> list[Violation]:
        """Everything wrong but overselling, which is a number."""
        return [*self.lost, *self.unaccounted]


@dataclass
class Books:
    """One look at everything."""

    rows: dict[str, list[Row]]
    gate: dict[str, dict[str, bytes]]
    orphans: int
    """Wins and offers that the gate does not know to be durable."""
    logged: int
    """Calls in the gate's log that the record has not stored."""
    intents: list[Row]

    def by(self, table: str, column: str) -> dict[Any, Row]:
        """Rows by a column that is unique."""
        return {row[column]: row for row in self.rows[table]}


_READ: Final[tuple[Table, ...]] = (
    tables.shop,
    tables.sku_stock,
    tables.stock_ledger,
    tables.sale_drop_line,
    tables.reservation,
    tables.reservation_line,
    tables.viewer_use,
    tables.orders,
    tables.order_line,
    tables.payment,
    tables.waiting,
)


class Truth:
    """The stores of one cluster; use as an async context manager."""

    def __init__(self, cluster: Cluster, host: str, given: dict[str, int]) -> None:
        self._cluster = cluster
        self._host = host
        self._given = given
        """Units by SKU that the drill put on the shelf before it began."""

    async def __aenter__(self) -> "Truth":
        self._database = await Database.open(self._cluster.database_url)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._database.close()

    async def quiet(self) -> str:
        """Waits until nothing is under way; "" or what was still moving when time was up."""
        deadline = time.monotonic() + QUIET_S
        while True:
            try:
                moving = _moving(await self.look())
            except (CommerceError, RedisError, OSError) as away:
                moving = f"an engine is away: {type(away).__name__}"
            if not moving or time.monotonic() > deadline:
                return moving
            await asyncio.sleep(POLL_S)

    async def look(self) -> Books:
        """Reads everything."""
        rows: dict[str, list[Row]] = {}
        async with self._database.read() as conn:
            for table in _READ:
                found = await conn.execute(select(table))
                rows[table.name] = [dict(row._mapping) for row in found]
            waiting = select(tables.outbox.c.key).where(tables.outbox.c.gate_at.is_(None))
            rows["untold"] = [{"key": key} for key in (await conn.execute(waiting)).scalars()]
        gate, orphans, logged = await self._gate()
        return Books(rows, gate, orphans, logged, _intents(self._cluster.sandbox_file))

    async def _gate(self) -> tuple[dict[str, dict[str, bytes]], int, int]:
        client = Redis.from_url(socket_url(self._cluster.valkey_socket))
        try:
            gate: dict[str, dict[str, bytes]] = {}
            for name in ("cfg", "stock", "lines", "rsv", "used", "open"):
                found: dict[Any, Any] = await client.hgetall(KEYS + name)
                gate[name] = {key.decode(): value for key, value in found.items()}
            queue: Any = await client.zrange(KEYS + "queue", 0, -1)
            gate["queue"] = {member.decode().rpartition(SEP)[2]: member for member in queue}
            provisional = await client.zcard(KEYS + "orphan") + await client.zcard(KEYS + "offered")
            return gate, int(provisional), int(await client.xlen(KEYS + "log"))
        finally:
            await client.aclose()

    async def judge(self, crowd: Crowd) -> Verdict:
        """After the quiet: everything against everything."""
        books = await self.look()
        verdict = Verdict()
        verdict.oversold = self._oversold(books, crowd.adjustments)
        verdict.lost += broken_promises(books, crowd.presses)
        verdict.lost += self._lost_adjustments(books, crowd.adjustments)
        verdict.unaccounted += [
            *unexplained_units(books),
            *gate_differences(books),
            *unexplained_money(books),
            *contradictions(await self._claims()),
        ]
        return verdict

    async def _claims(self) -> list[Claim]:
        """All that took a number, as a host would export it."""
        book, found, after = SqlClaims(self._database), list[Claim](), (-1, -1)
        while page := await book.page(ALL_EPOCHS, after, CLAIMS_PAGE):
            found += [kept.claim for kept in page]
            after = (found[-1].epoch, found[-1].n)
        return found

    def _oversold(self, books: Books, adjustments: Sequence[Adjustment]) -> int:
        """Units in orders beyond those that were ever there, by the drill's own count."""
        there: defaultdict[str, int] = defaultdict(int, self._given)
        landed = {row["ref"] for row in books.rows["stock_ledger"]}
        for change in adjustments:
            if change.answered or self._ref(change) in landed:
                there[change.sku] += change.delta
        sold: defaultdict[str, int] = defaultdict(int)
        for line in books.rows["order_line"]:
            sold[line["sku"]] += line["quantity"]
        beyond = sum(max(0, units - there[sku]) for sku, units in sold.items())
        rows = books.rows["sku_stock"]
        excess: int = sum(max(0, row["held"] + row["committed"] - row["on_hand"]) for row in rows)
        return beyond + excess

    def _ref(self, change: Adjustment) -> str:
        return str(reference(self._host, change.key))

    def _lost_adjustments(self, books: Books, adjustments: Sequence[Adjustment]) -> list[Violation]:
        by_ref: defaultdict[str, list[int]] = defaultdict(list)
        for row in books.rows["stock_ledger"]:
            by_ref[row["ref"]].append(row["d_on_hand"])
        wrong = []
        for change in adjustments:
            found = by_ref[self._ref(change)]
            if found != [change.delta] and (change.answered or found):
                wrong.append(Violation(f"{change} stands in the ledger as {found}"))
        return wrong

    async def story(self, rid: str, crowd: Crowd) -> dict[str, Any]:
        """All that is known of one press: record, gate, and what its viewer heard."""
        books = await self.look()
        press = crowd.presses.get(rid)
        entry = books.gate["rsv"].get(rid)
        async with self._database.read() as conn:
            told = select(tables.outbox).where(tables.outbox.c.key == rid)
            facts = [dict(row._mapping) for row in await conn.execute(told)]
        return {
            "rid": rid,
            "heard": press.heard if press else [],
            "told": sorted(press.told) if press else [],
            "record": [
                row
                for name in ("reservation", "reservation_line", "payment", "orders")
                for row in books.rows[name]
                if row["rid"] == rid
            ],
            "ledger": [row for row in books.rows["stock_ledger"] if row["ref"] == rid],
            "outbox": facts,
            "gate": None if entry is None else repr(msgspec.msgpack.decode(entry)),
        }


def _moving(books: Books) -> str:
    """What is still under way; "" when nothing is."""
    shop = books.rows["shop"][0]
    open_ = [row["rid"] for row in books.rows["reservation"] if row["state"] in OPEN]
    unsettled = [row["id"] for row in books.rows["payment"] if row["next_at"] is not None]
    epoch = int(books.gate["cfg"].get("epoch", b"0"))
    if open_:
        return f"{len(open_)} holds are open, such as {open_[0]}"
    if books.rows["untold"]:
        return f"{len(books.rows['untold'])} facts wait for the gate"
    if unsettled:
        return f"{len(unsettled)} payments are unsettled, such as {unsettled[0]}"
    if books.orphans:
        return f"{books.orphans} wins and offers wait for their mark"
    if _list_differences(books):
        return "a wait list is not told yet"
    if books.logged:
        return f"{books.logged} calls wait in the gate's log"
    if shop["gate_n"] is not None or epoch != shop["gate_epoch"]:
        return f"the gate has epoch {epoch}, the record {shop['gate_epoch']}"
    return ""


def broken_promises(books: Books, presses: dict[str, Press]) -> list[Violation]:
    """Viewers who were told something that the record does not know."""
    reservations = books.by("reservation", "rid")
    orders = books.by("orders", "rid")
    waits = books.by("waiting", "rid")
    wrong = []
    for rid, press in presses.items():
        row = reservations.get(rid)
        state = row["state"] if row is not None else "nothing"
        broken = _broken_hold(press, row)
        if broken:
            wrong.append(Violation(f"told held, and {broken}", rid))
        wrong += [
            Violation(f"told {told}, and the record has {state}", rid)
            for told in press.told & {"sold", "cancelled", "expired"}
            if state != told
        ]
        if broken := _broken_wait(press, waits.get(rid)):
            wrong.append(Violation(broken, rid))
        if "sold" in press.told and rid not in orders:
            wrong.append(Violation("told sold, and there is no order", rid))
        if "paid" in press.told and orders.get(rid, {}).get("state") != "paid":
            wrong.append(Violation("told paid, and the order is not", rid))
    return wrong


def _broken_hold(press: Press, row: Row | None) -> str:
    """How the record breaks the promise of a hold; "" if it keeps it."""
    hold = press.hold
    if hold is None:
        return ""
    if row is None:
        return "the record does not know it"
    if [row["epoch"], row["n"]] != list(hold["receipt"]):
        return f"the record has receipt {[row['epoch'], row['n']]}, not {hold['receipt']}"
    if row["reason"] == "orphan":
        return "it was taken back as nobody's"
    if row["state"] == "cancelled" and not press.wanted_cancel:
        return "it was cancelled by nobody"
    early = hold["until_ms"] - (row["closed_at"] or 0)
    if row["state"] == "expired" and early > 0 and not press.wanted_cancel:
        return f"it ended {early} ms too early"
    return ""


def _broken_wait(press: Press, row: Row | None) -> str:
    """How the record breaks what was said of an entry in a wait list; "" if it keeps it."""
    if not press.waited:
        return ""
    if row is None:
        return f"told {press.waited}, and the record knows of no entry"
    if press.waited in ENTRY_OVER and row["state"] != press.waited:
        return f"told {press.waited}, and the entry is {row['state']}"
    return ""


def contradictions(claims: Sequence[Claim]) -> list[Violation]:
    """What the check of the order of claims finds."""
    check = Check()
    for claim in claims:
        check.feed(claim)
    return [
        Violation(f"claim {found.epoch}·{found.n}: {found.text}") for found in check.report.findings
    ]


def unexplained_units(books: Books) -> list[Violation]:
    """Units that ledger, reservations, drops and viewers' counts do not explain alike."""
    wrong = []
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for entry in books.rows["stock_ledger"]:
        for place, name in enumerate(("d_on_hand", "d_held", "d_committed")):
            sums[entry["sku"]][place] += entry[name]
    state = {row["rid"]: row for row in books.rows["reservation"]}
    sold: defaultdict[str, int] = defaultdict(int)
    held: defaultdict[str, int] = defaultdict(int)
    taken: defaultdict[tuple[str, str], int] = defaultdict(int)
    used: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    for line in books.rows["reservation_line"]:
        head = state[line["rid"]]
        if head["state"] in ("expired", "cancelled"):
            continue
        (sold if head["state"] == "sold" else held)[line["sku"]] += line["quantity"]
        taken[head["drop"], line["sku"]] += line["quantity"]
        used[head["drop"], head["viewer"], line["sku"]] += line["quantity"]
    for row in books.rows["sku_stock"]:
        sku, numbers = row["sku"], [row["on_hand"], row["held"], row["committed"]]
        if sums[sku] != numbers:
            wrong.append(Violation(f"{sku}: the ledger has {sums[sku]}, the row {numbers}"))
        if [held[sku], sold[sku]] != numbers[1:]:
            wrong.append(Violation(f"{sku}: holds {held[sku], sold[sku]}, the row {numbers}"))
        if not 0 <= row["draining"] <= row["held"]:
            wrong.append(Violation(f"{sku}: {row['draining']} of {row['held']} held run down"))
    wrong += [
        Violation(f"drop {row['drop']} has {row['taken']} of {row['sku']} taken")
        for row in books.rows["sale_drop_line"]
        if row["taken"] != taken[row["drop"], row["sku"]]
    ]
    wrong += [
        Violation(f"{row['viewer']} has used {row['units']} of {row['sku']}")
        for row in books.rows["viewer_use"]
        if row["units"] != used[row["drop"], row["viewer"], row["sku"]]
    ]
    return wrong


def gate_differences(books: Books) -> list[Violation]:
    """Numbers of the gate that are not the record's, and entries that nobody owns."""
    wrong = []
    rows = books.by("sku_stock", "sku")
    for sku, units in books.gate["stock"].items():
        row = rows[sku]
        free = row["on_hand"] - row["held"] - row["committed"] - row["draining"]
        if int(units) != free:
            wrong.append(Violation(f"{sku}: the gate has {int(units)}, the record {free}"))
    lines = {(row["drop"], row["sku"]): row for row in books.rows["sale_drop_line"]}
    for key, units in books.gate["lines"].items():
        drop, _, sku = key.partition(SEP)
        line = lines[drop, sku]
        if units and int(units) != line["units"] - line["taken"]:
            wrong.append(Violation(f"drop {drop}: the gate has {int(units)} of {sku} left"))
    states = {row["rid"]: row["state"] for row in books.rows["reservation"]}
    for rid, entry in books.gate["rsv"].items():
        letter = msgspec.msgpack.decode(entry)[1]
        if letter in ("H", "M") and states.get(rid) not in OPEN:
            wrong.append(Violation(f"the gate holds what the record has as {states.get(rid)}", rid))
    wrong += _list_differences(books)
    in_record = {
        SEP.join((row["drop"], row["viewer"], row["sku"])): row["units"]
        for row in books.rows["viewer_use"]
    }
    wrong += [
        Violation(f"the gate counts {int(units)} for {key!r}")
        for key, units in books.gate["used"].items()
        if int(units) != in_record.get(key, 0)
    ]
    return wrong


def _list_differences(books: Books) -> list[Violation]:
    """Who waits in one of the two and not in the other."""
    waiting = {row["rid"] for row in books.rows["waiting"] if row["state"] == "waiting"}
    wrong = [
        Violation("waits in the gate, and not in the record", rid)
        for rid in books.gate["queue"].keys() - waiting
    ]
    wrong += [
        Violation("waits in the record, and not in the gate", rid)
        for rid in waiting - books.gate["queue"].keys()
    ]
    return wrong


def unexplained_money(books: Books) -> list[Violation]:
    """Money at the provider without an order, orders without money."""
    wrong = []
    payments = {row["intent_id"]: row for row in books.rows["payment"] if row["intent_id"]}
    orders = books.by("orders", "rid")
    paid = {intent["id"] for intent in books.intents if intent["status"] == "succeeded"}
    for intent in books.intents:
        row = payments.get(intent["id"])
        if intent["status"] in ("requires_capture", "processing"):
            wrong.append(Violation(f"money is reserved for nobody: {intent['id']}", _rid(row)))
        if intent["status"] == "succeeded":
            order = orders.get(_rid(row))
            if order is None or order["state"] != "paid":
                wrong.append(Violation(f"paid without an order: {intent['id']}", _rid(row)))
            elif intent["amount_received"] != order["total"]:
                wrong.append(Violation("another amount was paid than ordered", _rid(row)))
    settled: defaultdict[str, int] = defaultdict(int)
    for row in books.rows["payment"]:
        if row["intent_id"] in paid and row["state"] == "captured":
            settled[row["rid"]] += 1
        elif row["state"] not in ("cancelled", "unallocated"):
            wrong.append(Violation(f"payment {row['id']} stays {row['state']}", row["rid"]))
    wrong += [
        Violation(f"an order with {settled[rid]} payments", rid)
        for rid in orders
        if settled[rid] != 1
    ]
    return wrong


def _rid(row: Row | None) -> str:
    return "" if row is None else str(row["rid"])


def _intents(file: Path) -> list[Row]:
    """Every payment intent as the provider has it."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        found = connection.execute("SELECT body FROM object WHERE kind = 'payment_intent'")
        return [json.loads(body) for (body,) in found]
    finally:
        connection.close()
