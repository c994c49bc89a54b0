"""The words of orders: a hold that was paid for. Types, states and the port; no engine.

An order is placed in the transaction that sells the units (the payment is authorised) and paid when
the money was taken. Its lines are a copy of the hold's, so that a later change of a price or title
changes nothing that was promised. It must not know payments or providers.

**A unit moves, an order follows.** What is shipped, cancelled or returned is a unit, by
compare-and-set along `UNIT_MOVES`; the state of the order is `derive`d from its units and its money
and then moved along `MOVES`. So an order can never say "shipped" while a unit lies in the shop, and
of two who want the same unit (ship it, cancel it) the second finds it gone.
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
    PARTLY_SHIPPED = "partly_shipped"
    """Some units are on their way, others still in the shop."""
    SHIPPED = "shipped"
    """Everything that was not cancelled is on its way."""
    DELIVERED = "delivered"
    """Everything that was shipped has arrived."""
    CLOSED = "closed"
    """Everything that was shipped came back or was lost."""
    CANCELLING = "cancelling"
    """Every unit is cancelled, the money is not back yet."""
    CANCELLED = "cancelled"
    """Every unit is cancelled and no money is left with us."""


S = OrderState

MOVES: Final[Mapping[OrderState, frozenset[OrderState]]] = MappingProxyType(
    {
        S.PLACED: frozenset({S.PAID, S.CANCELLING, S.CANCELLED}),
        S.PAID: frozenset({S.PARTLY_SHIPPED, S.SHIPPED, S.CANCELLING, S.CANCELLED}),
        S.PARTLY_SHIPPED: frozenset({S.SHIPPED, S.DELIVERED, S.CLOSED}),
        S.SHIPPED: frozenset({S.DELIVERED, S.CLOSED}),
        S.DELIVERED: frozenset({S.CLOSED}),
        S.CLOSED: frozenset({S.DELIVERED}),
        S.CANCELLING: frozenset({S.CANCELLED}),
        S.CANCELLED: frozenset({S.CANCELLING}),
    }
)
"""From each state to those it may become. Two steps go back: a bank may return a refund that had
arrived, and then a cancelled order owes its money again; and a parcel that was believed lost may
arrive after all."""


class UnitState(StrEnum):
    """Where one sold unit is."""

    SOLD = "sold"
    """In the shop, committed to its buyer."""
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    """Before it was shipped."""
    RETURNED = "returned"
    LOST = "lost"
    """By the carrier."""


U = UnitState

UNIT_MOVES: Final[Mapping[UnitState, frozenset[UnitState]]] = MappingProxyType(
    {
        U.SOLD: frozenset({U.SHIPPED, U.CANCELLED}),
        U.SHIPPED: frozenset({U.DELIVERED, U.LOST, U.RETURNED}),
        U.DELIVERED: frozenset({U.RETURNED}),
        U.LOST: frozenset({U.DELIVERED}),
        U.CANCELLED: frozenset(),
        U.RETURNED: frozenset(),
    }
)
"""From each state to those it may become. A lost parcel may turn up at its address after all."""


def derive(units: Sequence[UnitState], *, captured: bool, owed: bool) -> OrderState:
    """The state of an order from its units. `captured`: the money was taken; `owed`: some of the
    money of its cancelled units is not back (or its authorisation not let go) yet."""
    live = [unit for unit in units if unit is not U.CANCELLED]
    if not live:
        return S.CANCELLING if owed else S.CANCELLED
    waiting = sum(unit is U.SOLD for unit in live)
    if waiting == len(live):
        return S.PAID if captured else S.PLACED
    if waiting:
        return S.PARTLY_SHIPPED
    if all(unit in (U.RETURNED, U.LOST) for unit in live):
        return S.CLOSED
    return S.SHIPPED if U.SHIPPED in live else S.DELIVERED


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
    discount: int = 0
    """Taken off the subtotal."""
    tax: int = 0
    """Contained in the total."""
    refunded: int = 0
    """Has arrived back at the buyer."""


@dataclass(frozen=True, slots=True)
class OrderPage:
    """Orders, newest first; `after` asks for the ones before them, None: there are none."""

    orders: tuple[Order, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Which orders a host wants to see; None: all. `since` included, `until` not."""

    show: str | None = None
    state: str | None = None
    viewer: str | None = None
    since: int | None = None
    until: int | None = None
    text: str | None = None
    """Part of an order's id, or of a SKU or title of one of its lines; letters' case is ignored."""


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
        *,
        wanted: OrderFilter | None = None,
    ) -> OrderPage:
        """A host's list, newest first. An `after` that is not ours reads as the beginning."""
        ...
