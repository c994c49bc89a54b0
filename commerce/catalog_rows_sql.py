"""Products to rows and back: the four tables of the catalogue, many rows at a time.

Responsible for reading whole products and for writing the difference between two versions of one.
It must not decide anything: what is valid, what changes and who may is decided above it.

Why many at a time: an import of 50,000 rows is 200,000 rows of ours; row by row PostgreSQL takes a
minute for them, in blocks a few seconds. Keys come in blocks too, an IN list has an end.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, Row, Table, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.bulk_sql import insert_rows
from commerce.catalog import Image, Product, SkuCard, SkuInfo
from commerce.catalog_plan import Existing
from commerce.schema_sql import product as products_table
from commerce.schema_sql import product_image, sku_stock, stock_ledger
from commerce.schema_sql import sku as skus_table

CHUNK: Final = 500
"""Keys in one IN list."""

Pair = tuple[Product, Product | None]
"""A product as it will be and as it was."""
Versions = tuple[dict[str, str], dict[str, tuple[str, str]]]


async def complete(conn: AsyncConnection, rows: Sequence[Row[Any]]) -> list[Product]:
    """Rows of `product` with their pictures and SKUs, in the same order."""
    ids = [row.id for row in rows]
    images: defaultdict[str, list[Image]] = defaultdict(list)
    order = (product_image.c.product, product_image.c.position)
    for one in await _where_in(conn, product_image, product_image.c.product, ids, order):
        images[one.product].append(Image(one.url, one.alt))
    skus: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    order = (skus_table.c.product, skus_table.c.position)
    for one in await _where_in(conn, skus_table, skus_table.c.product, ids, order):
        skus[one.product].append(one)
    return [
        Product(
            id=row.id,
            handle=row.handle,
            title=row.title,
            description_html=row.description_html,
            vendor=row.vendor,
            kind=row.kind,
            tags=tuple(row.tags),
            options=tuple(row.options),
            published=row.published,
            images=tuple(images[row.id]),
            skus=tuple(_sku(one, row.options) for one in skus[row.id]),
        )
        for row in rows
    ]


async def cards(conn: AsyncConnection, skus: Iterable[str]) -> dict[str, SkuCard]:
    """Those of the SKUs that exist, each with what a card shows."""
    found = await _where_in(conn, skus_table, skus_table.c.sku, sorted(set(skus)))
    ids = sorted({row.product for row in found})
    products = {
        row.id: row for row in await _where_in(conn, products_table, products_table.c.id, ids)
    }
    first: dict[str, str] = {}
    order = (product_image.c.product, product_image.c.position)
    for one in await _where_in(conn, product_image, product_image.c.product, ids, order):
        first.setdefault(one.product, one.url)
    return {
        row.sku: SkuCard(
            sku=_sku(row, products[row.product].options),
            product=row.product,
            handle=products[row.product].handle,
            product_title=products[row.product].title,
            published=products[row.product].published,
            image_url=row.image_url or first.get(row.product, ""),
        )
        for row in found
    }


async def owners(conn: AsyncConnection, codes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(product id, handle) by SKU, for those that exist."""
    found: dict[str, tuple[str, str]] = {}
    for chunk in _chunks(codes):
        wanted = (
            select(skus_table.c.sku, products_table.c.id, products_table.c.handle)
            .join(products_table, products_table.c.id == skus_table.c.product)
            .where(skus_table.c.sku.in_(chunk))
        )
        for code, product, handle in await conn.execute(wanted):
            found[code] = (product, handle)
    return found


async def versions(conn: AsyncConnection, handles: Sequence[str], codes: Sequence[str]) -> Versions:
    """What a plan for these rests on: fingerprints by handle and the owners of SKUs."""
    fingerprints: dict[str, str] = {}
    for chunk in _chunks(handles):
        table = products_table.c
        wanted = select(table.handle, table.fingerprint).where(table.handle.in_(chunk))
        fingerprints.update(
            (handle, fingerprint) for handle, fingerprint in (await conn.execute(wanted))
        )
    return fingerprints, await owners(conn, codes)


async def existing(conn: AsyncConnection, handles: Sequence[str], codes: Sequence[str]) -> Existing:
    """What the shop has of these products. Read in blocks, so that the loop can answer between."""
    found: list[Product] = []
    on_hand: dict[str, int] = {}
    for chunk in _chunks(handles):
        wanted = select(products_table).where(products_table.c.handle.in_(chunk))
        block = await complete(conn, (await conn.execute(wanted)).all())
        skus = [sku.sku for product in block for sku in product.skus]
        for row in await _where_in(conn, sku_stock, sku_stock.c.sku, skus):
            on_hand[row.sku] = row.on_hand
        found.extend(block)
    return Existing(
        products={product.handle: product for product in found},
        owners={code: handle for code, (_, handle) in (await owners(conn, codes)).items()},
        on_hand=on_hand,
    )


@dataclass(frozen=True, slots=True)
class Writes:
    """Rows to write, by table. Prepared before the transaction: it costs as much as the writing."""

    created: list[dict[str, Any]]
    changed: list[dict[str, Any]]
    redrawn: list[str]
    """Ids of products whose pictures are replaced."""
    images: list[dict[str, Any]]
    fresh: list[dict[str, Any]]
    differing: list[dict[str, Any]]
    """SKUs, new and changed."""


def prepare(pairs: Iterable[Pair], now: int) -> Writes:
    """The rows that differ. Pure, and slow for thousands of products: then call it in a thread."""
    writes = Writes([], [], [], [], [], [])
    for new, old in pairs:
        (writes.changed if old else writes.created).append(_product_row(new, now))
        if old is None or new.images != old.images:
            if old:
                writes.redrawn.append(old.id)
            writes.images.extend(_image_rows(new))
        before = {row["sku"]: row for row in _sku_rows(old)} if old else {}
        for row in _sku_rows(new):
            if row["sku"] not in before:
                writes.fresh.append(row)
            elif row != before[row["sku"]]:
                writes.differing.append(row)
    return writes


async def write(conn: AsyncConnection, writes: Writes) -> None:
    """Writes them."""
    await insert_rows(conn, products_table, writes.created)
    await _overwrite(conn, products_table, "id", writes.changed)
    for chunk in _chunks(writes.redrawn):
        await conn.execute(delete(product_image).where(product_image.c.product.in_(chunk)))
    await insert_rows(conn, product_image, writes.images)
    await insert_rows(conn, skus_table, writes.fresh)
    await _overwrite(conn, skus_table, "sku", writes.differing)


async def receive(conn: AsyncConnection, units: Mapping[str, int], ref: str, now: int) -> None:
    """The first stock of new SKUs: a row each, and a ledger row where units come in."""
    stock = [
        {"sku": code, "on_hand": count, "held": 0, "committed": 0} for code, count in units.items()
    ]
    await insert_rows(conn, sku_stock, stock)
    ledger = [
        {
            "sku": code,
            "kind": "receive",
            "d_on_hand": count,
            "d_held": 0,
            "d_committed": 0,
            "ref": ref,
            "at": now,
        }
        for code, count in units.items()
        if count
    ]
    await insert_rows(conn, stock_ledger, ledger)


def _product_row(product: Product, now: int) -> dict[str, Any]:
    return {
        "id": product.id,
        "handle": product.handle,
        "title": product.title,
        "description_html": product.description_html,
        "vendor": product.vendor,
        "kind": product.kind,
        "tags": list(product.tags),
        "options": list(product.options),
        "published": product.published,
        "fingerprint": product.fingerprint,
        "created_at": now,
        "updated_at": now,
    }


def _image_rows(product: Product) -> Iterator[dict[str, Any]]:
    for position, image in enumerate(product.images):
        yield {"product": product.id, "position": position, "url": image.url, "alt": image.alt}


def _sku_rows(product: Product) -> Iterator[dict[str, Any]]:
    for position, one in enumerate(product.skus):
        yield {
            "sku": one.sku,
            "product": product.id,
            "position": position,
            "title": one.title,
            "options": dict(one.options),
            "amount": one.amount,
            "compare_at": one.compare_at,
            "currency": one.currency,
            "barcode": one.barcode,
            "image_url": one.image_url,
            "grams": one.grams,
            "active": one.active,
        }


def _sku(row: Row[Any], names: Collection[str]) -> SkuInfo:
    """The options in the order of the product's: JSON may have come back in another."""
    options = {name: row.options[name] for name in names if name in row.options}
    return SkuInfo(
        sku=row.sku,
        title=row.title,
        options=options | row.options,
        amount=row.amount,
        currency=row.currency,
        compare_at=row.compare_at,
        barcode=row.barcode,
        image_url=row.image_url,
        grams=row.grams,
        active=row.active,
    )


async def _overwrite(
    conn: AsyncConnection, table: Table, key: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Many rows that exist, in few statements."""
    if rows:
        kept = (key, "created_at")
        columns = ", ".join(f'"{name}" = excluded."{name}"' for name in rows[0] if name not in kept)
        tail = f'ON CONFLICT ("{key}") DO UPDATE SET {columns}'
        await insert_rows(conn, table, rows, tail=tail)


async def _where_in(
    conn: AsyncConnection,
    table: Table,
    column: Column[Any],
    keys: Sequence[str],
    order: Sequence[Column[Any]] = (),
) -> list[Row[Any]]:
    found: list[Row[Any]] = []
    for chunk in _chunks(keys):
        wanted = select(table).where(column.in_(chunk)).order_by(*order)
        found.extend((await conn.execute(wanted)).all())
    return found


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
