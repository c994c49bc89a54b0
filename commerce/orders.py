"""The words of orders: a hold that was paid for. Types, states and the port; no engine.

An order is placed in the transaction that sells the units (the payment is authorised) and paid when
the money was taken. Its lines are a copy of the hold's, so that a later change of a price or title
changes nothing that was promised. It must not know payments or providers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

PAGE_MAX: Final = 200
"""Orders in one answer."""


class OrderState(StrEnum):
    """Where an order is. Moved by compare-and-set along `MOVES` only."""

    PLACED = "placed"
    """The units are sold and the money is reserved."""
    PAID = "paid"
    """The money was taken."""


MOVES: Final[Mapping[OrderState, frozenset[OrderState]]] = MappingProxyType(
    {
        OrderState.PLACED: frozenset({OrderState.PAID}),
        OrderState.PAID: frozenset(),
    }
)
"""From each state to those it may become; shipping, cancelling and refunds will join here."""


@dataclass(frozen=True, slots=True)
class OrderLine:
    """One line as it was promised; `unit_amount` in minor units."""

    sku: str
    title: str
    quantity: int
    unit_amount: int


@dataclass(frozen=True, slots=True)
class Order:
    """One order. Amounts in minor units of `currency`, times in milliseconds since 1970."""

    id: str
    rid: str
    viewer: str
    show: str
    state: OrderState
    currency: str
    subtotal: int
    shipping: int
    total: int
    lines: tuple[OrderLine, ...]
    placed_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class OrderPage:
    """Orders, newest first; `after` asks for the ones before them, None: there are none."""

    orders: tuple[Order, ...]
    after: str | None


class Orders(Protocol):
    """Reading orders."""

    async def get(self, id: str) -> Order | None:
        """One order."""
        ...

    async def by_rid(self, rid: str) -> Order | None:
        """The order of a hold."""
        ...

    async def customer(self, rid: str) -> dict[str, object] | None:
        """Name, contact and address as given for a hold; for its buyer and the shop only."""
        ...

    async def of_viewer(self, viewer: str, limit: int = 50) -> Sequence[Order]:
        """A viewer's own, newest first."""
        ...

    async def of_viewers(
        self, viewers: Sequence[str], limit: int = 50
    ) -> Mapping[str, Sequence[Order]]:
        """The same for many at once, so many each; viewers without orders are left out."""
        ...

    async def page(
        self,
        show: str | None = None,
        state: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> OrderPage:
        """A host's list, newest first. An `after` that is not ours reads as the beginning."""
        ...
