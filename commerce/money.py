"""Money: whole minor units with a currency, read exactly and divided without losing a cent.

Responsible for the number of decimals of a currency, for reading a price from text and for dividing
a total. It must not know who pays, and it never sees a float: 0.1 + 0.2 is not 0.3 there, and the
shops studied gave back $9.99 of a $10 payment because each part had been rounded by itself.

Which currencies exist comes from CLDR (the babel package, offline): those that are legal tender
somewhere today, 154 of its 307 codes. The decimals are those of ISO 4217. CLDR has them too, but
for 13 currencies it gives what people use instead of what the standard says (a Serbian dinar has
two decimals, nobody uses them); payment providers count by the standard, so taking CLDR's figure
would charge a hundredth. Where a provider deviates from ISO 4217 its own adapter knows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final, Self

from babel.core import get_global

from commerce.errors import BadCurrency

AMOUNT_MAX: Final = 10**12
"""Minor units of one price. 99 units on each of 20 lines stay below 2^53, as JavaScript needs."""
TEXT_CHARS_MAX: Final = 40
"""A price as text."""

_ISO_EXPONENTS: Final = MappingProxyType(
    {
        **dict.fromkeys(("AFN", "ALL", "IRR", "KPW", "LAK", "LBP", "MGA", "MMK"), 2),
        **dict.fromkeys(("RSD", "SOS", "SYP", "YER"), 2),
        "IQD": 3,
    }
)
"""ISO 4217 where CLDR says 0, because the small coin is not in use."""
_DECIMAL: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?")


class BadAmount(ValueError):
    """Text that is not a price in this currency. `reason` is one of `REASONS`."""

    REASONS: Final = MappingProxyType(
        {
            "empty": "A price is missing.",
            "garbage": "A price is written with digits and one point, like 1299.00.",
            "comma": "A price is written without commas, like 1299.00: a comma could mean either.",
            "negative": "A price cannot be negative.",
            "decimals": "This price has more decimals than its currency.",
            "too_large": "This price is too large.",
        }
    )

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def sentence(self) -> str:
        """What is wrong, for a person."""
        return self.REASONS[self.reason]


@cache
def _exponents() -> MappingProxyType[str, int]:
    """Decimals of each currency that is legal tender somewhere today."""
    fractions = get_global("currency_fractions")
    usual = fractions["DEFAULT"][0]
    tender = {
        code
        for periods in get_global("territory_currencies").values()
        for code, _, end, is_tender in periods
        if end is None and is_tender
    }
    return MappingProxyType(
        {
            code: _ISO_EXPONENTS.get(code, fractions[code][0] if code in fractions else usual)
            for code in sorted(tender)
        }
    )


def currencies() -> Sequence[str]:
    """Every code that is accepted, sorted."""
    return tuple(_exponents())


def currency_exponent(code: str) -> int:
    """Decimals of a currency (USD 2, JPY 0, KWD 3). Raises `BadCurrency`; "usd" is none."""
    try:
        return _exponents()[code]
    except (KeyError, TypeError):
        raise BadCurrency from None


def parse_amount(text: str, currency: str) -> int:
    """Minor units of a price: ("9.99", "USD") is 999, ("500", "JPY") is 500.

    Reads ASCII digits with at most one point, blanks around them aside. A comma is refused: "1,299"
    is one price in Boston and another in Berlin, and guessing costs a factor of a thousand. Zeros
    beyond the currency's decimals are the same amount ("500.00" yen, as Shopify writes it), any
    other digit there is refused, nothing is ever rounded. Raises `BadAmount`, `BadCurrency`.
    """
    exponent = currency_exponent(currency)
    text = text.strip()
    if not text:
        raise BadAmount("empty")
    if len(text) > TEXT_CHARS_MAX:
        raise BadAmount("too_large" if text.isdecimal() else "garbage")
    found = _DECIMAL.fullmatch(text)
    if found is None:
        if text[0] in "-−" and _DECIMAL.fullmatch(text[1:].replace(",", "")):
            raise BadAmount("negative")
        raise BadAmount("comma" if _DECIMAL.fullmatch(text.replace(",", "")) else "garbage")
    whole, decimals = found[1], found[2] or ""
    if decimals[exponent:].strip("0"):
        raise BadAmount("decimals")
    amount = int(whole + decimals[:exponent].ljust(exponent, "0"))
    if amount > AMOUNT_MAX:
        raise BadAmount("too_large")
    return amount


def format_amount(amount: int, currency: str) -> str:
    """The price as `parse_amount` reads it: (999, "USD") is "9.99". Raises `BadCurrency`."""
    exponent = currency_exponent(currency)
    sign, digits = ("-" if amount < 0 else ""), str(abs(amount)).rjust(exponent + 1, "0")
    if not exponent:
        return f"{sign}{digits}"
    return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}"


def allocate(total: int, weights: Sequence[int]) -> list[int]:
    """Divide `total` by weight; the parts add up to it exactly.

    By largest remainder, ties by position, so a part is never a whole unit away from its exact
    share and the same input gives the same parts. With all weights zero the parts are equal. A
    negative total (a correction) is the mirror image of the positive one. Raises `ValueError` for
    no weights or a negative one.
    """
    if not weights or min(weights) < 0:
        raise ValueError("weights must be some and not negative")
    if total < 0:
        return [-part for part in allocate(-total, weights)]
    whole = sum(weights)
    if not whole:
        weights, whole = [1] * len(weights), len(weights)
    parts = [total * weight // whole for weight in weights]
    short = total - sum(parts)
    by_remainder = sorted(range(len(weights)), key=lambda at: (-(total * weights[at] % whole), at))
    for at in by_remainder[:short]:
        parts[at] += 1
    return parts


@dataclass(frozen=True, slots=True, order=False)
class Money:
    """An amount in minor units of one currency. Mixing currencies raises `ValueError`."""

    amount: int
    currency: str

    def __post_init__(self) -> None:
        currency_exponent(self.currency)

    @classmethod
    def parse(cls, text: str, currency: str) -> Self:
        """From text; see `parse_amount`."""
        return cls(parse_amount(text, currency), currency)

    def __add__(self, other: "Money") -> "Money":
        self._same(other)
        return Money(self.amount + other.amount, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        self._same(other)
        return Money(self.amount - other.amount, self.currency)

    def __mul__(self, quantity: int) -> "Money":
        return Money(self.amount * quantity, self.currency)

    @property
    def text(self) -> str:
        """For people and logs: "9.99 USD"."""
        return f"{format_amount(self.amount, self.currency)} {self.currency}"

    def allocate(self, weights: Sequence[int]) -> list["Money"]:
        """Parts by weight that add up exactly; see the function of this name."""
        return [Money(part, self.currency) for part in allocate(self.amount, weights)]

    def _same(self, other: "Money") -> None:
        if self.currency != other.currency:
            raise ValueError(f"{self.currency} and {other.currency} do not mix")
