"""The catalogue on real databases: pages, cards, edits, imports that are whole or nothing."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, func, select
from sqlalchemy.exc import IntegrityError

from commerce import schema_sql as tables
from commerce.catalog import (
    BadCursor,
    BadProduct,
    HandleTaken,
    Image,
    Product,
    ProductChanged,
    SkuInfo,
    SkuTaken,
)
from commerce.catalog_csv import ImportRefused
from commerce.catalog_import import parse_shopify_csv
from commerce.catalog_sql import SqlCatalog
from commerce.database_sql import Database
from commerce.errors import UnknownProduct
from tests.commerce.product_files import (
    HOSTILE,
    SAMPLE,
    csv_file,
    hostile_strings,
    mug,
    shop_files,
    variant,
)
from tests.servers import PostgresServer

NOW = 1_763_798_400_000
CATALOGUE = ("product", "product_image", "sku", "sku_stock", "stock_ledger")


@pytest.fixture(scope="module")
def postgres_home(postgres_server: PostgresServer) -> Iterator[str]:
    """One database for this module: making one with its tables takes two seconds."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'vitrine.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_home")
    found = await Database.open(url, poolsize=4)
    async with found.begin() as conn:
        await conn.run_sync(tables.metadata.create_all)
        for table in reversed(tables.metadata.sorted_tables):
            if table.name in CATALOGUE:
                await conn.execute(table.delete())
    yield found
    await found.close()


@pytest.fixture
def catalog(database: Database) -> SqlCatalog:
    ticks, numbers = count(NOW), count(1)
    return SqlCatalog(database, lambda: next(ticks), lambda: f"p-{next(numbers):04}")


def cup(**fields: object) -> Product:
    sizes = [("S", 900), ("L", 1200)]
    base = Product(
        id="",
        handle="cup",
        title="Cup",
        description_html="<p>Round</p>",
        vendor="Kiln",
        kind="Cups",
        tags=("a", "b"),
        options=("Size", "Colour"),
        images=(Image("/front.svg", "front"), Image("/back.svg")),
        skus=tuple(
            SkuInfo(f"CUP-{size}", "", {"Size": size, "Colour": "Red"}, amount, "USD", grams=380)
            for size, amount in sizes
        ),
    )
    return replace(base, **fields)  # type: ignore[arg-type]


async def rows(database: Database, table: Table, *order: Any) -> list[Any]:
    async with database.read() as conn:
        return list((await conn.execute(select(table).order_by(*order))).all())


async def counted(database: Database) -> dict[str, int]:
    async with database.read() as conn:
        return {
            name: await conn.scalar(select(func.count()).select_from(tables.metadata.tables[name]))
            or 0
            for name in CATALOGUE
        }


async def run_import(catalog: SqlCatalog, *cells: dict[str, str], ref: str = "i-1") -> Any:
    return await catalog.import_plan(parse_shopify_csv(csv_file(*cells), "USD"), ref)


async def test_a_product_comes_back_as_it_was_put(catalog: SqlCatalog) -> None:
    stored = await catalog.put(cup())
    assert stored.id == "p-0001"
    assert [sku.title for sku in stored.skus] == ["S / Red", "L / Red"]
    assert await catalog.product("p-0001") == stored
    assert (await catalog.product("p-0001")).fingerprint == stored.fingerprint
    assert list(stored.skus[0].options) == ["Size", "Colour"]
    assert list((await catalog.product("p-0001")).skus[0].options) == ["Size", "Colour"]


async def test_a_new_sku_begins_with_no_units(catalog: SqlCatalog, database: Database) -> None:
    await catalog.put(cup())
    stock = await rows(database, tables.sku_stock, tables.sku_stock.c.sku)
    assert [tuple(row) for row in stock] == [("CUP-L", 0, 0, 0, 0), ("CUP-S", 0, 0, 0, 0)]
    assert await rows(database, tables.stock_ledger) == []


async def test_putting_the_same_twice_changes_nothing(
    catalog: SqlCatalog, database: Database
) -> None:
    stored = await catalog.put(cup())
    before = await rows(database, tables.product)
    assert await catalog.put(replace(cup(), id=stored.id)) == stored
    assert await rows(database, tables.product) == before


async def test_an_edit_changes_what_differs_and_retires_what_is_gone(
    catalog: SqlCatalog, database: Database
) -> None:
    stored = await catalog.put(cup())
    small, large = stored.skus
    wanted = replace(
        stored,
        title="Mug",
        images=(Image("/new.svg"),),
        skus=(replace(small, amount=1), SkuInfo("", "", {"Size": "M", "Colour": "Red"}, 5, "USD")),
    )
    changed = await catalog.put(wanted, expected=stored.fingerprint)
    assert changed == await catalog.product(stored.id)
    assert changed.title == "Mug"
    assert changed.images == (Image("/new.svg"),)
    assert [(sku.sku, sku.amount, sku.active) for sku in changed.skus] == [
        ("CUP-S", 1, True),
        ("cup-m-red", 5, True),
        (large.sku, 1200, False),
    ]
    (row,) = await rows(database, tables.product)
    assert row.created_at < row.updated_at
    assert row.fingerprint == changed.fingerprint


async def test_an_edit_based_on_an_older_version_is_refused(catalog: SqlCatalog) -> None:
    stored = await catalog.put(cup())
    changed = await catalog.put(replace(stored, title="Mine"), expected=stored.fingerprint)
    with pytest.raises(ProductChanged) as refused:
        await catalog.put(replace(stored, title="Yours"), expected=stored.fingerprint)
    assert refused.value.version == changed.fingerprint
    assert (await catalog.product(stored.id)).title == "Mine"


async def test_handles_and_skus_belong_to_one_product(catalog: SqlCatalog) -> None:
    first = await catalog.put(cup())
    with pytest.raises(HandleTaken):
        await catalog.put(cup(skus=(replace(first.skus[0], sku="OTHER"),)))
    with pytest.raises(SkuTaken) as refused:
        await catalog.put(cup(handle="other"))
    assert refused.value.sku in {"CUP-S", "CUP-L"}
    blank = tuple(replace(sku, sku="") for sku in first.skus)
    second = await catalog.put(cup(handle="second", skus=blank))
    assert [sku.sku for sku in second.skus] == ["second-s-red", "second-l-red"]
    again = await catalog.put(replace(second, skus=blank, title="Same SKUs"))
    assert [sku.sku for sku in again.skus] == ["second-s-red", "second-l-red"]


@pytest.mark.parametrize("unknown", ["p-9999", "", "a\x00b", "a\ud800", "x" * 5_000])
async def test_what_does_not_exist_is_said_so(catalog: SqlCatalog, unknown: str) -> None:
    with pytest.raises(UnknownProduct):
        await catalog.product(unknown)
    if unknown:
        with pytest.raises(UnknownProduct):
            await catalog.put(cup(id=unknown))
    with pytest.raises(BadCursor):
        await catalog.list(after=unknown)
    assert await catalog.by_skus([unknown]) == {}


async def test_a_wrong_product_leaves_no_trace(catalog: SqlCatalog, database: Database) -> None:
    with pytest.raises(BadProduct):
        await catalog.put(cup(title="4111 1111 1111 1111"))
    assert set((await counted(database)).values()) == {0}


async def test_cards_show_the_own_picture_or_the_first_of_the_product(catalog: SqlCatalog) -> None:
    small, large = cup().skus
    await catalog.put(cup(skus=(replace(small, image_url="/small.svg"), large)))
    cards = await catalog.by_skus(["CUP-S", "CUP-L", "NONE", "CUP-S"])
    assert set(cards) == {"CUP-S", "CUP-L"}
    card = cards["CUP-L"]
    assert (card.product, card.handle, card.product_title) == ("p-0001", "cup", "Cup")
    assert (card.sku.amount, card.sku.currency, card.sku.title) == (1200, "USD", "L / Red")
    assert card.image_url == "/front.svg"
    assert cards["CUP-S"].image_url == "/small.svg"
    many = await catalog.by_skus(f"none-{n}" for n in range(1_200))
    assert many == {}


async def test_pages_follow_each_other_by_title_without_gap_or_repeat(catalog: SqlCatalog) -> None:
    titles = ["Bowl", "Anchor", "Bowl", "Zebra", "Cup", "Bowl", "Dish"]
    await run_import(catalog, *(mug(Handle=f"h-{n}", Title=one) for n, one in enumerate(titles)))
    whole = await catalog.list()
    assert [product.title for product in whole.products] == sorted(titles)
    assert whole.next is None
    for limit in (1, 2, 3, 7):
        seen: list[Product] = []
        after: str | None = None
        while True:
            page = await catalog.list(limit=limit, after=after)
            seen.extend(page.products)
            after = page.next
            if after is None:
                break
        assert seen == list(whole.products)
    page = await catalog.list(limit=3)
    await run_import(catalog, mug(Handle="new", Title="Aaa"))
    assert (await catalog.list(limit=99, after=page.next)).products == whole.products[3:]
    assert len((await catalog.list(limit=0)).products) == 1


async def test_search_finds_titles_handles_and_skus_and_takes_signs_literally(
    catalog: SqlCatalog,
) -> None:
    await run_import(
        catalog,
        mug(Handle="tea-cup", Title="Blue 100% Cup", Variant_SKU="TC_1"),
        mug(Handle="plate", Title="Plate", Variant_SKU="PL-1", Published="false"),
        mug(Handle="bowl", Title="茶碗 \\ bowl", Variant_SKU="BW-1"),
    )

    async def found(query: str, published_only: bool = False) -> list[str]:
        page = await catalog.list(query, published_only=published_only)
        return [one.handle for one in page.products]

    assert await found("CUP") == ["tea-cup"]
    assert await found("tea-") == ["tea-cup"]
    assert await found("tc_1") == ["tea-cup"]
    assert await found("100%") == ["tea-cup"]
    assert await found("%") == ["tea-cup"]
    assert await found("_") == ["tea-cup"]
    assert await found("\\") == ["bowl"]
    assert await found("茶") == ["bowl"]
    assert await found("pl-1") == ["plate"]
    assert await found("plate", published_only=True) == []
    assert len(await found("", published_only=True)) == 2
    assert await found("' OR 1=1 --") == []
    assert await found("a\x00") == []
    assert await found("x" * 10_000) == []


async def test_an_import_creates_products_skus_stock_and_ledger(
    catalog: SqlCatalog, database: Database
) -> None:
    report = await catalog.import_plan(parse_shopify_csv(SAMPLE.read_bytes(), "EUR"), "i-1")
    assert report.counts["products_created"] == 8
    assert await counted(database) == {
        "product": 8,
        "product_image": 8,
        "sku": 16,
        "sku_stock": 16,
        "stock_ledger": 16,
    }
    ledger = await rows(database, tables.stock_ledger, tables.stock_ledger.c.sku)
    stock = await rows(database, tables.sku_stock, tables.sku_stock.c.sku)
    assert [(row.sku, row.d_on_hand) for row in ledger] == [(row.sku, row.on_hand) for row in stock]
    assert {(row.kind, row.ref, row.d_held, row.d_committed) for row in ledger} == {
        ("receive", "i-1", 0, 0)
    }
    card = (await catalog.by_skus(["CUSHION-FOG-40"]))["CUSHION-FOG-40"]
    assert card.sku.title == "Fog / 40 cm"
    assert card.sku.options == {"Colour": "Fog", "Size": "40 cm"}
    assert (card.sku.amount, card.sku.currency) == (4200, "EUR")
    assert card.image_url == "/static/media/products/cushion.svg"
    ids = {outcome.handle: outcome.id for outcome in report.products}
    assert (await catalog.product(ids["linen-cushion"])).title == "Linen Cushion"


async def test_the_same_import_twice_writes_nothing(
    catalog: SqlCatalog, database: Database
) -> None:
    file = parse_shopify_csv(SAMPLE.read_bytes(), "USD")
    await catalog.import_plan(file, "i-1")
    before = await rows(database, tables.product, tables.product.c.id)
    report = await catalog.import_plan(file, "i-2")
    assert (report.counts["products_unchanged"], report.counts["skus_unchanged"]) == (8, 16)
    assert await rows(database, tables.product, tables.product.c.id) == before
    assert (await counted(database))["stock_ledger"] == 16


async def test_an_import_changes_what_differs_and_leaves_stock_alone(
    catalog: SqlCatalog, database: Database
) -> None:
    first = (
        mug(Option1_Name="Size", Option1_Value="S", Image_Src="/a.svg"),
        variant(Option1_Value="L", Variant_Price="20", Image_Src="/b.svg"),
    )
    await run_import(catalog, *first, mug(Handle="bowl", Title="Bowl"))
    second = (
        {**first[0], "Variant_Price": "8.88", "Variant_Inventory_Qty": "99", "Image_Src": "/c.svg"},
        {**first[1], "Option1_Value": "XL", "Variant_Inventory_Qty": "7"},
    )
    report = await run_import(catalog, *second, ref="i-2")
    (outcome,) = report.products
    assert outcome.changed == ("images", "skus")
    assert outcome.kept == ("mug-l",)
    product = await catalog.product(outcome.id)
    assert [(sku.sku, sku.amount) for sku in product.skus] == [
        ("mug-s", 888),
        ("mug-xl", 2000),
        ("mug-l", 2000),
    ]
    assert [image.url for image in product.images] == ["/c.svg", "/b.svg"]
    stock = {row.sku: row.on_hand for row in await rows(database, tables.sku_stock)}
    assert stock == {"mug-s": 3, "mug-l": 0, "mug-xl": 7, "bowl": 3}
    again = await run_import(catalog, *second, ref="i-3")
    assert again.products[0].outcome == "unchanged"
    assert again.products[0].skus[0].notes == ("stock_kept",)


async def test_an_edit_by_hand_is_seen_by_the_next_import(catalog: SqlCatalog) -> None:
    (outcome,) = (await run_import(catalog, mug())).products
    product = await catalog.product(outcome.id)
    await catalog.put(replace(product, title="Edited"))
    report = await run_import(catalog, mug(), ref="i-2")
    assert report.products[0].changed == ("title",)
    assert await catalog.product(outcome.id) == product


async def test_nothing_is_half_imported_when_the_last_write_fails(
    catalog: SqlCatalog, database: Database
) -> None:
    async with database.begin() as conn:
        blocking = {"sku": "bowl", "kind": "receive", "ref": "i-1", "at": NOW}
        numbers = {"d_on_hand": 1, "d_held": 0, "d_committed": 0}
        await conn.execute(tables.stock_ledger.insert().values(**blocking, **numbers))
    before = await counted(database)
    with pytest.raises(IntegrityError):
        await run_import(catalog, mug(), mug(Handle="bowl", Title="Bowl"))
    assert await counted(database) == before


async def test_a_sku_of_another_product_refuses_the_whole_file(
    catalog: SqlCatalog, database: Database
) -> None:
    await run_import(catalog, mug(Variant_SKU="ONE"))
    before = await counted(database)
    with pytest.raises(ImportRefused) as refused:
        await run_import(
            catalog, mug(Handle="new", Title="New"), mug(Handle="cup", Variant_SKU="ONE")
        )
    assert [(one.line, one.code) for one in refused.value.problems] == [(3, "sku_taken")]
    assert await counted(database) == before


async def test_two_imports_of_the_same_file_at_once_create_it_once(
    catalog: SqlCatalog, database: Database
) -> None:
    file = parse_shopify_csv(SAMPLE.read_bytes(), "USD")
    reports = await asyncio.gather(*(catalog.import_plan(file, f"i-{n}") for n in range(4)))
    created = [report.counts["products_created"] for report in reports]
    assert sorted(created) == [0, 0, 0, 8]
    assert (await counted(database))["sku"] == 16
    assert (await counted(database))["stock_ledger"] == 16


async def test_an_import_planned_on_an_older_version_is_planned_anew(
    catalog: SqlCatalog, database: Database
) -> None:
    (outcome,) = (await run_import(catalog, mug(Vendor="Kiln"))).products
    planning, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    planned = count(1)

    def new_id() -> str:
        loop.call_soon_threadsafe(planning.set)
        assert go_on.wait(10)
        return f"late-{next(planned)}"

    slow = SqlCatalog(database, lambda: NOW, new_id)
    file = csv_file(mug(Title="From the file"), mug(Handle="bowl", Title="Bowl"))
    task = asyncio.create_task(slow.import_plan(parse_shopify_csv(file, "USD"), "i-2"))
    await asyncio.wait_for(planning.wait(), 10)
    product = await catalog.product(outcome.id)
    await catalog.put(replace(product, title="By hand", kind="Cups"))
    go_on.set()
    report = await task
    assert next(planned) == 3  # planned twice
    assert report.products[0].changed == ("title", "vendor", "kind")
    assert (await catalog.product(outcome.id)).title == "From the file"


async def test_product_files_of_real_shops_go_in_and_come_back(catalog: SqlCatalog) -> None:
    products = 0
    for path in shop_files():
        file = parse_shopify_csv(path.read_bytes(), "USD")
        first = await catalog.import_plan(file, path.name)
        again = await catalog.import_plan(file, path.name)
        assert first.counts["products_created"] == again.counts["products_unchanged"]
        assert first.counts["skus_created"] == again.counts["skus_unchanged"]
        products += len(file.products)
    assert len((await catalog.list(limit=200)).products) == products >= 8


async def test_hostile_strings_survive_the_round_trip(catalog: SqlCatalog) -> None:
    titles = hostile_strings()
    rows = [
        mug(
            Handle=f"h-{n:03}",
            Title=title,
            Vendor=title,
            Option1_Name="Kind",
            Option1_Value=title,
            Image_Src="/a.svg",
            Image_Alt_Text=title,
        )
        for n, title in enumerate(titles)
    ]
    report = await run_import(catalog, *rows)
    assert report.counts["products_created"] == len(titles) >= 12
    again = await run_import(catalog, *rows)
    assert again.counts["products_unchanged"] == len(titles)
    cards = await catalog.by_skus(sku.sku for one in report.products for sku in one.skus)
    kept = {card.handle: (card.product_title, card.sku.options["Kind"]) for card in cards.values()}
    assert kept == {f"h-{n:03}": (title, title) for n, title in enumerate(titles)}


@pytest.mark.parametrize("title", HOSTILE)
async def test_a_hostile_title_is_found_by_itself(catalog: SqlCatalog, title: str) -> None:
    await run_import(catalog, mug(Title=title.strip()))
    (found,) = (await catalog.list(title)).products
    assert found.title == title.strip()
