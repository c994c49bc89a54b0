"""The words of returns and shipments, and their tables of moves. Types only; no engine.

    return    requested ─► approved ─► received ─► refunded
                  └────────────┴─────► rejected
    shipment  shipped ─► delivered
                 └─────► lost ─► delivered

A return decides twice and independently: what becomes of the goods (back to stock, or written off)
and whether money goes back. A shipment exists from the moment the parcel is handed over: that is
when units leave the shop, and before it cancelling is free.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

CARRIER_CHARS_MAX: Final = 60
TRACKING_CHARS_MAX: Final = 120


class ReturnState(StrEnum):
    """Where a return is."""

    REQUESTED = "requested"
    APPROVED = "approved"
    """The buyer may send it."""
    REJECTED = "rejected"
    RECEIVED = "received"
    """The goods are here and counted."""
    REFUNDED = "refunded"


RETURN_MOVES: Final[Mapping[ReturnState, frozenset[ReturnState]]] = MappingProxyType(
    {
        ReturnState.REQUESTED: frozenset({ReturnState.APPROVED, ReturnState.REJECTED}),
        ReturnState.APPROVED: frozenset({ReturnState.RECEIVED, ReturnState.REJECTED}),
        ReturnState.REJECTED: frozenset(),
        ReturnState.RECEIVED: frozenset({ReturnState.REFUNDED}),
        ReturnState.REFUNDED: frozenset({ReturnState.RECEIVED}),
    }
)
"""From each state to those it may become. One goes back: the bank returned the refund."""


class ShipmentState(StrEnum):
    """Where a parcel is."""

    SHIPPED = "shipped"
    DELIVERED = "delivered"
    LOST = "lost"


SHIPMENT_MOVES: Final[Mapping[ShipmentState, frozenset[ShipmentState]]] = MappingProxyType(
    {
        ShipmentState.SHIPPED: frozenset({ShipmentState.DELIVERED, ShipmentState.LOST}),
        ShipmentState.DELIVERED: frozenset(),
        ShipmentState.LOST: frozenset({ShipmentState.DELIVERED}),
    }
)


class Goods(StrEnum):
    """What becomes of units that are not sold after all."""

    RESTOCK = "restock"
    WRITE_OFF = "write_off"


@dataclass(frozen=True, slots=True)
class Pick:
    """So many units of one line of an order, whichever of them can be had."""

    position: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Unit:
    """One sold unit; amounts in minor units. `amount` is what was paid for it."""

    order: str
    position: int
    n: int
    sku: str
    state: str
    price: int
    discount: int
    shipping: int
    tax: int
    amount: int
    refunded: int
    shipment: str | None
    return_case: str | None


@dataclass(frozen=True, slots=True)
class Return:
    """One return. `units`: (position, n) of each."""

    id: str
    rid: str
    order: str
    state: ReturnState
    reason: str
    asked_by: str
    units: tuple[tuple[int, int], ...]
    stock: Goods | None
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Shipment:
    """One parcel. `units`: (position, n) of each."""

    id: str
    rid: str
    order: str
    state: ShipmentState
    carrier: str
    tracking: str
    units: tuple[tuple[int, int], ...]
    created_at: int
    updated_at: int
