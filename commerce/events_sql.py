"""What happened to an order, one row each, in the transaction that made it happen.

Responsible for appending to `order_event` and reading it. It must not decide anything. The data of
an event names ids, states and amounts, never a person's name or address, nor anything that somebody
typed (reasons stand in the rows of refunds and returns): events outlive an erasure.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.money_schema_sql import order_event


async def add_event(
    conn: AsyncConnection,
    rid: str,
    kind: str,
    now: int,
    *,
    actor: str = "",
    **data: object,
) -> None:
    """Appends one event of a hold; `actor` empty: the program itself."""
    await conn.execute(
        insert(order_event).values(rid=rid, kind=kind, actor=actor, data=data, at=now)
    )


async def events_of(
    conn: AsyncConnection, rid: str
) -> list[tuple[str, str, Mapping[str, Any], int]]:
    """(kind, actor, data, at) of each, in the order in which they happened."""
    wanted = select(order_event).where(order_event.c.rid == rid).order_by(order_event.c.id)
    rows = (await conn.execute(wanted)).all()
    return [(row.kind, row.actor, row.data, row.at) for row in rows]
