"""Whose holds have lapsed lately, read from the record.

Responsible for finding the lapses on which `hold_rule` judges. It must not know the rule. A lapse
needs no table of its own: it is a reservation that expired, so whatever rebuilds the gate from the
record brings it back, and nothing can disagree with it.
"""

from collections import defaultdict
from collections.abc import Collection

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.bulk_sql import in_texts, texts
from commerce.hold_rule import LAPSES_KEPT
from commerce.schema_sql import reservation
from commerce.stock import HoldState


async def lapses_since(conn: AsyncConnection, since: int) -> dict[str, list[int]]:
    """By viewer the times (milliseconds, oldest first) of lapses after `since`, the latest few."""
    row = reservation.c
    wanted = (
        select(row.viewer, row.closed_at)
        .where(row.closed_at > since, row.state == HoldState.EXPIRED)
        .order_by(row.closed_at)
    )
    return _by_viewer((await conn.execute(wanted)).all())


async def lapses_of(
    conn: AsyncConnection, viewers: Collection[str], since: int
) -> dict[str, list[int]]:
    """The same for some viewers."""
    rows = await conn.execute(
        text(
            "SELECT r.viewer, r.closed_at FROM reservation r "
            f"WHERE {in_texts(conn, 'r.viewer', 'viewers')} "
            f"AND r.state = '{HoldState.EXPIRED.value}' AND r.closed_at > :since "
            "ORDER BY r.closed_at"
        ),
        {"viewers": texts(viewers), "since": since},
    )
    return _by_viewer(rows.all())


def _by_viewer(rows: Collection[tuple[str, int]]) -> dict[str, list[int]]:
    times: defaultdict[str, list[int]] = defaultdict(list)
    for viewer, at in rows:
        times[viewer].append(at)
    return {viewer: found[-LAPSES_KEPT:] for viewer, found in times.items()}
