"""The shop's own row: name, currency, shipping price.

Responsible for reading and changing it. The currency is asked for often and changes almost never,
so it is remembered for a few seconds.
"""

from collections.abc import Callable
from typing import Final

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from commerce.database_sql import Database
from commerce.money import currency_exponent
from commerce.schema_sql import shop
from live.shop import Shop

REMEMBER_MS: Final = 5_000
DEFAULT_NAME: Final = "My shop"
DEFAULT_CURRENCY: Final = "USD"


class SqlShop:
    """The row `shop`. `clock` in milliseconds."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._known: Shop | None = None
        self._until = 0

    async def get(self) -> Shop:
        """The shop, from memory if it was read in the last five seconds."""
        if self._known is None or self._clock() >= self._until:
            self._known = await self.read()
            self._until = self._clock() + REMEMBER_MS
        return self._known

    async def currency(self) -> str:
        """The shop's currency, as ISO 4217."""
        return (await self.get()).currency

    async def put(self, changed: Shop) -> Shop:
        """Raises `BadCurrency`."""
        currency_exponent(changed.currency)
        await self.read()  # makes the row
        async with self._database.begin() as connection:
            await connection.execute(
                update(shop).values(
                    name=changed.name,
                    currency=changed.currency,
                    shipping_amount=changed.shipping_amount,
                )
            )
        self._known = None
        return await self.get()

    async def read(self) -> Shop:
        """The shop as the database has it; made if it is not there."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(shop))).first()
        if row is not None:
            return Shop(row.name, row.currency, row.shipping_amount)
        try:
            async with self._database.begin() as connection:
                await connection.execute(
                    insert(shop).values(
                        id=1,
                        name=DEFAULT_NAME,
                        currency=DEFAULT_CURRENCY,
                        shipping_amount=0,
                        gate_epoch=1,
                    )
                )
        except IntegrityError:
            pass  # another node made it in this instant
        return await self.read()
