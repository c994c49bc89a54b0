"""The record on PostgreSQL or SQLite: what is committed here is so.

Responsible for the transactions: what belongs into one, in which order, and how often it is
repeated. The statements stand in the modules it composes (`winners_sql`, `reservations_sql`,
`drops_sql`, `stock_sql`, `epochs_sql`, `image_sql`). It must not know the gate.

A win is written under the epoch of the gate that decided it: the epoch's row is share-locked, so a
rebuild waits for the batches under way and every later batch of the old epoch is Fenced.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import (
    claims_sql,
    drain_sql,
    drops_sql,
    epochs_sql,
    image_sql,
    reservations_sql,
    stock_sql,
    units_sql,
    waiting_sql,
    winners_sql,
)
from commerce.bulk_sql import insert_rows
from commerce.claims import numbered_alone
from commerce.crash_points import CrashHook, nothing
from commerce.database_sql import Database
from commerce.errors import HoldEnded, Unavailable, UnknownHold
from commerce.gate import Fenced, Image, Orphan
from commerce.grounds_sql import Grounds, read_grounds
from commerce.hold_rule import DEFAULT_RULE, HoldRule
from commerce.keep import Keep, keep_answer
from commerce.outbox_sql import SqlOutbox
from commerce.record import Epoch, Outcome, Price, Winner
from commerce.schema_sql import reservation, sale_drop, shop
from commerce.schema_sql import sku as sku_table
from commerce.stock import VERSION_BITS, Drop, Hold, HoldState, Level, Levels, StockRow

CANCEL_TRIES: Final = 3
WRITE_TRIES: Final = 2
"""A deadlock or a lost connection ends an attempt; by rid the next finds what that one did."""


class SqlRecord:
    """See `commerce.record.Record`. `crash_point` is called at named places, for drills."""

    def __init__(
        self,
        database: Database,
        *,
        crash_point: CrashHook = nothing,
        rule: HoldRule = DEFAULT_RULE,
    ) -> None:
        self._database = database
        self._crash_point = crash_point
        self._rule = rule

    async def epoch(self) -> Epoch:
        """See `Record.epoch`."""
        return await epochs_sql.read_epoch(self._database)

    async def next_epoch(self, seen: int, at_least: int) -> int | None:
        """See `Record.next_epoch`."""
        async with self._database.begin() as conn:
            return await epochs_sql.next_epoch(conn, seen, at_least)

    async def image(self, epoch: int, now: int) -> Image | None:
        """See `Record.image`."""
        async with self._database.read() as conn:
            return await image_sql.read_image(conn, epoch, now)

    async def prices(self, skus: Sequence[str]) -> dict[str, Price]:
        """See `Record.prices`."""
        row = sku_table.c
        wanted = select(row.sku, row.amount, row.currency).where(row.sku.in_(list(skus)))
        async with self._database.read() as conn:
            rows = await conn.execute(wanted)
            return {name: Price(amount, currency) for name, amount, currency in rows}

    async def hold(self, epoch: int, winners: Sequence[Winner], now: int) -> dict[str, Outcome]:
        """See `Record.hold`."""
        for attempt in range(1, WRITE_TRIES + 1):
            try:
                return await self._hold(epoch, winners, now)
            except Unavailable:
                if attempt == WRITE_TRIES:
                    raise
        raise AssertionError

    async def _hold(self, epoch: int, winners: Sequence[Winner], now: int) -> dict[str, Outcome]:
        async with self._database.begin_apart() as apart:
            outcomes = await apart.run_last(
                lambda conn: _write(conn, epoch, winners, now),
                lambda: self._crash_point("record:before_commit"),
            )
        self._crash_point("record:after_commit")
        return outcomes

    async def hold_without_gate(
        self, winners: Sequence[Winner], now: int
    ) -> tuple[dict[str, Outcome], Levels]:
        """See `Record.hold_without_gate`."""
        async with self._database.begin() as conn:
            epoch, n = await epochs_sql.count_without_gate(conn, len(winners) + 1)
            numbered = [
                replace(winner, n=n + place, until_ms=None)
                for place, winner in enumerate(winners, start=1)
            ]
            skus = {line.sku for winner in winners for line in winner.press.lines}
            waited_for = await waiting_sql.waited_for(conn, skus, now)
            grounds = await _grounds(conn, winners)
            outcomes = await winners_sql.write(
                conn, epoch, numbered, grounds, now, rule=self._rule, waited_for=waited_for
            )
            await claims_sql.keep(conn, numbered_alone(epoch, numbered, outcomes))
            version = epoch << VERSION_BITS | n + len(winners) + 1
            levels = await _levels(conn, sorted(skus), version, now)
            self._crash_point("record:before_commit")
        self._crash_point("record:after_commit")
        return outcomes, levels

    async def levels_without_gate(self, skus: Sequence[str] | None, now: int) -> Levels:
        """See `Record.levels_without_gate`."""
        async with self._database.begin() as conn:
            epoch, n = await epochs_sql.count_without_gate(conn, 1)
            return await _levels(conn, skus, epoch << VERSION_BITS | n + 1, now)

    async def find(self, rid: str) -> Hold | None:
        """See `Record.find`."""
        async with self._database.read() as conn:
            return await reservations_sql.find(conn, rid)

    async def find_many(self, rids: Sequence[str]) -> dict[str, tuple[str, Hold]]:
        """See `Record.find_many`."""
        row = reservation.c
        wanted = select(row.rid, row.fingerprint).where(row.rid.in_(list(rids)))
        async with self._database.read() as conn:
            known = dict((await conn.execute(wanted)).all())
            holds = await reservations_sql.find_many(conn, known) if known else {}
        return {rid: (known[rid], hold) for rid, hold in holds.items()}

    async def open_holds(self, viewer: str) -> list[Hold]:
        """See `Record.open_holds`."""
        async with self._database.read() as conn:
            return await reservations_sql.open_of_viewer(conn, viewer)

    async def open_holds_of(self, viewers: Sequence[str]) -> dict[str, list[Hold]]:
        """See `Record.open_holds_of`."""
        async with self._database.read() as conn:
            return await reservations_sql.open_of_viewers(conn, viewers)

    async def cancel(self, viewer: str, rid: str, now: int) -> Hold:
        """See `Record.cancel`. What is being paid becomes `closing`: the provider ends it."""
        for _attempt in range(CANCEL_TRIES):
            async with self._database.begin() as conn:
                # Under its lock: between looking and moving it could begin to be paid and closed,
                # and `closing` becomes `cancelled` by the provider's word alone.
                await units_sql.lock(conn, rid)
                hold = await reservations_sql.find(conn, rid)
                if hold is None or hold.viewer != viewer:
                    raise UnknownHold(rid)
                if hold.state is HoldState.SOLD:
                    raise HoldEnded(hold.state.value)
                if hold.state.over or hold.state is HoldState.CLOSING:
                    return hold
                held = hold.state is HoldState.HELD
                to = HoldState.CANCELLED if held else HoldState.CLOSING
                moved = await reservations_sql.move(conn, rid, to, now, reason="viewer")
                if moved is not None:
                    return moved
        raise Unavailable(100)  # it moved under our hands three times

    async def expire_due(self, now: int, limit: int) -> list[Hold]:
        """See `Record.expire_due`."""
        async with self._database.read() as conn:
            rids = await reservations_sql.due(conn, now, limit)
        if not rids:
            return []
        async with self._database.begin() as conn:
            moved = await reservations_sql.move_many(
                conn, rids, HoldState.EXPIRED, now, reason="deadline"
            )
            self._crash_point("sweep:before_commit")
        return list(moved.values())

    async def tombstone(self, orphans: Sequence[Orphan], now: int) -> dict[str, HoldState]:
        """See `Record.tombstone`. A slow writer of the same rid finds the row and gives up."""
        row = reservation.c
        rids = sorted({orphan.rid for orphan in orphans})
        async with self._database.begin() as conn:
            named = {orphan.drop for orphan in orphans}
            known = await conn.execute(select(sale_drop.c.id).where(sale_drop.c.id.in_(named)))
            drops = set(known.scalars())
            currency = (await conn.execute(select(shop.c.currency))).scalar() or "USD"
            rows = [
                _tombstone(orphan, currency, now)
                for orphan in sorted(orphans, key=lambda orphan: orphan.rid)
                if orphan.drop in drops
            ]
            states = select(row.rid, row.state).where(row.rid.in_(rids))
            before = {rid for rid, _state in (await conn.execute(states))}
            await insert_rows(conn, reservation, rows, tail="ON CONFLICT (rid) DO NOTHING")
            after = {rid: HoldState(state) for rid, state in (await conn.execute(states))}
            holds = await reservations_sql.find_many(conn, after.keys() - before)
            facts = [(rid, reservations_sql.fact_of(hold)) for rid, hold in holds.items()]
            await SqlOutbox.add_many(conn, "hold", facts, now)
            self._crash_point("reap:before_commit")
        return after

    async def adjust(
        self,
        sku: str,
        delta: int,
        *,
        ref: str,
        kind: str,
        now: int,
        keep: Keep[StockRow] | None = None,
    ) -> StockRow:
        """See `Record.adjust`."""
        async with self._database.begin() as conn:
            row = await stock_sql.adjust(conn, sku, delta, ref=ref, kind=kind, now=now)
            return await keep_answer(keep, conn, row)

    async def set_on_hand(
        self,
        sku: str,
        to: int,
        expected: int,
        *,
        drain: bool,
        ref: str,
        now: int,
        keep: Keep[StockRow] | None = None,
    ) -> StockRow:
        """See `Record.set_on_hand`."""
        async with self._database.begin() as conn:
            row = await drain_sql.set_on_hand(
                conn, sku, to, expected, drain=drain, ref=ref, now=now
            )
            return await keep_answer(keep, conn, row)

    async def cancel_drain(
        self, sku: str, *, ref: str, now: int, keep: Keep[StockRow] | None = None
    ) -> StockRow:
        """See `Record.cancel_drain`."""
        async with self._database.begin() as conn:
            row = await drain_sql.cancel_drain(conn, sku, ref=ref, now=now)
            return await keep_answer(keep, conn, row)

    async def stock_rows(self, skus: Sequence[str]) -> dict[str, StockRow]:
        """See `Record.stock_rows`."""
        async with self._database.read() as conn:
            return await stock_sql.stock_rows(conn, list(skus))

    async def open_drop(self, drop: Drop, now: int) -> None:
        """See `Record.open_drop`."""
        async with self._database.begin() as conn:
            await drops_sql.open_drop(conn, drop, now)

    async def close_drop(self, drop: str, now: int) -> Drop:
        """See `Record.close_drop`."""
        async with self._database.begin() as conn:
            return await drops_sql.close_drop(conn, drop, now)

    async def drops(self, show: str, now: int, *, open_only: bool) -> list[Drop]:
        """See `Record.drops`."""
        async with self._database.read() as conn:
            found = await drops_sql.drops_where(conn, sale_drop.c.show == show)
        return [row.drop for row in found if not (open_only and row.over(now))]

    async def left(self, drop: str) -> Mapping[str, int]:
        """See `Record.left`."""
        async with self._database.read() as conn:
            left = await drops_sql.left_of(conn, drop)
            waited_for = await waiting_sql.waited_for(conn, left, 0)
        return {sku: 0 if (drop, sku) in waited_for else units for sku, units in left.items()}


async def _write(
    conn: AsyncConnection, epoch: int, winners: Sequence[Winner], now: int
) -> dict[str, Outcome]:
    grounds = await _grounds(conn, winners)
    if grounds.epoch != epoch:
        raise Fenced
    return await winners_sql.write(conn, epoch, winners, grounds, now)


async def _grounds(conn: AsyncConnection, winners: Sequence[Winner]) -> Grounds:
    drops = {winner.press.drop for winner in winners}
    return await read_grounds(conn, drops, {winner.press.viewer for winner in winners})


async def _levels(
    conn: AsyncConnection, skus: Sequence[str] | None, version: int, now: int
) -> Levels:
    """Levels by SQL: what is free, at most what the open drop may still sell."""
    caps: dict[str, int | None] = {}
    for found in await drops_sql.drops_where(conn, drops_sql.not_over(now)):
        for sku, (units, taken) in found.units.items():
            caps[sku] = None if units is None else units - taken
    wanted = list(caps) if skus is None else list(skus)
    waited_for = {sku for _drop, sku in await waiting_sql.waited_for(conn, wanted, now)}
    levels = {}
    for sku, row in (await stock_sql.stock_rows(conn, wanted)).items():
        cap = caps.get(sku)
        units = row.available if cap is None else min(row.available, cap)
        if sku in waited_for:
            units = 0  # whatever is free is theirs, as soon as there is a gate again
        levels[sku] = Level(max(units, 0), version)
    return levels


def _tombstone(orphan: Orphan, currency: str, now: int) -> dict[str, object]:
    return {
        "rid": orphan.rid,
        "viewer": orphan.viewer,
        "drop": orphan.drop,
        "fingerprint": orphan.fingerprint,
        "state": HoldState.CANCELLED.value,
        "until_ms": orphan.until_ms,
        "epoch": orphan.epoch,
        "n": orphan.n,
        "currency": currency,
        "total": 0,
        "created_at": orphan.at,
        "closed_at": now,
        "reason": "orphan",
    }
