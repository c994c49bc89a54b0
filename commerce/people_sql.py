"""What the database holds about people: sealed details, their keys, an export, an erasure.

Responsible for `person_key` and `person_detail`, the only tables with anything personal in them,
and for finding every row that concerns somebody. It must not know why somebody asks.

The export walks the tables themselves: rows with a `viewer` or `person` column, then what hangs on
their reservations and orders. So a table that is added later is exported without a line here, and a
test wants every table to be either found that way or listed as not personal.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, Table, and_, delete, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.database_sql import Database, insert_new, upsert
from commerce.money_schema_sql import refund, return_case, shipment
from commerce.orders import OrderState
from commerce.people import Erasure, ErasureList, OrdersUnderWay, newest
from commerce.reservations_sql import OPEN_STATES, find, move, open_of_viewer
from commerce.schema_sql import (
    customer_detail,
    metadata,
    orders,
    person_detail,
    person_key,
    reservation,
)
from commerce.stock import HoldState
from commerce.units_sql import lock
from commerce.vault import Sealed, Vault

PERSON_COLUMNS: Final = ("viewer", "person")
ROWS_MAX: Final = 10_000
"""Rows of one table in one export; more is a machine, not a person."""
SETTLED_MS: Final = 14 * 24 * 3_600_000
"""An order that has not moved for so long counts as delivered: its buyer may be forgotten."""
WRITTEN: Final = (refund.c.reason, return_case.c.reason, shipment.c.tracking)
"""What people wrote or what leads to their door: emptied when they are forgotten."""
UNDER_WAY: Final = (
    OrderState.PLACED,
    OrderState.PAID,
    OrderState.PARTLY_SHIPPED,
    OrderState.SHIPPED,
    OrderState.CANCELLING,
)
BATCH: Final = 500
ERASED: Final = "erased"
"""Why a hold ended: its viewer asked to be forgotten."""
SECRET_COLUMNS: Final = frozenset({"wrapped", "sealed", "fingerprint", "request_sha"})


class SqlPeople:
    """Of one shop. `erasures` is kept outside the database. Every method raises Unavailable."""

    def __init__(self, database: Database, vault: Vault, erasures: ErasureList) -> None:
        self._database = database
        self._vault = vault
        self._erasures = erasures

    # For the transactions of others.

    async def keep(
        self, conn: AsyncConnection, person: str, rid: str, detail: Mapping[str, Any], now: int
    ) -> None:
        """Keeps who gets a reservation, sealed, in the caller's transaction."""
        key = await self._key(conn, person, now)
        row = {
            "rid": rid,
            "person": person,
            "sealed": self._vault.seal(key, json.dumps(detail), _place(person, rid)),
            "updated_at": now,
        }
        await upsert(conn, person_detail, row, key=("rid",))

    async def detail(self, conn: AsyncConnection, rid: str) -> dict[str, Any] | None:
        """Who gets a reservation; None: it was never said, or that person was forgotten."""
        wanted = (
            select(person_detail.c.person, person_detail.c.sealed, person_key.c.wrapped)
            .join(person_key, person_key.c.person == person_detail.c.person)
            .where(person_detail.c.rid == rid, person_key.c.wrapped.is_not(None))
        )
        found = (await conn.execute(wanted)).first()
        return None if found is None else self._open(found.person, rid, found.sealed, found.wrapped)

    async def details(
        self, conn: AsyncConnection, rids: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """As `detail`, of many reservations in one statement; who was forgotten is left out."""
        wanted = (
            select(
                person_detail.c.rid,
                person_detail.c.person,
                person_detail.c.sealed,
                person_key.c.wrapped,
            )
            .join(person_key, person_key.c.person == person_detail.c.person)
            .where(person_detail.c.rid.in_(rids), person_key.c.wrapped.is_not(None))
        )
        return {
            row.rid: self._open(row.person, row.rid, row.sealed, row.wrapped)
            for row in (await conn.execute(wanted)).all()
        }

    def _open(self, person: str, rid: str, sealed: str, wrapped: str) -> dict[str, Any]:
        key = self._vault.open_key(person, wrapped)
        opened: dict[str, Any] = json.loads(self._vault.unseal(key, sealed, _place(person, rid)))
        return opened

    async def _key(self, conn: AsyncConnection, person: str, now: int) -> bytes:
        """A person's key; a new one for somebody new or somebody who was forgotten."""
        row = person_key.c
        key, wrapped = self._vault.new_key(person)
        fresh = {"person": person, "wrapped": wrapped, "created_at": now, "destroyed_at": None}
        if await insert_new(conn, person_key, fresh, key=("person",)):
            return key
        wanted = select(row.wrapped).where(row.person == person).with_for_update()
        stored = (await conn.execute(wanted)).scalar_one()
        if stored is not None:
            return self._vault.open_key(person, stored)
        await conn.execute(update(person_key).where(row.person == person).values(**fresh))
        return key

    async def seal_old(self) -> int:
        """Seals the details that version 0.1 kept in the clear; how many."""
        done = 0
        while True:
            some = select(customer_detail.c.rid).limit(BATCH)
            async with self._database.begin() as conn:
                if self._database.dialect == "sqlite":  # overwrite what is deleted
                    await conn.exec_driver_sql("PRAGMA secure_delete = ON")
                taken = await conn.execute(
                    delete(customer_detail)
                    .where(customer_detail.c.rid.in_(some.scalar_subquery()))
                    .returning(*customer_detail.c)
                )
                rows = taken.all()
                for row in rows:
                    await self.keep(conn, row.viewer, row.rid, row.detail, row.updated_at)
            done += len(rows)
            if len(rows) < BATCH:
                return done

    # Export and erasure.

    async def export(self, person: str) -> dict[str, Any]:
        """Everything that is held about a person, by table; details in the clear."""
        async with self._database.read() as conn:
            found = await _rows_of(conn, person)
            details = []
            for row in found.get("person_detail", []):
                opened = await self.detail(conn, row["rid"])
                details.append({"rid": row["rid"], "detail": opened})
            if details:
                found["person_detail"] = details
        return {"person": person, "tables": found}

    async def erase(self, person: str, now: int, *, force: bool = False) -> None:
        """Forgets a person for good. Raises OrdersUnderWay unless `force`.

        What they hold is given back first: a hold is cancelled, and one that is being paid is asked
        to end, which the provider decides. Until it has, its buyer is not forgotten (unless
        `force`): who has paid is to get what they paid for, or their money.
        """
        async with self._database.begin() as conn:
            if not force:
                await _refuse_under_way(conn, person, now, paying=False)
            await _end_holds(conn, person, now)
        async with self._database.begin() as conn:
            if not force:
                await _refuse_under_way(conn, person, now, paying=True)
            self._erasures.add(Erasure(person, now))
            await _forget(conn, person, now)

    async def repeat_erasures(self) -> int:
        """Carries out what the list says and this database does not: after a crash or a restore.

        How many persons were forgotten by it.
        """
        forgotten = 0
        for person, at in newest(self._erasures.read()).items():
            async with self._database.begin() as conn:
                known = select(person_key.c.person).where(
                    person_key.c.person == person,
                    person_key.c.created_at <= at,
                    person_key.c.wrapped.is_not(None),
                )
                if (await conn.execute(known)).first() is not None:
                    await _forget(conn, person, at)
                    forgotten += 1
        return forgotten

    async def retire(self, before: int) -> int:
        """Forgets details that were last used before that time; how many.

        A person of whom nothing is left loses their key too.
        """
        old = select(person_detail.c.rid).where(person_detail.c.updated_at < before).limit(BATCH)
        async with self._database.begin() as conn:
            done = await conn.execute(
                delete(person_detail).where(person_detail.c.rid.in_(old.scalar_subquery()))
            )
            for column in WRITTEN:
                table = column.table
                old_ones = (table.c.updated_at < before, column != "")
                await conn.execute(update(table).where(*old_ones).values({column.name: ""}))
            none_left = ~exists().where(person_detail.c.person == person_key.c.person)
            await conn.execute(
                update(person_key)
                .where(
                    person_key.c.wrapped.is_not(None), person_key.c.created_at < before, none_left
                )
                .values(wrapped=None, destroyed_at=before)
            )
        return done.rowcount

    async def rewrap(self) -> int:
        """Puts keys that are wrapped under an older master under the first one; how many."""
        row = person_key.c
        done = 0
        async with self._database.begin() as conn:
            stored = select(row.person, row.wrapped).where(row.wrapped.is_not(None))
            for person, wrapped in (await conn.execute(stored)).all():
                if not self._vault.is_current(wrapped):
                    renewed = self._vault.rewrap(person, wrapped)
                    await conn.execute(
                        update(person_key).where(row.person == person).values(wrapped=renewed)
                    )
                    done += 1
        return done

    async def readable(self) -> bool:
        """Whether the vault opens what is stored here: False means that the master was lost."""
        row = person_key.c
        some = select(row.person, row.wrapped).where(row.wrapped.is_not(None)).limit(1)
        async with self._database.read() as conn:
            found = (await conn.execute(some)).first()
        if found is None:
            return True
        try:
            self._vault.open_key(found.person, found.wrapped)
        except Sealed:
            return False
        return True


def _place(person: str, rid: str) -> str:
    return f"person_detail|{person}|{rid}"


async def _forget(conn: AsyncConnection, person: str, at: int) -> None:
    await conn.execute(delete(person_detail).where(person_detail.c.person == person))
    own = select(reservation.c.rid).where(reservation.c.viewer == person).scalar_subquery()
    for column in WRITTEN:
        table = column.table
        await conn.execute(update(table).where(table.c.rid.in_(own)).values({column.name: ""}))
    await conn.execute(
        update(person_key)
        .where(person_key.c.person == person)
        .values(wrapped=None, destroyed_at=at)
    )


_ENDS_AS: Final = {HoldState.HELD: HoldState.CANCELLED, HoldState.PAYING: HoldState.CLOSING}


async def _end_holds(conn: AsyncConnection, person: str, now: int) -> None:
    """Gate, payments and people hear of it by the outbox, as of any other end.

    Each is looked at under its lock: whoever begins to pay meanwhile was there before, or is late.
    """
    for one in sorted(await open_of_viewer(conn, person), key=lambda hold: hold.rid):
        await lock(conn, one.rid)
        hold = await find(conn, one.rid)
        if hold is not None and hold.state in _ENDS_AS:
            await move(conn, hold.rid, _ENDS_AS[hold.state], now, reason=ERASED)


async def _refuse_under_way(conn: AsyncConnection, person: str, now: int, *, paying: bool) -> None:
    """For what is ordered; with `paying` also for what is still held."""
    open_states = [state.value for state in OPEN_STATES] if paying else []
    holds = select(func.count()).where(
        reservation.c.viewer == person, reservation.c.state.in_(open_states)
    )
    under_way = select(func.count()).where(
        orders.c.viewer == person,
        orders.c.state.in_([state.value for state in UNDER_WAY]),
        orders.c.updated_at > now - SETTLED_MS,
    )
    counts = [(await conn.execute(wanted)).scalar_one() for wanted in (holds, under_way)]
    if any(counts):
        raise OrdersUnderWay(*counts)


# Which rows concern a person.


def reach(tables: Iterable[Table]) -> dict[str, Callable[[str], Any]]:
    """By table name how its rows of a person are found: a condition made from the person's id."""
    found: dict[str, Callable[[str], Any]] = {}
    for table in tables:
        own = next((table.c[name] for name in PERSON_COLUMNS if name in table.c), None)
        if own is not None:
            found[table.name] = _by_column(own)
        elif "rid" in table.c:
            found[table.name] = _by_key(table.c["rid"], reservation.c.rid, reservation.c.viewer)
        elif "order" in table.c:
            found[table.name] = _by_key(table.c["order"], orders.c.id, orders.c.viewer)
    return found


def _by_column(column: Column[Any]) -> Callable[[str], Any]:
    return lambda person: column == person


def _by_key(column: Column[Any], key: Column[Any], owner: Column[Any]) -> Callable[[str], Any]:
    return lambda person: exists().where(and_(key == column, owner == person))


async def _rows_of(conn: AsyncConnection, person: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for name, condition in reach(metadata.sorted_tables).items():
        table = metadata.tables[name]
        shown = [column for column in table.c if column.name not in SECRET_COLUMNS]
        wanted = select(*shown).where(condition(person)).limit(ROWS_MAX)
        rows = [dict(row._mapping) for row in await conn.execute(wanted)]
        if rows:
            found[name] = rows
    return found
