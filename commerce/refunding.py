"""Carrying promised refunds out: ask the provider, look, commit, until every one is decided.

Responsible for the steps between the provider and the rows of refunds, and for what chargebacks do.
It must not decide who may get money back: whatever is promised (committed) is carried out.
`advance` may be asked for at any time, twice at once, after a crash at any line.

A refund is created at the provider under a key derived from its id, and its id stands in the
metadata there. A second attempt first looks for it among the payment's refunds: a provider may have
acted although it answered with an error, and it stores that error under the key.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from commerce.errors import Unavailable
from commerce.payments import Provider, ProviderRefused
from commerce.refunds import Refund, RefundState, SeenRefund
from commerce.settlement import derived_key

if TYPE_CHECKING:  # the record is chosen in live/app.py
    from commerce.disputes_sql import SqlDisputes
    from commerce.refunds_sql import SqlRefunds

BATCH_MAX: Final = 50
FINAL_REFUSALS: Final = frozenset(
    {
        "amount_too_large",
        "charge_already_refunded",
        "charge_disputed",
        "resource_missing",
        "payment_intent_unexpected_state",
    }
)
"""The provider will not change its mind. Other refusals are tried again, by the pauses of the row:
an account without balance, for one, may have some tomorrow."""
TRIES_MAX: Final = 40
"""With pauses up to ten minutes about six hours; then the host has to look."""

_log = logging.getLogger(__name__)


class Refunding:
    """Refunds and disputes of one provider. `clock` in milliseconds."""

    def __init__(
        self,
        provider: Provider,
        record: "SqlRefunds",
        disputes: "SqlDisputes",
        *,
        clock: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._provider = provider
        self._record = record
        self._disputes = disputes
        self._clock = clock
        self._new_id = new_id
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def tick(self) -> bool:
        """One round over what is due; whether there may be more. Raises Unavailable."""
        due = await self._record.due(self._clock(), BATCH_MAX)
        for id_ in due:
            if not await self._record.claim(id_, self._clock()):
                continue
            try:
                await self.advance(id_)
            except Unavailable:
                continue  # `next_at` says when to try again
            except Exception as wrong:  # noqa: BLE001 - one refund must not stop the others
                _log.error("refund %s failed: %s", id_, type(wrong).__name__)
        return len(due) == BATCH_MAX

    async def advance(self, id_: str) -> None:
        """Bring one refund as far as it goes now. Raises Unavailable."""
        lock = self._locks.setdefault(id_, asyncio.Lock())
        async with lock:
            found = await self._record.find(id_)
            if found is None:
                return
            known, intent = found
            if known.state is RefundState.REQUESTED:
                await self._submit(known, intent)
            elif known.state in (RefundState.SUBMITTED, RefundState.SUCCEEDED):
                for seen in await self._provider.look_refunds(known.provider_id or ""):
                    await self._record.told(id_, seen, self._clock())

    async def heard_of(self, object_id: str) -> bool:
        """Something happened to a refund, charge or dispute. False: it is ours, but unknown yet."""
        if object_id.startswith(("dp_", "du_")):
            dispute = await self._provider.look_dispute(object_id)
            if dispute is not None:
                await self._disputes.told(dispute, self._clock())
            return True
        for seen in await self._provider.look_refunds(object_id):
            if not await self._told(seen):
                return False
        return True

    async def _told(self, seen: SeenRefund) -> bool:
        if seen.refund is None:
            known = await self._record.by_provider_id(seen.id)
            if known is None:
                if not await self._record.outside(seen, self._new_id(), self._clock()):
                    _log.warning("refund %s at the provider is not counted here", seen.id)
                return True
        else:
            found = await self._record.find(seen.refund)
            if found is None:
                return False
            known = found[0]
        await self._record.told(known.id, seen, self._clock())
        return True

    async def count_lost(self, seen: SeenRefund) -> bool:
        """After a restore: a refund of ours that this database forgot; whether it was counted."""
        if seen.refund is None or await self._record.find(seen.refund) is not None:
            return False
        return await self._record.outside(seen, seen.refund, self._clock())

    async def _submit(self, known: Refund, intent: str | None) -> None:
        if intent is None:
            await self._record.refused(known.id, "no_payment", self._clock())
            return
        if known.tries > 1:
            for seen in await self._provider.look_refunds(intent):
                if seen.refund == known.id:
                    await self._record.told(known.id, seen, self._clock())
                    return
        try:
            seen = await self._provider.refund(
                intent,
                known.amount,
                known.currency,
                refund=known.id,
                key=derived_key(known.id, "refund", 0),
            )
        except ProviderRefused as refused:
            _log.warning("refund %s is refused: %s", known.id, refused.code)
            if refused.code in FINAL_REFUSALS or known.tries >= TRIES_MAX:
                await self._record.refused(known.id, refused.code, self._clock())
            return
        await self._record.told(known.id, seen, self._clock())
