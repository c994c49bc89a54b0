"""What the record says about a sale after the crowd has gone: the last word on who has won.

Responsible for reading, with statements of its own, what the bench compares the answers with. It
shares no query with the product, so that a mistake there is not repeated here.
"""

from dataclasses import dataclass

from sqlalchemy import func, select

from commerce.database_sql import Database
from commerce.schema_sql import reservation, reservation_line, sku_stock, stock_ledger


@dataclass(frozen=True)
class Truth:
    """One SKU of one drop."""

    rids: frozenset[str]
    """Of all reservations of the drop."""
    units: int
    """The sum of their lines."""
    on_hand: int
    held: int
    committed: int
    ledger_held: int
    """What the ledger adds up to."""

    @property
    def oversold(self) -> int:
        """Units promised beyond what there is, by whichever count is the worst."""
        return max(0, max(self.units, self.held + self.committed, self.ledger_held) - self.on_hand)

    @property
    def agrees(self) -> bool:
        """Reservations, stock and ledger say the same."""
        return self.units == self.held == self.ledger_held and not self.committed


async def truth_of(database_url: str, drop: str, sku: str) -> Truth:
    """Reads it in one snapshot."""
    head, line, stock, ledger = (
        reservation.c,
        reservation_line.c,
        sku_stock.c,
        stock_ledger.c,
    )
    database = await Database.open(database_url, poolsize=1)
    try:
        async with database.read() as conn:
            rids = (await conn.execute(select(head.rid).where(head.drop == drop))).scalars().all()
            units = await conn.scalar(
                select(func.coalesce(func.sum(line.quantity), 0))
                .join(reservation, head.rid == line.rid)
                .where(head.drop == drop, line.sku == sku)
            )
            row = (
                await conn.execute(
                    select(stock.on_hand, stock.held, stock.committed).where(stock.sku == sku)
                )
            ).one()
            summed = await conn.scalar(
                select(func.coalesce(func.sum(ledger.d_held), 0)).where(ledger.sku == sku)
            )
    finally:
        await database.close()
    return Truth(
        frozenset(rids), int(units or 0), row.on_hand, row.held, row.committed, int(summed or 0)
    )
