"""Claims in the record: storing them in bulk, and reading them back in their order.

Responsible for `claim` and `claim_flagged`. It must not judge the order (`claims_check`). Winners
have their numbers in `reservation` too, committed with the hold; a winner whose entry in the gate's
log was lost is read from there, so an export never lacks one.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from heapq import merge
from itertools import islice
from typing import Any, Final

import msgspec
from sqlalchemy import Row, and_, delete, exists, func, or_, select, text, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.bulk_sql import in_texts, insert_rows, texts
from commerce.claims import TURNS, WINS, Claim, Kept, Kind, Place
from commerce.database_sql import Database
from commerce.lapses_sql import lapses_since
from commerce.schema_sql import claim, claim_flagged, reservation
from commerce.stock import HoldState

ROWS_MAX: Final = 500
"""Rows per transaction: as long as a batch of winners waits for this, in the thread of both."""
PRUNE_MAX: Final = 2_000
OWN_MAX: Final = 20
"""Claims of one rid that are shown; a rid that is pressed on after a refusal gets a new one."""
_FLAGGED: Final = (
    'ON CONFLICT ("drop", source) DO UPDATE SET presses = excluded.presses, '
    "updated_at = excluded.updated_at WHERE excluded.presses > claim_flagged.presses"
)

_json = msgspec.json.Encoder()


async def keep(conn: AsyncConnection, claims: Sequence[Claim]) -> None:
    """Inserts them in the caller's transaction; numbers that are there stay as they are."""
    rows = [_row(kept) for kept in sorted(claims, key=lambda kept: (kept.epoch, kept.n))]
    await insert_rows(conn, claim, rows, tail="ON CONFLICT (epoch, n) DO NOTHING")


class SqlClaims:
    """See `commerce.claims.ClaimStore` and `commerce.claims.ClaimBook`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, claims: Sequence[Claim]) -> None:
        """See `ClaimStore.store`."""
        for start in range(0, len(claims), ROWS_MAX):
            piece = claims[start : start + ROWS_MAX]
            # Not on the loop: with a turn of 10 ms it held the one writer of SQLite for 300 ms.
            async with self._database.begin_apart() as apart:
                await apart.run_last(partial(keep, claims=piece))

    async def last(self, epoch: int) -> int | None:
        """See `ClaimStore.last`."""
        wanted = select(func.max(claim.c.n)).where(claim.c.epoch == epoch)
        async with self._database.read() as conn:
            found: int | None = (await conn.execute(wanted)).scalar()
            return found

    async def store_flagged(self, source: str, presses: Mapping[str, int], now: int) -> None:
        """See `ClaimStore.store_flagged`."""
        rows = [
            {"drop": drop, "source": source, "presses": n, "updated_at": now}
            for drop, n in sorted(presses.items())
        ]
        async with self._database.begin() as conn:
            await insert_rows(conn, claim_flagged, rows, tail=_FLAGGED)

    async def prune(self, before: int) -> bool:
        """See `ClaimStore.prune`."""
        old = (
            select(claim.c.epoch, claim.c.n)
            .where(claim.c.decided_at < before)
            .order_by(claim.c.decided_at)
            .limit(PRUNE_MAX)
        )
        async with self._database.begin() as conn:
            rows = [tuple(row) for row in await conn.execute(old)]
            if rows:
                wanted = tuple_(claim.c.epoch, claim.c.n).in_(rows)
                await conn.execute(delete(claim).where(wanted))
        return len(rows) == PRUNE_MAX

    async def flagged(self, drop: str) -> int:
        """See `ClaimBook.flagged`."""
        wanted = select(func.sum(claim_flagged.c.presses)).where(claim_flagged.c.drop == drop)
        async with self._database.read() as conn:
            return int((await conn.execute(wanted)).scalar() or 0)

    async def own(self, viewer: str, rid: str) -> list[Kept]:
        """See `ClaimBook.own`."""
        row = claim.c
        theirs = or_(row.pressed_at > 0, row.verdict.in_([kind.value for kind in TURNS]))
        mine = and_(row.rid == rid, row.viewer == viewer, theirs)
        wanted = select(claim).where(mine).order_by(row.epoch, row.n).limit(OWN_MAX)
        async with self._database.read() as conn:
            found = [_claim(row) for row in await conn.execute(wanted)]
            rid_is = and_(reservation.c.rid == rid, reservation.c.viewer == viewer)
            found += await _unlogged(conn, rid_is, OWN_MAX)
            return await _with_states(conn, sorted(found, key=_place))

    async def span(self, drop: str) -> tuple[int, int] | None:
        """See `ClaimBook.span`."""
        both = union_all(
            select(func.min(claim.c.epoch), func.max(claim.c.epoch)).where(claim.c.drop == drop),
            select(func.min(reservation.c.epoch), func.max(reservation.c.epoch)).where(
                reservation.c.drop == drop
            ),
        )
        async with self._database.read() as conn:
            rows = [tuple(row) for row in await conn.execute(both) if row[0] is not None]
        if not rows:
            return None
        return min(low for low, _high in rows), max(high for _low, high in rows)

    async def page(
        self, span: tuple[int, int], after: Place, limit: int, *, drop: str | None = None
    ) -> list[Kept]:
        """See `ClaimBook.page`."""
        row, hold = claim.c, reservation.c
        logged = and_(row.epoch.between(*span), tuple_(row.epoch, row.n) > after)
        durable = and_(hold.epoch.between(*span), tuple_(hold.epoch, hold.n) > after)
        if drop is not None:
            logged = and_(logged, row.drop.in_([drop, ""]))
            durable = and_(durable, hold.drop == drop)
        wanted = select(claim).where(logged).order_by(row.epoch, row.n).limit(limit)
        async with self._database.read() as conn:
            found = [_claim(line) for line in await conn.execute(wanted)]
            unlogged = await _unlogged(conn, durable, limit)
            both = list(islice(merge(found, unlogged, key=_place), limit))
            return await _with_states(conn, both)

    async def lapses(self, since: int) -> dict[str, list[int]]:
        """See `ClaimBook.lapses`."""
        async with self._database.read() as conn:
            return await lapses_since(conn, since)


def _place(kept: Claim) -> Place:
    return kept.epoch, kept.n


async def _unlogged(conn: AsyncConnection, wanted: Any, limit: int) -> list[Claim]:
    """Winners of the record that the log has not (yet), as claims."""
    row = reservation.c
    logged = exists().where(claim.c.epoch == row.epoch, claim.c.n == row.n, claim.c.rid == row.rid)
    heads = (
        await conn.execute(
            select(row.epoch, row.n, row.created_at, row.drop, row.rid, row.viewer)
            .where(wanted, row.n > 0, ~logged)
            .order_by(row.epoch, row.n)
            .limit(limit)
        )
    ).all()
    if not heads:
        return []
    lines = await _lines(conn, [head.rid for head in heads])
    return [
        Claim(
            *(head.epoch, head.n, Kind.WON, head.created_at, head.drop, head.rid, head.viewer),
            lines=tuple(lines[head.rid]),
        )
        for head in heads
    ]


async def _lines(conn: AsyncConnection, rids: Collection[str]) -> dict[str, list[tuple[str, int]]]:
    lines: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    rows = await conn.execute(
        text(
            "SELECT l.rid, l.sku, l.quantity FROM reservation_line l "
            f"WHERE {in_texts(conn, 'l.rid', 'rids')} ORDER BY l.rid, l.position"
        ),
        {"rids": texts(rids)},
    )
    for rid, sku, quantity in rows:
        lines[rid].append((sku, quantity))
    return lines


async def _with_states(conn: AsyncConnection, claims: Sequence[Claim]) -> list[Kept]:
    """A rid may have been decided twice; the state belongs to the number its reservation has."""
    rids = [kept.rid for kept in claims if kept.verdict in WINS]
    if not rids:
        return [Kept(kept) for kept in claims]
    rows = await conn.execute(
        text(
            "SELECT r.rid, r.epoch, r.n, r.state FROM reservation r "
            f"WHERE {in_texts(conn, 'r.rid', 'rids')}"
        ),
        {"rids": texts(rids)},
    )
    states = {(rid, epoch, n): HoldState(state) for rid, epoch, n, state in rows}
    return [Kept(kept, states.get((kept.rid, kept.epoch, kept.n))) for kept in claims]


def _row(kept: Claim) -> dict[str, object]:
    lines: list[tuple[str | int, ...]] = [*kept.lines]
    lines += [(sku, units, drop) for (drop, sku), units in kept.caps.items()]
    lines += [(sku, 0, drop, "listed") for drop, sku in sorted(kept.listed)]
    return {
        "epoch": kept.epoch,
        "n": kept.n,
        "verdict": kept.verdict.value,
        "drop": kept.drop,
        "rid": kept.rid,
        "viewer": kept.viewer,
        "lines": _json.encode(lines).decode(),
        "sku": kept.sku,
        "number": kept.number,
        "pressed_at": kept.pressed_at,
        "decided_at": kept.decided_at,
        "node": kept.node,
    }


def _claim(row: Row[Any]) -> Claim:
    lines = msgspec.json.decode(row.lines)
    found = Claim(
        *(row.epoch, row.n, Kind(row.verdict), row.decided_at, row.drop, row.rid, row.viewer),
        lines=tuple((line[0], line[1]) for line in lines if len(line) == 2),
        sku=row.sku,
        number=row.number,
        pressed_at=row.pressed_at,
        node=row.node,
    )
    caps = {(line[2], line[0]): line[1] for line in lines if len(line) == 3}
    listed = frozenset((line[2], line[0]) for line in lines if len(line) == 4)
    return replace(found, caps=caps, listed=listed) if caps or listed else found
