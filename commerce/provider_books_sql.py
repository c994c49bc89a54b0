"""Our side of a comparison with the provider: payments by the provider's name for them.

Responsible for reading. It must not judge. `captured_since` asks for payments that were begun since
then, because the provider lists by the time of its own object, which is made at the same time.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.sql.selectable import ScalarSelect

from commerce.database_sql import Database
from commerce.money_schema_sql import refund
from commerce.provider_check import CHARGES_MAX, Booked
from commerce.refunds import RefundState
from commerce.schema_sql import payment

MARGIN_MS: Final = 60_000
"""Between our clock and the provider's."""
PART_MAX: Final = 500


class SqlProviderBooks:
    """The payments of one database through one provider. Raises Unavailable when it is away."""

    def __init__(self, database: Database, provider: str) -> None:
        self._database = database
        self._provider = provider

    async def by_intent(self, intents: Sequence[str]) -> dict[str, Booked]:
        """Those that we know."""
        found: dict[str, Booked] = {}
        async with self._database.read() as conn:
            for start in range(0, len(intents), PART_MAX):
                part = list(intents[start : start + PART_MAX])
                wanted = select(payment, _back()).where(
                    payment.c.intent_id.in_(part), payment.c.provider == self._provider
                )
                found |= {row.intent_id: _booked(row) for row in (await conn.execute(wanted)).all()}
        return found

    async def captured_since(self, since: int) -> dict[str, Booked]:
        """Those that took money and were begun after `since` and a margin; bounded."""
        wanted = (
            select(payment, _back())
            .where(
                payment.c.provider == self._provider,
                payment.c.captured > 0,
                payment.c.created_at >= since + MARGIN_MS,
            )
            .order_by(payment.c.created_at.desc())
            .limit(CHARGES_MAX)
        )
        async with self._database.read() as conn:
            rows = (await conn.execute(wanted)).all()
        return {row.intent_id: _booked(row) for row in rows}

    async def payment_of(self, intent: str) -> str | None:
        """Our payment of an intent."""
        wanted = select(payment.c.id).where(payment.c.intent_id == intent)
        async with self._database.read() as conn:
            found: str | None = (await conn.execute(wanted)).scalar()
        return found


def _back() -> ScalarSelect[Any]:
    wanted = select(func.coalesce(func.sum(refund.c.amount), 0)).where(
        refund.c.payment == payment.c.id, refund.c.state == RefundState.SUCCEEDED.value
    )
    return wanted.scalar_subquery().label("back")  # type: ignore[return-value]


def _booked(row: Any) -> Booked:
    return Booked(row.id, row.captured, int(row.back), row.currency)
