"""HTTP for orders: looking, cancelling, giving back, shipping, returning.

Responsible for who may do what: a viewer sees, cancels and asks about their own orders, a host does
the rest. What is possible is decided by commerce, under the order's lock; every change stores its
answer in its own transaction (`Call.keep`), so a repetition never does it twice.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta, Struct

from commerce.errors import UnknownOrder
from commerce.fulfilment import (
    CARRIER_CHARS_MAX,
    TRACKING_CHARS_MAX,
    Goods,
    Pick,
    ShipmentState,
)
from commerce.orders import OrderFilter, Orders
from commerce.refunds import REASON_CHARS_MAX
from live.chat import clean
from live.codes import refuse
from live.http import Call, Route
from live.order_views import (
    OrderDetail,
    OrderFile,
    OrderList,
    Timeline,
    view_detail,
    view_file,
    view_order,
    view_timeline,
)
from realtime.wire import INT_MAX

if TYPE_CHECKING:  # chosen in live/app.py
    from commerce.dossier_sql import SqlDossiers
    from commerce.fulfilment_sql import SqlFulfilment
    from commerce.order_desk_sql import SqlOrderDesk

PAGE_MAX: Final = 100
PICKS_MAX: Final = 50
SEARCH_CHARS_MAX: Final = 100

Reason = Annotated[str, Meta(max_length=REASON_CHARS_MAX)]
Instant = Annotated[int, Meta(ge=0, le=INT_MAX)]


class PickBody(Struct, frozen=True):
    """So many units of one line, counted from 0."""

    position: Annotated[int, Meta(ge=0, le=1_000)]
    quantity: Annotated[int, Meta(ge=1, le=1_000)]


Picks = Annotated[list[PickBody], Meta(min_length=1, max_length=PICKS_MAX)]


class CancelBody(Struct, frozen=True):
    """Which units are not sold after all; without `units`, all that are still in the shop.

    `goods` is for hosts: back to stock, or written off.
    """

    units: Picks | None = None
    goods: Goods = Goods.RESTOCK
    reason: Reason = ""


class RefundBody(Struct, frozen=True):
    """Which units, or how much (minor units), or so much for these units; neither: all there is."""

    units: Picks | None = None
    amount: Annotated[int, Meta(ge=1, le=INT_MAX)] | None = None
    reason: Reason = ""


class ReturnBody(Struct, frozen=True):
    """Which units are to come back; without `units`, all that were shipped."""

    units: Picks | None = None
    reason: Reason = ""


class ReceiveBody(Struct, frozen=True):
    """What becomes of the goods, and whether their money goes back."""

    goods: Goods
    refund: bool = True


class ShipBody(Struct, frozen=True):
    """A parcel that was handed over; without `units`, all that are still in the shop."""

    carrier: Annotated[str, Meta(min_length=1, max_length=CARRIER_CHARS_MAX)]
    tracking: Annotated[str, Meta(max_length=TRACKING_CHARS_MAX)] = ""
    units: Picks | None = None


class OrderQuery(Struct, frozen=True):
    """A host may ask for a show's or a viewer's orders, one state, a time, or a word in them."""

    show: Annotated[str, Meta(max_length=64)] | None = None
    state: Annotated[str, Meta(max_length=20)] | None = None
    viewer: Annotated[str, Meta(max_length=64)] | None = None
    since: Instant | None = None
    until: Instant | None = None
    text: Annotated[str, Meta(max_length=SEARCH_CHARS_MAX)] | None = None
    after: Annotated[str, Meta(max_length=160)] | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 50


class OrderDeskApi:
    """Handlers. `clock` in milliseconds."""

    def __init__(
        self,
        orders: Orders,
        dossiers: "SqlDossiers",
        desk: "SqlOrderDesk",
        fulfilment: "SqlFulfilment",
        *,
        clock: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._orders = orders
        self._dossiers = dossiers
        self._desk = desk
        self._fulfilment = fulfilment
        self._clock = clock
        self._new_id = new_id

    def routes(self) -> list[Route]:
        """The table."""
        one = "/api/v1/orders/{order}"
        moved = ("unknown_order", "order_moved")
        money = ("not_refundable", "refund_too_large")
        host, file = "host", OrderFile
        return [
            Route("GET", "/api/v1/orders", "list_orders",
                  "Your orders; a host sees the shop's.", self.list_orders, OrderList,
                  who="somebody", query=OrderQuery, tag="orders"),
            Route("GET", one, "get_order", "One order with everything about it.", self.get_order,
                  OrderDetail, who="somebody", codes=("unknown_order",), tag="orders"),
            Route("GET", one + "/timeline", "get_timeline", "Everything that happened to an order.",
                  self.get_timeline, Timeline, who=host, codes=("unknown_order",), tag="orders"),
            Route("POST", one + "/cancel", "cancel_order",
                  "Take units back before they are shipped; their money goes back.",
                  self.cancel, file, who="somebody", body=CancelBody, key="required",
                  codes=(*moved, "payment_open"), tag="orders"),
            Route("POST", one + "/refunds", "refund_order",
                  "Give money back; a viewer asks for it.", self.refund, file, who="somebody",
                  body=RefundBody, status=201, key="required", codes=(*moved, *money),
                  tag="orders"),
            Route("POST", "/api/v1/refunds/{refund}/approve", "approve_refund",
                  "Say yes to a viewer who asks for money.", self.approve_refund, file, who=host,
                  key="required", codes=(*moved, *money, "unknown_refund"), tag="orders"),
            Route("POST", "/api/v1/refunds/{refund}/reject", "reject_refund",
                  "Say no to a viewer who asks for money.", self.reject_refund, file, who=host,
                  key="required", codes=(*moved, "unknown_refund"), tag="orders"),
            Route("POST", one + "/shipments", "ship_order", "Hand a parcel over to a carrier.",
                  self.ship, file, who=host, body=ShipBody, status=201, key="required",
                  codes=(*moved, "payment_open"), tag="orders"),
            Route("POST", "/api/v1/shipments/{shipment}/deliver", "deliver_shipment",
                  "A parcel has arrived.", self.deliver, file, who=host, key="required",
                  codes=(*moved, "unknown_shipment"), tag="orders"),
            Route("POST", "/api/v1/shipments/{shipment}/lose", "lose_shipment",
                  "A parcel was lost by its carrier.", self.lose, file, who=host, key="required",
                  codes=(*moved, "unknown_shipment"), tag="orders"),
            Route("POST", one + "/returns", "ask_return", "What was shipped is to come back.",
                  self.ask_return, file, who="somebody", body=ReturnBody, status=201,
                  key="required", codes=moved, tag="orders"),
            Route("POST", "/api/v1/returns/{return}/approve", "approve_return",
                  "The buyer may send it back.", self.approve_return, file, who=host,
                  key="required", codes=(*moved, "unknown_return"), tag="orders"),
            Route("POST", "/api/v1/returns/{return}/reject", "reject_return",
                  "The buyer keeps it.", self.reject_return, file, who=host, key="required",
                  codes=(*moved, "unknown_return"), tag="orders"),
            Route("POST", "/api/v1/returns/{return}/receive", "receive_return",
                  "The goods are back: restock or write off, and refund.", self.receive, file,
                  who=host, body=ReceiveBody, key="required",
                  codes=(*moved, *money, "unknown_return"), tag="orders"),
        ]  # fmt: skip

    # Looking

    async def list_orders(self, call: Call) -> OrderList:
        """Newest first; a viewer's filter is themselves."""
        query: OrderQuery = call.query
        host = call.me.role.runs_shows
        wanted = OrderFilter(
            show=query.show,
            state=query.state,
            viewer=query.viewer if host else call.me.id,
            since=query.since,
            until=query.until,
            text=query.text,
        )
        page = await self._orders.page(wanted=wanted, limit=query.limit, after=query.after)
        return OrderList([view_order(order) for order in page.orders], page.after)

    async def get_order(self, call: Call) -> OrderDetail:
        """A stranger's order is an unknown one."""
        dossier = await self._dossiers.get(call.path["order"])
        order = dossier.order
        if order.viewer != call.me.id and not call.me.role.runs_shows:
            raise UnknownOrder
        return view_detail(dossier, await self._orders.customer(order.rid))

    async def get_timeline(self, call: Call) -> Timeline:
        """Presses, holds, payments, parcels, refunds, webhooks and the ledger in one list."""
        return view_timeline(await self._dossiers.timeline(call.path["order"]))

    # Money

    async def cancel(self, call: Call) -> OrderFile:
        """By its buyer or a host."""
        body: CancelBody = call.body
        host = call.me.role.runs_shows
        return view_file(
            await self._desk.cancel(
                call.path["order"],
                _picks(body.units),
                goods=body.goods if host else Goods.RESTOCK,
                reason=clean(body.reason),
                actor=call.me.id,
                new_id=self._new_id(),
                now=self._clock(),
                viewer=None if host else call.me.id,
                keep=call.keep(view_file),
            )
        )

    async def refund(self, call: Call) -> OrderFile:
        """A host gives, a viewer asks."""
        body: RefundBody = call.body
        order, picks, reason = call.path["order"], _picks(body.units), clean(body.reason)
        id_, now, keep = self._new_id(), self._clock(), call.keep(view_file)
        if call.me.role.runs_shows:
            made = await self._desk.give_back(
                order, picks, body.amount, reason=reason, actor=call.me.id, new_id=id_, now=now,
                keep=keep,
            )  # fmt: skip
        else:
            made = await self._desk.ask_back(
                order, picks, body.amount, reason=reason, viewer=call.me.id, new_id=id_, now=now,
                keep=keep,
            )  # fmt: skip
        return view_file(made)

    async def approve_refund(self, call: Call) -> OrderFile:
        """Never more than is left."""
        return await self._decide(call, approve=True)

    async def reject_refund(self, call: Call) -> OrderFile:
        """Nothing moves."""
        return await self._decide(call, approve=False)

    async def _decide(self, call: Call, *, approve: bool) -> OrderFile:
        made = await self._desk.decide(
            call.path["refund"], approve=approve, actor=call.me.id, now=self._clock(),
            keep=call.keep(view_file),
        )  # fmt: skip
        return view_file(made)

    # Goods

    async def ship(self, call: Call) -> OrderFile:
        """Units leave the shop."""
        body: ShipBody = call.body
        carrier = clean(body.carrier)
        if not carrier:
            raise refuse("bad_params", field="carrier")
        made = await self._fulfilment.ship(
            call.path["order"], _picks(body.units), carrier=carrier, tracking=clean(body.tracking),
            actor=call.me.id, new_id=self._new_id(), now=self._clock(), keep=call.keep(view_file),
        )  # fmt: skip
        return view_file(made)

    async def deliver(self, call: Call) -> OrderFile:
        """Also one that was believed lost."""
        return await self._arrive(call, ShipmentState.DELIVERED)

    async def lose(self, call: Call) -> OrderFile:
        """Its units are gone; their money goes back by a refund."""
        return await self._arrive(call, ShipmentState.LOST)

    async def _arrive(self, call: Call, to: ShipmentState) -> OrderFile:
        made = await self._fulfilment.arrive(
            call.path["shipment"], to, actor=call.me.id, now=self._clock(),
            keep=call.keep(view_file),
        )  # fmt: skip
        return view_file(made)

    async def ask_return(self, call: Call) -> OrderFile:
        """By its buyer or a host."""
        body: ReturnBody = call.body
        made = await self._fulfilment.ask_return(
            call.path["order"], _picks(body.units), reason=clean(body.reason), actor=call.me.id,
            new_id=self._new_id(), now=self._clock(),
            viewer=None if call.me.role.runs_shows else call.me.id, keep=call.keep(view_file),
        )  # fmt: skip
        return view_file(made)

    async def approve_return(self, call: Call) -> OrderFile:
        """It may be sent."""
        return await self._decide_return(call, approve=True)

    async def reject_return(self, call: Call) -> OrderFile:
        """Its units can be asked for again."""
        return await self._decide_return(call, approve=False)

    async def _decide_return(self, call: Call, *, approve: bool) -> OrderFile:
        made = await self._fulfilment.decide_return(
            call.path["return"], approve=approve, actor=call.me.id, now=self._clock(),
            keep=call.keep(view_file),
        )  # fmt: skip
        return view_file(made)

    async def receive(self, call: Call) -> OrderFile:
        """Goods and money are decided apart."""
        body: ReceiveBody = call.body
        made = await self._fulfilment.receive(
            call.path["return"], body.goods, refund=body.refund, actor=call.me.id,
            new_id=self._new_id(), now=self._clock(), keep=call.keep(view_file),
        )  # fmt: skip
        return view_file(made)


def _picks(units: list[PickBody] | None) -> list[Pick] | None:
    return None if units is None else [Pick(one.position, one.quantity) for one in units]
