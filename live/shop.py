"""What the shop is called, in which currency it sells, and what it charges for shipping.

Responsible for the words and the port (`shop_sql` keeps the row). It must not know products: their
prices carry the currency they were imported with.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Shop:
    """What the shop is called and what it charges for shipping, in minor units of `currency`."""

    name: str
    currency: str
    shipping_amount: int


class ShopDesk(Protocol):
    """Reads and changes the shop's row."""

    async def get(self) -> Shop:
        """The shop; may be a few seconds old."""
        ...

    async def currency(self) -> str:
        """The shop's currency, as ISO 4217."""
        ...

    async def put(self, changed: Shop) -> Shop:
        """Raises `BadCurrency`."""
        ...
