"""HTTP for buying: holds, paying, the provider's webhooks.

Responsible for the way from a hold to a paid order as a page walks it. Deciding is
`commerce.pay`'s and `commerce.checkout`'s; a viewer sees only what is their own. What comes after
the payment is `api_order_desk`'s.
"""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from commerce.checkout import Checkout
from commerce.errors import UnknownHold
from commerce.pay import Pay
from commerce.payments import Address, Delivery, PaymentPage
from commerce.stock import HoldState
from live.chat import clean
from live.codes import refuse
from live.http import Call, Route
from live.order_views import LineView, Money, lines_of
from live.views import hold_view

PAYMENT_LEASE_MS: Final = 10_000
"""A hold has one payment and one page, however often it is asked for: a buyer whose node died need
not wait until the slowest provider would have answered."""
WEBHOOK_BYTES_MAX: Final = 256 * 1024

COUPON_OR_NONE: Final = r"^[A-Za-z0-9_-]*$(?!\n)"
"""The code of a coupon, in either case."""

ShortText = Annotated[str, Meta(min_length=1, max_length=120)]


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
    coupon: Annotated[str, Meta(max_length=40, pattern=COUPON_OR_NONE)] = ""
    """For the first page of a hold: its terms stand afterwards."""


class PaymentView(Struct, frozen=True):
    """The provider's page, and what it will charge."""

    url: str
    total: Money
    shipping: Money
    until_ms: int


class OrdersApi:
    """Handlers. `address` is where viewers find this server."""

    def __init__(self, checkout: Checkout, pay: Pay, address: str) -> None:
        self._checkout = checkout
        self._pay = pay
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
                  key="required", lease_ms=PAYMENT_LEASE_MS,
                  codes=("unknown_hold", "hold_ended", "payment_open", "coupon_refused"),
                  tag="buying"),
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
            coupon=body.coupon.upper(),
            keep=call.keep(_page),
        )
        return _page(page)

    async def accept_event(self, call: Call) -> None:
        """Stored, then answered; worked on afterwards."""
        await self._pay.accept(call.raw, call.headers.get("stripe-signature", ""))


def _page(page: PaymentPage) -> PaymentView:
    return PaymentView(
        url=page.url,
        total=Money(page.total, page.currency),
        shipping=Money(page.shipping, page.currency),
        until_ms=page.hold.until_ms,
    )


def _text(text: str, field: str) -> str:
    cleaned = clean(text)
    if not cleaned:
        raise refuse("bad_params", field=field)
    return cleaned


def _hold(hold: Any) -> HoldView:
    view = hold_view(hold)
    return HoldView(**{**view, "lines": lines_of(view["lines"]), "total": Money(**view["total"])})
