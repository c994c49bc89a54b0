"""An import of products, from bytes to a report that a page or a terminal can show.

Responsible for running the slow, pure reading in a thread (2 s for 50,000 rows, in which the room
must go on) and for the shape of the report. Rules are `commerce.catalog_import`'s.
"""

import asyncio
import hashlib
from dataclasses import replace

from msgspec import Struct

from commerce.catalog import Catalog
from commerce.catalog_csv import ImportRefused
from commerce.catalog_import import parse_shopify_csv
from commerce.catalog_plan import ImportReport
from commerce.keep import Keep
from live.codes import refuse, refuse_with
from live.shop import ShopDesk
from realtime.errors import Rejected


class SkuRow(Struct, frozen=True):
    """What happened to one row's SKU."""

    line: int
    sku: str
    title: str
    outcome: str
    changed: list[str]
    received: int
    notes: list[str]


class ProductRow(Struct, frozen=True):
    """What happened to one product."""

    line: int
    id: str
    handle: str
    title: str
    outcome: str
    changed: list[str]
    skus: list[SkuRow]
    kept: list[str]
    retired: list[str]


class Report(Struct, frozen=True):
    """What an import did."""

    currency: str
    rows: int
    counts: dict[str, int]
    products: list[ProductRow]


async def settle_currency(catalog: Catalog, shop: ShopDesk, currency: str) -> None:
    """The first products decide the shop's currency; later ones must be in it.

    An order has one currency, and its shipping is priced in the shop's. Raises `BadCurrency`, and
    `Rejected` (wrong_currency) if the shop already sells in another.
    """
    known = await shop.get()
    if currency == known.currency:
        return
    if (await catalog.list(limit=1)).products:
        raise refuse("wrong_currency", currency=known.currency)
    await shop.put(replace(known, currency=currency))


async def import_file(
    catalog: Catalog,
    shop: ShopDesk,
    data: bytes,
    currency: str,
    keep: Keep[ImportReport] | None = None,
) -> Report:
    """Import a Shopify product CSV, all rows or none; `keep` is called only if something changed.

    Raises `Rejected` (csv_columns, csv_encoding, csv_too_many_rows, too_large, csv_refused) whose
    details list each wrong row, or wrong_currency; and `BadCurrency`.
    """
    try:
        parsed = await asyncio.to_thread(parse_shopify_csv, data, currency)
        await settle_currency(catalog, shop, currency)
        report = await catalog.import_plan(parsed, f"import:{_sha(data, currency)}", keep)
    except ImportRefused as refused:
        raise as_rejected(refused) from None
    return view_report(report)


def as_rejected(refused: ImportRefused) -> Rejected:
    """The refusal of a file, with each wrong row."""
    details: dict[str, object] = {}
    if refused.missing:
        details["missing"] = list(refused.missing)
    if refused.problems:
        details["total"] = refused.total
        details["problems"] = [
            {
                "line": problem.line,
                "column": problem.column,
                "code": problem.code,
                "sentence": problem.sentence,
            }
            for problem in refused.problems
        ]
    return refuse_with(refused.code, details, message=refused.sentence)


def _sha(data: bytes, currency: str) -> str:
    return hashlib.sha256(currency.encode() + b"\0" + data).hexdigest()


def view_report(report: ImportReport) -> Report:
    """As a page or a terminal shows it."""
    return Report(
        currency=report.currency,
        rows=report.rows,
        counts=dict(report.counts),
        products=[
            ProductRow(
                line=product.line,
                id=product.id,
                handle=product.handle,
                title=product.title,
                outcome=product.outcome,
                changed=list(product.changed),
                skus=[
                    SkuRow(
                        line=sku.line,
                        sku=sku.sku,
                        title=sku.title,
                        outcome=sku.outcome,
                        changed=list(sku.changed),
                        received=sku.received,
                        notes=list(sku.notes),
                    )
                    for sku in product.skus
                ],
                kept=list(product.kept),
                retired=list(product.retired),
            )
            for product in report.products
        ],
    )
