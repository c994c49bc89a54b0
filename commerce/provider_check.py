"""Comparing our books with the provider's: what it took and gave back, and what we say about it.

Responsible for the comparison and for first looking again at what differs: most differences are
news that has not arrived yet, and looking brings them in. What still differs afterwards is for a
person. It must not know SQL or the SDK.

Both lists are bounded (`CHARGES_MAX`); a report says whether it saw everything of its time.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from commerce.errors import Unavailable
from commerce.payments import Provider
from commerce.refunds import SeenCharge

if TYPE_CHECKING:  # chosen in live/app.py
    from commerce.ledger_sql import Fault, SqlLedger
    from commerce.provider_books_sql import SqlProviderBooks

CHARGES_MAX: Final = 1_000
BACK_MS: Final = 3 * 86_400_000
"""As long as the provider repeats its webhooks."""
BACK_MAX_MS: Final = 366 * 86_400_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Booked:
    """A payment as we have it: what was taken, and what has arrived back."""

    payment: str
    captured: int
    refunded: int
    currency: str


@dataclass(frozen=True, slots=True)
class Difference:
    """`kind`: unknown_charge, captured, refunded, missing_charge; amounts in minor units."""

    kind: str
    intent: str
    ours: int
    theirs: int
    currency: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one comparison found. `faults` are of our own ledger, whatever the provider says."""

    since: int
    at: int
    charges: int
    complete: bool
    differences: tuple[Difference, ...]
    faults: "tuple[Fault, ...]"
    balances: dict[str, dict[str, int]]

    @property
    def wrong(self) -> int:
        """How many things a person has to look at."""
        return len(self.differences) + len(self.faults)


class ProviderCheck:
    """`look_again` brings a payment's news in: (payment, intent). `clock` in milliseconds."""

    def __init__(
        self,
        provider: Provider,
        books: "SqlProviderBooks",
        ledger: "SqlLedger",
        *,
        clock: Callable[[], int],
        look_again: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._provider = provider
        self._books = books
        self._ledger = ledger
        self._clock = clock
        self._look_again = look_again
        self.last: Report | None = None

    async def run(self, back_ms: int = BACK_MS) -> Report:
        """Compares what the provider took in the last `back_ms`. Raises Unavailable."""
        now = self._clock()
        since = now - min(back_ms, BACK_MAX_MS)
        charges, found = await self._compare(since)
        for difference in found:
            payment = await self._books.payment_of(difference.intent)
            if payment is not None:
                try:
                    await self._look_again(payment, difference.intent)
                except Unavailable:
                    continue
        if found:
            charges, found = await self._compare(since)
        self.last = Report(
            since=since,
            at=now,
            charges=len(charges),
            complete=len(charges) < CHARGES_MAX,
            differences=tuple(found),
            faults=tuple(await self._ledger.faults()),
            balances=await self._ledger.balances(),
        )
        if self.last.wrong:
            _log.error(
                "the books differ: %d from the provider's, %d in themselves",
                len(found),
                len(self.last.faults),
            )
        return self.last

    async def _compare(self, since: int) -> tuple[Sequence[SeenCharge], list[Difference]]:
        charges = [
            charge
            for charge in await self._provider.list_charges(since, CHARGES_MAX)
            if charge.payment is not None  # the account may serve other shops
        ]
        ours = await self._books.by_intent([charge.intent for charge in charges])
        found: list[Difference] = []
        for charge in charges:
            found += _differ(charge, ours.get(charge.intent))
        if len(charges) < CHARGES_MAX:
            seen = {charge.intent for charge in charges}
            for intent, booked in (await self._books.captured_since(since)).items():
                if intent not in seen:
                    found.append(
                        Difference("missing_charge", intent, booked.captured, 0, booked.currency)
                    )
        return charges, found


def _differ(charge: SeenCharge, ours: Booked | None) -> list[Difference]:
    if ours is None:
        if not charge.captured or charge.refunded >= charge.captured:
            return []  # nothing was taken, or all of it is back where it came from
        return [Difference("unknown_charge", charge.intent, 0, charge.captured, charge.currency)]
    found = []
    if charge.captured != ours.captured or (charge.captured and charge.currency != ours.currency):
        found.append(
            Difference("captured", charge.intent, ours.captured, charge.captured, charge.currency)
        )
    if charge.refunded != ours.refunded:
        found.append(
            Difference("refunded", charge.intent, ours.refunded, charge.refunded, charge.currency)
        )
    return found
