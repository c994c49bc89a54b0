"""From the price of the goods to what is paid: discount, shipping, tax, and each unit's share.

Responsible for the order of the steps (goods, the sale's discount, the buyer's coupon on what is
left, shipping, tax), for the rounding of each, and for dividing every step over the units. Pure: it
must not know rows or engines.

Each step is recorded with how it was computed, because "why did I pay this?" is asked months later.
Every division is by largest remainder over the single units, ties by position: giving back three of
three units one by one gives back the whole payment (shops that round each part by itself return
$9.99 of $10). Tax is included in the prices (a rate per shop, as most countries show prices to
consumers), computed once on the total, half up, and shared out the same way; it never changes what
is paid. A discount is never larger than the goods.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from commerce.money import allocate
from commerce.stock import HeldLine

WHOLE_BP: Final = 10_000
"""Hundredths of a percent in a whole."""
TITLE_CHARS_MAX: Final = 60
DISCOUNT: Final = "discount"
SHIPPING: Final = "shipping"
TAX: Final = "tax"


@dataclass(frozen=True, slots=True)
class Discount:
    """Off the goods, of a drop or by a coupon: a percentage (hundredths of one) or an amount."""

    title: str
    percent_bp: int | None = None
    amount: int | None = None

    def of(self, subtotal: int) -> int:
        """Minor units off `subtotal`, half up, never more than it."""
        if self.amount is not None:
            return min(self.amount, subtotal)
        assert self.percent_bp is not None
        return min(_half_up(subtotal * self.percent_bp, WHOLE_BP), subtotal)


@dataclass(frozen=True, slots=True)
class Coupon:
    """`ends_at` in milliseconds since 1970; `used` counts holds that are open or sold."""

    code: str
    discount: Discount
    uses_max: int
    ends_at: int | None = None
    used: int = 0


LOW_STOCK_DEFAULT: Final = 3


@dataclass(frozen=True, slots=True)
class ShopTerms:
    """Settings of the shop that no product has. `tax_bp`: hundredths of a percent."""

    tax_bp: int = 0
    tax_title: str = ""
    low_stock: int = LOW_STOCK_DEFAULT


@dataclass(frozen=True, slots=True)
class Terms:
    """What the shop adds to the price of the goods."""

    currency: str
    shipping: int = 0
    discount: Discount | None = None
    tax_bp: int = 0
    tax_title: str = ""
    coupon: Discount | None = None
    """On what the sale's discount has left."""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One step from the goods to the total. `included`: a part of it, not added to it."""

    kind: str
    title: str
    amount: int
    included: bool
    basis: dict[str, object]


@dataclass(frozen=True, slots=True)
class UnitPrice:
    """What one unit costs its buyer, and what that is made of. Minor units."""

    position: int
    n: int
    sku: str
    price: int
    discount: int
    shipping: int
    tax: int

    @property
    def amount(self) -> int:
        """What was paid for it, its share of everything included."""
        return self.price - self.discount + self.shipping


def adjust(subtotal: int, terms: Terms) -> tuple[Adjustment, ...]:
    """The steps for goods of `subtotal`. Steps that change nothing are left out."""
    made: list[Adjustment] = []
    total = subtotal
    for rule in (terms.discount, terms.coupon):
        off = 0 if rule is None else rule.of(total)
        if rule is None or not off:
            continue
        basis: dict[str, object] = {"of": total}
        basis |= (
            {"amount": rule.amount}
            if rule.amount is not None
            else {"percent_bp": rule.percent_bp, "rounding": "half_up"}
        )
        made.append(Adjustment(DISCOUNT, rule.title, -off, False, basis))
        total -= off
    if terms.shipping:
        made.append(Adjustment(SHIPPING, "", terms.shipping, False, {"flat": terms.shipping}))
        total += terms.shipping
    tax = _half_up(total * terms.tax_bp, WHOLE_BP + terms.tax_bp)
    if tax:
        basis = {"of": total, "rate_bp": terms.tax_bp, "rounding": "half_up"}
        made.append(Adjustment(TAX, terms.tax_title, tax, True, basis))
    return tuple(made)


def sum_of(adjustments: Sequence[Adjustment], kind: str) -> int:
    """The amounts of one kind together, as they stand (a discount is negative)."""
    return sum(one.amount for one in adjustments if one.kind == kind)


def total_of(subtotal: int, adjustments: Sequence[Adjustment]) -> int:
    """What is paid."""
    return subtotal + sum(one.amount for one in adjustments if not one.included)


def share_out(
    lines: Sequence[HeldLine], adjustments: Sequence[Adjustment]
) -> tuple[UnitPrice, ...]:
    """Every unit with its shares; they add up to the adjustments exactly.

    Discount by price, shipping by what the unit costs after it, tax by what is paid for the unit.
    """
    places = [
        (position, n, line) for position, line in enumerate(lines) for n in range(line.quantity)
    ]
    prices = [line.unit_amount for _, _, line in places]
    off = allocate(-sum_of(adjustments, DISCOUNT), prices)
    net = [price - less for price, less in zip(prices, off, strict=True)]
    shipping = allocate(sum_of(adjustments, SHIPPING), net)
    paid = [goods + carriage for goods, carriage in zip(net, shipping, strict=True)]
    tax = allocate(sum_of(adjustments, TAX), paid)
    return tuple(
        UnitPrice(position, n, line.sku, line.unit_amount, less, carriage, part)
        for (position, n, line), less, carriage, part in zip(
            places, off, shipping, tax, strict=True
        )
    )


def charged_lines(
    lines: Sequence[HeldLine], adjustments: Sequence[Adjustment]
) -> tuple[HeldLine, ...]:
    """The lines as the provider's page shows them: at what is paid for them, without shipping.

    Units of one line that got another cent of a discount are a line of their own.
    """
    if not sum_of(adjustments, DISCOUNT):
        return tuple(lines)
    counted: dict[tuple[int, int], int] = {}
    for unit in share_out(lines, adjustments):
        key = (unit.position, unit.price - unit.discount)
        counted[key] = counted.get(key, 0) + 1
    return tuple(
        HeldLine(lines[position].sku, lines[position].title, quantity, amount)
        for (position, amount), quantity in counted.items()
    )


def refund_parts(left: Sequence[int], amount: int) -> list[int]:
    """`amount` over units of which `left` can still be given back; none gets more than that.

    Raises ValueError if there is not so much left.
    """
    if not 0 < amount <= sum(left):
        raise ValueError("more than is left")
    return allocate(amount, left)


def tax_of_part(tax: int, amount: int, refunded: int, part: int) -> int:
    """Tax in giving back `part` of a unit that cost `amount` with `tax` in it, after `refunded`.

    Cumulative, so that the parts of a unit add up to its whole tax in whatever portions it goes.
    """
    if not amount:
        return 0
    return tax * (refunded + part) // amount - tax * refunded // amount


def _half_up(dividend: int, divisor: int) -> int:
    return (2 * dividend + divisor) // (2 * divisor)
