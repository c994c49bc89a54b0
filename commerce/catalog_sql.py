"""The catalogue in SQL: lists, cards, edits by hand and imports, on SQLite and PostgreSQL.

Responsible for what a catalogue promises: pages, one product, cards for SKUs, an edit or an import
in one transaction. `catalog_rows_sql` knows the tables. It must not know files or forms:
`catalog_plan` decides what an import changes, `catalog_rules` what a product may hold. It never
touches the stock of a SKU that exists, so no buyer waits for a row lock of an import.

Writers of the catalogue take turns (an advisory lock on PostgreSQL; SQLite has one writer anyway):
two imports of the same file at once would both find nothing and both create it. The plan is made
before the write transaction, in a thread, and checked in it by fingerprint: comparing 50,000 rows
takes seconds, in which no buyer of a shop on SQLite should wait for the one writer.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import catalog_rows_sql as rows_sql
from commerce import schema_sql as tables
from commerce.catalog import (
    PAGE_MAX,
    QUERY_CHARS_MAX,
    BadCursor,
    HandleTaken,
    Page,
    Product,
    ProductChanged,
    SkuCard,
    SkuTaken,
)
from commerce.catalog_import import ParsedFile
from commerce.catalog_plan import Existing, ImportReport, Plan, plan_import, skus_of_interest
from commerce.catalog_rules import derived_skus, normal_product, with_skus
from commerce.database_sql import Database
from commerce.errors import Busy, UnknownProduct
from commerce.keep import Keep, keep_answer

PLANS_MAX: Final = 3
"""How often an import is planned anew because somebody changed the same products meanwhile."""
RETRY_AFTER_MS: Final = 1_000
_LOCK: Final = 0x7669_7472_6361_7461
"""Any number of our own: the advisory lock of those who write the catalogue."""


class SqlCatalog:
    """Keeps the catalogue. One per process; any number of processes."""

    def __init__(
        self, database: Database, clock: Callable[[], int], new_id: Callable[[], str]
    ) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id

    async def list(
        self,
        query: str | None = None,
        limit: int = 50,
        after: str | None = None,
        *,
        published_only: bool = False,
    ) -> Page:
        """Products by title whose title, handle or a SKU contains `query`. Raises `BadCursor`.

        Letters match in either case (on SQLite only those of ASCII do). Pages do not shift when
        products are added: each begins after the last product of the one before, which `after`
        names. `limit` is kept between 1 and `PAGE_MAX`.
        """
        limit = max(1, min(limit, PAGE_MAX))
        product = tables.product
        wanted = select(product).order_by(product.c.title, product.c.id).limit(limit + 1)
        if published_only:
            wanted = wanted.where(product.c.published.is_(True))
        query = (query or "").strip()[:QUERY_CHARS_MAX]
        if not _storable(query):
            return Page((), None)
        if query:
            wanted = wanted.where(_matches(query))
        async with self._database.read() as conn:
            if after is not None:
                title = await _title(conn, after)
                same_title = and_(product.c.title == title, product.c.id > after)
                wanted = wanted.where(or_(product.c.title > title, same_title))
            rows = (await conn.execute(wanted)).all()
            products = tuple(await rows_sql.complete(conn, rows[:limit]))
        return Page(products, products[-1].id if len(rows) > limit else None)

    async def product(self, product_id: str) -> Product:
        """One product. Raises `UnknownProduct`."""
        async with self._database.read() as conn:
            return await _product(conn, product_id)

    async def by_skus(self, skus: Iterable[str]) -> dict[str, SkuCard]:
        """Those of the SKUs that exist, each with what a card shows."""
        async with self._database.read() as conn:
            return await rows_sql.cards(conn, filter(_storable, skus))

    async def put(
        self,
        product: Product,
        *,
        expected: str | None = None,
        keep: Keep[Product] | None = None,
    ) -> Product:
        """Creates (empty id) or changes a product with its SKUs; gives it as stored.

        SKUs that are not in it any more are no longer offered; none is deleted. A new SKU begins
        with 0 units. `expected` is the fingerprint that the edit is based on. The same `put` of an
        id twice changes nothing. Raises `BadProduct`, `BadCurrency`, `UnknownProduct`,
        `HandleTaken`, `SkuTaken`, `ProductChanged`.
        """
        product = normal_product(product)
        async with self._database.begin() as conn:
            await self._take_turn(conn)
            before = await _product(conn, product.id) if product.id else None
            if before and expected is not None and before.fingerprint != expected:
                raise ProductChanged(before.fingerprint)
            await _check_handle(conn, product)
            product = await _with_codes(conn, product, before)
            if before:
                product = _with_retired(product, before)
                if product == before:
                    return await keep_answer(keep, conn, before)
            else:
                product = replace(product, id=self._new_id())
            now = self._clock()
            await rows_sql.write(conn, rows_sql.prepare([(product, before)], now))
            had = {sku.sku for sku in before.skus} if before else set()
            new = {sku.sku: 0 for sku in product.skus if sku.sku not in had}
            await rows_sql.receive(conn, new, "", now)
            return await keep_answer(keep, conn, product)

    async def import_plan(
        self, file: ParsedFile, ref: str, keep: Keep[ImportReport] | None = None
    ) -> ImportReport:
        """Imports a parsed file in one transaction, all or nothing; the report says what it did.

        `ref` names this import in the ledger (at most 80 characters). Repeating an import changes
        nothing. Raises `ImportRefused` if the file gives a product the SKU of another one, `Busy`
        if the same products are being changed all the time.
        """
        handles = [product.handle for product in file.products]
        codes = await asyncio.to_thread(skus_of_interest, file)
        for _ in range(PLANS_MAX):
            async with self._database.read() as conn:
                versions = await rows_sql.versions(conn, handles, codes)
                existing = await rows_sql.existing(conn, handles, codes)
            now = self._clock()
            plan, writes, units = await asyncio.to_thread(self._plan, file, existing, ref, now)
            if not writes:
                return plan.report
            async with self._database.begin() as conn:
                await self._take_turn(conn)
                if await rows_sql.versions(conn, handles, codes) == versions:
                    await rows_sql.write(conn, writes)
                    await rows_sql.receive(conn, units, ref, now)
                    return await keep_answer(keep, conn, plan.report)
        raise Busy(RETRY_AFTER_MS)

    def _plan(
        self, file: ParsedFile, existing: Existing, ref: str, now: int
    ) -> tuple[Plan, rows_sql.Writes | None, dict[str, int]]:
        """The plan, its rows and the units of new SKUs: all that needs no database."""
        plan = plan_import(file, existing, ref=ref, new_id=self._new_id)
        changes = [one for one in plan.changes if one.outcome.outcome != "unchanged"]
        if not changes:
            return plan, None, {}
        writes = rows_sql.prepare(((one.product, one.before) for one in changes), now)
        units = {
            sku.sku: sku.received
            for change in changes
            for sku in change.outcome.skus
            if sku.outcome == "created"
        }
        return plan, writes, units

    async def _take_turn(self, conn: AsyncConnection) -> None:
        if self._database.dialect == "postgresql":
            await conn.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def _storable(text: str) -> bool:
    """Whether a database could hold it at all; what it cannot hold is not in it."""
    return "\x00" not in text and not any("\ud800" <= ch <= "\udfff" for ch in text)


async def _title(conn: AsyncConnection, product_id: str) -> str:
    if not _storable(product_id):
        raise BadCursor
    table = tables.product.c
    for title in await conn.scalars(select(table.title).where(table.id == product_id)):
        return str(title)
    raise BadCursor


async def _product(conn: AsyncConnection, product_id: str) -> Product:
    if not _storable(product_id):
        raise UnknownProduct
    wanted = select(tables.product).where(tables.product.c.id == product_id)
    for product in await rows_sql.complete(conn, (await conn.execute(wanted)).all()):
        return product
    raise UnknownProduct


async def _check_handle(conn: AsyncConnection, product: Product) -> None:
    table = tables.product.c
    wanted = select(table.id).where(table.handle == product.handle, table.id != product.id)
    if (await conn.execute(wanted)).first() is not None:
        raise HandleTaken(product.handle)


async def _with_codes(conn: AsyncConnection, product: Product, before: Product | None) -> Product:
    """Each variant with a SKU that is its own. Raises `SkuTaken`."""
    had = {tuple(sku.options.items()): sku.sku for sku in before.skus} if before else {}
    skus = [
        sku if sku.sku else replace(sku, sku=had.get(tuple(sku.options.items()), ""))
        for sku in product.skus
    ]
    wanted: set[str] = set()
    for sku in skus:
        values = tuple(sku.options.values())
        wanted.update((sku.sku,) if sku.sku else derived_skus(product.handle, values))
    owners = await rows_sql.owners(conn, sorted(wanted))
    others = {code for code, (owner, _) in owners.items() if owner != product.id}
    coded = with_skus(replace(product, skus=tuple(skus)), others)
    for sku in coded.skus:
        if sku.sku in others:
            raise SkuTaken(sku.sku)
    return coded


def _with_retired(product: Product, before: Product) -> Product:
    named = {sku.sku for sku in product.skus}
    rest = (replace(sku, active=False) for sku in before.skus if sku.sku not in named)
    return replace(product, skus=(*product.skus, *rest))


def _matches(query: str) -> ColumnElement[bool]:
    escaped = query.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    pattern = f"%{escaped}%"
    product, sku = tables.product.c, tables.sku.c
    named_so = (
        select(sku.sku)
        .where(sku.product == product.id, func.lower(sku.sku).like(pattern, escape="\\"))
        .exists()
    )
    return or_(
        func.lower(product.title).like(pattern, escape="\\"),
        func.lower(product.handle).like(pattern, escape="\\"),
        named_so,
    )
