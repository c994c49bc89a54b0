"""Sold units in the record: their rows, their moves, and the stock that follows them.

Responsible for `order_unit` and for keeping `sku_stock` and `stock_ledger` in step with it: a unit
never changes its state without the ledger saying where it went. Every function takes the caller's
connection, who holds the lock of the reservation's row (`lock`), so that all that happens to one
order happens one after the other. It must not know money beyond the amounts in its rows.

    ship        on_hand -1, committed -1
    uncommit    committed -1                 cancelled, for sale again
    write_off   on_hand -1, committed -1     cancelled, not for sale
    restock     on_hand +1                   came back; followed by write_off (on_hand -1) if spoilt
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.errors import OrderMoved
from commerce.fulfilment import Goods, Pick, Unit
from commerce.money_schema_sql import order_unit
from commerce.orders import UNIT_MOVES, UnitState
from commerce.outbox_sql import SqlOutbox
from commerce.pricing import UnitPrice
from commerce.refunds import Units
from commerce.schema_sql import reservation, sku_stock, stock_ledger

_CHANGES: Final = {
    "ship": (-1, -1),
    "uncommit": (0, -1),
    "write_off": (-1, -1),
    "restock": (1, 0),
    "commit": (0, 1),
}
"""Kind in the ledger -> (on hand, committed) per unit."""


async def lock(conn: AsyncConnection, rid: str) -> None:
    """Everything about this hold and its order waits for our end."""
    await conn.execute(select(reservation.c.rid).where(reservation.c.rid == rid).with_for_update())


async def add_units(conn: AsyncConnection, order: str, units: Sequence[UnitPrice]) -> None:
    """The units of a new order."""
    rows = [
        {
            "order": order,
            "position": unit.position,
            "n": unit.n,
            "sku": unit.sku,
            "state": UnitState.SOLD.value,
            "price": unit.price,
            "discount": unit.discount,
            "shipping": unit.shipping,
            "tax": unit.tax,
            "amount": unit.amount,
            "refunded": 0,
        }
        for unit in units
    ]
    await conn.execute(insert(order_unit), rows)


async def units_of(conn: AsyncConnection, order: str) -> list[Unit]:
    """All units of an order, in order of line and number."""
    wanted = (
        select(order_unit)
        .where(order_unit.c.order == order)
        .order_by(order_unit.c.position, order_unit.c.n)
    )
    return [Unit(**row._mapping) for row in (await conn.execute(wanted)).all()]


def choose(
    units: Iterable[Unit], picks: Sequence[Pick] | None, allowed: Sequence[str]
) -> list[Unit]:
    """Units in one of the states, as many of each line as picked; None: all there are.

    Raises OrderMoved if there are fewer (`state` is where one of the others is), or none.
    """
    fitting = [unit for unit in units if unit.state in allowed]
    if picks is None:
        if not fitting:
            raise OrderMoved(next((unit.state for unit in units), ""))
        return fitting
    wanted: Counter[int] = Counter()
    for pick in picks:
        wanted[pick.position] += pick.quantity
    chosen: list[Unit] = []
    for position, quantity in sorted(wanted.items()):
        here = [unit for unit in fitting if unit.position == position][:quantity]
        if len(here) < quantity or quantity < 1:
            others = [u.state for u in units if u.position == position and u.state not in allowed]
            raise OrderMoved(others[0] if others else "")
        chosen += here
    if not chosen:
        raise OrderMoved("")
    return chosen


async def move_units(
    conn: AsyncConnection, order: str, keys: Units, to: UnitState, **values: object
) -> None:
    """Moves exactly these along the table. Raises OrderMoved if one of them cannot be."""
    sources = [state.value for state, targets in UNIT_MOVES.items() if to in targets]
    await _change(conn, order, keys, order_unit.c.state.in_(sources), state=to.value, **values)


async def mark_units(
    conn: AsyncConnection, order: str, keys: Units, *, free: bool, **values: object
) -> None:
    """Sets columns; `free`: only of units that are in no return. Raises OrderMoved if one is."""
    condition = order_unit.c.return_case.is_(None) if free else order_unit.c.order == order
    await _change(conn, order, keys, condition, **values)


async def add_refunded(
    conn: AsyncConnection, order: str, parts: Sequence[tuple[int, int, int]]
) -> None:
    """(position, n, amount) more given back, less if negative; never above what was paid."""
    for position, n, amount in parts:
        row = order_unit.c
        done = await conn.execute(
            update(order_unit)
            .where(
                row.order == order,
                row.position == position,
                row.n == n,
                row.refunded + amount <= row.amount,
            )
            .values(refunded=row.refunded + amount)
        )
        if done.rowcount != 1:
            raise OrderMoved("refunded")


async def _change(
    conn: AsyncConnection, order: str, keys: Units, condition: Any, **values: object
) -> None:
    by_line: defaultdict[int, list[int]] = defaultdict(list)
    for position, n in keys:
        by_line[position].append(n)
    changed = 0
    for position, numbers in sorted(by_line.items()):
        done = await conn.execute(
            update(order_unit)
            .where(
                order_unit.c.order == order,
                order_unit.c.position == position,
                order_unit.c.n.in_(numbers),
                condition,
            )
            .values(**values)
        )
        changed += done.rowcount
    if changed != len(keys):
        raise OrderMoved("")


# Stock


async def leave(conn: AsyncConnection, units: Sequence[Unit], ref: str, now: int) -> None:
    """They are handed over to a carrier."""
    await _stock(conn, Counter(unit.sku for unit in units), "ship", ref, now)


async def uncommit(
    conn: AsyncConnection, units: Sequence[Unit], goods: Goods, ref: str, now: int
) -> None:
    """They never left the shop: for sale again, or written off."""
    kind = "uncommit" if goods is Goods.RESTOCK else "write_off"
    count = Counter(unit.sku for unit in units)
    await _stock(conn, count, kind, ref, now, sellable=1 if goods is Goods.RESTOCK else 0)


async def come_back(
    conn: AsyncConnection, units: Sequence[Unit], goods: Goods, ref: str, now: int
) -> None:
    """They were returned: for sale again, or counted in and written off."""
    count = Counter(unit.sku for unit in units)
    restocked = goods is Goods.RESTOCK
    await _stock(conn, count, "restock", ref, now, sellable=1 if restocked else 0)
    if not restocked:
        await _stock(conn, count, "write_off", ref, now, change=(-1, 0))


async def commit_anew(conn: AsyncConnection, wanted: Counter[str], ref: str, now: int) -> bool:
    """Sells units that nobody held; False (and the caller rolls back) if one SKU has too few."""
    return await _stock(conn, wanted, "commit", ref, now, sellable=-1, checked=True)


async def _stock(
    conn: AsyncConnection,
    count: Counter[str],
    kind: str,
    ref: str,
    now: int,
    *,
    change: tuple[int, int] | None = None,
    sellable: int = 0,
    checked: bool = False,
) -> bool:
    """One row per SKU in their order; `sellable` per unit is what the gate is told."""
    on_hand, committed = change or _CHANGES[kind]
    row = sku_stock.c
    for sku, units in sorted(count.items()):
        where = [row.sku == sku]
        if checked:
            where.append(row.held + row.committed + units <= row.on_hand)
        done = await conn.execute(
            update(sku_stock)
            .where(*where)
            .values(
                on_hand=row.on_hand + on_hand * units, committed=row.committed + committed * units
            )
            .returning(row.on_hand, row.held, row.committed)
        )
        after = done.first()
        if after is None:
            return False
        await conn.execute(
            insert(stock_ledger).values(
                sku=sku,
                kind=kind,
                d_on_hand=on_hand * units,
                d_held=0,
                d_committed=committed * units,
                ref=ref,
                at=now,
            )
        )
        if sellable:
            payload = {
                "sku": sku,
                "delta": sellable * units,
                "ref": f"{kind}:{ref}",
                "on_hand": after.on_hand,
                "held": after.held,
                "committed": after.committed,
            }
            await SqlOutbox.add(conn, "stock", sku, payload, now, tell=False)
    return True
