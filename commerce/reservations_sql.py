"""Reservations in the record: finding them, and moving them along their table.

Responsible for the state of a reservation and for everything a move drags along in the same
transaction: stock, the drop's units, the viewer's units, the ledger, the fact for the outbox. It
must not know the gate, the clock (time is an argument) or how a payment goes.

    held ──► paying ──► sold            paying ──► held      declined, time left
      │         └────► closing ──► sold                      the provider says it succeeded
      ├──► sold            └─────► expired | cancelled       the provider says it is dead
      └──► expired | cancelled

What is not drawn is refused. `paying` never expires by itself: as long as somebody can pay, the
unit is theirs, so it goes through `closing` and only the provider's final word frees it. Each move
is one UPDATE … WHERE state IN (…), and of two that collide the one that finds no row has lost.

Locks are taken in one order everywhere (reservations, coupons, viewers' units, drops' units, stock,
each sorted), so two transactions wait for each other but never both.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Row, and_, bindparam, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import coupons_sql, drain_sql
from commerce.bulk_sql import add_to_rows, in_texts, insert_rows, texts
from commerce.outbox_sql import SqlOutbox
from commerce.schema_sql import (
    reservation,
    sale_drop_line,
    sku_stock,
    stock_ledger,
    viewer_use,
)
from commerce.stock import HeldLine, Hold, HoldState, StockRow

MOVES: Final[Mapping[HoldState, frozenset[HoldState]]] = {
    HoldState.HELD: frozenset(
        {HoldState.PAYING, HoldState.SOLD, HoldState.EXPIRED, HoldState.CANCELLED}
    ),
    HoldState.PAYING: frozenset({HoldState.HELD, HoldState.CLOSING, HoldState.SOLD}),
    HoldState.CLOSING: frozenset({HoldState.SOLD, HoldState.EXPIRED, HoldState.CANCELLED}),
    HoldState.SOLD: frozenset(),
    HoldState.EXPIRED: frozenset(),
    HoldState.CANCELLED: frozenset(),
}
"""From each state to those it may become."""

OPEN_STATES: Final = tuple(state for state in HoldState if not state.over)
# Asked four times a second by every node, so it is made once.
_DUE: Final = (
    select(reservation.c.rid)
    .where(reservation.c.state == HoldState.HELD, reservation.c.until_ms <= bindparam("now"))
    .order_by(reservation.c.until_ms)
    .limit(bindparam("limit"))
)


async def find(conn: AsyncConnection, rid: str) -> Hold | None:
    """The reservation with its lines, or None."""
    return (await find_many(conn, [rid])).get(rid)


async def find_many(conn: AsyncConnection, rids: Iterable[str]) -> dict[str, Hold]:
    """The reservations that exist, by rid; two statements however many."""
    columns = (
        "r.rid, r.viewer, r.drop, d.show, r.state, r.until_ms, r.currency, r.total, r.epoch, r.n, "
        "r.lapses"
    )
    wanted = {"rids": texts(rids)}
    chosen = in_texts(conn, "r.rid", "rids")
    heads = await conn.execute(
        text(
            f"SELECT {_quoted(columns)} FROM reservation r "
            f'JOIN sale_drop d ON d.id = r."drop" WHERE {chosen}'
        ),
        wanted,
    )
    lines: defaultdict[str, list[HeldLine]] = defaultdict(list)
    found = heads.all()
    if found:
        rows = await conn.execute(
            text(
                "SELECT r.rid, r.sku, r.title, r.quantity, r.unit_amount "
                f"FROM reservation_line r WHERE {chosen} ORDER BY r.rid, r.position"
            ),
            wanted,
        )
        for rid, sku, title, quantity, unit_amount in rows:
            lines[rid].append(HeldLine(sku, title, quantity, unit_amount))
    return {row.rid: _hold(row, lines[row.rid]) for row in found}


async def open_of_viewer(conn: AsyncConnection, viewer: str) -> list[Hold]:
    """What a viewer holds and has not paid, oldest first."""
    wanted = (
        select(reservation.c.rid)
        .where(reservation.c.viewer == viewer, reservation.c.state.in_(OPEN_STATES))
        .order_by(reservation.c.created_at, reservation.c.rid)
        .limit(100)
    )
    rids = list((await conn.execute(wanted)).scalars())
    found = await find_many(conn, rids)
    return [found[rid] for rid in rids]


async def open_of_viewers(conn: AsyncConnection, viewers: Iterable[str]) -> dict[str, list[Hold]]:
    """The same for many viewers, oldest first; three statements however many, one if all hold none.

    Not bounded by a limit: what one viewer can hold is (`stock.OPEN_HOLDS_MAX`).
    """
    states = ", ".join(f"'{state.value}'" for state in OPEN_STATES)
    rows = await conn.execute(
        text(
            f"SELECT r.rid FROM reservation r WHERE {in_texts(conn, 'r.viewer', 'viewers')} "
            f"AND r.state IN ({states}) ORDER BY r.created_at, r.rid"
        ),
        {"viewers": texts(viewers)},
    )
    rids = list(rows.scalars())
    found = await find_many(conn, rids) if rids else {}
    by_viewer: defaultdict[str, list[Hold]] = defaultdict(list)
    for rid in rids:
        by_viewer[found[rid].viewer].append(found[rid])
    return dict(by_viewer)


async def due(conn: AsyncConnection, now: int, limit: int) -> list[str]:
    """Holds whose deadline has passed and that nobody is paying, longest ago first."""
    return list((await conn.execute(_DUE, {"now": now, "limit": limit})).scalars())


async def move(
    conn: AsyncConnection, rid: str, to: HoldState, now: int, *, reason: str | None = None
) -> Hold | None:
    """Moves one reservation; the hold as it is afterwards, or None when somebody else was faster.

    None also where the table of moves or the deadline says no: a hold begins payment before its
    deadline (`until_ms > now`) and expires out of `held` not before it. `now` in milliseconds.
    """
    return (await move_many(conn, [rid], to, now, reason=reason)).get(rid)


async def move_many(
    conn: AsyncConnection,
    rids: Sequence[str],
    to: HoldState,
    now: int,
    *,
    reason: str | None = None,
) -> dict[str, Hold]:
    """Moves those that can be moved; each SKU's row is touched once however many there are."""
    if not rids:
        return {}
    await _lock(conn, rids)
    changed = (
        update(reservation)
        .where(reservation.c.rid.in_(sorted(rids)), _may_become(to, now))
        .values(state=to.value, reason=reason, closed_at=now if to.over else None)
        .returning(reservation.c.rid)
    )
    moved = sorted((await conn.execute(changed)).scalars())
    holds = await find_many(conn, moved)
    if to.over:
        await _settle(conn, [holds[rid] for rid in moved], to, now)
    await SqlOutbox.add_many(conn, "hold", [(rid, fact_of(holds[rid])) for rid in moved], now)
    return holds


async def _lock(conn: AsyncConnection, rids: Sequence[str]) -> None:
    """Takes the rows in order of rid; an UPDATE … IN would take them in any order."""
    if len(rids) > 1 and conn.dialect.name == "postgresql":
        await conn.execute(
            select(reservation.c.rid)
            .where(reservation.c.rid.in_(sorted(rids)))
            .order_by(reservation.c.rid)
            .with_for_update()
        )


def _may_become(to: HoldState, now: int) -> Any:
    sources = [state for state, targets in MOVES.items() if to in targets]
    state, until_ms = reservation.c.state, reservation.c.until_ms
    if to is HoldState.PAYING:
        return and_(state == HoldState.HELD, until_ms > now)
    if to is HoldState.EXPIRED:
        return or_(state == HoldState.CLOSING, and_(state == HoldState.HELD, until_ms <= now))
    return state.in_([source.value for source in sources])


async def _settle(conn: AsyncConnection, holds: Sequence[Hold], to: HoldState, now: int) -> None:
    """A hold has ended: its units are sold, or everybody's again."""
    sold = to is HoldState.SOLD
    stock: defaultdict[str, int] = defaultdict(int)
    drops: defaultdict[tuple[str, str], int] = defaultdict(int)
    viewers: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    ledger: list[dict[str, object]] = []
    for hold in holds:
        for line in hold.lines:
            stock[line.sku] += line.quantity
            drops[hold.drop, line.sku] += line.quantity
            viewers[hold.drop, hold.viewer, line.sku] += line.quantity
            ledger.append(
                {
                    "sku": line.sku,
                    "kind": "commit" if sold else "release",
                    "d_on_hand": 0,
                    "d_held": -line.quantity,
                    "d_committed": line.quantity if sold else 0,
                    "ref": hold.rid,
                    "at": now,
                }
            )
    await insert_rows(conn, stock_ledger, ledger)
    await coupons_sql.settle(conn, [hold.rid for hold in holds], sold=sold)
    if not sold:
        await _give_back(conn, viewers, drops)
    for sku, units in sorted(stock.items()):
        row = sku_stock.c
        changed = await conn.execute(
            update(sku_stock)
            .where(row.sku == sku)
            .values(held=row.held - units, committed=row.committed + (units if sold else 0))
            .returning(row.sku, row.on_hand, row.held, row.committed, row.draining)
        )
        after = StockRow(*changed.one())
        if after.draining:
            await drain_sql.swallow(conn, after, holds, sold=sold, now=now)


async def _give_back(
    conn: AsyncConnection,
    viewers: Mapping[tuple[str, str, str], int],
    drops: Mapping[tuple[str, str], int],
) -> None:
    used = [
        {"drop": drop, "viewer": viewer, "sku": sku, "units": -units}
        for (drop, viewer, sku), units in sorted(viewers.items())
    ]
    taken = [
        {"drop": drop, "sku": sku, "taken": -units} for (drop, sku), units in sorted(drops.items())
    ]
    await add_to_rows(conn, viewer_use, used, key=("drop", "viewer", "sku"), column="units")
    await add_to_rows(conn, sale_drop_line, taken, key=("drop", "sku"), column="taken")


def fact_of(hold: Hold) -> dict[str, object]:
    """What the outbox tells of a hold: who, where and what it has become; nothing personal."""
    return {
        "rid": hold.rid,
        "viewer": hold.viewer,
        "show": hold.show,
        "drop": hold.drop,
        "state": hold.state.value,
    }


def _quoted(columns: str) -> str:
    """`drop` and `show` are words of SQL."""
    return columns.replace("r.drop", 'r."drop"').replace("d.show", 'd."show"')


def _hold(row: Row[Any], lines: Sequence[HeldLine]) -> Hold:
    return Hold(
        rid=row.rid,
        viewer=row.viewer,
        drop=row.drop,
        show=row.show,
        state=HoldState(row.state),
        until_ms=row.until_ms,
        lines=tuple(lines),
        currency=row.currency,
        total=row.total,
        receipt=(row.epoch, row.n),
        lapses=row.lapses,
    )
