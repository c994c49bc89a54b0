"""Making wins durable: a batch of presses in one transaction, one hot-row update per SKU.

Responsible for writing a batch of reservations with prices and titles as they are now, and for
judging each press again by SQL's own conditions. It must not know the gate or the epoch.

Why so: a winner per transaction queues 16 connections at one row (1,121 a second were measured); a
batch updates that row once. The gate has judged, so a batch nearly always fits as a whole. When it
does not (a stale gate gave out too much, the same press came by two nodes), it is undone to its
savepoint and done again: without the rids that were written meanwhile, and if that was not it, one
by one, and only those that do not fit are refused.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.bulk_sql import Step, add_steps, in_texts, insert_steps, run_steps, texts
from commerce.drops_sql import DropRow, drops_where
from commerce.errors import (
    BadCurrency,
    DropClosed,
    DropNotOpen,
    HoldsLimited,
    InRaffle,
    LimitReached,
    PriceChanged,
    Refused,
    RidConflict,
    SoldOut,
    UnknownDrop,
    UnknownSku,
)
from commerce.grounds_sql import Grounds
from commerce.hold_rule import Allowance, HoldRule
from commerce.lapses_sql import lapses_of
from commerce.money_schema_sql import hold_promise
from commerce.record import Outcome, Winner
from commerce.reservations_sql import find_many
from commerce.schema_sql import (
    reservation,
    reservation_line,
    sale_drop,
    sale_drop_line,
    sku_stock,
    stock_ledger,
    viewer_use,
)
from commerce.stock import OPEN_HOLDS_MAX, Drop, HeldLine, Hold, HoldState

PRICE_SOURCE: Final = "list"
"""Where a hold's price comes from: the catalogue. A discount is a step of its own."""
BATCH_TRIES: Final = 2
"""One by one, 512 winners took 40 s on a busy machine, and all others waited for them."""

_WITHIN_LIMIT: Final = (
    'ON CONFLICT ("drop", viewer, sku) DO UPDATE SET units = viewer_use.units + excluded.units '
    "WHERE viewer_use.units + excluded.units <= "
    'COALESCE((SELECT d.per_viewer FROM sale_drop d WHERE d.id = excluded."drop"), 1000000000)'
)
_OVER_UNITS: Final = "t.units IS NOT NULL AND t.taken + x.taken > t.units"
_SAVE: Final = Step(text("SAVEPOINT winners"), counted=False)
_UNDO: Final = Step(text("ROLLBACK TO SAVEPOINT winners"), counted=False)
_OVER_STOCK: Final = "t.held + t.committed + t.draining + x.held > t.on_hand"


class _Short(Exception):
    """The batch does not fit; `what` of it: rid, limit, units or stock."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


async def write(
    conn: AsyncConnection,
    epoch: int,
    winners: Sequence[Winner],
    grounds: Grounds,
    now: int,
    *,
    rule: HoldRule | None = None,
    waited_for: Collection[tuple[str, str]] = (),
) -> dict[str, Outcome]:
    """Writes those that fit, in the caller's transaction; by rid the hold or the refusal.

    A rid that is there already is answered with the hold as it stands, and another fingerprint
    with RidConflict. `now`: milliseconds, when it is written; opening and close were judged by the
    time the press was decided (`Winner.at`). For presses that met no gate, which would have known:
    `rule` limits those whose holds lapse, and `waited_for` are the (drop, SKU) that are sold out
    for them because somebody waits.
    """
    viewers = {winner.press.viewer for winner in winners}
    lapses = await lapses_of(conn, viewers, now - rule.window_ms) if rule else {}

    def judge(known: Mapping[str, Outcome]) -> tuple[dict[str, Outcome], list[tuple[Winner, Hold]]]:
        outcomes, open_holds = dict(known), Counter(grounds.open_holds)
        fitting: dict[str, tuple[Winner, Hold]] = {}
        for winner in winners:
            rid = winner.press.rid
            if rid in outcomes or rid in fitting:
                continue
            if (name := _waited(winner, waited_for)) is not None:
                outcomes[rid] = SoldOut(name, 0)
                continue
            hold = _judge(winner, epoch, grounds, open_holds)
            if rule is not None and isinstance(hold, Hold):
                allowed = rule.allowance(lapses.get(hold.viewer, ()), winner.at)
                hold_s = grounds.drops[hold.drop].drop.hold_s
                hold = _allowed(hold, allowed, hold_s, winner.at, open_holds)
            if isinstance(hold, Refused):
                outcomes[rid] = hold
            else:
                fitting[rid] = (winner, hold)
        return outcomes, list(fitting.values())

    outcomes, fitting = judge({})
    # Nearly never is a rid there already. The insert finds out; who is refused is looked up first.
    if outcomes and (known := await _existing(conn, winners)):
        outcomes, fitting = judge(known)
    if fitting:
        outcomes |= await _insert_fitting(conn, fitting, grounds.drops, now)
    return outcomes


def _waited(winner: Winner, waited_for: Collection[tuple[str, str]]) -> str | None:
    if waited_for:
        for line in winner.press.lines:
            if (winner.press.drop, line.sku) in waited_for:
                return line.sku
    return None


async def _existing(conn: AsyncConnection, winners: Sequence[Winner]) -> dict[str, Outcome]:
    """What the record says to rids that it knows."""
    wanted = {winner.press.rid: winner.fingerprint for winner in winners}
    chosen = in_texts(conn, "rid", "rids")
    rows = await conn.execute(
        text(f"SELECT rid, fingerprint FROM reservation WHERE {chosen}"), {"rids": texts(wanted)}
    )
    known: dict[str, str] = {row.rid: row.fingerprint for row in rows}
    if not known:
        return {}
    holds = await find_many(conn, known)
    return {
        rid: holds[rid] if wanted[rid] == fingerprint else RidConflict()
        for rid, fingerprint in known.items()
    }


def _judge(
    winner: Winner, epoch: int, grounds: Grounds, open_holds: Counter[str]
) -> Hold | Refused:
    """The conditions that need no lock on stock; counts the hold if it passes."""
    press = winner.press
    found, priced = grounds.drops.get(press.drop), grounds.priced
    if found is None:
        return UnknownDrop(press.drop)
    drop = found.drop
    if _closed(drop.closes_at, winner.at) or _closed(drop.closed_at, winner.at):
        return DropClosed()
    if drop.undrawn is not None:
        return InRaffle()
    if winner.at < drop.opens_at:
        return DropNotOpen(drop.opens_at, drop.opens_at - winner.at)
    lines = []
    for line in press.lines:
        known = priced.get(line.sku)
        if known is None or line.sku not in found.units:
            return UnknownSku(line.sku)
        if drop.per_viewer is not None and line.quantity > drop.per_viewer:
            return LimitReached(line.sku, drop.per_viewer)
        lines.append(HeldLine(line.sku, known.title, line.quantity, known.amount))
    currencies = {priced[line.sku].currency for line in press.lines}
    if len(currencies) != 1:
        return BadCurrency()
    total = sum(line.unit_amount * line.quantity for line in lines)
    if press.total is not None and press.total != total:
        return PriceChanged(total)
    if open_holds[press.viewer] >= OPEN_HOLDS_MAX:
        return LimitReached(None, OPEN_HOLDS_MAX)
    open_holds[press.viewer] += 1
    until_ms = winner.until_ms if winner.until_ms is not None else winner.at + drop.hold_s * 1000
    return Hold(
        rid=press.rid,
        viewer=press.viewer,
        drop=drop.id,
        show=drop.show,
        state=HoldState.HELD,
        until_ms=until_ms,
        lines=tuple(lines),
        currency=currencies.pop(),
        total=total,
        receipt=(epoch, winner.n),
        lapses=winner.lapses,
    )


def _allowed(
    hold: Hold, allowed: Allowance, hold_s: int, at: int, open_holds: Counter[str]
) -> Hold | HoldsLimited:
    """The rule for lapses, applied to a hold that would be given otherwise."""
    if allowed.until_ms is not None and open_holds[hold.viewer] > allowed.holds:
        open_holds[hold.viewer] -= 1
        return HoldsLimited(allowed.holds, allowed.until_ms)
    lapses = 0 if allowed.until_ms is None else allowed.lapses
    return replace(hold, until_ms=at + allowed.hold_ms(hold_s * 1000), lapses=lapses)


def _closed(at: int | None, pressed_at: int) -> bool:
    return at is not None and pressed_at >= at


async def _insert_fitting(
    conn: AsyncConnection,
    fitting: Sequence[tuple[Winner, Hold]],
    drops: Mapping[str, DropRow],
    now: int,
) -> dict[str, Outcome]:
    """All at once, or without those whose rid was written meanwhile, or else one by one."""
    outcomes: dict[str, Outcome] = {}
    for _try in range(BATCH_TRIES):
        if len(fitting) <= 1:
            break
        try:
            await _insert(conn, fitting, drops, now, alone=True)
        except _Short as short:
            if short.what != "rid":
                break
            outcomes |= await _existing(conn, [winner for winner, _hold in fitting])
            fitting = [pair for pair in fitting if pair[1].rid not in outcomes]
        else:
            return outcomes | {hold.rid: hold for _winner, hold in fitting}
    for winner, hold in fitting:
        try:
            async with conn.begin_nested():
                await _insert(conn, [(winner, hold)], drops, now)
        except _Short as short:
            outcomes[hold.rid] = await _why(conn, winner, drops[hold.drop], short.what)
        else:
            outcomes[hold.rid] = hold
    return outcomes


async def _insert(
    conn: AsyncConnection,
    fitting: Sequence[tuple[Winner, Hold]],
    drops: Mapping[str, DropRow],
    now: int,
    *,
    alone: bool = False,
) -> None:
    """Rows in one order of locks: reservations, viewers' units, drops' units, stock.

    All statements are handed over before the first count is looked at. What does not fit raises
    _Short; `alone`, it has taken everything back, else its caller does.
    """
    fitting = sorted(fitting, key=lambda pair: pair[1].rid)
    heads = [_head(winner, hold) for winner, hold in fitting]
    lines: list[dict[str, object]] = []
    ledger: list[dict[str, object]] = []
    for _winner, hold in fitting:
        for position, line in enumerate(hold.lines):
            lines.append(
                {
                    "rid": hold.rid,
                    "sku": line.sku,
                    "position": position,
                    "title": line.title,
                    "quantity": line.quantity,
                    "unit_amount": line.unit_amount,
                }
            )
            ledger.append(
                {
                    "sku": line.sku,
                    "kind": "hold",
                    "d_on_hand": 0,
                    "d_held": line.quantity,
                    "d_committed": 0,
                    "ref": hold.rid,
                    "at": now,
                }
            )
    # Of a rid that is there already the rest is there too; each count would tell.
    promises = _promises(fitting)
    plan: list[tuple[str, int, list[Step]]] = [
        ("rid", len(rows), insert_steps(conn, table, rows, tail="ON CONFLICT DO NOTHING"))
        for table, rows in (
            (reservation, heads),
            (reservation_line, lines),
            (stock_ledger, ledger),
            (hold_promise, promises),
        )
    ]
    plan += _sums(conn, [hold for _winner, hold in fitting], drops)
    steps = [step for _what, _least, part in plan for step in part]
    counts = iter(await run_steps(conn, [_SAVE, *steps] if alone else steps))
    for what, least, part in plan:
        if sum(next(counts) for step in part if step.counted) < least:
            if alone:
                await run_steps(conn, [_UNDO])
            raise _Short(what)


def _promises(fitting: Sequence[tuple[Winner, Hold]]) -> list[dict[str, object]]:
    """What the host was showing, beside the price (which stands in the lines)."""
    return [
        {
            "rid": hold.rid,
            "source": PRICE_SOURCE,
            "pinned": winner.press.promise.pinned,
            "pinned_at": winner.press.promise.pinned_at,
            "media_ms": winner.press.promise.media_ms,
        }
        for winner, hold in fitting
        if winner.press.promise is not None
    ]


def _sums(
    conn: AsyncConnection, holds: Sequence[Hold], drops: Mapping[str, DropRow]
) -> list[tuple[str, int, list[Step]]]:
    """The sums, each under its condition. A batch is summed before it is checked."""
    used: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    taken: defaultdict[tuple[str, str], int] = defaultdict(int)
    held: defaultdict[str, int] = defaultdict(int)
    for hold in holds:
        for line in hold.lines:
            used[hold.drop, hold.viewer, line.sku] += line.quantity
            taken[hold.drop, line.sku] += line.quantity
            held[line.sku] += line.quantity
    by_viewer = [
        {"drop": drop, "viewer": viewer, "sku": name, "units": units}
        for (drop, viewer, name), units in sorted(used.items())
    ]
    for (drop, _viewer, _name), units in used.items():
        limit = drops[drop].drop.per_viewer
        if limit is not None and units > limit:
            raise _Short("limit")  # a viewer's first row meets no condition in SQL
    by_drop = [
        {"drop": drop, "sku": name, "taken": units} for (drop, name), units in sorted(taken.items())
    ]
    by_sku = [{"sku": name, "held": units} for name, units in sorted(held.items())]
    of_drop = add_steps(
        conn, sale_drop_line, by_drop, key=("drop", "sku"), column="taken", unless=_OVER_UNITS
    )
    of_stock = add_steps(conn, sku_stock, by_sku, key=("sku",), column="held", unless=_OVER_STOCK)
    return [
        ("limit", len(by_viewer), insert_steps(conn, viewer_use, by_viewer, tail=_WITHIN_LIMIT)),
        ("units", len(by_drop), of_drop),
        ("stock", len(by_sku), of_stock),
    ]


def _head(winner: Winner, hold: Hold) -> dict[str, object]:
    epoch, n = hold.receipt
    return {
        "rid": hold.rid,
        "viewer": hold.viewer,
        "drop": hold.drop,
        "fingerprint": winner.fingerprint,
        "state": hold.state.value,
        "until_ms": hold.until_ms,
        "epoch": epoch,
        "n": n,
        "currency": hold.currency,
        "total": hold.total,
        "created_at": winner.at,
        "closed_at": None,
        "reason": None,
        "lapses": hold.lapses,
    }


async def _why(conn: AsyncConnection, winner: Winner, found: DropRow, what: str) -> Outcome:
    """A single press did not fit: which condition it was, with the numbers."""
    press = winner.press
    if what == "rid":
        return (await _existing(conn, [winner]))[press.rid]
    if what == "limit" and found.drop.per_viewer is not None:
        return LimitReached(await _over_limit(conn, winner, found.drop), found.drop.per_viewer)
    fresh = (await drops_where(conn, sale_drop.c.id == press.drop))[0]
    row = sku_stock.c
    rows = await conn.execute(
        select(row.sku, row.on_hand - row.held - row.committed - row.draining).where(
            row.sku.in_([line.sku for line in press.lines])
        )
    )
    free = dict(rows.all())
    for line in press.lines:
        units, taken = fresh.units[line.sku]
        available = free.get(line.sku, 0)
        left = available if units is None else min(available, units - taken)
        if left < line.quantity:
            return SoldOut(line.sku, max(left, 0))
    return SoldOut(press.lines[0].sku, 0)


async def _over_limit(conn: AsyncConnection, winner: Winner, drop: Drop) -> str:
    """The SKU of which the viewer has too many."""
    row = viewer_use.c
    rows = await conn.execute(
        select(row.sku, row.units).where(row.drop == drop.id, row.viewer == winner.press.viewer)
    )
    used = dict(rows.all())
    over = [
        line.sku
        for line in winner.press.lines
        if used.get(line.sku, 0) + line.quantity > (drop.per_viewer or 0)
    ]
    return over[0] if over else winner.press.lines[0].sku
