"""The bare minimum an order costs: one transaction that inserts its rows, and nothing else.

Responsible for that figure alone: same database, same durability, same kinds of rows (a real order
of this run, written again under new ids into tables without foreign keys, indexes or triggers),
and no gate, no provider, no page. It is no shop: it decides nothing and could not be paid. What a
checkout costs beside it is the price of being one.
"""

import asyncio
import time
from typing import Any, Final

from sqlalchemy import Column, MetaData, Table, select

from commerce import money_schema_sql as money
from commerce import schema_sql as tables
from commerce.database_sql import Database

AT_ONCE: Final = 8
_BY_RID: Final = (
    tables.reservation,
    tables.reservation_line,
    tables.payment,
    tables.orders,
    money.order_adjustment,
    money.ledger_entry,
    money.order_event,
)
_BY_ORDER: Final = (tables.order_line, money.order_unit)
_BARE: Final = MetaData()


def _bare(table: Table) -> Table:
    columns = (
        Column(column.name, column.type, primary_key=column.primary_key, autoincrement=False)
        for column in table.c
    )
    return Table(f"bare_{table.name}", _BARE, *columns)


_TABLES: Final = {table.name: _bare(table) for table in (*_BY_RID, *_BY_ORDER)}


async def run(database: Database, rid: str, number: int) -> float:
    """Writes the order of `rid` so many times; seconds it took."""
    rows = await _template(database, rid)
    async with database.begin() as conn:
        await conn.run_sync(_BARE.create_all)
    todo = iter(range(number))

    async def work() -> None:
        for n in todo:
            async with database.begin() as conn:
                for name, part in rows.items():
                    fresh = [_renamed(row, n, place) for place, row in enumerate(part)]
                    await conn.execute(_TABLES[name].insert(), fresh)

    started = time.monotonic()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    took = time.monotonic() - started
    async with database.begin() as conn:
        await conn.run_sync(_BARE.drop_all)
    return took


async def _template(database: Database, rid: str) -> dict[str, list[dict[str, Any]]]:
    async with database.read() as conn:
        order = select(tables.orders.c.id).where(tables.orders.c.rid == rid)
        id_ = (await conn.execute(order)).scalar_one()
        found: dict[str, list[dict[str, Any]]] = {}
        for table, column, value in [
            *((table, table.c.rid, rid) for table in _BY_RID),
            *((table, table.c.order, id_) for table in _BY_ORDER),
        ]:
            rows = await conn.execute(select(table).where(column == value))
            found[table.name] = [dict(row._mapping) for row in rows]
    return {name: rows for name, rows in found.items() if rows}


def _renamed(row: dict[str, Any], n: int, place: int) -> dict[str, Any]:
    """The same row of another order."""
    changed = dict(row)
    for name in ("id", "rid", "order"):
        if isinstance(changed.get(name), str):
            changed[name] = f"{n}-{changed[name]}"[:64]
    if isinstance(changed.get("id"), int):
        changed["id"] = n * 1_000 + place
    return changed
