"""HTTP for buying: holds, paying, orders, the provider's webhooks.

Responsible for the way from a hold to a paid order as a page walks it. Deciding is
`commerce.pay`'s and `commerce.checkout`'s; a viewer sees only what is their own, a host sees the
shop's.
"""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from commerce.checkout import Checkout
from commerce.errors import UnknownHold, UnknownOrder
from commerce.orders import Order, Orders
from commerce.pay import Pay
from commerce.payments import Address, Delivery
from commerce.stock import HoldState
from live.chat import clean
from live.codes import refuse
from live.http import Call, Route
from live.views import hold_view, order_view

PAGE_MAX: Final = 100
WEBHOOK_BYTES_MAX: Final = 256 * 1024

ShortText = Annotated[str, Meta(min_length=1, max_length=120)]


class Money(Struct, frozen=True):
    """Minor units of a currency."""

    amount: int
    currency: str


class LineView(Struct, frozen=True):
    """One line of a hold or an order."""

    sku: str
    title: str
    quantity: int
    price: Money


class HoldView(Struct, frozen=True):
    """A reservation."""

    rid: str
    drop: str
    state: str
    until_ms: int
    lines: list[LineView]
    total: Money
    receipt: list[int]
    lapses: int


class HoldList(Struct, frozen=True):
    """One's own reservations that are not over."""

    holds: list[HoldView]


class AddressBody(Struct, frozen=True):
    """Where to send it."""

    line1: ShortText
    city: ShortText
    postcode: Annotated[str, Meta(min_length=1, max_length=20)]
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}$(?!\n)")]
    line2: Annotated[str, Meta(max_length=120)] = ""
    region: Annotated[str, Meta(max_length=120)] = ""


class PayBody(Struct, frozen=True):
    """Who buys and where it goes. Never a card: that is typed on the provider's page."""

    name: ShortText
    email: Annotated[str, Meta(max_length=254, pattern=r"^[^@\s]+@[^@\s.]+(\.[^@\s.]+)+$(?!\n)")]
    address: AddressBody
    phone: Annotated[str, Meta(max_length=40, pattern=r"^[0-9+() ./-]*$(?!\n)")] = ""


class PaymentView(Struct, frozen=True):
    """The provider's page, and what it will charge."""

    url: str
    total: Money
    shipping: Money
    until_ms: int


class OrderView(Struct, frozen=True):
    """An order."""

    id: str
    rid: str
    show: str
    state: str
    lines: list[LineView]
    subtotal: Money
    shipping: Money
    total: Money
    at: int
    updated_at: int


class OrderDetail(Struct, frozen=True):
    """An order with who bought it, for the buyer and the host."""

    order: OrderView
    customer: dict[str, Any] | None


class OrderList(Struct, frozen=True):
    """Orders, newest first; `next` continues the list."""

    orders: list[OrderView]
    next: str | None


class OrderQuery(Struct, frozen=True):
    """A host may ask for a show's orders or one state."""

    show: Annotated[str, Meta(max_length=64)] | None = None
    state: Annotated[str, Meta(max_length=20)] | None = None
    after: Annotated[str, Meta(max_length=160)] | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 50


class OrdersApi:
    """Handlers. `address` is where viewers find this server."""

    def __init__(self, checkout: Checkout, pay: Pay, orders: Orders, address: str) -> None:
        self._checkout = checkout
        self._pay = pay
        self._orders = orders
        self._address = address

    def routes(self) -> list[Route]:
        """The table."""
        hold = "/api/v1/holds/{rid}"
        return [
            Route("GET", "/api/v1/holds", "list_holds", "Your reservations that are not over.",
                  self.list_holds, HoldList, who="somebody", tag="buying"),
            Route("GET", hold, "get_hold", "One of your reservations.", self.get_hold, HoldView,
                  who="somebody", codes=("unknown_hold",), tag="buying"),
            Route("DELETE", hold, "cancel_hold", "Give a reservation back.", self.cancel_hold,
                  HoldView, who="somebody", codes=("unknown_hold", "hold_ended"), tag="buying"),
            Route("POST", hold + "/payment", "begin_payment",
                  "Give name and address, get the provider's payment page.",
                  self.begin_payment, PaymentView, who="somebody", body=PayBody, status=201,
                  key="required", codes=("unknown_hold", "hold_ended", "payment_open"),
                  tag="buying"),
            Route("GET", "/api/v1/orders", "list_orders",
                  "Your orders; a host sees the shop's.", self.list_orders, OrderList,
                  who="somebody", query=OrderQuery, tag="buying"),
            Route("GET", "/api/v1/orders/{order}", "get_order", "One order.", self.get_order,
                  OrderDetail, who="somebody", codes=("unknown_order",), tag="buying"),
            Route("POST", "/api/v1/webhooks/stripe", "accept_event",
                  "An event of the payment provider, signed.", self.accept_event, None,
                  raw=True, body_bytes_max=WEBHOOK_BYTES_MAX, status=204,
                  codes=("bad_signature",), tag="provider"),
        ]  # fmt: skip

    async def list_holds(self, call: Call) -> HoldList:
        """Own ones only."""
        holds = await self._checkout.open_holds(call.me.id)
        return HoldList([_hold(hold) for hold in holds])

    async def get_hold(self, call: Call) -> HoldView:
        """A stranger's hold is an unknown one."""
        rid = call.path["rid"]
        hold = await self._checkout.find(call.me.id, rid)
        if hold is not None and hold.state is HoldState.PAYING:
            # Whoever asks has come back from the provider's page: do not wait for the webhook.
            await self._pay.refresh(rid)
            hold = await self._checkout.find(call.me.id, rid)
        if hold is None:
            raise UnknownHold
        return _hold(hold)

    async def cancel_hold(self, call: Call) -> HoldView:
        """As the command `cancel`."""
        return _hold(await self._checkout.cancel(call.me.id, call.path["rid"]))

    async def begin_payment(self, call: Call) -> PaymentView:
        """The same page again while it is open."""
        body: PayBody = call.body
        rid = call.path["rid"]
        hold = await self._checkout.find(call.me.id, rid)
        if hold is None:
            raise UnknownHold
        delivery = Delivery(
            name=_text(body.name, "name"),
            email=body.email,
            phone=body.phone,
            address=Address(
                line1=_text(body.address.line1, "address.line1"),
                line2=clean(body.address.line2),
                city=_text(body.address.city, "address.city"),
                region=clean(body.address.region),
                postcode=_text(body.address.postcode, "address.postcode"),
                country=body.address.country,
            ),
        )
        page = await self._pay.begin(
            call.me.id,
            rid,
            delivery,
            return_url=f"{self._address}/show/{hold.show}",
        )
        return PaymentView(
            url=page.url,
            total=Money(page.total, page.currency),
            shipping=Money(page.shipping, page.currency),
            until_ms=page.hold.until_ms,
        )

    async def list_orders(self, call: Call) -> OrderList:
        """Newest first."""
        query: OrderQuery = call.query
        if not call.me.role.runs_shows:
            own = await self._orders.of_viewer(call.me.id, query.limit)
            return OrderList([_order(order) for order in own], None)
        page = await self._orders.page(
            show=query.show, state=query.state, limit=query.limit, after=query.after
        )
        return OrderList([_order(order) for order in page.orders], page.after)

    async def get_order(self, call: Call) -> OrderDetail:
        """A stranger's order is an unknown one."""
        order = await self._orders.get(call.path["order"])
        mine = order is not None and (order.viewer == call.me.id or call.me.role.runs_shows)
        if order is None or not mine:
            raise UnknownOrder
        return OrderDetail(_order(order), await self._orders.customer(order.rid))

    async def accept_event(self, call: Call) -> None:
        """Stored, then answered; worked on afterwards."""
        await self._pay.accept(call.raw, call.headers.get("stripe-signature", ""))


def _text(text: str, field: str) -> str:
    cleaned = clean(text)
    if not cleaned:
        raise refuse("bad_params", field=field)
    return cleaned


def _lines(lines: list[dict[str, Any]]) -> list[LineView]:
    return [
        LineView(line["sku"], line["title"], line["quantity"], Money(**line["price"]))
        for line in lines
    ]


def _hold(hold: Any) -> HoldView:
    view = hold_view(hold)
    return HoldView(**{**view, "lines": _lines(view["lines"]), "total": Money(**view["total"])})


def _order(order: Order) -> OrderView:
    view = order_view(order)
    sums = {name: Money(**view[name]) for name in ("subtotal", "shipping", "total")}
    return OrderView(**{**view, **sums, "lines": _lines(view["lines"])})
