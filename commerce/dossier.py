"""Everything about one order in one value, for its host, its buyer and the answer to a request.

Responsible for the types alone. It must not hold anything personal: name and address are asked for
separately.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from commerce.fulfilment import Return, Shipment, Unit
from commerce.orders import Order
from commerce.pricing import Adjustment
from commerce.refunds import Refund


@dataclass(frozen=True, slots=True)
class Dossier:
    """An order with its units and all that was done about them, as of one moment."""

    order: Order
    units: tuple[Unit, ...]
    steps: tuple[Adjustment, ...]
    refunds: tuple[Refund, ...]
    returns: tuple[Return, ...]
    shipments: tuple[Shipment, ...]
    refundable: int
    """What can still be given back, in minor units."""
    cancellable: bool
    """Some units are still in the shop and the money is not being taken in this moment."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of an order's timeline. `data` names ids, states and amounts, nothing personal."""

    at: int
    kind: str
    actor: str
    data: Mapping[str, Any]
