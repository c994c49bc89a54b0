"""Reading the books: everything the record says about stock, and whether it adds up.

Responsible for the invariants that the record alone can show (I1, I2, I3, I8, I9 of the design):
nobody oversold, every unit explained by the ledger, every sum equal to its parts, every limit kept.
It must not know what viewers heard nor what the gate says: that is for `judge`.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from commerce.database_sql import Database
from commerce.stock import OPEN_HOLDS_MAX

OPEN = ("held", "paying", "closing")
PENDING = ("entered", "waiting")


@dataclass(frozen=True)
class Books:
    """The tables of stock, as rows."""

    stock: list[Any]
    ledger: list[Any]
    heads: list[Any]
    lines: list[Any]
    drops: list[Any]
    drop_lines: list[Any]
    used: list[Any]
    waiting: list[Any]
    """In the order in which they are served."""
    epoch: int
    untold: int


_QUERIES = {
    "stock": "SELECT sku, on_hand, held, committed, draining FROM sku_stock ORDER BY sku",
    "ledger": "SELECT sku, kind, d_on_hand, d_held, d_committed, ref FROM stock_ledger",
    "heads": (
        'SELECT rid, viewer, "drop", state, fingerprint, until_ms, closed_at, reason, epoch, n, '
        "total, created_at FROM reservation ORDER BY rid"
    ),
    "lines": "SELECT rid, sku, quantity FROM reservation_line ORDER BY rid, position",
    "drops": (
        "SELECT id, per_viewer, opens_at, closed_at, draws_at, seed, seed_sha, drawn_at, entries "
        "FROM sale_drop ORDER BY created_at, id"
    ),
    "drop_lines": 'SELECT "drop", sku, units, taken FROM sale_drop_line',
    "used": 'SELECT "drop", viewer, sku, units FROM viewer_use',
    "waiting": (
        'SELECT n, rid, "drop", sku, viewer, quantity, state, place, closed_at FROM waiting '
        "ORDER BY COALESCE(place, n), n"
    ),
}


async def read_books(database: Database) -> Books:
    """All of it, in one snapshot."""
    async with database.read() as conn:
        rows = {name: (await conn.execute(text(sql))).all() for name, sql in _QUERIES.items()}
        epoch = (await conn.execute(text("SELECT gate_epoch FROM shop"))).scalar()
        untold = await conn.execute(text("SELECT count(*) FROM outbox WHERE gate_at IS NULL"))
        return Books(**rows, epoch=epoch or 0, untold=untold.scalar() or 0)  # type: ignore[arg-type]


async def read_pulse(database: Database) -> tuple[int, int, int, int]:
    """Open holds, facts the gate has not heard, the epoch, who waits: cheap, asked often."""
    query = (
        "SELECT (SELECT count(*) FROM reservation WHERE state IN ('held', 'paying', 'closing')), "
        "(SELECT count(*) FROM outbox WHERE gate_at IS NULL), (SELECT max(gate_epoch) FROM shop), "
        "(SELECT count(*) FROM waiting WHERE state IN ('entered', 'waiting'))"
    )
    async with database.read() as conn:
        found = (await conn.execute(text(query))).one()
    return found[0], found[1], found[2] or 0, found[3]


async def read_told(database: Database) -> list[Any]:
    """What the outbox tells of lists, in order."""
    query = "SELECT payload, created_at FROM outbox WHERE topic = 'wait' ORDER BY id"
    async with database.read() as conn:
        return list((await conn.execute(text(query))).all())


def faults_in(books: Books, doubled: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Each broken invariant and what shows it. `doubled`: ids of entries that were pressed too."""
    states = {head.rid: head for head in books.heads}
    yield from _stock(books, states)
    yield from _ledger(books, states)
    yield from _limits(books, states)
    yield from _heads(books)
    yield from _waits(books, states, doubled)


def _stock(books: Books, states: dict[str, Any]) -> Iterator[tuple[str, str]]:
    held: Counter[str] = Counter()
    sold: Counter[str] = Counter()
    taken: Counter[tuple[str, str]] = Counter()
    for line in books.lines:
        head = states[line.rid]
        if head.state in OPEN:
            held[line.sku] += line.quantity
        elif head.state == "sold":
            sold[line.sku] += line.quantity
        else:
            continue
        taken[head.drop, line.sku] += line.quantity
    for row in books.stock:
        if held[row.sku] + sold[row.sku] > row.on_hand:
            yield "I1 nobody_oversold", f"{row.sku}: {held[row.sku]}+{sold[row.sku]}>{row.on_hand}"
        if (row.held, row.committed) != (held[row.sku], sold[row.sku]):
            yield "I2 sums", f"{row.sku}: {row.held}, {row.committed} of {held}, {sold}"
        if not 0 <= row.draining <= row.held:
            yield "I2 draining", f"{row.sku}: {row.draining} of {row.held} held"
    for row in books.drop_lines:
        if row.taken != taken[row.drop, row.sku]:
            yield "I2 taken", f"{row.drop} {row.sku}: {row.taken} of {taken[row.drop, row.sku]}"
        if row.units is not None and row.taken > row.units:
            yield "I1 drop_oversold", f"{row.drop} {row.sku}: {row.taken} of {row.units}"


def _ledger(books: Books, states: dict[str, Any]) -> Iterator[tuple[str, str]]:
    sums: dict[str, list[int]] = {row.sku: [0, 0, 0] for row in books.stock}
    kinds: dict[tuple[str, str], list[str]] = {}
    for entry in books.ledger:
        for place, delta in enumerate((entry.d_on_hand, entry.d_held, entry.d_committed)):
            sums[entry.sku][place] += delta
        if entry.ref in states and entry.kind != "drain":
            kinds.setdefault((entry.ref, entry.sku), []).append(entry.kind)
    for row in books.stock:
        if sums[row.sku] != [row.on_hand, row.held, row.committed]:
            yield "I2 ledger", f"{row.sku}: {sums[row.sku]}"
    for line in books.lines:
        state = states[line.rid].state
        wanted = {"hold"} | ({"commit"} if state == "sold" else set())
        if state in ("expired", "cancelled"):
            wanted |= {"release"}
        if sorted(kinds.get((line.rid, line.sku), [])) != sorted(wanted):
            yield "I3 ends_once", f"{line.rid} {state}: {kinds.get((line.rid, line.sku))}"


def _limits(books: Books, states: dict[str, Any]) -> Iterator[tuple[str, str]]:
    used: Counter[tuple[str, str, str]] = Counter()
    for line in books.lines:
        head = states[line.rid]
        if head.state not in ("expired", "cancelled"):
            used[head.drop, head.viewer, line.sku] += line.quantity
    limits = {drop.id: drop.per_viewer for drop in books.drops}
    for row in books.used:
        key = (row.drop, row.viewer, row.sku)
        if row.units != used[key]:
            yield "I2 viewer_use", f"{key}: {row.units} of {used[key]}"
    for key, units in used.items():
        limit = limits[key[0]]
        if limit is not None and units > limit:
            yield "I9 limit", f"{key}: {units} of {limit}"
    open_holds = Counter(head.viewer for head in books.heads if head.state in OPEN)
    for viewer, count in open_holds.items():
        if count > OPEN_HOLDS_MAX:
            yield "I9 open_holds", f"{viewer}: {count}"


def _heads(books: Books) -> Iterator[tuple[str, str]]:
    receipts: Counter[tuple[int, int]] = Counter()
    with_lines = {line.rid for line in books.lines}
    for head in books.heads:
        if head.rid in with_lines:
            receipts[head.epoch, head.n] += 1
        elif head.reason != "orphan":
            yield "I8 whole_or_nothing", f"{head.rid} has no lines"
        if head.reason == "deadline" and head.closed_at < head.until_ms:
            yield (
                "I13 not_before_deadline",
                f"{head.rid}: {head.until_ms - head.closed_at} ms early",
            )
    for receipt, count in receipts.items():
        if count > 1:
            yield "I26 one_place_each", f"{receipt}: {count}"


def _waits(
    books: Books, states: dict[str, Any], doubled: Collection[str]
) -> Iterator[tuple[str, str]]:
    """An entry that was served is a reservation of the same, and no other is."""
    lines = {line.rid: (line.sku, line.quantity) for line in books.lines}
    pending: Counter[tuple[str, str, str]] = Counter()
    for entry in books.waiting:
        head = states.get(entry.rid)
        served = head is not None and head.reason != "orphan"
        if served != (entry.state == "offered") and not (served and entry.rid in doubled):
            yield "I8 served_once", f"{entry.rid} is {entry.state}, reservation {head!r}"
        elif entry.state == "offered" and head is not None:
            kept = (head.viewer, head.drop, *lines[entry.rid])
            if kept != (entry.viewer, entry.drop, entry.sku, entry.quantity):
                yield "I8 what_was_waited_for", f"{entry.rid}: {kept}"
        if entry.state in PENDING:
            pending[entry.viewer, entry.drop, entry.sku] += 1
    for who, count in pending.items():
        if count > 1:
            yield "I9 waits_once", f"{who}: {count}"
