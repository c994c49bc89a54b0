"""HTTP for products, imports and stock.

Responsible for the shop's own side of the catalogue, and for what viewers may read of it. Rules of
products are `commerce.catalog`'s, units are moved by `commerce.checkout` alone.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct, field

from commerce.catalog import (
    QUERY_CHARS_MAX,
    Catalog,
    Image,
    Product,
    SkuInfo,
)
from commerce.catalog_rules import SKUS_MAX
from commerce.checkout import Checkout
from commerce.idempotency import request_sha
from commerce.reconcile import Light, Reconciler
from commerce.stock import StockRow
from live.http import Call, Route
from live.imports import Report, import_file, settle_currency, view_report
from live.messages import DELTA_MAX
from live.shop import ShopDesk
from realtime.wire import INT_MAX

FILE_BYTES_MAX: Final = 10 * 1024 * 1024
PAGE_MAX: Final = 200

Amount = Annotated[int, Meta(ge=0, le=INT_MAX)]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$(?!\n)")]
Text = Annotated[str, Meta(max_length=255)]


class ImageBody(Struct, frozen=True):
    """A picture: http(s), or a path on this server."""

    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    alt: Annotated[str, Meta(max_length=512)] = ""


class SkuBody(Struct, frozen=True):
    """A buyable variant; an empty `sku` is derived from the handle and the options."""

    amount: Amount
    currency: Currency
    sku: Annotated[str, Meta(max_length=64)] = ""
    options: dict[str, Text] = field(default_factory=dict)
    compare_at: Amount | None = None
    barcode: Annotated[str, Meta(max_length=64)] = ""
    image_url: Annotated[str, Meta(max_length=2048)] = ""
    grams: Annotated[int, Meta(ge=0, le=100_000_000)] = 0
    active: bool = True


class ProductBody(Struct, frozen=True):
    """A product to be created, or what one shall become."""

    handle: Annotated[str, Meta(min_length=1, max_length=255)]
    title: Annotated[str, Meta(min_length=1, max_length=255)]
    skus: Annotated[list[SkuBody], Meta(min_length=1, max_length=SKUS_MAX)]
    description_html: Annotated[str, Meta(max_length=65_536)] = ""
    vendor: Text = ""
    kind: Text = ""
    tags: Annotated[list[Text], Meta(max_length=250)] = field(default_factory=list)
    options: Annotated[list[Text], Meta(max_length=3)] = field(default_factory=list)
    published: bool = True
    images: Annotated[list[ImageBody], Meta(max_length=250)] = field(default_factory=list)
    version: Annotated[str, Meta(max_length=64)] | None = None
    """Of the product this edit is based on; refused if somebody else has changed it since."""


class SkuView(Struct, frozen=True):
    """A variant as it is sold."""

    sku: str
    title: str
    options: dict[str, str]
    amount: int
    currency: str
    compare_at: int | None
    barcode: str
    image_url: str
    grams: int
    active: bool


class ProductView(Struct, frozen=True):
    """A product."""

    id: str
    handle: str
    title: str
    description_html: str
    vendor: str
    kind: str
    tags: list[str]
    options: list[str]
    published: bool
    images: list[ImageBody]
    skus: list[SkuView]
    version: str


class ProductList(Struct, frozen=True):
    """Products by title; `next` continues the list."""

    products: list[ProductView]
    next: str | None


class ProductQuery(Struct, frozen=True):
    """Search in title, handle and SKUs."""

    query: Annotated[str, Meta(max_length=QUERY_CHARS_MAX)] | None = None
    after: Annotated[str, Meta(max_length=1024)] | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 50


class ImportQuery(Struct, frozen=True):
    """The file does not say in which currency its prices are."""

    currency: Currency


class StockView(Struct, frozen=True):
    """Units of a SKU: in the shop, reserved, sold and not shipped, and what can be bought now."""

    sku: str
    on_hand: int
    held: int
    committed: int
    available: int
    draining: int
    """Of the held, so many leave the stock when their holds end."""


class Adjustment(Struct, frozen=True):
    """Units that came or went."""

    delta: Annotated[int, Meta(ge=-DELTA_MAX, le=DELTA_MAX)]


class DifferenceView(Struct, frozen=True):
    """Two numbers that must be equal and are not."""

    kind: str
    key: str
    expected: int
    found: int


class StockCheck(Struct, frozen=True):
    """Whether all numbers of stock agree, as this node last saw them."""

    light: Light
    reason: str
    """agrees, differs, healed, starting, unquiet or away."""
    at: int
    checked: int
    rounds: int
    count: int
    rebuilds: int
    differences: list[DifferenceView]


class StockNumber(Struct, frozen=True):
    """What the stock shall be, if it is what the caller believes."""

    on_hand: Annotated[int, Meta(ge=0, le=DELTA_MAX)]
    expected: Annotated[int, Meta(ge=0, le=INT_MAX)]
    drain: bool = False
    """Below what is held: reached as holds end, instead of refused."""


class CatalogApi:
    """Handlers."""

    def __init__(
        self, catalog: Catalog, checkout: Checkout, shop: ShopDesk, reconciler: Reconciler
    ) -> None:
        self._reconciler = reconciler
        self._catalog = catalog
        self._shop = shop
        self._checkout = checkout

    def routes(self) -> list[Route]:
        """The table."""
        one = "/api/v1/products/{product}"
        money = ("bad_currency", "wrong_currency")
        bad = (*money, "bad_product", "handle_taken", "sku_taken", "product_changed")
        return [
            Route("GET", "/api/v1/products", "list_products", "Products by title.",
                  self.list_products, ProductList, query=ProductQuery, tag="catalogue"),
            Route("POST", "/api/v1/products", "create_product", "Create a product.",
                  self.create_product, ProductView, who="host", body=ProductBody, status=201,
                  key="optional", codes=bad, tag="catalogue"),
            Route("GET", one, "get_product", "One product.", self.get_product, ProductView,
                  codes=("unknown_product",), tag="catalogue"),
            Route("PUT", one, "put_product", "Change a product.", self.put_product, ProductView,
                  who="host", body=ProductBody, key="optional",
                  codes=(*bad, "unknown_product"), tag="catalogue"),
            Route("POST", "/api/v1/imports", "import_products",
                  "Import a Shopify product CSV; all rows or none.",
                  self.import_products, Report, who="host", raw=True, media="text/csv",
                  body_bytes_max=FILE_BYTES_MAX, query=ImportQuery, key="optional",
                  codes=(*money, "csv_columns", "csv_encoding", "csv_too_many_rows", "csv_refused"),
                  tag="catalogue"),
            Route("GET", "/api/v1/stock-check", "check_stock",
                  "Whether all numbers of stock agree.", self.check_stock, StockCheck,
                  who="host", tag="stock"),
            Route("GET", "/api/v1/stock/{sku:path}", "get_stock", "Units of a SKU.", self.get_stock,
                  StockView, who="host", codes=("unknown_sku",), tag="stock"),
            Route("POST", "/api/v1/stock/{sku:path}/adjustments", "adjust_stock",
                  "Add or take units; refused below what is held or sold.",
                  self.adjust_stock, StockView, who="host", body=Adjustment, key="required",
                  codes=("unknown_sku", "stock_held"), tag="stock"),
            Route("POST", "/api/v1/stock/{sku:path}/count", "set_stock",
                  "Set the units on hand, if they are what you expect.",
                  self.set_stock, StockView, who="host", body=StockNumber, key="required",
                  codes=("unknown_sku", "stock_changed", "stock_held"), tag="stock"),
            Route("POST", "/api/v1/stock/{sku:path}/keep", "cancel_drain",
                  "Stop running down: what is still held stays.", self.cancel_drain, StockView,
                  who="host", key="required", codes=("unknown_sku",), tag="stock"),
        ]  # fmt: skip

    async def list_products(self, call: Call) -> ProductList:
        """Viewers see what is published."""
        query: ProductQuery = call.query
        hosting = call.who is not None and call.who.role.runs_shows
        page = await self._catalog.list(
            query.query, query.limit, query.after, published_only=not hosting
        )
        return ProductList([_view(product) for product in page.products], page.next)

    async def create_product(self, call: Call) -> ProductView:
        """With no units yet; they come by an adjustment or an import."""
        body: ProductBody = call.body
        await settle_currency(self._catalog, self._shop, body.skus[0].currency)
        return _view(await self._catalog.put(_product("", body), keep=call.keep(_view)))

    async def get_product(self, call: Call) -> ProductView:
        """Also one that is not published: a show may pin it."""
        return _view(await self._catalog.product(call.path["product"]))

    async def put_product(self, call: Call) -> ProductView:
        """All of it; what is left out takes its default."""
        body: ProductBody = call.body
        await settle_currency(self._catalog, self._shop, body.skus[0].currency)
        made = await self._catalog.put(
            _product(call.path["product"], body), expected=body.version, keep=call.keep(_view)
        )
        return _view(made)

    async def import_products(self, call: Call) -> Report:
        """A report row by row; `refused` rows mean that nothing was imported."""
        query: ImportQuery = call.query
        return await import_file(
            self._catalog, self._shop, call.raw, query.currency, call.keep(view_report)
        )

    async def check_stock(self, _call: Call) -> StockCheck:
        """From memory: the check runs all the time."""
        found = self._reconciler.verdict()
        return StockCheck(
            found.light,
            found.reason,
            found.at,
            found.checked,
            found.rounds,
            found.count,
            found.rebuilds,
            [
                DifferenceView(one.kind, one.key, one.expected, one.found)
                for one in found.differences
            ],
        )

    async def get_stock(self, call: Call) -> StockView:
        """As the record has it."""
        return _stock(await self._checkout.stock_row(call.path["sku"]))

    async def adjust_stock(self, call: Call) -> StockView:
        """The Idempotency-Key is also the reference in the ledger."""
        key = call.headers["idempotency-key"]
        row, _ = await self._checkout.adjust(
            call.path["sku"],
            call.body.delta,
            ref=reference(call.me.id, key),
            keep=call.keep(_stock),
        )
        return _stock(row)

    async def set_stock(self, call: Call) -> StockView:
        """Compare-and-set."""
        body: StockNumber = call.body
        row, _ = await self._checkout.set_on_hand(
            call.path["sku"],
            body.on_hand,
            body.expected,
            ref=reference(call.me.id, call.headers["idempotency-key"]),
            drain=body.drain,
            keep=call.keep(_stock),
        )
        return _stock(row)

    async def cancel_drain(self, call: Call) -> StockView:
        """Harmless where nothing runs down."""
        ref = reference(call.me.id, call.headers["idempotency-key"])
        row, _ = await self._checkout.cancel_drain(
            call.path["sku"], ref=ref, keep=call.keep(_stock)
        )
        return _stock(row)


def _stock(row: StockRow) -> StockView:
    return StockView(
        row.sku, row.on_hand, row.held, row.committed, max(row.available, 0), row.draining
    )


def reference(who: str, key: str) -> str:
    """A ledger reference that fits its column, whatever the key."""
    return f"api:{request_sha(who.encode(), key.encode())}"


def _product(id_: str, body: ProductBody) -> Product:
    return Product(
        id=id_,
        handle=body.handle,
        title=body.title,
        description_html=body.description_html,
        vendor=body.vendor,
        kind=body.kind,
        tags=tuple(body.tags),
        options=tuple(body.options),
        published=body.published,
        images=tuple(Image(one.url, one.alt) for one in body.images),
        skus=tuple(
            SkuInfo(
                sku=one.sku,
                title="",
                options=one.options,
                amount=one.amount,
                currency=one.currency,
                compare_at=one.compare_at,
                barcode=one.barcode,
                image_url=one.image_url,
                grams=one.grams,
                active=one.active,
            )
            for one in body.skus
        ),
    )


def _view(product: Product) -> ProductView:
    return ProductView(
        id=product.id,
        handle=product.handle,
        title=product.title,
        description_html=product.description_html,
        vendor=product.vendor,
        kind=product.kind,
        tags=list(product.tags),
        options=list(product.options),
        published=product.published,
        images=[ImageBody(one.url, one.alt) for one in product.images],
        skus=[
            SkuView(
                sku=one.sku,
                title=one.title,
                options=dict(one.options),
                amount=one.amount,
                currency=one.currency,
                compare_at=one.compare_at,
                barcode=one.barcode,
                image_url=one.image_url,
                grams=one.grams,
                active=one.active,
            )
            for one in product.skus
        ],
        version=product.fingerprint,
    )
