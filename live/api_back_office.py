"""HTTP for the shop's own work: packing lists, exports, low stock, terms, reconciling.

Responsible for what only hosts see. Lists that can be long are read page by page and streamed: an
export of 100,000 orders never stands in memory. It must not decide anything about orders.
"""

import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Meta, Struct

from commerce.errors import UnknownOrder
from commerce.money import format_amount
from commerce.orders import OrderFilter, Orders
from commerce.packing import PARCELS_MAX, Parcel
from commerce.pricing import TITLE_CHARS_MAX, WHOLE_BP, Coupon, Discount, ShopTerms
from commerce.provider_check import BACK_MAX_MS, ProviderCheck, Report
from live import csv_text, receipt
from live.api_order_desk import SEARCH_CHARS_MAX, Instant
from live.chat import clean
from live.codes import refuse
from live.http import Call, Route, Text
from live.shop import ShopDesk
from live.shows import Shows
from realtime.wire import INT_MAX

if TYPE_CHECKING:  # chosen in live/app.py
    from commerce.coupons_sql import SqlCoupons
    from commerce.packing_sql import SqlPacking
    from commerce.pricing_sql import SqlTerms

EXPORT_PAGE: Final = 200
DAY_MS: Final = 86_400_000
LOW_STOCK_MAX: Final = 10**6
CSV: Final = "text/csv"
HTML: Final = "text/html"
ORDER_COLUMNS: Final = (
    "order", "placed_at", "state", "show", "viewer", "currency", "subtotal", "discount",
    "shipping", "tax", "total", "refunded", "line", "sku", "title", "quantity", "unit_price",
)  # fmt: skip
PARCEL_COLUMNS: Final = (
    "order", "placed_at", "name", "phone", "line1", "line2", "city", "region", "postcode",
    "country", "sku", "title", "quantity",
)  # fmt: skip

COUPON: Final = re.compile(r"[A-Z0-9_-]{1,40}")

Title = Annotated[str, Meta(min_length=1, max_length=TITLE_CHARS_MAX)]


class PackLineView(Struct, frozen=True):
    """So many units of one line."""

    position: int
    sku: str
    title: str
    quantity: int


class ParcelView(Struct, frozen=True):
    """What is to be packed for one order, and where it goes."""

    order: str
    placed_at: int
    lines: list[PackLineView]
    customer: dict[str, Any] | None


class PackingList(Struct, frozen=True):
    """Oldest order first; `next` continues the list."""

    parcels: list[ParcelView]
    next: str | None


class PackingQuery(Struct, frozen=True):
    """Paging."""

    after: Annotated[str, Meta(max_length=160)] | None = None
    limit: Annotated[int, Meta(ge=1, le=PARCELS_MAX)] = 100


class ExportQuery(Struct, frozen=True):
    """Which orders; all of them without a filter."""

    show: Annotated[str, Meta(max_length=64)] | None = None
    state: Annotated[str, Meta(max_length=20)] | None = None
    viewer: Annotated[str, Meta(max_length=64)] | None = None
    since: Instant | None = None
    until: Instant | None = None
    text: Annotated[str, Meta(max_length=SEARCH_CHARS_MAX)] | None = None


class WaitingView(Struct, frozen=True):
    """What a buyer asked for: `kind` is refund or return."""

    kind: str
    id: str
    order: str | None
    state: str
    at: int


class WaitingList(Struct, frozen=True):
    """The longest waiting first."""

    waiting: list[WaitingView]


class LowView(Struct, frozen=True):
    """Units of a SKU that are running out."""

    sku: str
    on_hand: int
    held: int
    committed: int
    available: int


class LowStock(Struct, frozen=True):
    """SKUs at or below the shop's threshold, the fewest first."""

    threshold: int
    skus: list[LowView]


class LowQuery(Struct, frozen=True):
    """Another threshold than the shop's."""

    at_most: Annotated[int, Meta(ge=0, le=LOW_STOCK_MAX)] | None = None


class TermsBody(Struct, frozen=True):
    """Tax contained in prices (hundredths of a percent) and the threshold of low stock."""

    tax_bp: Annotated[int, Meta(ge=0, le=WHOLE_BP)]
    tax_title: Annotated[str, Meta(max_length=TITLE_CHARS_MAX)]
    low_stock: Annotated[int, Meta(ge=0, le=LOW_STOCK_MAX)]


class DiscountBody(Struct, frozen=True):
    """What a sale takes off the goods: `percent_bp` hundredths of a percent, or an amount."""

    title: Title
    percent_bp: Annotated[int, Meta(ge=1, le=WHOLE_BP)] | None = None
    amount: Annotated[int, Meta(ge=1, le=INT_MAX)] | None = None


class DiscountView(Struct, frozen=True):
    """What a sale takes off, if anything."""

    discount: DiscountBody | None


class CouponBody(Struct, frozen=True):
    """What a code takes off what is left of the goods, for how many orders, and until when."""

    title: Title
    uses_max: Annotated[int, Meta(ge=0, le=INT_MAX)]
    percent_bp: Annotated[int, Meta(ge=1, le=WHOLE_BP)] | None = None
    amount: Annotated[int, Meta(ge=1, le=INT_MAX)] | None = None
    ends_at: Annotated[int, Meta(ge=0, le=INT_MAX)] | None = None


class CouponView(Struct, frozen=True):
    """A coupon, and how often it is in use."""

    code: str
    title: str
    percent_bp: int | None
    amount: int | None
    uses_max: int
    used: int
    ends_at: int | None


class CouponList(Struct, frozen=True):
    """By code."""

    coupons: list[CouponView]


class DifferenceView(Struct, frozen=True):
    """Where our books and the provider's differ; minor units."""

    kind: str
    intent: str
    ours: int
    theirs: int
    currency: str


class FaultView(Struct, frozen=True):
    """What does not add up in our own books."""

    kind: str
    what: str
    amount: int


class Reconciliation(Struct, frozen=True):
    """Our books beside the provider's. `complete`: it saw everything since `since`."""

    since: int
    at: int
    charges: int
    complete: bool
    differences: list[DifferenceView]
    faults: list[FaultView]
    balances: dict[str, dict[str, int]]


class ReconcileQuery(Struct, frozen=True):
    """How far back."""

    days: Annotated[int, Meta(ge=1, le=BACK_MAX_MS // DAY_MS)] = 3


class BackOfficeApi:
    """Handlers. `clock` in milliseconds."""

    def __init__(
        self,
        orders: Orders,
        packing: "SqlPacking",
        terms: "SqlTerms",
        coupons: "SqlCoupons",
        reconciler: ProviderCheck,
        shop: ShopDesk,
        shows: Shows,
        *,
        clock: Callable[[], int],
    ) -> None:
        self._orders = orders
        self._packing = packing
        self._terms = terms
        self._coupons = coupons
        self._reconciler = reconciler
        self._shop = shop
        self._shows = shows
        self._clock = clock

    def routes(self) -> list[Route]:
        """The table."""
        pack = "/api/v1/shows/{show}/packing-list"
        discount = "/api/v1/drops/{drop}/discount"
        host = "host"
        return [
            Route("GET", pack, "get_packing_list", "What is to be packed for a show.",
                  self.packing, PackingList, who=host, query=PackingQuery,
                  codes=("unknown_show",), tag="orders"),
            Route("GET", pack + ".csv", "export_packing_list", "The same for a spreadsheet.",
                  self.packing_csv, str, who=host, produces=CSV, codes=("unknown_show",),
                  tag="orders"),
            Route("GET", "/api/v1/order-export.csv", "export_orders",
                  "Orders for a spreadsheet, a row per line.", self.export, str, who=host,
                  query=ExportQuery, produces=CSV, tag="orders"),
            Route("GET", "/api/v1/orders/{order}/receipt", "get_receipt", "A page to print.",
                  self.receipt, str, who="somebody", produces=HTML, codes=("unknown_order",),
                  tag="orders"),
            Route("GET", "/api/v1/waiting", "list_waiting",
                  "Refunds asked for or failed, returns under way.", self.waiting, WaitingList,
                  who=host, tag="orders"),
            Route("GET", "/api/v1/low-stock", "list_low_stock", "SKUs that are running out.",
                  self.low_stock, LowStock, who=host, query=LowQuery, tag="stock"),
            Route("GET", "/api/v1/terms", "get_terms", "Tax and the threshold of low stock.",
                  self.get_terms, TermsBody, who=host, tag="shop"),
            Route("PUT", "/api/v1/terms", "put_terms",
                  "Change them, for payments begun from now on.", self.put_terms, TermsBody,
                  who=host, body=TermsBody, key="optional", tag="shop"),
            Route("GET", discount, "get_discount", "What a sale takes off.", self.get_discount,
                  DiscountView, codes=("unknown_drop",), tag="shop"),
            Route("PUT", discount, "put_discount",
                  "Set it, before the first reservation of the sale.", self.put_discount,
                  DiscountView, who=host, body=DiscountBody, key="optional",
                  codes=("unknown_drop", "terms_fixed"), tag="shop"),
            Route("DELETE", discount, "delete_discount",
                  "Take it away, before the first reservation of the sale.", self.delete_discount,
                  DiscountView, who=host, key="optional", codes=("unknown_drop", "terms_fixed"),
                  tag="shop"),
            Route("GET", "/api/v1/coupons", "list_coupons", "Codes that take something off.",
                  self.list_coupons, CouponList, who=host, tag="shop"),
            Route("PUT", "/api/v1/coupons/{code}", "put_coupon",
                  "Make a coupon, or change it for holds to come.", self.put_coupon, CouponView,
                  who=host, body=CouponBody, key="optional", codes=("terms_fixed",), tag="shop"),
            Route("GET", "/api/v1/reconciliation", "reconcile",
                  "Compare our books with the payment provider's, now.", self.reconcile,
                  Reconciliation, who=host, query=ReconcileQuery, tag="shop"),
        ]  # fmt: skip

    async def packing(self, call: Call) -> PackingList:
        """What was shipped or cancelled is not on it."""
        query: PackingQuery = call.query
        show = await self._shows.get(call.path["show"])
        page = await self._packing.parcels(show.id, query.limit, query.after)
        return PackingList([_parcel(one) for one in page.parcels], page.after)

    async def packing_csv(self, call: Call) -> Text:
        """One row per line of a parcel."""
        show = await self._shows.get(call.path["show"])
        return Text(CSV, self._packing_rows(show.id), "packing-list.csv")

    async def _packing_rows(self, show: str) -> AsyncIterator[str]:
        yield csv_text.BOM + csv_text.row(PARCEL_COLUMNS)
        after: str | None = None
        while True:
            page = await self._packing.parcels(show, EXPORT_PAGE, after)
            for parcel in page.parcels:
                for cells in _parcel_rows(parcel):
                    yield csv_text.row(cells)
            after = page.after
            if after is None:
                return

    async def export(self, call: Call) -> Text:
        """Nothing personal but the viewer's id."""
        query: ExportQuery = call.query
        wanted = OrderFilter(
            query.show, query.state, query.viewer, query.since, query.until, query.text
        )
        return Text(CSV, self._export_rows(wanted), "orders.csv")

    async def _export_rows(self, wanted: OrderFilter) -> AsyncIterator[str]:
        yield csv_text.BOM + csv_text.row(ORDER_COLUMNS)
        after: str | None = None
        while True:
            page = await self._orders.page(wanted=wanted, limit=EXPORT_PAGE, after=after)
            for order in page.orders:
                sums = (
                    order.subtotal, order.discount, order.shipping, order.tax, order.total,
                    order.refunded,
                )  # fmt: skip
                head = (
                    order.id, _instant(order.placed_at), order.state.value, order.show,
                    order.viewer, order.currency,
                    *(format_amount(amount, order.currency) for amount in sums),
                )  # fmt: skip
                for position, line in enumerate(order.lines):
                    price = format_amount(line.unit_amount, order.currency)
                    cells = (position, line.sku, line.title, line.quantity, price)
                    yield csv_text.row((*head, *cells))
            after = page.after
            if after is None:
                return

    async def receipt(self, call: Call) -> Text:
        """For its buyer and hosts; a page without scripts."""
        order = await self._orders.get(call.path["order"])
        if order is None or (order.viewer != call.me.id and not call.me.role.runs_shows):
            raise UnknownOrder
        shop = await self._shop.get()
        terms = await self._terms.shop()
        customer = await self._orders.customer(order.rid)
        language = call.headers.get("accept-language", "")
        page = receipt.page(order, shop.name, terms.tax_title, customer, language)
        return Text(HTML, page)

    async def waiting(self, call: Call) -> WaitingList:
        """At most 200."""
        rows = await self._packing.waiting()
        return WaitingList([WaitingView(r.kind, r.id, r.order, r.state, r.at) for r in rows])

    async def low_stock(self, call: Call) -> LowStock:
        """As the record has it now."""
        query: LowQuery = call.query
        threshold = query.at_most
        if threshold is None:
            threshold = (await self._terms.shop()).low_stock
        rows = await self._packing.low_stock(threshold)
        return LowStock(
            threshold,
            [LowView(r.sku, r.on_hand, r.held, r.committed, r.available) for r in rows],
        )

    async def get_terms(self, call: Call) -> TermsBody:
        """None of them is secret, but viewers see them in their order."""
        return _terms(await self._terms.shop())

    async def put_terms(self, call: Call) -> TermsBody:
        """Who has begun to pay keeps the terms of then."""
        body: TermsBody = call.body
        terms = ShopTerms(body.tax_bp, clean(body.tax_title), body.low_stock)
        return _terms(await self._terms.put_shop(terms, call.keep(_terms)))

    async def get_discount(self, call: Call) -> DiscountView:
        """For viewers too: it is what they will pay."""
        return _discount(await self._terms.discount(call.path["drop"]))

    async def put_discount(self, call: Call) -> DiscountView:
        """A percentage or an amount, not both."""
        body: DiscountBody = call.body
        title = clean(body.title)
        if (body.percent_bp is None) == (body.amount is None) or not title:
            raise refuse("bad_params", field="percent_bp" if title else "title")
        discount = Discount(title, body.percent_bp, body.amount)
        drop, now = call.path["drop"], self._clock()
        keep = call.keep(_discount)
        return _discount(await self._terms.put_discount(drop, discount, now, keep))

    async def delete_discount(self, call: Call) -> DiscountView:
        """Full price."""
        drop, now = call.path["drop"], self._clock()
        return _discount(await self._terms.put_discount(drop, None, now, call.keep(_discount)))

    async def list_coupons(self, call: Call) -> CouponList:
        """By code."""
        return CouponList([_coupon(one) for one in await self._coupons.list()])

    async def put_coupon(self, call: Call) -> CouponView:
        """Ended by an `ends_at` that has passed; never below what is used."""
        body: CouponBody = call.body
        code, title = call.path["code"].upper(), clean(body.title)
        if COUPON.fullmatch(code) is None:
            raise refuse("bad_params", field="code")
        if (body.percent_bp is None) == (body.amount is None) or not title:
            raise refuse("bad_params", field="percent_bp" if title else "title")
        discount = Discount(title, body.percent_bp, body.amount)
        wanted = Coupon(code, discount, body.uses_max, body.ends_at)
        return _coupon(await self._coupons.put(wanted, self._clock(), call.keep(_coupon)))

    async def reconcile(self, call: Call) -> Reconciliation:
        """Brings in what news there is, and reports what still differs."""
        query: ReconcileQuery = call.query
        return view_report(await self._reconciler.run(query.days * DAY_MS))


def view_report(report: Report) -> Reconciliation:
    """A report for the API and the command line."""
    return Reconciliation(
        since=report.since,
        at=report.at,
        charges=report.charges,
        complete=report.complete,
        differences=[
            DifferenceView(d.kind, d.intent, d.ours, d.theirs, d.currency)
            for d in report.differences
        ],
        faults=[FaultView(f.kind, f.what, f.amount) for f in report.faults],
        balances=report.balances,
    )


def _terms(terms: ShopTerms) -> TermsBody:
    return TermsBody(terms.tax_bp, terms.tax_title, terms.low_stock)


def _discount(discount: Discount | None) -> DiscountView:
    if discount is None:
        return DiscountView(None)
    return DiscountView(DiscountBody(discount.title, discount.percent_bp, discount.amount))


def _coupon(coupon: Coupon) -> CouponView:
    rule = coupon.discount
    return CouponView(
        coupon.code, rule.title, rule.percent_bp, rule.amount, coupon.uses_max, coupon.used,
        coupon.ends_at,
    )  # fmt: skip


def _parcel(parcel: Parcel) -> ParcelView:
    lines = [PackLineView(one.position, one.sku, one.title, one.quantity) for one in parcel.lines]
    customer = None if parcel.customer is None else dict(parcel.customer)
    return ParcelView(parcel.order, parcel.placed_at, lines, customer)


def _parcel_rows(parcel: Parcel) -> list[tuple[object, ...]]:
    customer = parcel.customer or {}
    address = customer.get("address") or {}
    where = [address.get(name, "") for name in PARCEL_COLUMNS[4:10]]
    head = (
        parcel.order,
        _instant(parcel.placed_at),
        customer.get("name", ""),
        customer.get("phone", ""),
        *where,
    )
    return [(*head, line.sku, line.title, line.quantity) for line in parcel.lines]


def _instant(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")
