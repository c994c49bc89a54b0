"""How orders and all that is done about them look in the API: types and translation, no decisions.

Responsible for the structs that `/openapi.json` shows and for making them of commerce's values. It
must not know handlers. Nothing personal is in an `OrderFile`; who may see name and address gets an
`OrderDetail`, which answers are never stored for repetitions.
"""

from typing import Any

from msgspec import Struct

from commerce.dossier import Dossier, Happening
from commerce.fulfilment import Return, Shipment, Unit
from commerce.orders import Order
from commerce.pricing import Adjustment
from commerce.refunds import Refund
from live.views import order_view


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


class OrderView(Struct, frozen=True):
    """An order. `discount` is taken off, `tax` is contained in the total."""

    id: str
    rid: str
    show: str
    state: str
    lines: list[LineView]
    subtotal: Money
    discount: Money
    shipping: Money
    tax: Money
    total: Money
    refunded: Money
    at: int
    updated_at: int


class OrderList(Struct, frozen=True):
    """Orders, newest first; `next` continues the list."""

    orders: list[OrderView]
    next: str | None


class UnitRef(Struct, frozen=True):
    """One single unit: position of its line, number from 0."""

    position: int
    n: int


class UnitView(Struct, frozen=True):
    """One unit, what was paid for it and how much of that went back. Minor units."""

    position: int
    n: int
    sku: str
    state: str
    amount: int
    tax: int
    refunded: int
    shipment: str | None
    in_return: str | None


class StepView(Struct, frozen=True):
    """One step from the price of the goods to the total, and how it was computed."""

    kind: str
    title: str
    amount: int
    included: bool
    basis: dict[str, Any]


class RefundView(Struct, frozen=True):
    """Money that goes back, or is asked for (`asked`)."""

    id: str
    state: str
    amount: int
    reason: str
    asked_by: str
    in_return: str | None
    failure: str
    at: int
    updated_at: int


class ReturnView(Struct, frozen=True):
    """Units that are to come back. `goods`: restock or write_off, once they are here."""

    id: str
    state: str
    reason: str
    units: list[UnitRef]
    goods: str | None
    at: int
    updated_at: int


class ShipmentView(Struct, frozen=True):
    """A parcel."""

    id: str
    state: str
    carrier: str
    tracking: str
    units: list[UnitRef]
    at: int
    updated_at: int


class OrderFile(Struct, frozen=True):
    """An order with everything about it, nothing personal in it."""

    order: OrderView
    units: list[UnitView]
    steps: list[StepView]
    refunds: list[RefundView]
    returns: list[ReturnView]
    shipments: list[ShipmentView]
    refundable: int
    cancellable: bool


class OrderDetail(OrderFile, frozen=True):
    """The same with who bought it, for the buyer and the host. `buyer` names them to the API."""

    buyer: str
    customer: dict[str, Any] | None


class HappeningView(Struct, frozen=True):
    """One line of a timeline."""

    at: int
    kind: str
    actor: str
    data: dict[str, Any]


class Timeline(Struct, frozen=True):
    """Everything that happened to an order, oldest first."""

    events: list[HappeningView]


def lines_of(lines: list[dict[str, Any]]) -> list[LineView]:
    """Lines of a hold's or an order's view."""
    return [
        LineView(line["sku"], line["title"], line["quantity"], Money(**line["price"]))
        for line in lines
    ]


def view_order(order: Order) -> OrderView:
    """An order without anything personal."""
    view = order_view(order)
    sums = {
        name: Money(**view[name])
        for name in ("subtotal", "discount", "shipping", "tax", "total", "refunded")
    }
    return OrderView(**{**view, **sums, "lines": lines_of(view["lines"])})


def view_file(dossier: Dossier) -> OrderFile:
    """Everything about an order."""
    return OrderFile(**_parts(dossier))


def view_detail(dossier: Dossier, customer: dict[str, object] | None) -> OrderDetail:
    """Everything about an order, and who bought it."""
    return OrderDetail(**_parts(dossier), buyer=dossier.order.viewer, customer=customer)


def view_timeline(happenings: list[Happening]) -> Timeline:
    """A timeline."""
    return Timeline(
        [HappeningView(one.at, one.kind, one.actor, dict(one.data)) for one in happenings]
    )


def _parts(dossier: Dossier) -> dict[str, Any]:
    return {
        "order": view_order(dossier.order),
        "units": [_unit(one) for one in dossier.units],
        "steps": [_step(one) for one in dossier.steps],
        "refunds": [_refund(one) for one in dossier.refunds],
        "returns": [_return(one) for one in dossier.returns],
        "shipments": [_shipment(one) for one in dossier.shipments],
        "refundable": dossier.refundable,
        "cancellable": dossier.cancellable,
    }


def _unit(unit: Unit) -> UnitView:
    return UnitView(
        unit.position, unit.n, unit.sku, unit.state, unit.amount, unit.tax, unit.refunded,
        unit.shipment, unit.return_case,
    )  # fmt: skip


def _step(step: Adjustment) -> StepView:
    return StepView(step.kind, step.title, step.amount, step.included, step.basis)


def _refund(refund: Refund) -> RefundView:
    return RefundView(
        refund.id, refund.state.value, refund.amount, refund.reason, refund.asked_by,
        refund.return_case, refund.failure, refund.created_at, refund.updated_at,
    )  # fmt: skip


def _return(case: Return) -> ReturnView:
    return ReturnView(
        case.id, case.state.value, case.reason, [UnitRef(*key) for key in case.units],
        None if case.stock is None else case.stock.value, case.created_at, case.updated_at,
    )  # fmt: skip


def _shipment(parcel: Shipment) -> ShipmentView:
    return ShipmentView(
        parcel.id, parcel.state.value, parcel.carrier, parcel.tracking,
        [UnitRef(*key) for key in parcel.units], parcel.created_at, parcel.updated_at,
    )  # fmt: skip
