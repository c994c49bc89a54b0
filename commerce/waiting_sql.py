"""The wait list in the record: one row per entry, which moves once.

Responsible for joining under the drop's lock (so no entry slips into a drop that is closing), for
the transaction that turns an entry into a hold, and for ending lists. It must not know the gate's
engine. Order of locks: epoch, drop, entries, then those of `winners_sql`.

Entries are served by (place, or n where no lot was drawn): n is counted by the database, so the
order is that of the inserts, and all nodes see the same.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, bindparam, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import raffle_sql, reservations_sql, winners_sql
from commerce.crash_points import CrashHook, nothing
from commerce.database_sql import Database
from commerce.drops_sql import DropRow, drops_where, not_over
from commerce.errors import (
    AlreadyWaiting,
    DropClosed,
    DropNotOpen,
    InRaffle,
    LimitReached,
    RidConflict,
    SoldOut,
    UnknownDrop,
    UnknownSku,
    UnknownWait,
)
from commerce.gate import Fenced, Offer
from commerce.gate import Waiting as Queued
from commerce.grounds_sql import Grounds, read_grounds
from commerce.outbox_sql import SqlOutbox
from commerce.raffle import Draw
from commerce.record import Outcome, Winner
from commerce.reservations_sql import OPEN_STATES
from commerce.schema_sql import (
    reservation,
    reservation_line,
    sale_drop,
    sale_drop_line,
    sku_stock,
    viewer_use,
    waiting,
)
from commerce.stock import Drop, Hold, StockRow
from commerce.stock_sql import stock_rows
from commerce.waiting import Wait, Waiter, WaitState, press_of

PENDING: Final = (WaitState.ENTERED.value, WaitState.WAITING.value)
"""States that can still move."""
_ORDER: Final = func.coalesce(waiting.c.place, waiting.c.n)
_COLUMNS: Final = (
    waiting.c.rid, waiting.c.viewer, waiting.c.drop, sale_drop.c.show, waiting.c.sku,
    waiting.c.quantity, waiting.c.fingerprint, waiting.c.state, _ORDER.label("turn"),
)  # fmt: skip
# Asked every second by every node, so it is made once.
_OVER: Final = (
    select(waiting.c.rid)
    .join(sale_drop, sale_drop.c.id == waiting.c.drop)
    .where(waiting.c.state.in_(PENDING), ~not_over(bindparam("now")))
    .limit(bindparam("limit"))
)


class SqlWaitlist:
    """See `commerce.waiting.WaitRecord`."""

    def __init__(self, database: Database, *, crash_point: CrashHook = nothing) -> None:
        self._database = database
        self._crash_point = crash_point

    async def join(self, wait: Wait, mark: str, now: int) -> Waiter:
        """See `WaitRecord.join`."""
        try:
            await self._join(wait, mark, now)
        except IntegrityError:  # another node wrote the same in this instant: now it is found
            await self._join(wait, mark, now)
        async with self._database.read() as conn:
            known = await _find(conn, wait.rid)
            if known is None or known.fingerprint != mark:
                raise RidConflict
            return await _waiter(conn, known)

    async def _join(self, wait: Wait, mark: str, now: int) -> None:
        async with self._database.begin() as conn:
            if await _find(conn, wait.rid) is None:
                await join_list(conn, wait, mark, now)
                self._crash_point("wait:before_commit")

    async def leave(self, viewer: str, rid: str, now: int) -> Waiter:
        """See `WaitRecord.leave`."""
        async with self._database.begin() as conn:
            known = await _find(conn, rid)
            if known is None or known.viewer != viewer:
                raise UnknownWait
            await end(conn, [rid], WaitState.LEFT, now, tell=False)
            known = await _find(conn, rid)
            assert known is not None
            return await _waiter(conn, known)

    async def of_viewers(self, viewers: Sequence[str]) -> dict[str, list[Waiter]]:
        """See `WaitRecord.of_viewers`."""
        found: defaultdict[str, list[Waiter]] = defaultdict(list)
        wanted = and_(waiting.c.viewer.in_(list(viewers)), waiting.c.state.in_(PENDING))
        async with self._database.read() as conn:
            for row in await _rows(conn, wanted):
                found[row.viewer].append(await _waiter(conn, row))
        return dict(found)

    async def counts(self, skus: Sequence[str]) -> dict[str, int]:
        """See `WaitRecord.counts`."""
        wanted = (
            select(waiting.c.sku, func.count())
            .where(waiting.c.sku.in_(list(skus)), waiting.c.state.in_(PENDING))
            .group_by(waiting.c.sku)
        )
        async with self._database.read() as conn:
            return dict((await conn.execute(wanted)).all())

    async def offer(self, epoch: int, offers: Sequence[Offer], now: int) -> dict[str, Outcome]:
        """See `WaitRecord.offer`."""
        async with self._database.begin() as conn:
            drops = {offer.drop for offer in offers}
            grounds = await read_grounds(conn, drops, {offer.viewer for offer in offers})
            if grounds.epoch != epoch:
                raise Fenced
            rids = [offer.rid for offer in offers]
            rows = await _rows(conn, waiting.c.rid.in_(rids), lock=True)
            theirs = {row.rid: row for row in rows if row.state == WaitState.WAITING}
            served = sorted((one for one in offers if one.n), key=lambda one: one.n)
            winners = [_winner(one, now) for one in served if one.rid in theirs]
            outcomes = await _write_in_order(conn, epoch, winners, grounds, now)
            # Who was passed over too: the rid may have been pressed, and is a reservation then.
            rest = [rid for rid in rids if rid not in outcomes]
            outcomes |= await reservations_sql.find_many(conn, rest) if rest else {}
            for offer in offers:
                if offer.rid not in outcomes:
                    passed = not offer.n and offer.rid in theirs
                    outcomes[offer.rid] = LimitReached(offer.sku, 0) if passed else UnknownWait()
            await _settle(conn, theirs, outcomes, now)
            self._crash_point("offer:before_commit")
        return outcomes

    async def draw_due(self, now: int) -> list[Drop]:
        """See `WaitRecord.draw_due`."""
        return await raffle_sql.draw_due(self._database, now)

    async def draw(self, drop: str) -> Draw:
        """A raffle, for whoever wants to check it. Raises UnknownDrop, Unavailable."""
        return await raffle_sql.read_draw(self._database, drop)

    async def end_lists(self, now: int, limit: int) -> list[str]:
        """See `WaitRecord.end_lists`."""
        async with self._database.read() as conn:
            closed = list((await conn.execute(_OVER, {"now": now, "limit": limit})).scalars())
            hopeless = [] if closed else await _hopeless(conn, limit)
        if not closed and not hopeless:
            return []
        async with self._database.begin() as conn:
            await end(conn, closed, WaitState.CLOSED, now)
            await end(conn, hopeless, WaitState.PASSED, now)
        return closed + hopeless


async def join_list(conn: AsyncConnection, wait: Wait, mark: str, now: int) -> None:
    """Adds the entry if this viewer may wait for so many; nobody else can close the drop meanwhile.

    Raises what `Waitlist.join` does.
    """
    found = await drops_where(conn, sale_drop.c.id == wait.drop, lock=True)
    if not found:
        raise UnknownDrop(wait.drop)
    drop = found[0].drop
    if found[0].over(now):
        raise DropClosed
    if now < drop.opens_at:
        raise DropNotOpen(drop.opens_at, drop.opens_at - now)
    if wait.sku not in found[0].units:
        raise UnknownSku(wait.sku)
    if drop.undrawn is not None and now >= drop.undrawn.draws_at:
        raise InRaffle  # entries are closed, and the draw comes in a moment
    await _check_limits(conn, wait, found[0])
    state = WaitState.WAITING if drop.undrawn is None else WaitState.ENTERED
    same = and_(
        waiting.c.drop == wait.drop,
        waiting.c.sku == wait.sku,
        waiting.c.viewer == wait.viewer,
        waiting.c.state.in_(PENDING),
    )
    for row in await _rows(conn, same):
        raise AlreadyWaiting(row.rid)
    await conn.execute(
        waiting.insert().values(
            rid=wait.rid,
            drop=wait.drop,
            sku=wait.sku,
            viewer=wait.viewer,
            quantity=wait.quantity,
            fingerprint=mark,
            state=state.value,
            created_at=now,
        )
    )
    entry = await _find(conn, wait.rid)
    assert entry is not None
    if state is WaitState.WAITING:
        await _tell(conn, [entry], WaitState.WAITING, now, tell=False)


async def _check_limits(conn: AsyncConnection, wait: Wait, found: DropRow) -> None:
    limit = found.drop.per_viewer
    if limit is not None:
        use = viewer_use.c
        wanted = select(use.units).where(
            use.drop == wait.drop, use.viewer == wait.viewer, use.sku == wait.sku
        )
        used = (await conn.execute(wanted)).scalar() or 0
        if used + wait.quantity > limit:
            raise LimitReached(wait.sku, limit)
    row = (await stock_rows(conn, [wait.sku]))[wait.sku]
    can_come = await _can_come(conn, wait.drop, row, found.units[wait.sku])
    if wait.quantity > can_come:
        raise SoldOut(wait.sku, can_come)


async def _can_come(
    conn: AsyncConnection, drop: str, row: StockRow, line: tuple[int | None, int]
) -> int:
    """Units that are free or may come back: all that are not sold."""
    units, taken = line
    if units is None:
        return row.on_hand - row.committed - row.draining
    held = (
        select(func.sum(reservation_line.c.quantity))
        .join(reservation, reservation.c.rid == reservation_line.c.rid)
        .where(
            reservation.c.drop == drop,
            reservation.c.state.in_(OPEN_STATES),
            reservation_line.c.sku == row.sku,
        )
    )
    open_units = int((await conn.execute(held)).scalar() or 0)
    return min(row.on_hand - row.committed - row.draining, units - taken + open_units)


async def _hopeless(conn: AsyncConnection, limit: int) -> list[str]:
    """Entries that ask for more than can ever come: the rest was sold meanwhile."""
    line = sale_drop_line.c
    most = (
        select(waiting.c.drop, waiting.c.sku, func.max(waiting.c.quantity).label("most"))
        .where(waiting.c.state == WaitState.WAITING)
        .group_by(waiting.c.drop, waiting.c.sku)
        .subquery()
    )
    lists = await conn.execute(
        select(
            most.c.drop, most.c.sku, most.c.most, line.units, line.taken,
            sku_stock.c.on_hand, sku_stock.c.held, sku_stock.c.committed, sku_stock.c.draining,
        )
        .join(sale_drop_line, and_(line.drop == most.c.drop, line.sku == most.c.sku))
        .join(sku_stock, sku_stock.c.sku == most.c.sku)
    )  # fmt: skip
    found: list[str] = []
    for drop, sku, most_asked, units, taken, *numbers in lists.all():
        can_come = await _can_come(conn, drop, StockRow(sku, *numbers), (units, taken))
        if can_come < most_asked:
            wanted = select(waiting.c.rid).where(
                waiting.c.drop == drop,
                waiting.c.sku == sku,
                waiting.c.state == WaitState.WAITING,
                waiting.c.quantity > can_come,
            )
            found += (await conn.execute(wanted.limit(limit))).scalars()
    return found[:limit]


async def queued(conn: AsyncConnection, drops: Iterable[str]) -> list[Queued]:
    """Who waits in these drops, for an image of the gate."""
    wanted = and_(waiting.c.drop.in_(list(drops)), waiting.c.state == WaitState.WAITING)
    return [_queued(row) for row in await _rows(conn, wanted)]


async def waited_for(conn: AsyncConnection, skus: Iterable[str], now: int) -> set[tuple[str, str]]:
    """(drop, SKU) of open drops for which somebody waits, of those SKUs."""
    wanted = (
        select(waiting.c.drop, waiting.c.sku)
        .join(sale_drop, sale_drop.c.id == waiting.c.drop)
        .where(waiting.c.sku.in_(list(skus)), waiting.c.state == WaitState.WAITING, not_over(now))
        .distinct()
    )
    return {(drop, sku) for drop, sku in (await conn.execute(wanted))}


async def end(
    conn: AsyncConnection, rids: Sequence[str], state: WaitState, now: int, *, tell: bool = True
) -> None:
    """Ends those that still wait; each of them is told to the gate, and by `tell` to its viewer."""
    if not rids:
        return
    rows = await _rows(
        conn, and_(waiting.c.rid.in_(list(rids)), waiting.c.state.in_(PENDING)), lock=True
    )
    moved = [row.rid for row in rows]
    await conn.execute(
        update(waiting).where(waiting.c.rid.in_(moved)).values(state=state.value, closed_at=now)
    )
    await _tell(conn, rows, state, now, tell=tell)


class _Overtaken(Exception):
    """Takes back what was written."""

    def __init__(self, late: dict[str, Outcome]) -> None:
        super().__init__()
        self.late = late


async def _write_in_order(
    conn: AsyncConnection, epoch: int, winners: Sequence[Winner], grounds: Grounds, now: int
) -> dict[str, Outcome]:
    """Writes offers in the order of `winners`; nobody has what one before them did not get.

    The record has less than the gate when stock was lowered in between. Who stood first may have
    asked for two of one unit, and the next for one. They wait on, both, for a gate that knows.
    """
    barred: dict[str, Outcome] = {}
    while True:
        rest = [winner for winner in winners if winner.press.rid not in barred]
        if not rest:
            return barred
        try:
            async with conn.begin_nested():
                outcomes = await winners_sql.write(conn, epoch, rest, grounds, now)
                if late := _overtaking(rest, outcomes):
                    raise _Overtaken(late)
        except _Overtaken as overtaken:
            barred |= overtaken.late
        else:
            return outcomes | barred


def _overtaking(winners: Sequence[Winner], outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """Those who would have a hold behind one of their list for whom there was not enough."""
    short: set[tuple[str, str]] = set()
    late: dict[str, Outcome] = {}
    for winner in winners:
        line, rid = winner.press.lines[0], winner.press.rid
        if isinstance(outcomes[rid], SoldOut):
            short.add((winner.press.drop, line.sku))
        elif isinstance(outcomes[rid], Hold) and (winner.press.drop, line.sku) in short:
            late[rid] = SoldOut(line.sku, 0)
    return late


async def _settle(
    conn: AsyncConnection, theirs: dict[str, Row[Any]], outcomes: dict[str, Outcome], now: int
) -> None:
    """The entries after their turn: offered, passed over, or still waiting for a better gate."""
    held = {
        rid: one
        for rid, one in outcomes.items()
        if rid in theirs and isinstance(one, Hold) and _is_of(one, theirs[rid])
    }
    await end(conn, list(held), WaitState.OFFERED, now)
    facts = [(rid, reservations_sql.fact_of(hold)) for rid, hold in held.items()]
    await SqlOutbox.add_many(conn, "hold", facts, now)
    passed = [rid for rid in theirs.keys() - held.keys() if not isinstance(outcomes[rid], SoldOut)]
    await end(conn, passed, WaitState.PASSED, now)


def _is_of(hold: Hold, entry: Row[Any]) -> bool:
    """Whether it is what the entry waited for; the rid may have been pressed for something else."""
    lines = [(line.sku, line.quantity) for line in hold.lines]
    return (hold.viewer, hold.drop, lines) == (
        entry.viewer, entry.drop, [(entry.sku, entry.quantity)],
    )  # fmt: skip


async def _tell(
    conn: AsyncConnection, rows: Sequence[Row[Any]], state: WaitState, now: int, *, tell: bool
) -> None:
    facts = [
        (
            row.rid,
            {
                "rid": row.rid,
                "viewer": row.viewer,
                "show": row.show,
                "drop": row.drop,
                "sku": row.sku,
                "quantity": row.quantity,
                "fingerprint": row.fingerprint,
                "place": row.turn,
                "state": state.value,
            },
        )
        for row in rows
    ]
    await SqlOutbox.add_many(conn, "wait", facts, now, tell=tell)


def _winner(offer: Offer, now: int) -> Winner:
    """The hold begins when it is told, so an offer that was slow to become durable is as long."""
    length_ms = offer.until_ms - offer.at
    return Winner(
        press_of(offer),
        offer.fingerprint,
        offer.n,
        offer.at,
        now + length_ms,
        lapses=offer.lapses,
    )


async def _rows(
    conn: AsyncConnection, condition: ColumnElement[bool], *, lock: bool = False
) -> list[Row[Any]]:
    wanted = (
        select(*_COLUMNS)
        .join(sale_drop, sale_drop.c.id == waiting.c.drop)
        .where(condition)
        .order_by(waiting.c.n)
    )
    return list(await conn.execute(wanted.with_for_update(of=waiting) if lock else wanted))


async def _find(conn: AsyncConnection, rid: str) -> Row[Any] | None:
    return next(iter(await _rows(conn, waiting.c.rid == rid)), None)


async def _waiter(conn: AsyncConnection, row: Row[Any]) -> Waiter:
    state = WaitState(row.state)
    position = 0
    if state is WaitState.WAITING:
        before = select(func.count()).where(
            waiting.c.drop == row.drop,
            waiting.c.sku == row.sku,
            waiting.c.state == WaitState.WAITING,
            row.turn > _ORDER,
        )
        position = 1 + int((await conn.execute(before)).scalar() or 0)
    return Waiter(
        row.rid, row.viewer, row.drop, row.show, row.sku, row.quantity, state, position,
        _queued(row),
    )  # fmt: skip


def _queued(row: Row[Any]) -> Queued:
    return Queued(row.rid, row.fingerprint, row.viewer, row.drop, row.sku, row.quantity, row.turn)
